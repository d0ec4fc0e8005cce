//! Resolves and checks the plan that a command and a plan file describe.

use std::path::{Path, PathBuf};

use polaron::Layerwise;
use polaron_common::did_you_mean;
use toml::{Table, Value};

use super::race::Track;
use super::request::Request;
use super::sizes::{default_jobs, settings};
use crate::compare::{
    Contender, Plan, Purpose, Settings, Shared, TUNED, check_grids, check_names, check_rates, complete_search,
    contender, grid, named, section, trials, wrong_type,
};
use crate::error::{CompareError, ConfigError, Error};
use crate::host::device;
use crate::settings::layers::{Layers, read_file};
use crate::settings::merge;
use crate::settings::train::REPORTING_KEYS;

/// The optimizers that are compared by default.
pub const DEFAULT_OPTIMIZERS: &[&str] = &["adamw", "muon", "muon_eq", "symmetric"];
/// Sections of a plan that are also sections of a run's configuration.
const SECTIONS: &[&str] = &["model", "data", "train", "schedule", "device", "optimizer"];
/// Sections that only a plan has.
const OWN: &[&str] = &["optimizers", "compare", "sweep", "search"];
/// Keys that the comparison sets itself, each with the key of the plan that determines it.
const DECIDED: &[(&str, &str)] = &[
    ("train.steps", "compare.steps"),
    ("train.seed", "compare.first_seed"),
    ("train.data_seed", "compare.first_seed"),
    ("train.valid_every", "compare.valid_every"),
    ("train.valid_windows", "compare.valid_windows"),
    ("train.valid_windows_end", "compare.tune_windows"),
    TUNED[0],
    TUNED[1],
];
/// A key that a comparison does not use. It is left out of a resolved plan, like the keys that only affect the output.
const UNUSED: &str = "train.valid_at_start";
/// Its default depends on the number of steps, which differs between tuning and verdict runs.
const WARMUP: &str = "schedule.warmup";

impl Plan {
    /// Resolves and checks the plan that a command asks for.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] or [`CompareError`] for the first problem found; nothing is written.
    pub fn resolve(request: &Request) -> Result<Self, Error> {
        let empty = Table::new();
        let (place, file) = request.file.as_ref().map_or((PathBuf::from("the plan"), &empty), |(p, t)| (p.clone(), t));
        if Self::is_of_own_loop(file) {
            return Err(CompareError::OwnLoop { path: place }.into());
        }
        let place = format!("in `{}`", place.display());
        check_sections(file, &place)?;
        let mut settings = settings(request, file, &place)?;
        let base = base(request, file)?;
        let shared = Shared::read(file.get("sweep"), file.get("search"), &place)?;
        let given = contenders(request, file, &settings, &shared, &place)?;
        settings.trials = trials(&settings, &given);
        if !settings.race.is_empty() {
            ConfigError::check_choice("compare.race", &settings.race, &Track::NAMES)?;
        }
        settings.check()?;
        let mut plan = Self { settings: settings.clone(), contenders: given, base };
        plan.settle(request)?;
        // The grids are stored with the optimizers now.
        settings.lrs = Vec::new();
        plan.settings = settings;
        plan.check_contenders()?;
        Ok(plan)
    }

    /// Replaces the given values by the resolved ones, with the defaults of every stack.
    fn settle(&mut self, request: &Request) -> Result<(), Error> {
        let warmup_given =
            merge::lookup(&self.base, WARMUP).is_some() || request.sets.iter().any(|(key, _)| key == WARMUP);
        // An optimizer that is added has as many rates as those that are there.
        let there = self.contenders.first().map_or(0, |contender| contender.lrs.len() as u64);
        let points = if request.adds { there } else { self.settings.lr_points };
        let mut shared = None;
        for index in 0..self.contenders.len() {
            let own_lrs = self.contenders[index].lrs.clone();
            let layers = Layers {
                file: Some(("the plan".into(), self.sections(index, &[])?)),
                flags: request.flags.clone(),
                sets: request.sets.clone(),
                ..Layers::default()
            };
            let config = layers.resolve()?;
            let contender = &mut self.contenders[index];
            let table = config.to_table()?;
            contender.optimizer = section(&table, "optimizer");
            contender.optimizer.remove("lr");
            complete_search(contender, &self.settings, config.optimizer.lr)?;
            if own_lrs.is_empty() && contender.search.is_empty() {
                contender.lrs = grid(config.optimizer.lr, points, self.settings.lr_factor);
            }
            shared.get_or_insert(table);
        }
        let mut base = shared.unwrap_or_default();
        base.remove("optimizer");
        for key in DECIDED.iter().map(|(key, _)| *key).chain(REPORTING_KEYS.iter().copied()).chain([UNUSED]) {
            merge::remove(&mut base, key);
        }
        if !warmup_given {
            merge::remove(&mut base, WARMUP);
        }
        self.base = base;
        Ok(())
    }

