//! Resolves and checks the plan that a command and a plan file describe.

use std::path::PathBuf;

use polaron::{Layerwise, LayerwiseConfig};
use polaron_common::did_you_mean;
use toml::{Table, Value};

use super::plan::{Contender, Plan, Purpose, Request, Settings, round, section};
use super::sizes::{check_settings, default_jobs, settings};
use crate::error::{CompareError, ConfigError, Error};
use crate::host::device;
use crate::settings::layers::Layers;
use crate::settings::merge;
use crate::settings::train::REPORTING_KEYS;

/// The optimizers that are compared by default.
pub const DEFAULT_OPTIMIZERS: &[&str] = &["adamw", "muon", "muon_eq", "symmetric"];
/// Sections of a plan that are also sections of a run's configuration.
const SECTIONS: &[&str] = &["model", "data", "train", "schedule", "device", "optimizer"];
/// Sections that only a plan has.
const OWN: &[&str] = &["optimizers", "compare", "sweep"];
/// Keys that the comparison sets itself, each with the key of the plan that determines it.
const DECIDED: &[(&str, &str)] = &[
    ("train.steps", "compare.steps"),
    ("train.seed", "compare.first_seed"),
    ("train.data_seed", "compare.first_seed"),
    ("train.valid_every", "compare.valid_every"),
    ("train.valid_windows", "compare.valid_windows"),
    ("train.valid_windows_end", "compare.tune_windows"),
    ("optimizer.stack", "optimizers"),
    ("optimizer.lr", "compare.lrs"),
];
/// A key that a comparison does not use. It is left out of a resolved plan, like the keys that only affect the output.
const UNUSED: &str = "train.valid_at_start";
/// Its default depends on the number of steps, which differs between tuning and verdict runs.
const WARMUP: &str = "schedule.warmup";
/// Beginnings of the keys that may be swept: any other key would give the optimizers different work.
const SWEPT: &[&str] = &["optimizer.", "schedule."];
const MAX_NAME: usize = 40;

