//! One configuration type for every kind of optimizer.
//!
//! The same object in JSON, TOML and Rust, tagged by `kind`:
//!
//! ```
//! use polaron::OptimizerConfig;
//!
//! let config: OptimizerConfig = serde_json::from_str(r#"{"kind": "muon", "momentum": 0.9}"#)?;
//! assert_eq!(config.kind(), "muon");
//! // a slip is an error that names the nearest valid key
//! let error = serde_json::from_str::<OptimizerConfig>(r#"{"kind": "muon", "momentun": 0.9}"#).unwrap_err();
//! assert!(error.to_string().contains("did you mean \"momentum\""));
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::direction::{AdamWConfig, MuonConfig, SgdConfig};
use crate::matrix::{LayoutError, Placement};
use crate::names::unknown;
use crate::step::ConfiguredOptimizer;

/// What is wrong with a configuration.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ConfigError {
    /// No kind, or one that does not exist.
    #[error("{0}")]
    Kind(String),
    /// A key that the kind does not have.
    #[error("{kind}: {message}")]
    Key {
        /// The kind or method the key was given to.
        kind: String,
        /// The key, and the nearest valid one.
        message: String,
    },
    /// A value out of range or of the wrong type.
    #[error("{key}: {message}")]
    Value {
        /// The key.
        key: String,
        /// What it must be, and what it was.
        message: String,
    },
    /// The optimizer does not fit the parameter.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Declares a kind's settings: public fields with defaults, `new()`, one `with_` setter each, and
/// serde that fills in defaults and refuses unknown keys.
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident, $with:ident : $type:ty = $default:expr;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            /// The defaults.
            pub fn new() -> Self {
                Self::default()
            }
            $(
                #[doc = concat!("Sets `", stringify!($field), "`.")]
                pub fn $with(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}
pub(crate) use settings;

/// Configuration of any optimizer of this crate, tagged by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", tag = "kind")]
pub enum OptimizerConfig {
    /// Momentum SGD; any rank.
    #[serde(rename = "sgd")]
    Sgd(SgdConfig),
    /// AdamW (arXiv 1711.05101); any rank.
    #[serde(rename = "adamw")]
    AdamW(AdamWConfig),
    /// Muon (Keller Jordan 2024, arXiv 2502.16982); matrices and stacks of them.
    #[serde(rename = "muon")]
    Muon(MuonConfig),
}

/// What an optimizer does, in words: shown by listings, plans and reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// The `kind`.
    pub kind: &'static str,
    /// The update U of `W ← (1 - lr wd) W - lr U`.
    pub formula: &'static str,
    /// Where the rule is defined.
    pub source: &'static str,
    /// Buffers kept for every parameter, in units of the parameter.
    pub state: &'static str,
    /// Work of one step on an m × n matrix.
    pub cost: &'static str,
}

impl OptimizerConfig {
    /// Every kind.
    pub const KINDS: &'static [&'static str] = &["sgd", "adamw", "muon"];

    /// The defaults of a kind.
    pub fn of_kind(kind: &str) -> Result<Self, ConfigError> {
        Self::try_from(Map::from_iter([("kind".to_string(), Value::from(kind))]))
    }

    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        self.describe().kind
    }

    /// Formula, source, state and cost.
    pub fn describe(&self) -> Description {
        match self {
            OptimizerConfig::Sgd(_) => crate::direction::sgd::DESCRIPTION,
            OptimizerConfig::AdamW(_) => crate::direction::adamw::DESCRIPTION,
            OptimizerConfig::Muon(_) => crate::direction::muon::DESCRIPTION,
        }
    }

    /// One line for plans: the kind and what distinguishes this configuration of it.
    pub fn label(&self) -> String {
        match self {
            OptimizerConfig::Muon(config) => format!("muon ({})", config.polar.label()),
            other => other.kind().to_string(),
        }
    }

    /// The name of the shape scale, `none` for kinds without one.
    pub fn scale(&self) -> String {
        match self {
            OptimizerConfig::Muon(config) => config.scale.formula().to_string(),
            _ => "none".into(),
        }
    }

    /// Whether the kind works on matrices only.
    pub fn is_matrix_rule(&self) -> bool {
        matches!(self, OptimizerConfig::Muon(_))
    }

    /// The decoupled weight decay.
    pub fn weight_decay(&self) -> f64 {
        match self {
            OptimizerConfig::Sgd(config) => config.weight_decay,
            OptimizerConfig::AdamW(config) => config.weight_decay,
            OptimizerConfig::Muon(config) => config.weight_decay,
        }
    }

    /// Refuses values out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            OptimizerConfig::Sgd(config) => config.validate(),
            OptimizerConfig::AdamW(config) => config.validate(),
            OptimizerConfig::Muon(config) => config.validate(),
        }
    }

    /// The Burn optimizer for parameters stored as `placement` says.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn build(&self, placement: Placement) -> Result<ConfiguredOptimizer, ConfigError> {
        self.validate()?;
        Ok(match self {
            OptimizerConfig::Sgd(config) => ConfiguredOptimizer::Sgd(config.build()),
            OptimizerConfig::AdamW(config) => ConfiguredOptimizer::AdamW(config.build()),
            OptimizerConfig::Muon(config) => ConfiguredOptimizer::Muon(config.build().with_placement(placement)),
        })
    }

    /// This configuration with the keys of `overrides` replaced.
    ///
    /// # Errors
    /// If a key does not exist in this kind, or a value is of the wrong type or out of range.
    pub fn merge(&self, overrides: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut map = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("a configuration serialises to an object"),
        };
        for (key, value) in overrides {
            map.insert(key.clone(), value.clone());
        }
        let merged = Self::try_from(map)?;
        merged.validate()?;
        Ok(merged)
    }
}

