//! Work on every matrix of a stack in host memory, for Burn's CPU backend.

use std::ops::{AddAssign, DivAssign, Mul};

use burn::backend::flex::FlexTensor;
use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn::tensor::{DType, Element, Tensor};
use faer::traits::ComplexField;
use rayon::prelude::*;

use super::passes::whole;

/// Multiply-adds from which a product, or a stack of matrices, is shared among threads.
pub(super) const PARALLEL: usize = 192 * 192 * 192;

/// A scalar that both Burn and faer compute with.
pub(crate) trait Real:
    Element + ComplexField + Copy + Into<f64> + AddAssign + DivAssign + Mul<Output = Self>
{
}

impl Real for f32 {}
impl Real for f64 {}

/// What is done to every matrix, in place.
pub(super) trait Work: Sync {
    /// What it needs besides the matrix; made once for many matrices of one shape.
    type Buffers<T: Real>;

    /// The buffers for matrices of this shape.
    fn buffers<T: Real>(&self, shape: [usize; 2]) -> Self::Buffers<T>;

    /// The work on one matrix, whose entries are in order.
    fn apply<T: Real>(&self, buffers: &mut Self::Buffers<T>, values: &mut [T]);
}

/// Works on a plain tensor of 32-bit or 64-bit floats of this backend; returns any other tensor unchanged.
#[allow(clippy::result_large_err, reason = "an `Err` returns the stack, it is not a failure")]
pub(super) fn each_matrix(stack: Tensor<3>, work: &impl Work) -> Result<Tensor<3>, Tensor<3>> {
    let [_, height, width] = stack.dims();
    let shape = [height, width];
    let DispatchTensor { kind, autodiff } = stack.into_dispatch();
    let plain = |tensor: FlexTensor| DispatchTensorKind::Flex(BackendTensor::Float(tensor));
    let (kind, done) = match kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) if height * width > 0 => match tensor.dtype() {
            DType::F32 => {
                let mut tensor = whole::<f32>(tensor);
                each_of::<f32>(tensor.storage_mut(), shape, work);
                (plain(tensor), true)
            }
            DType::F64 => {
                let mut tensor = whole::<f64>(tensor);
                each_of::<f64>(tensor.storage_mut(), shape, work);
                (plain(tensor), true)
            }
            _ => (plain(tensor), false),
        },
        other => (other, false),
    };
    let stack = Tensor::from_dispatch(DispatchTensor { kind, autodiff });
    if done { Ok(stack) } else { Err(stack) }
}

fn each_of<T: Real>(values: &mut [T], shape: [usize; 2], work: &impl Work) {
    let [height, width] = shape;
    let buffers = || work.buffers::<T>(shape);
    let size = height * width;
    if values.len() > size && values.len() * height.min(width) >= PARALLEL {
        values.par_chunks_mut(size).for_each_init(buffers, |buffers, values| work.apply(buffers, values));
    } else {
        let mut buffers = buffers();
        values.chunks_mut(size).for_each(|values| work.apply(&mut buffers, values));
    }
}