impl Plan {
    /// Resolves and checks the plan that a command asks for.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] or [`CompareError`] for the first problem found; nothing is written.
    pub fn resolve(request: &Request) -> Result<Self, Error> {
        let empty = Table::new();
        let (place, file) = request.file.as_ref().map_or((PathBuf::from("the plan"), &empty), |(p, t)| (p.clone(), t));
        let place = format!("in `{}`", place.display());
        check_sections(file, &place)?;
        let mut settings = settings(request, file, &place)?;
        check_settings(&settings)?;
        let base = base(request, file)?;
        let sweep = sweep(file.get("sweep"), &place)?;
        let given = contenders(request, file, &settings, &sweep, &place)?;
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
        let mut shared = None;
        for index in 0..self.contenders.len() {
            let own_lrs = self.contenders[index].lrs.clone();
            let layers = Layers {
                file: Some(("the plan".into(), self.file_of(index, &[])?)),
                flags: request.flags.clone(),
                sets: request.sets.clone(),
                ..Layers::default()
            };
            let config = layers.resolve()?;
            let contender = &mut self.contenders[index];
            if own_lrs.is_empty() {
                contender.lrs = grid(config.optimizer.lr, self.settings.lr_points, self.settings.lr_factor);
            }
            let table = config.to_table()?;
            contender.optimizer = section(&table, "optimizer");
            contender.optimizer.remove("lr");
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
        for (index, contender) in self.contenders.iter().enumerate() {
            for candidate in self.candidates(index) {
                let config = self.config(index, &candidate, Purpose::Tuning, self.settings.first_tune_seed)?;
                Layerwise::from_config(&config.optimizer)?;
            }
            let first = &self.contenders[0];
            if contender.lrs.len() != first.lrs.len() {
                let [first, other] = [first, contender].map(|c| (c.name.clone(), c.lrs.len()));
                return Err(CompareError::UnequalGrids { first, other }.into());
            }
        }
        Ok(())
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

/// The swept keys of a `sweep` table.
fn sweep(value: Option<&Value>, place: &str) -> Result<Vec<(String, Vec<Value>)>, Error> {
    let table = match value {
        None => return Ok(Vec::new()),
        Some(Value::Table(table)) => table,
        Some(other) => return Err(wrong_type("sweep", "a section", other, place).into()),
    };
    let key_values = |(key, value): (String, Value)| match value {
        Value::Array(values) if !values.is_empty() => Ok((key, values)),
        Value::Array(_) => Err(CompareError::EmptyGrid { what: format!("`sweep.{key}`") }.into()),
        other => Err(Error::from(wrong_type(&format!("sweep.{key}"), "an array of the values to try", &other, place))),
    };
    let swept = merge::flatten(table).into_iter().map(key_values).collect::<Result<Vec<_>, _>>()?;
    for (key, _) in &swept {
        if let Some((_, instead)) = DECIDED.iter().find(|(decided, _)| decided == key) {
            return Err(CompareError::Decided { key: key.clone(), instead }.into());
        }
        if !SWEPT.iter().any(|start| key.starts_with(start)) {
            return Err(CompareError::NotSwept { key: key.clone() }.into());
        }
    }
    Ok(swept)
}

fn wrong_type(key: &str, expected: &'static str, found: &Value, place: &str) -> ConfigError {
    let found = crate::error::one_line(&format!("{} {found}", found.type_str()));
    ConfigError::WrongType { key: key.into(), expected, found, place: place.into() }
}

fn contenders(
    request: &Request,
    file: &Table,
    settings: &Settings,
    shared_sweep: &[(String, Vec<Value>)],
    place: &str,
) -> Result<Vec<Contender>, Error> {
    let defined = match file.get("optimizers") {
        None => Vec::new(),
        Some(Value::Array(items)) => items.clone(),
        Some(other) => return Err(wrong_type("optimizers", "an array", other, place).into()),
    };
    let defined = defined.iter().map(|item| contender(item, shared_sweep, place)).collect::<Result<Vec<_>, _>>()?;
    let mut chosen = match &request.optimizers {
        Some(names) => names.iter().map(|name| named(name, &defined, shared_sweep)).collect::<Result<Vec<_>, _>>()?,
        None if file.contains_key("optimizers") => defined,
        None => DEFAULT_OPTIMIZERS.iter().map(|name| named(name, &[], shared_sweep)).collect::<Result<Vec<_>, _>>()?,
    };
    for (index, contender) in chosen.iter().enumerate() {
        // On some file systems two names that differ only in case are the same folder.
        if chosen[..index].iter().any(|other| other.name.eq_ignore_ascii_case(&contender.name)) {
            return Err(CompareError::SameName { name: contender.name.clone() }.into());
        }
    }
    if chosen.len() < 2 {
        return Err(CompareError::TooFew { count: chosen.len() }.into());
    }
    let lrs_flag = request.settings.iter().any(|(_, key, _)| *key == "lrs");
    for contender in &mut chosen {
        if lrs_flag || contender.lrs.is_empty() {
            contender.lrs.clone_from(&settings.lrs);
        }
        check_lrs(&mut contender.lrs, &contender.name)?;
    }
    if lrs_flag && settings.lrs.is_empty() {
        return Err(CompareError::EmptyGrid { what: "--lrs".into() }.into());
    }
    Ok(chosen)
}

fn named(name: &str, defined: &[Contender], sweep: &[(String, Vec<Value>)]) -> Result<Contender, Error> {
    if let Some(found) = defined.iter().find(|contender| contender.name == name) {
        return Ok(found.clone());
    }
    let choices: Vec<&str> = LayerwiseConfig::STACKS
        .iter()
        .copied()
        .chain(defined.iter().map(|contender| contender.name.as_str()))
        .collect();
    ConfigError::check_choice("optimizers", name, &choices)?;
    let optimizer = Table::from_iter([("stack".to_owned(), Value::from(name))]);
    Ok(Contender { name: name.into(), optimizer, lrs: Vec::new(), sweep: sweep.to_vec() })
}

fn contender(item: &Value, shared_sweep: &[(String, Vec<Value>)], place: &str) -> Result<Contender, Error> {
    let mut table = match item {
        Value::String(name) => return named(name, &[], shared_sweep),
        Value::Table(table) => table.clone(),
        other => return Err(wrong_type("optimizers", "an array of names and tables", other, place).into()),
    };
    let stack = table.get("stack").and_then(Value::as_str).map(String::from);
    let name = match table.remove("name") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(wrong_type("optimizers.name", "a string", &other, place).into()),
        None => stack.clone().ok_or(CompareError::Nameless)?,
    };
    check_name(&name)?;
    // A table without a stack is a variant of the stack it is named after.
    let stack = stack.unwrap_or_else(|| name.clone());
    ConfigError::check_choice(&format!("optimizers.{name}.stack"), &stack, LayerwiseConfig::STACKS)?;
    table.insert("stack".into(), stack.into());
    let own_sweep = sweep(table.remove("sweep").as_ref(), place)?;
    let lrs = match table.remove("lrs") {
        None => Vec::new(),
        Some(value @ Value::Array(_)) => {
            let lrs: Vec<f64> = value
                .clone()
                .try_into()
                .map_err(|_| wrong_type("optimizers.lrs", "an array of numbers", &value, place))?;
            if lrs.is_empty() {
                return Err(CompareError::EmptyGrid { what: format!("`lrs` of {name}") }.into());
            }
            lrs
        }
        Some(other) => return Err(wrong_type("optimizers.lrs", "an array of numbers", &other, place).into()),
    };
    // Its own values take precedence over those for every optimizer.
    let shared = shared_sweep.iter().filter(|(key, _)| !own_sweep.iter().any(|(own, _)| own == key)).cloned();
    let sweep = shared.chain(own_sweep.iter().cloned()).collect();
    Ok(Contender { name, optimizer: table, lrs, sweep })
}

/// Names become parts of file names.
fn check_name(name: &str) -> Result<(), CompareError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let good = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(fits) && !name.starts_with('.');
    if good { Ok(()) } else { Err(CompareError::BadName { name: name.into() }) }
}

fn check_lrs(lrs: &mut [f64], name: &str) -> Result<(), CompareError> {
    lrs.sort_by(f64::total_cmp);
    let bad = lrs.iter().find(|lr| !(lr.is_finite() && **lr > 0.0));
    let twice = lrs.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    match bad.or(twice) {
        Some(lr) => Err(CompareError::BadRate { name: name.into(), lr: *lr }),
        None => Ok(()),
    }
}

/// `points` rates around `centre`, which is one of them, each `factor` times the previous one.
fn grid(centre: f64, points: u64, factor: f64) -> Vec<f64> {
    let below = (points as i32 - 1) / 2;
    (0..points as i32).map(|index| round(centre * factor.powi(index - below))).collect()
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
