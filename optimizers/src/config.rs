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

use crate::direction::{
    AdaMuonConfig, AdamW, AdamWConfig, ErrorFeedbackMuonConfig, FreonConfig, HybridConfig, KaonConfig, MuonConfig,
    MuonEqConfig, NorMuonConfig, PolarGradConfig, RandomSpectrumConfig, RegularizedMuonConfig, RowNormConfig,
    ScionConfig, Sgd, SgdConfig, SharedDirection, SpectralConfig, SsdConfig, StatefulDirection,
};
use crate::layerwise::RuleOptimizer;
use crate::matrix::{LayoutError, Placement};
use crate::names::unknown;
use crate::step::{MatrixOptimizer, Momentum, Scale, State};

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

/// Declares the settings of a rule on matrices: the keys that all of them share, with this kind's
/// defaults, then its own. The type implements [`MatrixSettings`].
macro_rules! matrix_settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident => $rule:ty { momentum: $mu:expr, $form:ident, nesterov: $nesterov:expr $(, scale: $scale:ident)?; $($own:tt)* }
    ) => {
        settings! {
            $(#[$meta])*
            pub struct $name {
                /// Decoupled weight decay, at least 0; multiplied by the learning rate, never by the scale.
                weight_decay, with_weight_decay: f64 = 0.0;
                /// Decay only entries where update and weight do not have opposite signs.
                cautious, with_cautious: bool = false;
                /// Momentum μ in [0, 1).
                momentum, with_momentum: f64 = $mu;
                /// How the momentum buffer is formed.
                momentum_form, with_momentum_form: $crate::step::MomentumForm = $crate::step::MomentumForm::$form;
                /// Look ahead by one step.
                nesterov, with_nesterov: bool = $nesterov;
                $(
                    /// Factor of the update by the shape of the matrix.
                    scale, with_scale: $crate::step::Scale = $crate::step::Scale::$scale;
                )?
                $($own)*
            }
        }

        impl $name {
            /// The bare optimizer, for one parameter group stored `[d_in, d_out]`.
            ///
            /// For another layout or for blocks follow with
            /// [`with_placement`]($crate::step::MatrixOptimizer::with_placement). Values out of range
            /// are not looked for here; [`OptimizerConfig::validate`]($crate::OptimizerConfig::validate) does.
            pub fn build(&self) -> $crate::step::MatrixOptimizer<$rule> {
                use $crate::config::MatrixSettings;
                $crate::step::MatrixOptimizer::new(self.rule())
                    .with_momentum(self.outer_momentum())
                    .with_scale(self.shape_scale())
                    .with_decay($crate::step::Decay { rate: self.decay_rate(), cautious: self.cautious })
            }

            /// The optimizer of a module that has only matrices and stacks of them.
            ///
            /// A module with vectors as well wants [`Layerwise`]($crate::Layerwise).
            pub fn init(&self) -> burn::optim::ModuleOptimizer {
                self.build().into()
            }
        }

        impl $crate::config::Shared for $name {
            fn momentum(&self) -> $crate::step::Momentum {
                $crate::step::Momentum { factor: self.momentum, form: self.momentum_form, nesterov: self.nesterov }
            }

            fn weight_decay(&self) -> f64 {
                self.weight_decay
            }
        }
    };
}
pub(crate) use matrix_settings;

/// The keys that every rule on matrices has; written by [`matrix_settings`].
#[doc(hidden)]
pub trait Shared {
    fn momentum(&self) -> Momentum;
    fn weight_decay(&self) -> f64;
}

/// What the settings of a rule on matrices say beyond the shared keys.
#[doc(hidden)]
pub trait MatrixSettings: Shared {
    /// The rule they set up.
    type Rule: StatefulDirection;
    /// Formula, source, state and cost.
    const ABOUT: Description;

    fn rule(&self) -> Self::Rule;

    /// Refuses values of the own keys that are out of range.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// What distinguishes these settings, for plans; may be empty.
    fn detail(&self) -> String {
        String::new()
    }

    /// The factor by the shape that is applied.
    fn shape_scale(&self) -> Scale {
        Scale::None
    }

    /// The decay that is applied.
    fn decay_rate(&self) -> f64 {
        self.weight_decay()
    }

    /// The momentum applied before the rule.
    fn outer_momentum(&self) -> Momentum {
        self.momentum()
    }
}

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

impl<T: MatrixSettings> Settings for T {
    fn describe(&self) -> Description {
        Self::ABOUT
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let kind = Self::ABOUT.kind;
        is_factor(&format!("{kind}.momentum"), self.momentum().factor)?;
        in_range(&format!("{kind}.weight_decay"), Shared::weight_decay(self), 0.0..=f64::MAX)?;
        self.check()
    }

    fn weight_decay(&self) -> f64 {
        self.decay_rate()
    }

    fn label(&self) -> String {
        let (kind, detail) = (Self::ABOUT.kind, self.detail());
        if detail.is_empty() { kind.to_string() } else { format!("{kind} ({detail})") }
    }

    fn scale(&self) -> &'static str {
        self.shape_scale().formula()
    }

    fn is_matrix_rule(&self) -> bool {
        true
    }
}

