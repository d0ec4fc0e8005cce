//! Functions with hand-written gradients as nodes of Burn's autodiff graph.

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

    /// Instead of a gradient that nobody reads.
    pub(super) fn empty() -> Self {
        Self::new(Vec::new(), &[0])
    }

    pub(super) fn values(&self) -> &[f32] {
        self.0.storage()
    }

    /// For writing: in place if nothing else shares the memory, else in a copy.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        self.0.storage_mut()
    }

    /// Multiplies every value, in place if nothing else shares the memory.
    pub(super) fn multiply(&mut self, factor: f32) {
        if factor != 1.0 {
            self.values_mut().iter_mut().for_each(|value| *value *= factor);
        }
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        self.0.layout().shape().to_vec()
    }
}

/// A function of N tensors, and the gradient of each input.
pub(super) trait Kernel<const N: usize>: Debug + Send + Sync + 'static {
    /// The value, and the tensors that the backward pass needs.
    fn forward(&self, inputs: [Buffer; N]) -> (Buffer, Vec<Buffer>);

    /// Gradients of the inputs, from the tensors that `forward` kept and the gradient of the value. Those that are not
    /// `wanted` are not read, and may be empty.
    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, wanted: [bool; N]) -> [Buffer; N];
}

/// How a kernel can read a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Access {
    /// It is not part of a graph.
    Plain,
    /// It is part of an autodiff graph that keeps its activations.
    Tracked,
}

impl Access {
    /// `None` if a kernel cannot read it: it is on another backend, does not hold 32-bit floats, or its graph recomputes
    /// activations (gradient checkpointing), which a kernel cannot do.
    pub(super) fn to(tensor: &DispatchTensor) -> Option<Self> {
        let (dtype, access) = match &tensor.kind {
            DispatchTensorKind::Flex(BackendTensor::Float(inner)) => (inner.dtype(), Self::Plain),
            DispatchTensorKind::Autodiff(kind) if tensor.autodiff == TRACKED => match &**kind {
                DispatchTensorKind::Flex(BackendTensor::Autodiff(inner)) => (inner.dtype(), Self::Tracked),
                _ => return None,
            },
            _ => return None,
        };
        (dtype == DType::F32).then_some(access)
    }
}

/// Applies `kernel` to inputs that all have the same [`Access`]. They are moved, so that a kernel may overwrite memory that
/// nothing else shares.
pub(super) fn apply<K: Kernel<N>, const N: usize>(kernel: K, inputs: [DispatchTensor; N]) -> DispatchTensor {
    match Access::to(&inputs[0]) {
        Some(Access::Plain) => {
            let (value, _) = kernel.forward(inputs.map(|input| Buffer::contiguous(plain(input))));
            let kind = DispatchTensorKind::Flex(BackendTensor::Float(value.0));
            DispatchTensor { kind, autodiff: DispatchAutodiffContext::Disabled }
        }
        Some(Access::Tracked) => {
            let kind = DispatchTensorKind::Flex(BackendTensor::Autodiff(apply_tracked(kernel, inputs.map(tracked))));
            DispatchTensor { kind: DispatchTensorKind::Autodiff(Box::new(kind)), autodiff: TRACKED }
        }
        None => unasked(),
    }
}

type Tracked = FloatTensor<Autodiff<Flex>>;

const TRACKED: DispatchAutodiffContext = DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Disabled);

fn plain(tensor: DispatchTensor) -> FlexTensor {
    match tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(inner)) => inner,
        _ => unasked(),
    }
}

fn tracked(tensor: DispatchTensor) -> Tracked {
    let DispatchTensorKind::Autodiff(kind) = tensor.kind else { unasked() };
    match *kind {
        DispatchTensorKind::Flex(BackendTensor::Autodiff(inner)) => inner,
        _ => unasked(),
    }
}

fn unasked() -> ! {
    unreachable!("layers ask whether a kernel applies to their inputs before they call it")
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

/// The backward step of a kernel; its state is the kernel and the tensors that `forward` kept.
#[derive(Debug)]
struct Step<K> {
    kernel: PhantomData<K>,
}

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
    type State = (Arc<K>, Vec<Buffer>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = Buffer::contiguous(grads.consume::<Flex>(&ops.node));
        let (kernel, kept) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.iter().zip(kernel.backward(kept, gradient, wanted)) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, gradient.0);
            }
        }
    }
}
