//! The plan of a comparison: which optimizers, over which learning rates, with which seeds, how long.
//!
//! ```toml
//! optimizers = ["adamw", "muon", { name = "hot", stack = "muon", lr = 0.05, matrix = { momentum = 0.9 } }]
//! [compare]
//! seeds = 5
//! targets = [1.9, 1.8]
//! [sweep]                                      # further keys to tune, for every optimizer
//! "optimizer.weight_decay" = [0.01, 0.1]
//! [model]                                      # and [data], [train], [schedule], [device], [optimizer]: as for `polaron train`
//! preset = "llama-d64"
//! ```

use std::path::PathBuf;

use polaron::{Layerwise, LayerwiseConfig};
use polaron_common::did_you_mean;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::error::CompareError;
use crate::config::{Config, ConfigError, REPORTING_KEYS, SOURCE};
use crate::device;
use crate::error::Error;
use crate::layers::Layers;
use crate::merge;

/// The optimizers of a comparison that names none.
pub const DEFAULT_OPTIMIZERS: &[&str] = &["adamw", "muon", "muon_eq", "symmetric"];
/// Parts of a plan that are parts of a run's configuration.
const SECTIONS: &[&str] = &["model", "data", "train", "schedule", "device", "optimizer"];
/// Parts of a plan that are its own.
const OWN: &[&str] = &["optimizers", "compare", "sweep"];
/// What the comparison sets itself, with the key of the plan that decides it.
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
/// What a comparison has no use for, beside what only changes what is said: left out of a resolved plan.
const UNUSED: &str = "train.valid_at_start";
/// Its default follows the number of steps, which tuning and verdict runs differ in.
const WARMUP: &str = "schedule.warmup";
/// What may be swept: everything else would give the optimizers different work.
const SWEPT: &[&str] = &["optimizer.", "schedule."];
/// Verdict seeds and tuning seeds are counted from here, far apart.
const FIRST_SEED: u64 = 1;
const FIRST_TUNE_SEED: u64 = 10_001;
const MAX_SEEDS: u64 = 1000;
const MAX_NAME: usize = 40;

/// `[compare]`: sizes of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Steps of a verdict run; 400.
    pub steps: u64,
    /// Steps of a tuning run; 3/5 of `steps`.
    pub tune_steps: u64,
    /// Verdict seeds; 3.
    pub seeds: u64,
    /// The first of them; 1. A seed fixes weights and batches.
    pub first_seed: u64,
    /// Tuning seeds; 1.
    pub tune_seeds: u64,
    /// The first of them; 10001. They are not among the verdict seeds.
    pub first_tune_seed: u64,
    /// Learning rates for every optimizer; empty for a grid around each optimizer's own.
    pub lrs: Vec<f64>,
    /// Learning rates of such a grid; 3.
    pub lr_points: u64,
    /// Factor between two of them; 3.
    pub lr_factor: f64,
    /// How often the grid may grow by one point where the best rate is at its edge; 3.
    pub extensions: u64,
    /// Validation losses to reach, in nats per token; empty for the lowest that every verdict run reached.
    pub targets: Vec<f64>,
    /// Steps between the validations of a verdict run; a fortieth of `steps`.
    pub valid_every: u64,
    /// Windows of these validations; 128, 0 is all. The last validation of a verdict run is over all windows.
    pub valid_windows: u64,
    /// Windows of the one validation of a tuning run; 1024, 0 is all.
    pub tune_windows: u64,
    /// Whether to run the best rate divided and multiplied by 2 and 4 as well, where the grid has no such rate; false.
    pub sensitivity: bool,
    /// Runs at the same time; as many as there are threads on a CPU, 1 elsewhere. May change when a comparison goes on.
    pub jobs: u64,
}

/// One optimizer of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    /// What it is called; unique.
    pub name: String,
    /// The `[optimizer]` table of its runs, without the learning rate.
    pub optimizer: Table,
    /// Learning rates to try, ascending.
    pub lrs: Vec<f64>,
    /// Further keys to try, with their values.
    pub sweep: Vec<(String, Vec<Value>)>,
}

