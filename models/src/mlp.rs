//! A multi-layer perceptron for images, tables and regression.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::{gelu, relu, silu, tanh};
use burn::tensor::{Device, Int, Tensor};
use polaron::{Role, RoleHint, Roles};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::decoder::cross_entropy;
use crate::init::Initializer;
use crate::linear::linear;

/// The nonlinearity after every hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `max(0, x)`.
    Relu,
    /// `x Φ(x)` with the exact normal distribution function.
    Gelu,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// Names, as they stand in a configuration.
    pub const NAMES: &'static [&'static str] = &["relu", "gelu", "silu", "tanh"];

    fn forward(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Relu => relu(x),
            Self::Gelu => gelu(x),
            Self::Silu => silu(x),
            Self::Tanh => tanh(x),
        }
    }

    /// Factor of `1 / sqrt(d_in)` that keeps the size of activations from layer to layer (arXiv 1502.01852, section 2.2).
    fn gain(self) -> f64 {
        match self {
            Self::Relu | Self::Gelu | Self::Silu => std::f64::consts::SQRT_2,
            Self::Tanh => 1.0,
        }
    }
}

/// Sizes of an [`Mlp`]: everything about it but the number of inputs and outputs, which the data bring. In Rust, start from
/// its default and set fields.
///
/// ```
/// let config: polaron_models::MlpConfig = toml::from_str("preset = \"mlp\"\nwidth = 64")?;
/// assert_eq!((config.depth, config.width), (2, 64));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Overrides")]
#[non_exhaustive]
pub struct MlpConfig {
    /// Always [`MlpConfig::PRESET`].
    pub preset: String,
    /// Number of hidden layers.
    pub depth: usize,
    /// Units of each hidden layer.
    pub width: usize,
    /// What follows each hidden layer.
    pub activation: Activation,
}

/// What a file may say; what it leaves out has its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overrides {
    preset: String,
    depth: Option<usize>,
    width: Option<usize>,
    activation: Option<Activation>,
}

impl TryFrom<Overrides> for MlpConfig {
    type Error = ModelError;

    fn try_from(overrides: Overrides) -> Result<Self, ModelError> {
        let Overrides { preset, depth, width, activation } = overrides;
        if preset != Self::PRESET {
            return Err(ModelError::UnknownPreset { name: preset, hint: format!("; this one is `{}`", Self::PRESET) });
        }
        let default = Self::default();
        Ok(Self {
            preset,
            depth: depth.unwrap_or(default.depth),
            width: width.unwrap_or(default.width),
            activation: activation.unwrap_or(default.activation),
        })
    }
}

/// Two hidden layers of 256 units with ReLU.
impl Default for MlpConfig {
    fn default() -> Self {
        Self { preset: Self::PRESET.into(), depth: 2, width: 256, activation: Activation::Relu }
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
        let zero = [("depth", self.depth), ("width", self.width)].into_iter().find(|(_, size)| *size == 0);
        zero.map_or(Ok(()), |(key, _)| Err(ModelError::Zero { key }))
    }

