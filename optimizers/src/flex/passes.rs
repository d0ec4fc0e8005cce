//! One pass over tensors in host memory, for Burn's CPU backend, in place of several of Burn's operations.

use burn::backend::flex::FlexTensor;
use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

/// Entries of every tensor in one piece of work. It does not change results, as entries are independent.
const PIECE: usize = 16384;

/// Changes tensors of one shape in place, entry by entry: `pass` receives the same entries of all of them, in pieces.
/// Returns the tensors unchanged unless all are plain 32-bit floats of this backend.
pub(crate) fn in_place<const N: usize>(
    tensors: [Tensor<3>; N],
    pass: impl Fn([&mut [f32]; N]) + Sync,
) -> Result<[Tensor<3>; N], [Tensor<3>; N]> {
    let same_shape = tensors.windows(2).all(|pair| pair[0].dims() == pair[1].dims());
    let tensors = tensors.map(Tensor::into_dispatch);
    if !same_shape || !tensors.iter().all(is_plain) {
        return Err(tensors.map(Tensor::from_dispatch));
    }
    let mut tensors = tensors.map(|tensor| match tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(inner)) => (whole::<f32>(inner), tensor.autodiff),
        _ => unreachable!("checked above"),
    });
    let arch = pulp::Arch::new();
    // Compiled for the widest vectors of this processor.
    let one = |piece| {
        arch.dispatch(
            #[inline(always)]
            || pass(piece),
        )
    };
    let pieces = pieces(tensors.each_mut().map(|(tensor, _)| tensor.storage_mut::<f32>()));
    match pieces.len() {
        1 => pieces.into_iter().for_each(one),
        _ => pieces.into_par_iter().for_each(one),
    }
    Ok(tensors.map(|(tensor, autodiff)| {
        let kind = DispatchTensorKind::Flex(BackendTensor::Float(tensor));
        Tensor::from_dispatch(DispatchTensor { kind, autodiff })
    }))
}

/// Whether a tensor is in host memory. There, stepping several parameters as one stack gains nothing
/// (docs/PERFORMANCE.md).
pub(crate) fn is_here(tensor: &Tensor<3>) -> bool {
    matches!(tensor.clone().into_dispatch().kind, DispatchTensorKind::Flex(_))
}

fn is_plain(tensor: &DispatchTensor) -> bool {
    matches!(&tensor.kind, DispatchTensorKind::Flex(BackendTensor::Float(inner)) if inner.dtype() == DType::F32)
}

fn pieces<const N: usize>(entries: [&mut [f32]; N]) -> Vec<[&mut [f32]; N]> {
    let count = entries.first().map_or(0, |entries| entries.len().div_ceil(PIECE));
    let mut chunks = entries.map(|entries| entries.chunks_mut(PIECE));
    (0..count).map(|_| chunks.each_mut().map(|chunks| chunks.next().unwrap_or_default())).collect()
}

/// The tensor in memory that holds its values in order and nothing else.
pub(super) fn whole<T>(tensor: FlexTensor) -> FlexTensor {
    let entries = tensor.bytes().len() / size_of::<T>();
    if tensor.layout().contiguous_offsets() == Some((0, entries)) { tensor } else { tensor.to_contiguous() }
}
