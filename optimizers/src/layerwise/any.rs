//! Any Burn optimizer behind one type.

use std::any::Any;
use std::sync::Arc;

use burn::optim::{DynOptimizer, DynState, Optimizer, StateSink, StateSource};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{Device, Tensor};

use crate::rule::{Pipeline, in_working_precision};

/// A shared Burn optimizer of any type: ours, Burn's own, or yours.
#[derive(Clone)]
pub struct AnyOptimizer {
    inner: Inner,
    label: String,
}

/// A rule of this crate, whose parts are known, or another optimizer.
#[derive(Clone)]
pub(crate) enum Inner {
    Rule(Pipeline),
    Other(Arc<dyn DynOptimizer>),
}

impl AnyOptimizer {
    /// Wraps an optimizer; plans show the name of its type.
    ///
    /// Parameters in half precision are updated in f32 and rounded once, at the end, as by the optimizers of this crate.
    pub fn new<O: Optimizer>(optimizer: O) -> Self {
        let full = std::any::type_name::<O>();
        let short = |name: &str| name.rsplit("::").next().unwrap_or(name).to_string();
        let label = match full.split_once('<') {
            Some((outer, inner)) => format!("{}<{}", short(outer), short(inner)),
            None => short(full),
        };
        let inner = match (&optimizer as &dyn Any).downcast_ref::<Pipeline>() {
            Some(pipeline) => Inner::Rule(pipeline.clone()),
            None => Inner::Other(Arc::new(InWorkingPrecision(optimizer))),
        };
        Self { inner, label }
    }

    /// The name shown in plans.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The name shown in plans.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    fn erased(&self) -> &dyn DynOptimizer {
        match &self.inner {
            Inner::Rule(pipeline) => pipeline,
            Inner::Other(optimizer) => optimizer.as_ref(),
        }
    }
}

impl std::fmt::Debug for AnyOptimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnyOptimizer({})", self.label)
    }
}

impl DynOptimizer for AnyOptimizer {
    fn step_dyn(
        &self,
        rank: usize,
        lr: f64,
        tensor: BridgeTensor,
        grad: BridgeTensor,
        state: Option<DynState>,
    ) -> (BridgeTensor, Option<DynState>) {
        self.erased().step_dyn(rank, lr, tensor, grad, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.erased().to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.erased().state_flatten(prefix, state, out)
    }

    fn state_unflatten(&self, rank: usize, prefix: &str, src: &mut StateSource, device: &Device) -> Option<DynState> {
        self.erased().state_unflatten(rank, prefix, src, device)
    }
}

/// An optimizer that never computes in half precision.
#[derive(Clone)]
struct InWorkingPrecision<O>(O);

impl<O: Optimizer> Optimizer for InWorkingPrecision<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<O::State<D>>,
    ) -> (Tensor<D>, Option<O::State<D>>) {
        let mut new = None;
        let tensor = in_working_precision(tensor, grad, |tensor, grad| {
            let (tensor, state) = self.0.step(lr, tensor, grad, state);
            new = state;
            tensor
        });
        (tensor, new)
    }

    fn to_device<const D: usize>(state: O::State<D>, device: &Device) -> O::State<D> {
        O::to_device(state, device)
    }
}
