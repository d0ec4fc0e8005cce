//! The same functions without the backend: they return their tensors.

use burn::tensor::Tensor;

use super::Iteration;
use crate::power::InversePower;

/// Returns the tensors.
pub(crate) fn in_place<const N: usize>(
    tensors: [Tensor<3>; N],
    _pass: impl Fn([&mut [f32]; N]) + Sync,
) -> Result<[Tensor<3>; N], [Tensor<3>; N]> {
    Err(tensors)
}

/// No tensor belongs to the backend.
pub(crate) fn is_here(_tensor: &Tensor<3>) -> bool {
    false
}

/// Returns the stack.
#[allow(clippy::result_large_err, reason = "an `Err` returns the stack, it is not a failure")]
pub(crate) fn iterate(stack: Tensor<3>, _iteration: &Iteration<'_>) -> Result<Tensor<3>, Tensor<3>> {
    Err(stack)
}

/// Returns the stack.
#[allow(clippy::result_large_err, reason = "an `Err` returns the stack, it is not a failure")]
pub(crate) fn inverse_power(stack: Tensor<3>, _power: &InversePower) -> Result<Tensor<3>, Tensor<3>> {
    Err(stack)
}