    /// A model of `inputs` features and `outputs` classes or predicted numbers, its first weights fixed by `seed`.
    ///
    /// Hidden weights are normal with standard deviation `sqrt(2 / d_in)`, or `1 / sqrt(d_in)` before tanh; the head's are
    /// normal with `1 / sqrt(width)`; biases are zero. The numbers follow the rule on the crate's front page.
    ///
    /// # Errors
    ///
    /// [`ModelError::Zero`] for a size of 0.
    pub fn init(&self, inputs: usize, outputs: usize, seed: u64, device: &Device) -> Result<Mlp, ModelError> {
        self.validate()?;
        if let Some((key, _)) = [("inputs", inputs), ("outputs", outputs)].into_iter().find(|(_, size)| *size == 0) {
            return Err(ModelError::Zero { key });
        }
        let init = Initializer::new(seed, device);
        let layer = |index: usize| {
            let d_in = if index == 0 { inputs } else { self.width };
            let std = self.activation.gain() / (d_in as f64).sqrt();
            init.enter("layers").biased(&index.to_string(), d_in, self.width, std, true)
        };
        let layers = (0..self.depth).map(layer).collect();
        let head = init.biased("head", self.width, outputs, 1.0 / (self.width as f64).sqrt(), true);
        Ok(Mlp { layers, head, activation: self.activation })
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

/// A multi-layer perceptron: hidden layers with a nonlinearity, then a linear head.
///
/// Made by [`MlpConfig::init`].
#[derive(Module, Debug)]
pub struct Mlp {
    /// Hidden layers, `[d_in, width]` with biases `[width]`.
    pub layers: Vec<Linear>,
    /// Head, `[width, outputs]` with biases `[outputs]`.
    pub head: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// Logits or predictions, `[examples, outputs]`, for `x`, `[examples, inputs]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.layers.iter().fold(x, |x, layer| self.activation.forward(linear(layer, x)));
        linear(&self.head, hidden)
    }

    /// Mean cross-entropy in nats per example, `[1]`, of `labels`, `[examples]`, each below the number of outputs.
    #[must_use]
    pub fn cross_entropy(&self, x: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
        cross_entropy(self.forward(x), labels)
    }

    /// Mean over examples and outputs of the squared difference from `targets`, `[examples, outputs]`: for regression.
    #[must_use]
    pub fn squared_error(&self, x: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        (self.forward(x) - targets).square().mean()
    }
}

impl Roles for Mlp {
    fn roles(&self) -> Vec<RoleHint> {
        vec![
            RoleHint::new("layers.*.weight", Role::Hidden),
            RoleHint::new("layers.*.bias", Role::Bias),
            RoleHint::new("head.weight", Role::Head),
            RoleHint::new("head.bias", Role::Bias),
        ]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::parameter_table;

    const REFERENCE: [(Activation, [f64; 6], f64, f64); 4] = [
        (
            Activation::Relu,
            [
                -0.04673633483280455,
                -0.08860167512890406,
                0.05114252044650829,
                -0.24849472766906663,
                -0.34084195657064786,
                0.007957630214555783,
            ],
            1.0927862766769252,
            0.03177271535728934,
        ),
        (
            Activation::Gelu,
            [
                -0.0830511473122393,
                0.1683601284667428,
                0.07091692978444394,
                -0.1977401485058408,
                -0.10463870938900764,
                -0.11436078408145058,
            ],
            1.1216871151523815,
            0.017233441937783752,
        ),
        (
            Activation::Silu,
            [
                -0.0744912855258821,
                0.20900896462499594,
                0.09523110803027353,
                -0.06981184990108606,
                -0.09401045976706957,
                -0.17367007932946876,
            ],
            1.0717890603973703,
            0.017029270039352746,
        ),
        (
            Activation::Tanh,
            [
                0.0699311723663308,
                0.44569929014324683,
                0.28355464930071855,
                0.5410936686718839,
                -0.48194265831709254,
                -0.3710231738189501,
            ],
            0.8295697135075829,
            0.15777512415600137,
        ),
    ];

    fn inputs(device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::from([[0.5f32, -1.0, 2.0], [1.5, 0.25, -0.75]]), device)
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    // Logits, cross-entropy of the labels 2 and 0, and squared error against zero of a net of 3 inputs, 2 hidden layers of
    // 4 and 3 outputs with seed 5: `tests/reference/mlp.py`, float64.
    #[test]
    fn the_forward_pass_is_that_of_the_float64_reference() {
        let device = Device::flex();
        for (activation, logits, loss, squared) in REFERENCE {
            let config = MlpConfig { depth: 2, width: 4, activation, ..MlpConfig::default() };
            let model = config.init(3, 3, 5, &device).unwrap();
            let close = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-6;
            for (found, expected) in numbers(model.forward(inputs(&device))).into_iter().zip(logits) {
                assert!(close(found, expected), "{activation:?}: {found} {expected}");
            }
            let labels = Tensor::from_data(TensorData::from([2i32, 0]), &device);
            let found = model.cross_entropy(inputs(&device), labels).into_scalar::<f32>();
            assert!(close(found, loss), "{activation:?}: {found} {loss}");
            let found = model.squared_error(inputs(&device), Tensor::zeros([2, 3], &device)).into_scalar::<f32>();
            assert!(close(found, squared), "{activation:?}: {found} {squared}");
        }
    }

    #[test]
    fn counts_are_those_of_the_model() {
        let config = MlpConfig { depth: 3, width: 5, ..MlpConfig::default() };
        let model = config.init(7, 2, 1, &Device::flex()).unwrap();
        let count: usize = parameter_table(&model).iter().map(|info| info.count).sum();
        assert_eq!(config.parameters(7, 2), count);
        assert_eq!(config.hidden_parameters(7), 7 * 5 + 2 * 25);
        assert_eq!(MlpConfig::default().parameters(784, 10), 269_322);
    }

    #[test]
    fn a_size_of_zero_and_an_unknown_key_are_refused_by_name() {
        let device = Device::flex();
        let depth = MlpConfig { depth: 0, ..MlpConfig::default() };
        assert_eq!(depth.init(3, 3, 1, &device).unwrap_err(), ModelError::Zero { key: "depth" });
        assert_eq!(MlpConfig::default().init(0, 3, 1, &device).unwrap_err(), ModelError::Zero { key: "inputs" });
        let error = toml::from_str::<MlpConfig>("preset = \"mlp\"\nwidht = 3").unwrap_err().to_string();
        assert!(error.contains("widht"), "{error}");
    }

    #[test]
    fn every_activation_is_named() {
        for name in Activation::NAMES {
            toml::from_str::<MlpConfig>(&format!("preset = \"mlp\"\nactivation = \"{name}\"")).unwrap();
        }
    }

    #[test]
    fn every_parameter_has_one_role() {
        let model = MlpConfig::default().init(4, 2, 1, &Device::flex()).unwrap();
        let optimizer = polaron::Layerwise::muon().hints(model.roles()).build(&model).unwrap();
        let roles: Vec<Option<Role>> = optimizer.plan().entries().iter().map(|entry| entry.role).collect();
        use Role::{Bias, Head, Hidden};
        assert_eq!(roles, [Hidden, Bias, Hidden, Bias, Head, Bias].map(Some));
    }
}
