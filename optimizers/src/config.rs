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

use burn::optim::Optimizer;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::direction::{AdamW, AdamWConfig, Muon, MuonConfig, Sgd, SgdConfig};
use crate::matrix::{LayoutError, Placement};
use crate::names::unknown;
use crate::step::{MatrixOptimizer, Scale, State};

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

/// What every kind's settings can say about themselves.
pub(crate) trait Settings {
    /// Formula, source, state and cost.
    fn describe(&self) -> Description;
    /// Refuses values out of range.
    fn validate(&self) -> Result<(), ConfigError>;
    /// The decoupled weight decay.
    fn weight_decay(&self) -> f64;
    /// One line for plans: the kind and what distinguishes these settings of it.
    fn label(&self) -> String {
        self.describe().kind.to_string()
    }
    /// The shape scale in words.
    fn scale(&self) -> &'static str {
        Scale::None.formula()
    }
    /// Whether the kind works on matrices only.
    fn is_matrix_rule(&self) -> bool {
        false
    }
}

/// The list of kinds: one line each. Makes the configuration, and the optimizer that it builds, as
/// enums with a variant per kind.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $settings:ty => $optimizer:ty, $place:expr;)*) => {
        /// Configuration of any optimizer of this crate, tagged by `kind`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "Map<String, Value>", tag = "kind")]
        pub enum OptimizerConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant($settings),)*
        }

        /// What [`OptimizerConfig::build`] returns: the optimizer of any kind behind one type.
        #[derive(Clone, Debug)]
        pub enum ConfiguredOptimizer {
            $($(#[$doc])* $variant($optimizer),)*
        }

        impl OptimizerConfig {
            /// Every kind.
            pub const KINDS: &'static [&'static str] = &[$($name),*];

            fn settings(&self) -> &dyn Settings {
                match self {
                    $(Self::$variant(settings) => settings,)*
                }
            }

            /// The Burn optimizer for parameters stored as `placement` says.
            ///
            /// # Errors
            /// If a value is out of range.
            pub fn build(&self, placement: Placement) -> Result<ConfiguredOptimizer, ConfigError> {
                self.validate()?;
                Ok(match self {
                    $(Self::$variant(settings) => {
                        let place: fn($optimizer, Placement) -> $optimizer = $place;
                        ConfiguredOptimizer::$variant(place(settings.build(), placement))
                    })*
                })
            }
        }

        impl TryFrom<Map<String, Value>> for OptimizerConfig {
            type Error = ConfigError;

            fn try_from(mut map: Map<String, Value>) -> Result<Self, ConfigError> {
                let kind = take_tag(&mut map, "kind", "optimizer kind", Self::KINDS)?;
                match kind.as_str() {
                    $($name => Ok(Self::$variant(fields(&kind, map)?)),)*
                    _ => unreachable!("the kind was checked"),
                }
            }
        }

        impl Optimizer for ConfiguredOptimizer {
            type State<const D: usize> = State<D>;

            fn step<const D: usize>(
                &self,
                lr: f64,
                tensor: Tensor<D>,
                grad: Tensor<D>,
                state: Option<State<D>>,
            ) -> (Tensor<D>, Option<State<D>>) {
                match self {
                    $(Self::$variant(optimizer) => optimizer.step(lr, tensor, grad, state),)*
                }
            }

            fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
                state.to_device(device)
            }
        }
    };
}

kinds! {
    /// Momentum SGD; any rank.
    Sgd, "sgd", SgdConfig => Sgd, |optimizer, _| optimizer;
    /// AdamW (arXiv 1711.05101); any rank.
    AdamW, "adamw", AdamWConfig => AdamW, |optimizer, _| optimizer;
    /// Muon (Keller Jordan 2024, arXiv 2502.16982); matrices and stacks of them.
    Muon, "muon", MuonConfig => MatrixOptimizer<Muon>, MatrixOptimizer::with_placement;
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
        self.settings().describe()
    }

    /// One line for plans: the kind and what distinguishes this configuration of it.
    pub fn label(&self) -> String {
        self.settings().label()
    }

    /// The shape scale in words, `none` for kinds without one.
    pub fn scale(&self) -> &'static str {
        self.settings().scale()
    }

    /// Whether the kind works on matrices only.
    pub fn is_matrix_rule(&self) -> bool {
        self.settings().is_matrix_rule()
    }

    /// The decoupled weight decay.
    pub fn weight_decay(&self) -> f64 {
        self.settings().weight_decay()
    }

    /// Refuses values out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.settings().validate()
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
