//! The section `[compare]` of a plan: flags take precedence over the file, and the file over the defaults.

use toml::{Table, Value};

use super::plan::{Request, Settings};
use crate::error::{CompareError, ConfigError, Error};
use crate::host::device;
use crate::settings::merge;

/// Verdict seeds and tuning seeds begin here, far apart.
const FIRST_SEED: u64 = 1;
const FIRST_TUNE_SEED: u64 = 10_001;
const MAX_SEEDS: u64 = 1000;

pub fn settings(request: &Request, file: &Table, place: &str) -> Result<Settings, ConfigError> {
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
        seeds_before: Vec::new(),
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
    let mut known = Table::try_from(&defaults).map_err(ConfigError::misfit)?;
    // Absent from a plan unless seeds were added.
    known.insert("seeds_before".into(), Value::Array(Vec::new()));
    let mut table = Table::new();
    table.insert("compare".into(), Value::Table(known));
    merge::merge(&mut table, &own, place)?;
    for (flag, key, value) in &request.settings {
        let mut layer = Table::new();
        merge::assign(&mut layer, &format!("compare.{key}"), value.clone(), flag)?;
        merge::merge(&mut table, &layer, &format!("from {flag}"))?;
    }
    let settings = table.remove("compare").unwrap_or(Value::Table(Table::new()));
    settings.try_into().map_err(ConfigError::misfit)
}

/// The name of the device that the runs will use.
fn device_name(request: &Request, file: &Table) -> String {
    let set = request.sets.iter().rev().find(|(key, _)| key == "device.name").map(|(_, raw)| raw.clone());
    let flag = || {
        let found = request.flags.iter().rev().find(|(_, key, _)| *key == "device.name");
        found.and_then(|(_, _, value)| value.as_str().map(String::from))
    };
    let given = || merge::lookup(file, "device.name").and_then(Value::as_str).map(String::from);
    set.or_else(flag).or_else(given).unwrap_or_else(|| device::default_name().into())
}

pub fn default_jobs(request: &Request, file: &Table) -> u64 {
    let on_host = device::find(&device_name(request, file)).is_ok_and(|info| info.on_host);
    if on_host { request.threads.filter(|n| *n > 0).unwrap_or_else(device::all_threads) as u64 } else { 1 }
}

pub fn check_settings(settings: &Settings) -> Result<(), Error> {
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
        let rule = format!("with {number} seeds from there, the last one must not exceed {last}: begin lower");
        ensure(first.checked_add(number).is_some_and(|end| end <= last), key, first, &rule)?;
    }
    let overlap = |a: u64, n: u64, b: u64, m: u64| a < b.saturating_add(m) && b < a.saturating_add(n);
    if overlap(settings.first_seed, settings.seeds, settings.first_tune_seed, settings.tune_seeds) {
        return Err(CompareError::SharedSeeds.into());
    }
    Ok(())
}

fn ensure(holds: bool, key: &str, value: impl std::fmt::Display, rule: &str) -> Result<(), ConfigError> {
    ConfigError::ensure(holds, &format!("compare.{key}"), value, rule)
}
