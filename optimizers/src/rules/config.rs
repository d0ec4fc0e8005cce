//! The methods of a configuration of any kind.

use serde_json::{Map, Value};

use super::OptimizerConfig;
use crate::matrix::Placement;
use crate::rule::{About, Description, ExactTarget, Gain, Pipeline, Scale, StackRow, SymmetryRow};
use crate::setting::{ConfigError, Given, take_tag};

impl TryFrom<Given> for OptimizerConfig {
    type Error = ConfigError;

    fn try_from(Given(mut map): Given) -> Result<Self, ConfigError> {
        let kind = take_tag(&mut map, "kind", "optimizer kind", Self::KINDS)?;
        Self::read(&kind, map)
    }
}

impl OptimizerConfig {
    /// The defaults of a kind.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn of_kind(kind: &str) -> Result<Self, ConfigError> {
        Self::with_keys(kind, &Map::new())
    }

    /// A kind with these keys, and the others as by default.
    pub(crate) fn with_keys(kind: &str, keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut map = keys.clone();
        map.insert("kind".into(), kind.into());
        Self::try_from(Given(map))
    }

    /// Every key of a kind, each with values under which the rule behaves differently from the default: all names of a key
    /// that takes names, or the ends of a range of numbers. `None` for a kind that does not exist.
    ///
    /// For tests that try all settings: a new key is in this list automatically.
    pub fn choices(kind: &str) -> Option<Vec<(&'static str, Vec<Value>)>> {
        Self::of_kind(kind).ok().map(|config| config.settings().choices())
    }

    /// How a kind with an exact target chooses the way to compute it; none for a kind without such a choice, or that does not
    /// exist.
    pub fn exact_target(kind: &str) -> Option<ExactTarget> {
        let config = Self::of_kind(kind).ok()?;
        let (key, exact) = config.settings().exact_method()?;
        let default = config.to_map().remove(key)?;
        Some(ExactTarget { key, exact, default })
    }

    /// The Burn optimizer for parameters with this placement.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn build(&self, placement: Placement) -> Result<Pipeline, ConfigError> {
        self.validate()?;
        Ok(self.settings().pipeline().with_placement(placement))
    }

    /// The step with these settings, without a check of their values.
    pub(crate) fn pipeline(&self) -> Pipeline {
        self.settings().pipeline()
    }

    /// Formula, source, state and cost under these settings.
    pub fn describe(&self) -> Description {
        let (pipeline, About { mut formula, source, mut cost, .. }) = (self.pipeline(), self.settings().about());
        if pipeline.scale() != Scale::None {
            formula += &format!(", times {}", pipeline.scale().formula());
        }
        for option in pipeline.options() {
            formula += &format!(", {}", option.formula);
            cost = cost.plus(option.cost);
        }
        Description { kind: self.kind(), formula, source, memories: pipeline.memories(), cost }
    }

    /// One line for plans: the kind, and what distinguishes this configuration.
    pub fn label(&self) -> String {
        let (kind, detail) = (self.kind(), self.settings().about().detail);
        let own = Some(detail).filter(|detail| !detail.is_empty());
        let details: Vec<String> =
            own.into_iter().chain(self.pipeline().options().into_iter().map(|o| o.label)).collect();
        if details.is_empty() { kind.to_string() } else { format!("{kind} ({})", details.join(", ")) }
    }

    /// Whether it works on matrices only: so do entrywise kinds with a norm control.
    pub fn is_matrix_rule(&self) -> bool {
        self.pipeline().is_matrix_rule()
    }

    /// The decoupled weight decay.
    pub fn weight_decay(&self) -> f64 {
        self.pipeline().decay().rate
    }

    /// The stack named after the kind.
    pub fn stack(&self) -> StackRow {
        self.settings().about().stack
    }

    /// The rows of the symmetry audit for this kind.
    pub(super) fn symmetries(&self) -> Vec<(SymmetryRow, Self)> {
        let with_config = |row: SymmetryRow| {
            let options = if row.options.is_empty() { "{}" } else { row.options };
            let options: Map<String, Value> = serde_json::from_str(options).expect("the options of a row are JSON");
            let config = self.merge(&options).expect("the options of a row are keys of its kind");
            (row, config)
        };
        self.settings().about().symmetries.into_iter().map(with_config).collect()
    }

    /// The level of a kind with an energy.
    #[cfg(feature = "exact")]
    pub(crate) fn smoothing(&self) -> Option<crate::rule::Smoothing> {
        self.settings().smoothing()
    }

    /// How the effect of an update grows with the sides of a matrix, or why that is not known.
    pub(crate) fn gain(&self, shape: [usize; 2]) -> Result<Gain, &'static str> {
        self.pipeline().scale().widen(self.settings().about().gain?, shape)
    }

    /// Refuses values out of range.
    ///
    /// # Errors
    /// The first such value, and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let settings = self.settings();
        settings.check_keys(self.kind())?;
        settings.check()?;
        self.pipeline().check_options(self.kind())
    }

    /// The same settings without weight decay.
    pub(crate) fn without_decay(&self) -> Self {
        let none = Map::from_iter([("weight_decay".to_string(), Value::from(0.0))]);
        self.merge(&none).unwrap_or_else(|_| self.clone())
    }

    /// The keys of its kind.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.settings().names().into_iter().map(String::from).collect()
    }

    fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("a configuration serialises to an object"),
        }
    }

    /// This configuration with the keys of `overrides` replaced.
    ///
    /// # Errors
    /// If a key does not exist in this kind, or a value is of the wrong type or out of range.
    pub fn merge(&self, overrides: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut map = self.to_map();
        map.extend(overrides.clone());
        let merged = Self::try_from(Given(map))?;
        merged.validate()?;
        Ok(merged)
    }
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
