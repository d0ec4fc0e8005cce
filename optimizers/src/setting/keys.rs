//! Reading keys: unknown ones are refused, numbers are finite.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_json::{Map, Value};

use super::ConfigError;

/// Reads a kind's own keys; the valid ones are those its default has.
pub(crate) fn read_fields<T: Serialize + DeserializeOwned + Default>(
    kind: &str,
    map: Map<String, Value>,
) -> Result<T, ConfigError> {
    if let Ok(Value::Object(known)) = serde_json::to_value(T::default()) {
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        check_keys(&map, &known, kind)?;
    }
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

/// The value of a key of a method, or its default; a required key has none.
pub(crate) fn key<T: DeserializeOwned>(
    map: &Map<String, Value>,
    owner: &str,
    name: &str,
    default: Option<T>,
) -> Result<T, ConfigError> {
    let fail = |message: String| Err(ConfigError::value(format!("{owner}.{name}"), message));
    match (map.get(name), default) {
        (Some(value), _) => serde_json::from_value(value.clone()).or_else(|error| fail(error.to_string())),
        (None, Some(default)) => Ok(default),
        (None, None) => fail("is required".into()),
    }
}

/// Keys and values of a configuration as they were given, all numbers finite.
///
/// JSON has no NaN and no infinity, TOML has both; as a [`Value`] they would become null, which an optional key takes for
/// "not given".
#[derive(Clone, Debug)]
pub(crate) struct Given(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Finite::deserialize(deserializer)? {
            Finite(Value::Object(map)) => Ok(Self(map)),
            Finite(other) => Err(D::Error::custom(format!("must be a table of keys and values, got {other}"))),
        }
    }
}

struct Finite(Value);

impl<'de> Deserialize<'de> for Finite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FiniteVisitor).map(Self)
    }
}

struct FiniteVisitor;

impl<'de> Visitor<'de> for FiniteVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if value.is_finite() {
            Ok(value.into())
        } else {
            Err(E::custom(format!("must be a finite number, got {value}")))
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Value, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Finite(value)) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Finite(value) = map.next_value().map_err(|error| A::Error::custom(format!("{key}: {error}")))?;
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}
