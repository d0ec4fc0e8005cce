//! Optimizers as a plan lists them: by name, or as a table.

use polaron::LayerwiseConfig;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::contenders::check_name;
use super::draw::LR;
use super::plan::{Contender, LRS_BEFORE};
use super::range::Range;
use crate::error::{CompareError, ConfigError, Error};
use crate::settings::merge;

/// Keys of an optimizer that a comparison sets itself, each with the key of the plan that determines it.
pub const TUNED: [(&str, &str); 2] = [("optimizer.stack", "optimizers"), ("optimizer.lr", "compare.lrs")];

/// Beginnings of the keys that may be swept: any other key would give the optimizers different work.
const SWEPT: &[&str] = &["optimizer.", "schedule."];

/// What is tried for every optimizer that does not say otherwise.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Keys with the values of a grid.
    pub sweep: Vec<(String, Vec<Value>)>,
    /// Keys with the ranges of a search.
    pub search: Vec<(String, Range)>,
}

impl Shared {
    /// The tables `sweep` and `search` of a plan, or of an optimizer in it.
    ///
    /// # Errors
    ///
    /// What is no array of values or no range, and keys that cannot be tuned.
    pub fn read(sweep: Option<&Value>, search: Option<&Value>, place: &str) -> Result<Self, Error> {
        Ok(Self { sweep: self::sweep(sweep, place)?, search: ranges(search, place)? })
    }

    /// This for an optimizer with values and ranges of its own, which take precedence.
    fn with(&self, own: Self) -> Self {
        Self { sweep: preferred(&self.sweep, own.sweep), search: preferred(&self.search, own.search) }
    }
}

fn preferred<T: Clone>(shared: &[(String, T)], own: Vec<(String, T)>) -> Vec<(String, T)> {
    let others = shared.iter().filter(|(key, _)| !own.iter().any(|(given, _)| given == key)).cloned();
    others.collect::<Vec<_>>().into_iter().chain(own).collect()
}

/// The swept keys of a `sweep` table.
///
/// # Errors
///
/// Something other than arrays of values, a key that cannot be swept.
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
    swept.iter().try_for_each(|(key, _)| check_tunable(key))?;
    Ok(swept)
}

/// Checks that values of a key may be tried.
///
/// # Errors
///
/// A key that the comparison sets, or that would give the optimizers different work.
pub fn check_tunable(key: &str) -> Result<(), CompareError> {
    if let Some((_, instead)) = TUNED.iter().find(|(decided, _)| *decided == key) {
        return Err(CompareError::Decided { key: key.into(), instead });
    }
    if !SWEPT.iter().any(|start| key.starts_with(start)) {
        return Err(CompareError::NotSwept { key: key.into() });
    }
    Ok(())
}

/// The ranges of a `search` table.
///
/// # Errors
///
/// Something other than ranges, a key that cannot be tuned.
fn ranges(value: Option<&Value>, place: &str) -> Result<Vec<(String, Range)>, Error> {
    let table = match value {
        None => return Ok(Vec::new()),
        Some(Value::Table(table)) => table,
        Some(other) => return Err(wrong_type("search", "a section", other, place).into()),
    };
    let mut ranges = Vec::new();
    collect(table, "", &mut ranges)?;
    ranges.iter().filter(|(key, _)| key != LR).try_for_each(|(key, _)| check_tunable(key))?;
    Ok(ranges)
}

/// The ranges in a table and the tables in it; a table with `low` is a range.
fn collect(table: &Table, prefix: &str, ranges: &mut Vec<(String, Range)>) -> Result<(), Error> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.contains_key("low") => collect(inner, &key, ranges)?,
            value => {
                let range = Range::read(value).map_err(|why| CompareError::BadRange { key: key.clone(), why })?;
                ranges.push((key, range));
            }
        }
    }
    Ok(())
}

/// An error about the type of a value in a plan.
pub fn wrong_type(key: &str, expected: &'static str, found: &Value, place: &str) -> ConfigError {
    let found = crate::error::one_line(&format!("{} {found}", found.type_str()));
    ConfigError::WrongType { key: key.into(), expected, found, place: place.into() }
}

/// The optimizer of a name: one of those that were defined, or a stack.
///
/// # Errors
///
/// A name that is neither.
pub fn named(name: &str, defined: &[Contender], shared: &Shared) -> Result<Contender, Error> {
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
    let Shared { sweep, search } = shared.clone();
    Ok(Contender { name: name.into(), optimizer, lrs: Vec::new(), lrs_before: Vec::new(), sweep, search })
}

/// The optimizer that an item of the list describes.
///
/// # Errors
///
/// A key of another type, a name that no file can have, an unknown stack.
pub fn contender(item: &Value, shared: &Shared, place: &str) -> Result<Contender, Error> {
    let mut table = match item {
        Value::String(name) => return named(name, &[], shared),
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
    let own = Shared::read(table.remove("sweep").as_ref(), table.remove("search").as_ref(), place)?;
    let lrs: Vec<f64> = numbers(table.remove("lrs"), "optimizers.lrs", place)?.unwrap_or_default();
    if lrs.is_empty() && item.get("lrs").is_some() {
        return Err(CompareError::EmptyGrid { what: format!("`lrs` of {name}") }.into());
    }
    let lrs_before = numbers(table.remove(LRS_BEFORE), "optimizers.lrs_before", place)?.unwrap_or_default();
    let Shared { sweep, search } = shared.with(own);
    Ok(Contender { name, optimizer: table, lrs, lrs_before, sweep, search })
}

/// An array of numbers, or of such arrays; None if it is not given.
fn numbers<T: DeserializeOwned>(value: Option<Value>, key: &str, place: &str) -> Result<Option<Vec<T>>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let read = value.clone().try_into().map_err(|_| wrong_type(key, "an array of numbers", &value, place))?;
    Ok(Some(read))
}
