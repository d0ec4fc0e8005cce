//! Reading keys: unknown keys and numbers that are not finite are refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ConfigError;
use super::settings::Keys;

/// Reads the keys of a kind.
pub(crate) fn read_fields<T: Keys + DeserializeOwned + Default>(
    kind: &str,
    map: Map<String, Value>,
) -> Result<T, ConfigError> {
    check_keys(&map, &T::default().names(), kind)?;
    // Key by key, so that the message can say which one has the wrong type.
    for (key, value) in &map {
        let single = Map::from_iter([(key.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<T>(Value::Object(single)) {
            return Err(ConfigError::value(format!("{kind}.{key}"), error.to_string()));
        }
    }
    serde_json::from_value(Value::Object(map)).map_err(|error| ConfigError::value(kind, error.to_string()))
}

/// Removes the tag that selects a variant and checks it against the valid names.
pub(crate) fn take_tag(
    map: &mut Map<String, Value>,
    tag: &'static str,
    what: &'static str,
    valid: &[&'static str],
) -> Result<String, ConfigError> {
    match map.remove(tag) {
        Some(Value::String(name)) if valid.contains(&name.as_str()) => Ok(name),
        Some(Value::String(name)) => Err(ConfigError::Name { what, name, valid: valid.to_vec() }),
        _ => Err(ConfigError::Missing { key: tag, valid: valid.to_vec() }),
    }
}

/// Refuses keys that are not in `valid`, naming the nearest one.
pub(crate) fn check_keys(map: &Map<String, Value>, valid: &[&str], owner: &str) -> Result<(), ConfigError> {
    match map.keys().find(|key| !valid.contains(&key.as_str())) {
        Some(key) => Err(ConfigError::Key {
            owner: owner.to_string(),
            key: key.clone(),
            valid: valid.iter().map(|key| key.to_string()).collect(),
        }),
        None => Ok(()),
    }
}

/// The number under a key of a table, or its default.
pub(crate) fn read_number(map: &Map<String, Value>, owner: &str, key: &str, default: f64) -> Result<f64, ConfigError> {
    let Some(value) = map.get(key) else { return Ok(default) };
    value.as_f64().ok_or_else(|| ConfigError::value(format!("{owner}.{key}"), format!("must be a number, got {value}")))
}

/// Keys and values of a configuration as given, with only finite numbers.
///
/// JSON has no NaN and no infinity, but TOML has both. As a [`Value`] they would become null, which an optional key reads
/// as "not given".
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Unchecked")]
pub(crate) struct Given(pub Map<String, Value>);

impl TryFrom<Unchecked> for Given {
    type Error = String;

    fn try_from(value: Unchecked) -> Result<Self, String> {
        match value.finite()? {
            Value::Object(map) => Ok(Self(map)),
            other => Err(format!("must be a table of keys and values, got {other}")),
        }
    }
}

/// A value whose numbers may be anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum Unchecked {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    List(Vec<Self>),
    Table(BTreeMap<String, Self>),
    Other(Value),
}

impl Unchecked {
    /// The same as a [`Value`].
    fn finite(self) -> Result<Value, String> {
        let entry = |(key, value): (String, Self)| match value.finite() {
            Ok(value) => Ok((key, value)),
            Err(error) => Err(format!("{key}: {error}")),
        };
        Ok(match self {
            Self::Signed(number) => number.into(),
            Self::Unsigned(number) => number.into(),
            Self::Float(number) if number.is_finite() => number.into(),
            Self::Float(number) => return Err(format!("must be a finite number, got {number}")),
            Self::List(items) => items.into_iter().map(Self::finite).collect::<Result<_, _>>()?,
            Self::Table(table) => Value::Object(table.into_iter().map(entry).collect::<Result<_, _>>()?),
            Self::Other(value) => value,
        })
    }
}
