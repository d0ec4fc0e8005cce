//! Any optimizer behind one type.

use std::any::Any;
use std::sync::Arc;

use burn::optim::{DynOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

use crate::rule::{Pipeline, Projection, in_working_precision};
use crate::rules::OptimizerConfig;

/// A shared Burn optimizer of any type: of this crate, Burn's own, or yours.
#[derive(Clone)]
pub struct AnyOptimizer {
    pub(crate) optimizer: Arc<dyn DynOptimizer>,
    /// The same optimizer, if it is a rule of this crate.
    pub(crate) rule: Option<Pipeline>,
    label: String,
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
        let rule = (&optimizer as &dyn Any).downcast_ref::<Pipeline>().cloned();
        let optimizer: Arc<dyn DynOptimizer> = match &rule {
            Some(pipeline) => Arc::new(pipeline.clone()),
            None => Arc::new(InWorkingPrecision(optimizer)),
        };
        Self { optimizer, rule, label }
    }

    /// Sets the name shown in plans.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same with directions that stay as they are, if it is a rule of this crate.
    pub(super) fn with_projection(self, projection: Option<Projection>) -> Self {
        match (&self.rule, projection) {
            (Some(pipeline), Some(projection)) => {
                Self::new(pipeline.clone().with_projection(projection)).with_label(self.label)
            }
            _ => self,
        }
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

/// What plans and records say of a parameter without an optimizer.
pub(super) const FROZEN: &str = "frozen";

/// The optimizer of a parameter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlannedOptimizer {
    /// A kind of this crate with its settings; layout and blocks follow the parameter.
    Kind(OptimizerConfig),
    /// Any other Burn optimizer; it must know layout and blocks itself.
    Own(AnyOptimizer),
    /// None: the parameter never changes, and has no state. Made by [`Layerwise::freeze`](super::Layerwise::freeze).
    Frozen,
}

impl PlannedOptimizer {
    /// Kind and settings; `None` for an optimizer that is not of this crate.
    pub fn config(&self) -> Option<&OptimizerConfig> {
        match self {
            Self::Kind(config) => Some(config),
            Self::Own(_) | Self::Frozen => None,
        }
    }

    /// The kind; `None` for an optimizer that is not of this crate.
    pub fn kind(&self) -> Option<&'static str> {
        self.config().map(OptimizerConfig::kind)
    }

    /// Whether there is none.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self, Self::Frozen)
    }

    /// The optimizer in one line.
    pub fn label(&self) -> String {
        match self {
            Self::Kind(config) => config.label(),
            Self::Own(optimizer) => optimizer.label().to_string(),
            Self::Frozen => FROZEN.to_string(),
        }
    }

    /// The step, for a rule of this crate.
    pub(crate) fn pipeline(&self) -> Option<Pipeline> {
        match self {
            Self::Kind(config) => Some(config.pipeline()),
            Self::Own(optimizer) => optimizer.rule.clone(),
            Self::Frozen => None,
        }
    }
}
