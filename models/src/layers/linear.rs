//! Projections.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::lora::{Adapted, Lora};
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::Initializer;

/// A projection, optionally with an adapter of low rank.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_in, d_out]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter; see [`with_lora`](crate::with_lora).
    pub lora: Option<Lora<2>>,
}

impl Initializer<'_> {
    /// A projection, `[d_in, d_out]`, without bias.
    pub(crate) fn linear(&self, name: &str, d_in: usize, d_out: usize, std: f64) -> Linear {
        Linear { weight: self.enter(name).normal([d_in, d_out], std), bias: None, lora: None }
    }

    /// A projection, `[d_in, d_out]`, with a bias of zeros if `bias`.
    pub(crate) fn biased(&self, name: &str, d_in: usize, d_out: usize, std: f64, bias: bool) -> Linear {
        Linear { bias: bias.then(|| self.constant(0.0, [d_out])), ..self.linear(name, d_in, d_out, std) }
    }
}

impl Adapted for Linear {
    fn size(&self) -> [usize; 2] {
        self.weight.dims()
    }

    fn adapt(&mut self, rank: usize, scale: f64, seed: u64, path: &str) {
        self.lora = Some(Lora::new(&self.weight, rank, scale, seed, path));
    }

    fn merge(&mut self) {
        if let Some(lora) = self.lora.take() {
            lora.add_to(&mut self.weight);
        }
    }

    #[cfg(feature = "exact")]
    fn refactor(&mut self) -> Option<burn::tensor::TensorData> {
        self.lora.as_mut().map(Lora::refactor)
    }
}

/// The output of `layer` for `x`, `[tokens, d_in]`.
pub(crate) fn linear(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    project(layer, x, |weight| weight, |bias| bias)
}

/// `width` of the outputs of `layer`, from `start`. The weight is sliced, not the projected activations: it is the smaller
/// tensor, and the backward pass of a slice writes the whole tensor that was sliced.
pub(crate) fn linear_part(layer: &Linear, x: Tensor<2>, start: usize, width: usize) -> Tensor<2> {
    project(layer, x, |weight| weight.narrow(1, start, width), |bias| bias.narrow(0, start, width))
}

/// The outputs that both functions choose, of matrices and of biases.
fn project(
    layer: &Linear,
    x: Tensor<2>,
    of_matrix: impl Fn(Tensor<2>) -> Tensor<2>,
    of_bias: impl Fn(Tensor<1>) -> Tensor<1>,
) -> Tensor<2> {
    let adapted = layer.lora.as_ref().map(|lora| {
        let inside = matmul(x.clone(), lora.a.val()) * lora.scale();
        matmul(inside, of_matrix(lora.b.val()))
    });
    let projected = matmul(x, of_matrix(layer.weight.val()));
    let projected = match &layer.bias {
        Some(bias) => projected + of_bias(bias.val()).unsqueeze(),
        None => projected,
    };
    match adapted {
        Some(adapted) => projected + adapted,
        None => projected,
    }
}

/// `x`, `[tokens, d_in]`, times `weight`, `[d_in, d_out]`.
pub(crate) fn matmul(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&x, &weight]) {
        return fused::matmul(x, weight, false);
    }
    x.matmul(weight)
}

/// `x`, `[tokens, d_in]`, times the transpose of `weight`, `[d_out, d_in]`.
pub(crate) fn matmul_transposed(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&x, &weight]) {
        return fused::matmul(x, weight, true);
    }
    x.matmul(weight.transpose())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// W = 1, a bias, a = (1, 2), b = (3, 4) and a scale of 2: all results are small whole numbers.
    fn example(device: &Device) -> Linear {
        let init = Initializer::new(1, device);
        let mut layer = init.biased("x", 2, 2, 1.0, true);
        layer.weight = Param::from_tensor(Tensor::eye(2, device)).set_require_grad(false);
        layer.bias = Some(Param::from_data([100.0, 200.0], device));
        layer.adapt(1, 2.0, 1, "x");
        if let Some(lora) = &mut layer.lora {
            lora.a = Param::from_data([[1.0], [2.0]], device);
            lora.b = Param::from_data([[3.0, 4.0]], device);
        }
        layer
    }

    #[test]
    fn an_adapter_adds_its_scaled_product_and_only_its_factors_have_gradients() {
        for device in [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
            let layer = example(&device);
            let x = Tensor::<2>::from_floats([[1.0, 2.0]], &device).require_grad();
            // x a = 5, so the adapter adds 2 · 5 · (3, 4).
            let y = linear(&layer, x.clone());
            assert_eq!(host(y.clone().inner()), [131.0, 242.0]);
            assert_eq!(host(linear_part(&layer, x.clone(), 1, 1).inner()), [242.0]);
            let gradients = y.sum().backward();
            let lora = layer.lora.as_ref().unwrap();
            // To a: 2 xᵀ (1, 1) bᵀ; to b: 2 (x a)ᵀ (1, 1); to x: (1, 1) Wᵀ + 2 (1, 1) bᵀ aᵀ.
            assert_eq!(host(lora.a.val().grad(&gradients).unwrap()), [14.0, 28.0]);
            assert_eq!(host(lora.b.val().grad(&gradients).unwrap()), [10.0, 10.0]);
            assert_eq!(host(x.grad(&gradients).unwrap()), [15.0, 29.0]);
            assert!(layer.weight.val().grad(&gradients).is_none());
        }
    }

    #[test]
    fn a_merged_adapter_is_part_of_the_weight_which_can_be_trained_again() {
        for (device, trained) in
            [(Device::flex(), false), (Device::flex().autodiff(), true), (Device::flex().autodiff(), false)]
        {
            let mut layer = example(&device);
            layer.weight = layer.weight.set_require_grad(trained);
            layer.merge();
            assert!(layer.lora.is_none());
            assert_eq!(layer.weight.is_require_grad(), trained);
            // W + 2 a b
            assert_eq!(host(layer.weight.val()), [7.0, 8.0, 12.0, 17.0]);
            let x = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
            assert_eq!(host(linear(&layer, x)), [131.0, 242.0]);
        }
    }
}