/// What a command says about a comparison.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The plan file.
    pub file: Option<(PathBuf, Table)>,
    /// `--optimizers`: names of the file's optimizers, or stacks.
    pub optimizers: Option<Vec<String>>,
    /// Flags for `[compare]`: the flag, the key there, the value.
    pub settings: Vec<(&'static str, &'static str, Value)>,
    /// Flags for the runs, as for `polaron train`.
    pub flags: Vec<(&'static str, &'static str, Value)>,
    /// `--threads`: CPU threads in all, shared out among the jobs.
    pub threads: Option<usize>,
    /// `--set`: key and raw value.
    pub sets: Vec<(String, String)>,
}

/// A checked plan, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `[compare]`.
    pub settings: Settings,
    /// The optimizers, in the order given.
    pub contenders: Vec<Contender>,
    /// What all runs share: the other sections of their configuration.
    base: Table,
}

/// What a run of a comparison is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Choosing learning rate and swept values.
    Tuning,
    /// Telling how the loss depends on the learning rate; of no influence on the choice.
    Sensitivity,
    /// The comparison itself.
    Verdict,
}

impl Purpose {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tuning => "tuning",
            Self::Sensitivity => "sensitivity",
            Self::Verdict => "verdict",
        }
    }
}

/// Values that tuning chooses among.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Learning rate of the main rule.
    pub lr: f64,
    /// Values of the swept keys.
    pub swept: Vec<(String, Value)>,
}

impl Plan {
    /// Resolves and checks what a command says.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] or [`CompareError`] for the first thing that is wrong; nothing is written.
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
        // The grids stand with the optimizers now.
        settings.lrs = Vec::new();
        plan.settings = settings;
        plan.check_contenders()?;
        Ok(plan)
    }

    /// Replaces what was given by what it resolves to, with the defaults of every stack.
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
            remove(&mut base, key);
        }
        if !warmup_given {
            remove(&mut base, WARMUP);
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

    /// The table that a contender's configuration is made of.
    fn file_of(&self, contender: usize, swept: &[(String, Value)]) -> Result<Table, ConfigError> {
        let mut table = self.base.clone();
        let mut optimizer = section(&table, "optimizer");
        optimizer.extend(self.contenders[contender].optimizer.clone());
        table.insert("optimizer".into(), Value::Table(optimizer));
        for (key, value) in swept {
            merge::assign(&mut table, key, value.clone(), "in [sweep]")?;
        }
        Ok(table)
    }

    /// The configuration of one run.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the values.
    pub fn config(
        &self,
        contender: usize,
        candidate: &Candidate,
        purpose: Purpose,
        seed: u64,
    ) -> Result<Config, Error> {
        let Settings { steps, tune_steps, valid_every, valid_windows, tune_windows, .. } = self.settings;
        let (steps, every, windows, windows_end) = match purpose {
            Purpose::Tuning | Purpose::Sensitivity => (tune_steps, 0, 0, tune_windows),
            Purpose::Verdict => (steps, valid_every, valid_windows, 0),
        };
        let number = |value: u64| Value::Integer(value.min(i64::MAX as u64) as i64);
        let mut flags = vec![
            ("the plan", "optimizer.lr", Value::Float(candidate.lr)),
            ("the plan", "train.steps", number(steps)),
            ("the plan", "train.seed", number(seed)),
            ("the plan", "train.valid_every", number(every)),
            ("the plan", "train.valid_windows", number(windows)),
            ("the plan", "train.valid_windows_end", number(windows_end)),
            ("the plan", "train.sample_tokens", number(0)),
        ];
        if purpose != Purpose::Verdict {
            flags.push(("the plan", "train.spectra_every", number(0)));
        }
        let file = Some(("the plan".into(), self.file_of(contender, &candidate.swept)?));
        Layers { file, flags, ..Layers::default() }.resolve()
    }

    /// What an optimizer's tuning begins with: every learning rate with every combination of swept values.
    pub fn candidates(&self, contender: usize) -> Vec<Candidate> {
        let Contender { lrs, sweep, .. } = &self.contenders[contender];
        let mut all: Vec<Candidate> = lrs.iter().map(|lr| Candidate { lr: *lr, swept: Vec::new() }).collect();
        for (key, values) in sweep {
            let with = |candidate: &Candidate, value: &Value| {
                let mut candidate = candidate.clone();
                candidate.swept.push((key.clone(), value.clone()));
                candidate
            };
            all = all
                .iter()
                .flat_map(|candidate| values.iter().map(|value| with(candidate, value)).collect::<Vec<_>>())
                .collect();
        }
        all
    }

    /// One configuration of every optimizer.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the values.
    pub fn first_configs(&self) -> Result<Vec<Config>, Error> {
        let first =
            |index: usize| self.config(index, &self.candidates(index)[0], Purpose::Verdict, self.settings.first_seed);
        (0..self.contenders.len()).map(first).collect()
    }

    /// Seeds of the verdict runs.
    pub fn seeds(&self) -> std::ops::Range<u64> {
        self.settings.first_seed..self.settings.first_seed + self.settings.seeds
    }

    /// Seeds of the tuning runs.
    pub fn tune_seeds(&self) -> std::ops::Range<u64> {
        self.settings.first_tune_seed..self.settings.first_tune_seed + self.settings.tune_seeds
    }

    /// The plan as a table that [`Plan::resolve`] reads back as the same plan.
    pub fn to_table(&self) -> Result<Table, ConfigError> {
        let contender = |contender: &Contender| {
            let mut table = Table::new();
            table.insert("name".into(), contender.name.clone().into());
            table.insert("lrs".into(), contender.lrs.clone().into());
            table.extend(contender.optimizer.clone());
            let sweep = contender.sweep.iter().map(|(key, values)| (key.clone(), Value::Array(values.clone())));
            table.insert("sweep".into(), Value::Table(sweep.collect()));
            Value::Table(table)
        };
        let mut table = Table::new();
        table.insert("compare".into(), Value::try_from(&self.settings).map_err(ConfigError::misfit)?);
        table.insert("optimizers".into(), self.contenders.iter().map(contender).collect::<Vec<_>>().into());
        table.extend(self.base.clone());
        Ok(table)
    }

    /// The folder of a command that names none.
    pub fn default_folder(&self) -> PathBuf {
        let names: Vec<&str> = self.contenders.iter().map(|contender| contender.name.as_str()).collect();
        let names: String = names.join("-").chars().take(100).collect();
        PathBuf::from(format!("runs/compare-{}-{names}", self.preset()))
    }

    /// Name or path of the data.
    pub fn source(&self) -> &str {
        merge::lookup(&self.base, SOURCE).and_then(Value::as_str).unwrap_or_default()
    }

    /// Name of the model preset.
    pub fn preset(&self) -> String {
        merge::lookup(&self.base, "model.preset").and_then(Value::as_str).unwrap_or("model").into()
    }
}

