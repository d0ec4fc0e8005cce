//! Projections.

use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::fused;

/// What `layer` makes of `x`, `[tokens, d_in]`.
pub(crate) fn linear(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    add_bias(matmul(x, layer.weight.val()), layer)
}

/// The bias of `layer` added to every token, if it has one.
pub(crate) fn add_bias(projected: Tensor<2>, layer: &Linear) -> Tensor<2> {
    match &layer.bias {
        Some(bias) => projected + bias.val().unsqueeze(),
        None => projected,
    }
}

/// `x`, `[tokens, d_in]`, times `weight`, `[d_in, d_out]`.
pub(crate) fn matmul(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    fused::matmul(x, weight, false).unwrap_or_else(|(x, weight)| x.matmul(weight))
}

/// `x`, `[tokens, d_in]`, times the transpose of `weight`, `[d_out, d_in]`.
pub(crate) fn matmul_transposed(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    fused::matmul(x, weight, true).unwrap_or_else(|(x, weight)| x.matmul(weight.transpose()))
}