impl TryFrom<Map<String, Value>> for OptimizerConfig {
    type Error = ConfigError;

    fn try_from(mut map: Map<String, Value>) -> Result<Self, ConfigError> {
        let kind = take_tag(&mut map, "kind", "optimizer kind", Self::KINDS)?;
        Ok(match kind.as_str() {
            "sgd" => Self::Sgd(fields(&kind, map)?),
            "adamw" => Self::AdamW(fields(&kind, map)?),
            _ => Self::Muon(fields(&kind, map)?),
        })
    }
}

/// Reads a kind's own keys; the valid ones are those its default has.
fn fields<T: Serialize + DeserializeOwned + Default>(kind: &str, map: Map<String, Value>) -> Result<T, ConfigError> {
    if let Ok(Value::Object(known)) = serde_json::to_value(T::default()) {
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        check_keys(&map, &known, kind)?;
    }
    // Key by key, so that the message can say which one has the wrong type.
    for (key, value) in &map {
        let single = Map::from_iter([(key.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<T>(Value::Object(single)) {
            return Err(ConfigError::Value { key: format!("{kind}.{key}"), message: error.to_string() });
        }
    }
    serde_json::from_value(Value::Object(map))
        .map_err(|error| ConfigError::Value { key: kind.to_string(), message: error.to_string() })
}

/// Removes the tag that selects a variant and checks it against the valid names.
pub(crate) fn take_tag(
    map: &mut Map<String, Value>,
    tag: &str,
    what: &str,
    valid: &[&str],
) -> Result<String, ConfigError> {
    match map.remove(tag) {
        Some(Value::String(name)) if valid.contains(&name.as_str()) => Ok(name),
        Some(Value::String(name)) => Err(ConfigError::Kind(unknown(what, &name, valid))),
        _ => Err(ConfigError::Kind(format!("missing \"{tag}\"; one of {}", valid.join(", ")))),
    }
}

/// Refuses keys that are not in `valid`, naming the nearest one.
pub(crate) fn check_keys(map: &Map<String, Value>, valid: &[&str], kind: &str) -> Result<(), ConfigError> {
    match map.keys().find(|key| !valid.contains(&key.as_str())) {
        Some(key) => Err(ConfigError::Key { kind: kind.to_string(), message: unknown("key", key, valid) }),
        None => Ok(()),
    }
}

/// Refuses a value that is not finite or not inside `range`.
pub(crate) fn in_range(key: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let message = match range.end().is_finite() {
        true => format!("must be from {} to {}, got {value}", range.start(), range.end()),
        false => format!("must be at least {}, got {value}", range.start()),
    };
    Err(ConfigError::Value { key: key.to_string(), message })
}

/// Refuses a momentum or averaging factor outside [0, 1).
pub(crate) fn is_factor(key: &str, value: f64) -> Result<(), ConfigError> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Value { key: key.to_string(), message: format!("must be in [0, 1), got {value}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_with_its_defaults_and_describes_itself() {
        for kind in OptimizerConfig::KINDS {
            let config = OptimizerConfig::of_kind(kind).unwrap();
            assert_eq!(config.kind(), *kind);
            let json = serde_json::to_string(&config).unwrap();
            assert!(json.starts_with(&format!("{{\"kind\":\"{kind}\"")), "{json}");
            assert_eq!(serde_json::from_str::<OptimizerConfig>(&json).unwrap(), config);
            let toml = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<OptimizerConfig>(&toml).unwrap(), config);
            assert!(config.validate().is_ok());
        }
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        for text in [
            r#"{"kind": "adamw", "momentum": 0.9}"#,
            r#"{"kind": "sgd", "scale": "original"}"#,
            r#"{"kind": "muon", "beta1": 0.9}"#,
            r#"{"momentum": 0.9}"#,
        ] {
            assert!(serde_json::from_str::<OptimizerConfig>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let error = serde_json::from_str::<OptimizerConfig>(r#"{"kind": "muon", "nesterov": 3}"#).unwrap_err();
        assert!(error.to_string().contains("muon.nesterov"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in [
            r#"{"kind": "muon", "momentum": 1.0}"#,
            r#"{"kind": "muon", "weight_decay": -0.1}"#,
            r#"{"kind": "adamw", "beta2": 1.5}"#,
            r#"{"kind": "muon", "polar": {"method": "newton_schulz", "steps": 0}}"#,
        ] {
            let config: OptimizerConfig = serde_json::from_str(text).unwrap();
            assert!(config.validate().is_err(), "{text}");
        }
    }
}