/// What may differ from one session to the next: the number of jobs, and the place of the data, since their fingerprint
/// decides whether they are the same.
const RESUMABLE: &[&str] = &["compare.jobs", SOURCE];

/// Differences between two plans.
pub fn differences(there: &Table, now: &Table) -> Vec<String> {
    merge::differences(&by_name(there), &by_name(now), RESUMABLE)
}

/// What was edited in a plan.
pub fn edits(before: &Table, now: &Table) -> Vec<String> {
    merge::edits(&by_name(before), &by_name(now), RESUMABLE)
}

/// A plan with its optimizers as a table.
fn by_name(table: &Table) -> Table {
    // By name, so that a difference names the optimizer and the key.
    let mut table = table.clone();
    if let Some(Value::Array(items)) = table.remove("optimizers") {
        let named = |item: Value| {
            let Value::Table(item) = item else { return None };
            Some((item.get("name")?.as_str()?.to_owned(), Value::Table(item)))
        };
        table.insert("optimizers".into(), Value::Table(items.into_iter().filter_map(named).collect()));
    }
    table
}

fn section(table: &Table, name: &str) -> Table {
    table.get(name).and_then(Value::as_table).cloned().unwrap_or_default()
}

fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        Some((name, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(name) {
                remove(inner, rest);
            }
        }
        None => {
            table.remove(key);
        }
    }
}

fn check_sections(file: &Table, place: &str) -> Result<(), ConfigError> {
    let known = || OWN.iter().chain(SECTIONS).copied();
    let Some(key) = file.keys().find(|key| !known().any(|name| name == *key)) else { return Ok(()) };
    let hint = did_you_mean(key, known());
    Err(ConfigError::UnknownKey { key: key.clone(), place: place.into(), hint })
}

