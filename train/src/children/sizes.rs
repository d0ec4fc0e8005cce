//! The section `[compare]` of a plan: flags take precedence over the file, and the file over the defaults.

use toml::{Table, Value};

use super::request::Request;
use crate::compare::Settings;
use crate::error::ConfigError;
use crate::host::device;
use crate::settings::merge;

/// Windows of the validations on the way, and of the one that ends a tuning run.
const VALID_WINDOWS: u64 = 128;
const TUNE_WINDOWS: u64 = 1024;

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
        valid_windows: Some(VALID_WINDOWS),
        tune_windows: Some(TUNE_WINDOWS),
        ..Settings::of(steps, default_jobs(request, file))
    };
    let mut known = Table::try_from(&defaults).map_err(ConfigError::misfit)?;
    // Absent from a plan unless something was added.
    for key in ["seeds_before", "optimizers_before"] {
        known.insert(key.into(), Value::Array(Vec::new()));
    }
    known.insert("race".into(), Value::String(String::new()));
    // Absent from a plan with grids.
    for key in ["trials", "halvings"] {
        known.insert(key.into(), Value::Integer(0));
    }
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
