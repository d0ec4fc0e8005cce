//! Projections.

use burn::nn::Linear;
use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use crate::fused;

/// The output of `layer` for `x`, `[tokens, d_in]`.
pub(crate) fn linear(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let projected = matmul(x, layer.weight.val());
    match &layer.bias {
        Some(bias) => projected + bias.val().unsqueeze(),
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
