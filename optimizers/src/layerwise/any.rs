//! Any Burn optimizer behind one type.

use std::sync::Arc;

use burn::optim::{DynOptimizer, DynState, Optimizer, StateSink, StateSource};
use burn::tensor::Device;
use burn::tensor::kind::BridgeTensor;

/// A shared Burn optimizer of any type: ours, Burn's own, or yours.
#[derive(Clone)]
pub struct AnyOptimizer {
    inner: Arc<dyn DynOptimizer>,
    label: String,
}

impl AnyOptimizer {
    /// Wraps an optimizer; plans show the name of its type.
    pub fn new<O: Optimizer>(optimizer: O) -> Self {
        let full = std::any::type_name::<O>();
        let short = |name: &str| name.rsplit("::").next().unwrap_or(name).to_string();
        let label = match full.split_once('<') {
            Some((outer, inner)) => format!("{}<{}", short(outer), short(inner)),
            None => short(full),
        };
        Self { inner: Arc::new(optimizer), label }
    }

    /// The name shown in plans.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The name shown in plans.
    pub fn label(&self) -> &str {
        &self.label
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
        self.inner.step_dyn(rank, lr, tensor, grad, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.inner.to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.inner.state_flatten(prefix, state, out)
    }

    fn state_unflatten(&self, rank: usize, prefix: &str, src: &mut StateSource, device: &Device) -> Option<DynState> {
        self.inner.state_unflatten(rank, prefix, src, device)
    }
}