    /// Every trial's configuration is checked before the first run starts.
    fn check_contenders(&self) -> Result<(), Error> {
        for index in 0..self.contenders.len() {
            for candidate in self.candidates(index) {
                let config = self.config(index, &candidate, Purpose::Tuning, self.settings.first_tune_seed)?;
                Layerwise::from_config(&config.optimizer)?;
            }
        }
        Ok(check_grids(&self.contenders)?)
    }
}

fn check_sections(file: &Table, place: &str) -> Result<(), ConfigError> {
    let known = || OWN.iter().chain(SECTIONS).copied();
    let Some(key) = file.keys().find(|key| !known().any(|name| name == *key)) else { return Ok(()) };
    let hint = did_you_mean(key, known());
    Err(ConfigError::UnknownKey { key: key.clone(), place: place.into(), hint })
}

/// The sections that all runs share, as given; refuses the keys that the comparison sets itself.
fn base(request: &Request, file: &Table) -> Result<Table, Error> {
    let sections = SECTIONS.iter().filter_map(|name| Some(((*name).to_owned(), file.get(*name)?.clone())));
    let mut base: Table = sections.collect();
    for (key, instead) in DECIDED {
        if merge::lookup(&base, key).is_some() || request.sets.iter().any(|(set, _)| set == key) {
            return Err(CompareError::Decided { key: (*key).into(), instead }.into());
        }
    }
    let threads_given =
        merge::lookup(&base, "device.threads").is_some() || request.sets.iter().any(|(key, _)| key == "device.threads");
    if !threads_given || request.threads.is_some() {
        let jobs =
            request.settings.iter().find(|(_, key, _)| *key == "jobs").and_then(|(_, _, jobs)| jobs.as_integer());
        let given = || merge::lookup(file, "compare.jobs").and_then(Value::as_integer);
        let all = request.threads.filter(|n| *n > 0).unwrap_or_else(device::all_threads);
        let jobs = jobs.or_else(given).map_or(default_jobs(request, file), |jobs| u64::try_from(jobs).unwrap_or(1));
        let each = (all as u64 / jobs.max(1)).max(1);
        merge::assign(&mut base, "device.threads", Value::Integer(each as i64), "in the plan")?;
    }
    Ok(base)
}

fn contenders(
    request: &Request,
    file: &Table,
    settings: &Settings,
    shared: &Shared,
    place: &str,
) -> Result<Vec<Contender>, Error> {
    let defined = match file.get("optimizers") {
        None => Vec::new(),
        Some(Value::Array(items)) => items.clone(),
        Some(other) => return Err(wrong_type("optimizers", "an array", other, place).into()),
    };
    let defined = defined.iter().map(|item| contender(item, shared, place)).collect::<Result<Vec<_>, _>>()?;
    let mut chosen = match &request.optimizers {
        Some(names) if request.adds => {
            let new = names.iter().filter(|name| !defined.iter().any(|contender| contender.name == **name));
            let new = new.map(|name| named(name, &[], shared)).collect::<Result<Vec<_>, _>>()?;
            [defined, new].concat()
        }
        Some(names) => names.iter().map(|name| named(name, &defined, shared)).collect::<Result<Vec<_>, _>>()?,
        None if file.contains_key("optimizers") => defined,
        None => DEFAULT_OPTIMIZERS.iter().map(|name| named(name, &[], shared)).collect::<Result<Vec<_>, _>>()?,
    };
    check_names(&chosen, if settings.race.is_empty() { 2 } else { 1 })?;
    let lrs_flag = request.settings.iter().any(|(_, key, _)| *key == "lrs");
    for contender in &mut chosen {
        if request.adds && lrs_flag {
            // To those that the comparison has.
            let more = settings.lrs.iter().filter(|lr| !contender.lrs.contains(lr)).copied().collect::<Vec<f64>>();
            contender.lrs.extend(more);
        } else if lrs_flag || contender.lrs.is_empty() {
            contender.lrs.clone_from(&settings.lrs);
        }
        check_rates(&mut contender.lrs, &contender.name)?;
    }
    if lrs_flag && settings.lrs.is_empty() {
        return Err(CompareError::EmptyGrid { what: "--lrs".into() }.into());
    }
    Ok(chosen)
}

/// The plan in a file. One of an earlier version lacks the keys that are newer: they have their defaults.
///
/// # Errors
///
/// A file that cannot be read, a plan that is not valid.
pub fn plan_at(path: &Path) -> Result<Plan, Error> {
    let table = read_file(path)?;
    if Plan::is_of_own_loop(&table) {
        return Plan::read(path);
    }
    Plan::resolve(&Request { file: Some((path.into(), table)), ..Request::default() })
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
