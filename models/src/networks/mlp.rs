//! A multi-layer perceptron for images, tables and regression.

use burn::module::Module;
use burn::tensor::activation::{gelu, relu, silu, tanh};
use burn::tensor::{Device, Int, Tensor};
use polaron::{Role, RoleHint, Roles};

use crate::error::ModelError;
use crate::init::Initializer;
use crate::layers::linear::{Linear, linear};
use crate::layers::lora::Adapted;
use crate::layers::loss::cross_entropy;
use crate::networks::lora::{Projections, adapter_roles};
use crate::settings::choices::Activation;
use crate::settings::mlp::MlpConfig;

impl Activation {
    fn forward(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Relu => relu(x),
            Self::Gelu => gelu(x),
            Self::Silu => silu(x),
            Self::Tanh => tanh(x),
        }
    }

    /// Factor of `1 / sqrt(d_in)` that keeps the magnitude of activations from layer to layer (arXiv 1502.01852, section 2.2).
    fn gain(self) -> f64 {
        match self {
            Self::Relu | Self::Gelu | Self::Silu => std::f64::consts::SQRT_2,
            Self::Tanh => 1.0,
        }
    }
}

impl MlpConfig {
    /// A model of `inputs` features and `outputs` classes or predicted numbers, with initial weights fixed by `seed`.
    ///
    /// Hidden weights are normal with standard deviation `sqrt(2 / d_in)`, or `1 / sqrt(d_in)` before tanh; the head's are
    /// normal with `1 / sqrt(width)`; biases are zero. The numbers follow the rule on the crate's front page.
    ///
    /// # Errors
    ///
    /// [`ModelError::Zero`] for a size of 0.
    pub fn init(&self, inputs: usize, outputs: usize, seed: u64, device: &Device) -> Result<Mlp, ModelError> {
        self.build(inputs, outputs, &Initializer::new(seed, device))
    }

    /// A model whose parameters have their shapes, but no values; see [`ModelConfig::outline`](crate::ModelConfig::outline).
    ///
    /// # Errors
    ///
    /// Those of [`init`](Self::init).
    pub fn outline(&self, inputs: usize, outputs: usize, device: &Device) -> Result<Mlp, ModelError> {
        self.build(inputs, outputs, &Initializer::outline(device))
    }

    fn build(&self, inputs: usize, outputs: usize, init: &Initializer) -> Result<Mlp, ModelError> {
        self.validate()?;
        if let Some((key, _)) = [("inputs", inputs), ("outputs", outputs)].into_iter().find(|(_, size)| *size == 0) {
            return Err(ModelError::Zero { key });
        }
        let layer = |index: usize| {
            let d_in = if index == 0 { inputs } else { self.width };
            let std = self.activation.gain() / (d_in as f64).sqrt();
            init.enter("layers").biased(&index.to_string(), d_in, self.width, std, true)
        };
        let layers = (0..self.depth).map(layer).collect();
        let head = init.biased("head", self.width, outputs, 1.0 / (self.width as f64).sqrt(), true);
        Ok(Mlp { layers, head, activation: self.activation })
    }
}

/// A multi-layer perceptron: hidden layers with a nonlinearity, then a linear head.
///
/// Created by [`MlpConfig::init`].
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
        .into_iter()
        .chain(adapter_roles(self))
        .collect()
    }
}

impl Projections for Mlp {
    fn projections(&mut self) -> Vec<(String, &mut dyn Adapted)> {
        let layers = self.layers.iter_mut().enumerate();
        let layers = layers.map(|(index, layer)| (format!("layers.{index}"), layer as &mut dyn Adapted));
        layers.chain([("head".to_owned(), &mut self.head as &mut dyn Adapted)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::weights::parameter_table;

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
    fn every_parameter_has_one_role() {
        let model = MlpConfig::default().init(4, 2, 1, &Device::flex()).unwrap();
        let optimizer = polaron::Layerwise::muon().hints(model.roles()).build(&model).unwrap();
        let roles: Vec<Option<Role>> = optimizer.plan().entries().iter().map(|entry| entry.role).collect();
        use Role::{Bias, Head, Hidden};
        assert_eq!(roles, [Hidden, Bias, Hidden, Bias, Head, Bias].map(Some));
    }
}