/// The list of kinds, one line each: variant, name, settings, and what makes a [`ConfiguredOptimizer`] of
/// the optimizer that they build.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $settings:ty => $place:expr;)*) => {
        /// Configuration of any optimizer of this crate, tagged by `kind`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "Map<String, Value>", tag = "kind")]
        pub enum OptimizerConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant($settings),)*
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
                    $(Self::$variant(settings) => $place(settings.build(), placement),)*
                })
            }
        }

        $(
            impl From<$settings> for OptimizerConfig {
                fn from(settings: $settings) -> Self {
                    Self::$variant(settings)
                }
            }

            impl From<$settings> for RuleOptimizer {
                fn from(settings: $settings) -> Self {
                    Self::Config(settings.into())
                }
            }
        )*

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
    };
}

/// What [`OptimizerConfig::build`] returns: the optimizer of any kind behind one type.
#[derive(Clone, Debug)]
pub enum ConfiguredOptimizer {
    /// Momentum SGD.
    Sgd(Sgd),
    /// AdamW.
    AdamW(AdamW),
    /// Any rule on matrices.
    Matrix(MatrixOptimizer<SharedDirection>),
}

impl ConfiguredOptimizer {
    fn matrix<R: StatefulDirection>(optimizer: MatrixOptimizer<R>, placement: Placement) -> Self {
        Self::Matrix(optimizer.with_placement(placement).shared())
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
            Self::Sgd(optimizer) => optimizer.step(lr, tensor, grad, state),
            Self::AdamW(optimizer) => optimizer.step(lr, tensor, grad, state),
            Self::Matrix(optimizer) => optimizer.step(lr, tensor, grad, state),
        }
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.to_device(device)
    }
}

kinds! {
    /// Momentum SGD; any rank.
    Sgd, "sgd", SgdConfig => |optimizer, _| ConfiguredOptimizer::Sgd(optimizer);
    /// AdamW (arXiv 1711.05101); any rank.
    AdamW, "adamw", AdamWConfig => |optimizer, _| ConfiguredOptimizer::AdamW(optimizer);
    /// Muon (Keller Jordan 2024, arXiv 2502.16982): the polar factor of the momentum.
    Muon, "muon", MuonConfig => ConfiguredOptimizer::matrix;
    /// MuonEq (arXiv 2603.28254): units brought to one size before the polar factor.
    MuonEq, "muon_eq", MuonEqConfig => ConfiguredOptimizer::matrix;
    /// NorMuon (arXiv 2510.05491): units of the polar factor by their own second moment.
    NorMuon, "normuon", NorMuonConfig => ConfiguredOptimizer::matrix;
    /// AdaMuon (arXiv 2507.11005): entries of the polar factor by their own second moment.
    AdaMuon, "adamuon", AdaMuonConfig => ConfiguredOptimizer::matrix;
    /// Smoothed Muon (arXiv 2605.23871): small singular values stay small.
    RegularizedMuon, "regularized_muon", RegularizedMuonConfig => ConfiguredOptimizer::matrix;
    /// Error-feedback Muon (arXiv 2605.08980): what the polar factor loses comes back.
    ErrorFeedbackMuon, "error_feedback_muon", ErrorFeedbackMuonConfig => ConfiguredOptimizer::matrix;
    /// Freon (arXiv 2605.11181): a power of the singular values, `s^(1-2c)`.
    Freon, "freon", FreonConfig => ConfiguredOptimizer::matrix;
    /// Kaon (arXiv 2605.11181): chaotic singular values.
    Kaon, "kaon", KaonConfig => ConfiguredOptimizer::matrix;
    /// Random singular values (theory variant of arXiv 2605.11181).
    RandomSpectrum, "random_spectrum", RandomSpectrumConfig => ConfiguredOptimizer::matrix;
    /// Unit normalisation (arXiv 2605.18106).
    RowNorm, "row_norm", RowNormConfig => ConfiguredOptimizer::matrix;
    /// One-sided spectral rule (arXiv 2605.18106).
    Spectral, "spectral", SpectralConfig => ConfiguredOptimizer::matrix;
    /// Unit normalisation and polar factor (arXiv 2605.18106).
    Hybrid, "hybrid", HybridConfig => ConfiguredOptimizer::matrix;
    /// Stochastic spectral descent (Carlson et al. 2015).
    Ssd, "ssd", SsdConfig => ConfiguredOptimizer::matrix;
    /// PolarGrad (arXiv 2505.21799): polar factor times nuclear norm.
    PolarGrad, "polar_grad", PolarGradConfig => ConfiguredOptimizer::matrix;
    /// Scion (arXiv 2502.07529): linear minimisation over norm balls.
    Scion, "scion", ScionConfig => ConfiguredOptimizer::matrix;
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
    let message = match *range.end() < f64::MAX {
        true => format!("must be from {} to {}, got {value}", range.start(), range.end()),
        false => format!("must be a finite number and at least {}, got {value}", range.start()),
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
            r#"{"kind": "muon_eq", "clip": 0.5}"#,
            r#"{"kind": "freon", "c": 1.5}"#,
            r#"{"kind": "freon", "c": [3, 2]}"#,
            r#"{"kind": "freon", "c": 0.123456789, "method": "rational"}"#,
            r#"{"kind": "kaon", "steps": 0}"#,
            r#"{"kind": "random_spectrum", "low": 2.0}"#,
            r#"{"kind": "scion", "weight_decay": 0.1}"#,
            r#"{"kind": "scion", "radius": -1.0}"#,
            r#"{"kind": "normuon", "beta2": 1.0}"#,
            r#"{"kind": "regularized_muon", "eps": -0.1}"#,
        ] {
            let config: OptimizerConfig = serde_json::from_str(text).unwrap();
            assert!(config.validate().is_err(), "{text}");
        }
    }
}
