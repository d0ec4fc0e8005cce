//! What every rule shares: momentum, shape scale, weight decay, state and its record, the Burn `Optimizer`.

mod decay;
mod matrix_optimizer;
mod momentum;
mod scale;
mod second_moment;
mod state;
mod width;

pub use decay::Decay;
pub use matrix_optimizer::MatrixOptimizer;
pub use momentum::{Momentum, MomentumForm};
pub use scale::Scale;
pub(crate) use second_moment::SecondMoment;
pub use state::State;
pub use width::Gain;

use burn::tensor::{DType, Tensor};

/// Runs a step in f32 when the parameter is stored in half precision, and as it is otherwise.
///
/// Sums of squares and slow averages do not fit into half precision; the state stays f32, only the
/// parameter is rounded, once, at the end. A weight beyond the range of its type becomes the largest number of that type.
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
    let largest = if dtype == DType::F16 { 65504.0 } else { LARGEST_BF16 };
    (tensor.clamp(-largest, largest).cast(dtype), state)
}

/// f32 has larger ones, which would be rounded to infinity.
const LARGEST_BF16: f64 = 3.3895e38;
