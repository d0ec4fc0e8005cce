//! What a key of a configuration may be: the numbers that it allows, and values to try.
//!
//! Every type of a setting says so once. [`OptimizerConfig::validate`](crate::OptimizerConfig::validate) and
//! [`OptimizerConfig::choices`](crate::OptimizerConfig::choices) are derived from that, so a new key or a new value of an
//! old one takes part in both the day it is declared.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::config::ConfigError;

/// The type of a setting.
pub(crate) trait Setting {
    /// What is said beside the key; nothing for types all of whose values are allowed.
    type Range;

    /// Refuses what the key does not allow.
    fn check(&self, key: &str, range: &Self::Range) -> Result<(), ConfigError>;

    /// Values that differ in what they make the rule do.
    fn choices(range: &Self::Range) -> Vec<Value>;
}

/// The numbers that a key allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    low: f64,
    high: f64,
    /// Whether `high` itself is allowed.
    closed: bool,
}

impl Numbers {
    /// Momenta and averaging factors: [0, 1).
    pub const FACTOR: Self = Self { low: 0.0, high: 1.0, closed: false };

    /// Sizes: from 0 to a million, beyond which no rule makes sense.
    pub const SIZE: Self = Self::from_to(0.0, 1e6);

    /// Both ends are allowed.
    pub const fn from_to(low: f64, high: f64) -> Self {
        Self { low, high, closed: true }
    }

    fn check(&self, key: &str, value: f64) -> Result<(), ConfigError> {
        let Self { low, high, closed } = *self;
        if value >= low && (value < high || (closed && value == high)) {
            return Ok(());
        }
        let message = match closed {
            true => format!("must be a number from {low} to {high}, got {value}"),
            false => format!("must be a number in [{low}, {high}), got {value}"),
        };
        Err(ConfigError::Value { key: key.to_string(), message })
    }

    /// The low end, and the high one where it is no mere guard.
    fn ends(&self) -> Vec<f64> {
        let high = if self.closed { self.high } else { (self.low + self.high) / 2.0 };
        if self.high <= 2.0 { vec![self.low, high] } else { vec![self.low] }
    }
}

impl Setting for f64 {
    type Range = Numbers;

    fn check(&self, key: &str, range: &Numbers) -> Result<(), ConfigError> {
        range.check(key, *self)
    }

    fn choices(range: &Numbers) -> Vec<Value> {
        range.ends().into_iter().map(Value::from).collect()
    }
}

impl Setting for usize {
    type Range = std::ops::RangeInclusive<usize>;

    fn check(&self, key: &str, range: &Self::Range) -> Result<(), ConfigError> {
        if range.contains(self) {
            return Ok(());
        }
        let message = format!("must be from {} to {}, got {self}", range.start(), range.end());
        Err(ConfigError::Value { key: key.to_string(), message })
    }

    fn choices(range: &Self::Range) -> Vec<Value> {
        vec![Value::from(*range.start())]
    }
}

impl Setting for u64 {
    type Range = std::ops::RangeInclusive<u64>;

    fn check(&self, key: &str, range: &Self::Range) -> Result<(), ConfigError> {
        if range.contains(self) {
            return Ok(());
        }
        let message = format!("must be from {} to {}, got {self}", range.start(), range.end());
        Err(ConfigError::Value { key: key.to_string(), message })
    }

    fn choices(range: &Self::Range) -> Vec<Value> {
        vec![Value::from(*range.start())]
    }
}

impl Setting for bool {
    type Range = ();

    fn check(&self, _key: &str, _range: &()) -> Result<(), ConfigError> {
        Ok(())
    }

    fn choices(_range: &()) -> Vec<Value> {
        vec![false.into(), true.into()]
    }
}

impl<T: Setting> Setting for Option<T> {
    type Range = T::Range;

    fn check(&self, key: &str, range: &T::Range) -> Result<(), ConfigError> {
        self.as_ref().map_or(Ok(()), |value| value.check(key, range))
    }

    fn choices(range: &T::Range) -> Vec<Value> {
        let mut choices = T::choices(range);
        choices.push(Value::Null);
        choices
    }
}

/// Declares a setting that is one of several names, all of them choices.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $crate::setting::Setting for $name {
            type Range = ();

            fn check(&self, _key: &str, _range: &()) -> Result<(), $crate::config::ConfigError> {
                Ok(())
            }

            fn choices(_range: &()) -> Vec<serde_json::Value> {
                [$(Self::$variant),*].iter().filter_map(|choice| serde_json::to_value(choice).ok()).collect()
            }
        }
    };
}
pub(crate) use choice;

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
