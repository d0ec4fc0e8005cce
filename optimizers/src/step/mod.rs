//! What every rule shares: momentum, shape scale, weight decay, state and its record, the Burn `Optimizer`.

mod decay;
mod matrix_optimizer;
mod momentum;
mod scale;
mod state;

pub use decay::Decay;
pub use matrix_optimizer::MatrixOptimizer;
pub use momentum::{Momentum, MomentumForm};
pub use scale::Scale;
pub use state::State;

use burn::tensor::{DType, Tensor};

/// Runs a step in f32 when the parameter is stored in half precision, and as it is otherwise.
///
/// Sums of squares and slow averages do not fit into half precision; the state stays f32, only the
/// parameter is rounded, once, at the end.
pub(crate) fn in_working_precision<const D: usize, S>(
    tensor: Tensor<D>,
    grad: Tensor<D>,
    step: impl FnOnce(Tensor<D>, Tensor<D>) -> (Tensor<D>, S),
) -> (Tensor<D>, S) {
    let dtype = tensor.dtype();
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return step(tensor, grad);
    }
    let (tensor, state) = step(tensor.cast(DType::F32), grad.cast(DType::F32));
    (tensor.cast(dtype), state)
}