fn settings(request: &Request, file: &Table, place: &str) -> Result<Settings, ConfigError> {
    let mut own = Table::new();
    if let Some(value) = file.get("compare") {
        own.insert("compare".into(), value.clone());
    }
    let flag = |key: &str| request.settings.iter().rev().find(|(_, k, _)| *k == key).map(|(_, _, value)| value);
    let pick =
        |key: &str| flag(key).or_else(|| merge::lookup(&own, &format!("compare.{key}"))).and_then(Value::as_integer);
    let steps = pick("steps").and_then(|steps| u64::try_from(steps).ok()).unwrap_or(400);
    let defaults = Settings {
        steps,
        tune_steps: (steps.saturating_mul(3) / 5).max(1),
        seeds: 3,
        first_seed: FIRST_SEED,
        tune_seeds: 1,
        first_tune_seed: FIRST_TUNE_SEED,
        lrs: Vec::new(),
        lr_points: 3,
        lr_factor: 3.0,
        extensions: 3,
        targets: Vec::new(),
        valid_every: (steps / 40).max(1),
        valid_windows: 128,
        tune_windows: 1024,
        sensitivity: false,
        jobs: default_jobs(request, file),
    };
    let mut table = Table::new();
    table.insert("compare".into(), Value::try_from(&defaults).map_err(ConfigError::misfit)?);
    merge::merge(&mut table, &own, place)?;
    for (flag, key, value) in &request.settings {
        let mut layer = Table::new();
        merge::assign(&mut layer, &format!("compare.{key}"), value.clone(), flag)?;
        merge::merge(&mut table, &layer, &format!("from {flag}"))?;
    }
    let settings = table.remove("compare").unwrap_or(Value::Table(Table::new()));
    settings.try_into().map_err(ConfigError::misfit)
}

/// The device that the runs will have, as far as it is named.
fn device_name(request: &Request, file: &Table) -> String {
    let set = request.sets.iter().rev().find(|(key, _)| key == "device.name").map(|(_, raw)| raw.clone());
    let flag = || {
        let found = request.flags.iter().rev().find(|(_, key, _)| *key == "device.name");
        found.and_then(|(_, _, value)| value.as_str().map(String::from))
    };
    let given = || merge::lookup(file, "device.name").and_then(Value::as_str).map(String::from);
    set.or_else(flag).or_else(given).unwrap_or_else(|| device::default_name().into())
}

fn default_jobs(request: &Request, file: &Table) -> u64 {
    let on_host = device::find(&device_name(request, file)).is_ok_and(|info| info.on_host);
    if on_host { request.threads.filter(|n| *n > 0).unwrap_or_else(device::all_threads) as u64 } else { 1 }
}

fn check_settings(settings: &Settings) -> Result<(), Error> {
    let at_least =
        |key: &str, value: u64, least: u64| ensure(value >= least, key, value, &format!("it must be at least {least}"));
    at_least("steps", settings.steps, 1)?;
    at_least("tune_steps", settings.tune_steps, 1)?;
    at_least("seeds", settings.seeds, 1)?;
    at_least("tune_seeds", settings.tune_seeds, 1)?;
    at_least("lr_points", settings.lr_points, 1)?;
    at_least("valid_every", settings.valid_every, 1)?;
    at_least("jobs", settings.jobs, 1)?;
    for (key, value) in [("seeds", settings.seeds), ("tune_seeds", settings.tune_seeds)] {
        ensure(value <= MAX_SEEDS, key, value, &format!("it must not exceed {MAX_SEEDS}"))?;
    }
    for (key, value) in [("lr_points", settings.lr_points), ("extensions", settings.extensions)] {
        ensure(value <= 50, key, value, "it must not exceed 50")?;
    }
    ensure(
        settings.lr_factor > 1.0 && settings.lr_factor <= 1000.0,
        "lr_factor",
        settings.lr_factor,
        "it must be above 1 and at most 1000",
    )?;
    for target in &settings.targets {
        ensure(target.is_finite() && *target > 0.0, "targets", target, "every target must be a positive number")?;
    }
    for (key, first, number) in [
        ("first_seed", settings.first_seed, settings.seeds),
        ("first_tune_seed", settings.first_tune_seed, settings.tune_seeds),
    ] {
        let last = i64::MAX as u64 - 1;
        let rule = format!("with {number} seeds from there the last one must not exceed {last}: begin lower");
        ensure(first.checked_add(number).is_some_and(|end| end <= last), key, first, &rule)?;
    }
    let overlap = |a: u64, n: u64, b: u64, m: u64| a < b.saturating_add(m) && b < a.saturating_add(n);
    if overlap(settings.first_seed, settings.seeds, settings.first_tune_seed, settings.tune_seeds) {
        return Err(CompareError::SharedSeeds.into());
    }
    Ok(())
}

