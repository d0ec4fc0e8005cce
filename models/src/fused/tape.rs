//! How a function with a hand-written gradient enters Burn's autodiff graph.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
    GradientCheckpointingStrategy, TensorMetadata,
};
use burn::tensor::{DType, TensorData};

/// A tensor of 32-bit floats in host memory, contiguous; clones share the memory.
#[derive(Clone, Debug)]
pub(super) struct Buffer(FlexTensor);

impl Buffer {
    pub(super) fn new(values: Vec<f32>, shape: &[usize]) -> Self {
        Self(FlexTensor::from_data(TensorData::new(values, shape.to_vec())))
    }

    fn contiguous(tensor: FlexTensor) -> Self {
        let exact = tensor.layout().contiguous_offsets() == Some((0, tensor.bytes().len() / size_of::<f32>()));
        Self(if exact { tensor } else { tensor.to_contiguous() })
    }

    pub(super) fn values(&self) -> &[f32] {
        self.0.storage()
    }

    /// For writing: in place when nothing else holds the memory, else in a copy.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        self.0.storage_mut()
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        self.0.layout().shape().to_vec()
    }
}

/// A function of N tensors, and the gradient of each input.
pub(super) trait Kernel<const N: usize>: Debug + Send + Sync + 'static {
    /// The value, and what the backward pass needs.
    fn forward(&self, inputs: [Buffer; N]) -> (Buffer, Vec<Buffer>);

    /// Gradients of the inputs from what `forward` kept and the gradient of its value.
    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer) -> [Buffer; N];
}

/// Applies `kernel`, or gives the inputs back when they are not all 32-bit floats on this backend, or when activations
/// are to be recomputed (gradient checkpointing), which a kernel cannot do.
pub(super) fn apply<K: Kernel<N>, const N: usize>(
    kernel: K,
    inputs: [DispatchTensor; N],
) -> Result<DispatchTensor, [DispatchTensor; N]> {
    if let Some(buffers) = all(&inputs, plain) {
        drop(inputs); // so that a kernel may write into memory that nothing else holds
        let (value, _) = kernel.forward(buffers.map(Buffer::contiguous));
        return Ok(untracked(value.0));
    }
    if let Some(tensors) = all(&inputs, tracked) {
        drop(inputs);
        let value = apply_tracked(kernel, tensors);
        let kind = DispatchTensorKind::Flex(BackendTensor::Autodiff(value));
        return Ok(DispatchTensor { kind: DispatchTensorKind::Autodiff(Box::new(kind)), autodiff: TRACKED });
    }
    Err(inputs)
}

type Tracked = FloatTensor<Autodiff<Flex>>;

const TRACKED: DispatchAutodiffContext = DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Disabled);

fn all<T: Clone, const N: usize>(
    inputs: &[DispatchTensor; N],
    part: fn(&DispatchTensor) -> Option<&T>,
) -> Option<[T; N]> {
    let parts: Option<Vec<T>> = inputs.iter().map(|input| part(input).cloned()).collect();
    parts?.try_into().ok()
}

fn untracked(tensor: FlexTensor) -> DispatchTensor {
    let kind = DispatchTensorKind::Flex(BackendTensor::Float(tensor));
    DispatchTensor { kind, autodiff: DispatchAutodiffContext::Disabled }
}

fn plain(tensor: &DispatchTensor) -> Option<&FlexTensor> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(inner)) if inner.dtype() == DType::F32 => Some(inner),
        _ => None,
    }
}

fn tracked(tensor: &DispatchTensor) -> Option<&Tracked> {
    match &tensor.kind {
        DispatchTensorKind::Autodiff(kind) if tensor.autodiff == TRACKED => match &**kind {
            DispatchTensorKind::Flex(BackendTensor::Autodiff(inner)) if inner.dtype() == DType::F32 => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

fn apply_tracked<K: Kernel<N>, const N: usize>(kernel: K, inputs: [Tracked; N]) -> Tracked {
    let guards = inputs.each_ref().map(Tracked::node);
    let (value, kept) = kernel.forward(inputs.map(|input| Buffer::contiguous(input.into_primitive())));
    let step = Step { kernel: PhantomData::<K> };
    match step.prepare::<NoCheckpointing>(guards).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish((Arc::new(kernel), kept), value.0),
        OpsKind::UnTracked(prepared) => prepared.finish(value.0),
    }
}

/// The backward step of a kernel; its state is the kernel and what `forward` kept.
#[derive(Debug)]
struct Step<K> {
    kernel: PhantomData<K>,
}

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
    type State = (Arc<K>, Vec<Buffer>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = Buffer::contiguous(grads.consume::<Flex>(&ops.node));
        let (kernel, kept) = ops.state;
        for (parent, gradient) in ops.parents.iter().zip(kernel.backward(kept, gradient)) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, gradient.0);
            }
        }
    }
}
