//! The keys of a multi-layer perceptron, and its counts.

use serde::de::{Deserialize, Deserializer, Error};

use super::choices::Activation;
use super::keys::{at_least_one, keys};
use crate::error::ModelError;

keys! {
    /// Sizes of an [`Mlp`](crate::Mlp): everything except the number of inputs and outputs, which depends on the data. In Rust,
    /// start from its default and set fields.
    ///
    /// ```
    /// let config: polaron_models::MlpConfig = toml::from_str("preset = \"mlp\"\nwidth = 64")?;
    /// assert_eq!((config.depth, config.width), (2, 64));
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    #[derive(Eq)]
    pub struct MlpConfig {
        /// Always [`MlpConfig::PRESET`].
        preset = MlpConfig::PRESET;
        /// Number of hidden layers.
        depth: usize = 2, in at_least_one;
        /// Units of each hidden layer.
        width: usize = 256, in at_least_one;
        /// The nonlinearity after each hidden layer.
        activation: Activation = Activation::Relu;
    }
}

/// Two hidden layers of 256 units with ReLU.
impl Default for MlpConfig {
    fn default() -> Self {
        Self::defaults()
    }
}

/// A file: the preset, and the keys that differ from it.
impl<'de> Deserialize<'de> for MlpConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let overrides = Overrides::deserialize(deserializer)?;
        if overrides.preset != Self::PRESET {
            let hint = format!("; this one is `{}`", Self::PRESET);
            return Err(D::Error::custom(ModelError::UnknownPreset { name: overrides.preset, hint }));
        }
        Ok(overrides.apply(&Self::default()))
    }
}

impl MlpConfig {
    /// The name by which programs choose this model among the others.
    pub const PRESET: &'static str = "mlp";

    /// One line about it.
    pub const DESCRIPTION: &'static str = "multi-layer perceptron for images: 2 hidden layers of 256 units with biases and ReLU (depth, width, activation)";

    /// Checks that a model of these sizes can exist.
    ///
    /// # Errors
    ///
    /// [`ModelError::Zero`].
    pub fn validate(&self) -> Result<(), ModelError> {
        self.check_ranges()
    }

    /// Number of parameters in the matrices of the hidden layers.
    #[must_use]
    pub fn hidden_parameters(&self, inputs: usize) -> usize {
        let deeper = self.depth.saturating_sub(1).saturating_mul(self.width);
        inputs.saturating_add(deeper).saturating_mul(self.width)
    }

    /// Number of all parameters.
    #[must_use]
    pub fn parameters(&self, inputs: usize, outputs: usize) -> usize {
        let head = self.width.saturating_add(1).saturating_mul(outputs);
        self.hidden_parameters(inputs).saturating_add(self.depth.saturating_mul(self.width)).saturating_add(head)
    }

    /// Floating-point operations of one training step (forward and backward) on `batch` examples: six per weight and
    /// example.
    #[must_use]
    pub fn flops_per_step(&self, inputs: usize, outputs: usize, batch: usize) -> f64 {
        let weights = self.hidden_parameters(inputs) as f64 + self.width as f64 * outputs as f64;
        6.0 * batch as f64 * weights
    }
}