fn ensure(holds: bool, key: &str, value: impl std::fmt::Display, rule: &str) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::BadValue { key: format!("compare.{key}"), value: value.to_string(), rule: rule.into() })
}

/// The sections that all runs share, as given; refuses what the comparison decides.
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
        // On some disks two names that differ in case only would be one folder.
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
    // Its own values win over those for every optimizer.
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

/// `points` rates around `centre`, which is one of them, each `factor` times the one before.
fn grid(centre: f64, points: u64, factor: f64) -> Vec<f64> {
    let below = (points as i32 - 1) / 2;
    (0..points as i32).map(|index| round(centre * factor.powi(index - below))).collect()
}

/// To three significant digits: a learning rate that can be read and typed.
pub fn round(lr: f64) -> f64 {
    format!("{lr:.2e}").parse().unwrap_or(lr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Plan, Error> {
        let file = Some(("plan.toml".into(), toml::from_str(text).unwrap()));
        Plan::resolve(&Request { file, ..Request::default() })
    }

    fn refusal(text: &str) -> String {
        let error = resolve(text).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{text}");
        error.to_string()
    }

    #[test]
    fn without_anything_four_optimizers_are_compared() {
        let plan = Plan::resolve(&Request::default()).unwrap();
        let names: Vec<&str> = plan.contenders.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, DEFAULT_OPTIMIZERS);
        assert_eq!(plan.contenders[0].lrs, [3.33e-4, 1e-3, 3e-3]);
        assert_eq!(plan.contenders[1].lrs, [6.67e-3, 0.02, 0.06]);
        assert_eq!((plan.seeds(), plan.tune_seeds()), (1..4, 10_001..10_002));
    }

    #[test]
    fn a_resolved_plan_resolves_to_itself() {
        let text = "optimizers = ['adamw', { name = 'hot', stack = 'muon', lr = 0.05, sweep = { 'optimizer.adamw.lr' = [1e-3, 2e-3] } }]\n\
                    [compare]\nseeds = 5\njobs = 1\n[sweep]\n'optimizer.weight_decay' = [0.0, 0.1]\n\
                    [train]\nbatch = 4\n[optimizer]\nclip = 0.5";
        let plan = resolve(text).unwrap();
        let written = toml::to_string(&plan.to_table().unwrap()).unwrap();
        assert_eq!(resolve(&written).unwrap(), plan, "{written}");
        assert!(differences(&plan.to_table().unwrap(), &resolve(&written).unwrap().to_table().unwrap()).is_empty());
    }

    #[test]
    fn candidates_are_all_combinations() {
        let text = "optimizers = ['adamw', 'muon']\n[compare]\nlrs = [0.1, 0.01]\n[sweep.optimizer]\nweight_decay = [0.0, 0.1, 0.2]";
        let plan = resolve(text).unwrap();
        let candidates = plan.candidates(1);
        assert_eq!(candidates.len(), 6);
        assert_eq!((candidates[0].lr, candidates[5].lr), (0.01, 0.1));
        let config = plan.config(1, &candidates[5], Purpose::Verdict, 7).unwrap();
        assert_eq!((config.optimizer.lr, config.optimizer.weight_decay, config.train.seed), (0.1, 0.2, 7));
        assert_eq!((config.train.steps, config.train.data_seed), (400, 8));
    }

    #[test]
    fn tuning_and_verdict_runs_differ_in_length_seed_and_validation_only() {
        let plan = resolve("[compare]\nsteps = 400\ntune_steps = 100").unwrap();
        let candidate = &plan.candidates(0)[0];
        let [tune, verdict] = [Purpose::Tuning, Purpose::Verdict].map(|p| plan.config(0, candidate, p, 3).unwrap());
        assert_eq!((tune.train.steps, tune.schedule.warmup), (100, 10));
        assert_eq!((verdict.train.steps, verdict.schedule.warmup), (400, 40));
        assert_eq!((tune.optimizer, tune.model, tune.data), (verdict.optimizer, verdict.model, verdict.data));
    }

    #[test]
    fn all_optimizers_of_a_seed_share_weights_batches_and_everything_else() {
        let plan = Plan::resolve(&Request::default()).unwrap();
        let configs: Vec<Config> = (0..plan.contenders.len())
            .map(|index| plan.config(index, &plan.candidates(index)[0], Purpose::Verdict, 2).unwrap())
            .collect();
        for config in &configs {
            let shared = Config { optimizer: configs[0].optimizer.clone(), ..config.clone() };
            assert_eq!(shared, configs[0]);
        }
    }

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        let cases = [
            ("optimizers = ['adamw', 'moun']", "did you mean `muon`?"),
            ("optimizers = ['adamw', 'adamw']", "adamw"),
            ("optimizers = ['adamw']", "at least two"),
            ("optimizers = []", "at least two"),
            ("[compare]\nsedes = 3", "did you mean `compare.seeds`?"),
            ("[comprae]\nseeds = 3", "did you mean `compare`?"),
            ("[compare]\nseeds = 0", "`compare.seeds` is 0"),
            ("[compare]\nlrs = [0.1, -0.1]", "-0.1"),
            ("[compare]\nlrs = [0.1, 0.1]", "0.1"),
            ("[compare]\ntargets = [-1.0]", "compare.targets"),
            ("[compare]\nfirst_tune_seed = 2", "seeds"),
            ("[compare]\nlr_factor = 1", "compare.lr_factor"),
            ("[train]\nsteps = 3", "compare.steps"),
            ("[optimizer]\nlr = 3", "compare.lrs"),
            ("[sweep]\n'train.batch' = [1, 2]", "train.batch"),
            ("[sweep]\n'optimizer.weight_decay' = []", "sweep.optimizer.weight_decay"),
            ("[sweep]\n'optimizer.weight_decai' = [0.1]", "did you mean `optimizer.weight_decay`?"),
            ("optimizers = ['muon', { name = 'b', stack = 'muon', matrix = { momentun = 1 } }]", "momentum"),
            ("optimizers = ['muon', { name = 'a/b', stack = 'muon' }]", "a/b"),
            ("optimizers = ['muon', { name = 'b', stack = 'muon', lrs = [0.1] }]", "same number"),
            ("optimizers = ['muon', { name = 'b', stack = 'muon', lrs = [] }]", "`lrs` of b"),
            ("optimizers = ['muon', { lr = 1 }]", "name"),
            ("optimizers = ['muon', 3]", "names and tables"),
        ];
        for (text, fragment) in cases {
            let said = refusal(text);
            assert!(said.contains(fragment), "{text}: {said}");
        }
    }

    #[test]
    fn differences_name_the_optimizer_and_the_key() {
        let a = resolve("optimizers = ['adamw', 'muon']").unwrap().to_table().unwrap();
        let b = resolve(
            "optimizers = ['adamw', { name = 'muon', weight_decay = 0.5 }]\n[compare]\njobs = 7\n[device]\nthreads = 1",
        )
        .unwrap();
        let said = differences(&a, &b.to_table().unwrap());
        assert!(
            said.iter().any(|line| line.contains("`optimizers.muon.weight_decay` is 0.1 there and 0.5 now")),
            "{said:?}"
        );
        assert!(!said.iter().any(|line| line.contains("jobs")), "{said:?}");
    }

    #[test]
    fn the_plans_of_the_reproductions_can_be_made_and_tune_alike() {
        for name in ["reproductions.toml", "reproductions-moe.toml"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches").join(name);
            let plan = resolve(&std::fs::read_to_string(path).unwrap()).unwrap();
            let trials: Vec<usize> = (0..plan.contenders.len()).map(|index| plan.candidates(index).len()).collect();
            assert!(trials.iter().all(|count| *count == trials[0] && *count > 1), "{name}: {trials:?}");
        }
    }

    #[test]
    fn grids_hold_their_centre() {
        assert_eq!(grid(0.02, 4, 2.0), [0.01, 0.02, 0.04, 0.08]);
        assert_eq!(grid(1.0, 1, 3.0), [1.0]);
    }
}
