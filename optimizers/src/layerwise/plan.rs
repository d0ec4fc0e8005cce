//! Which parameter gets which rule, as data.

use super::any::Inner;
use super::resolve::Resolved;
use super::{AnyOptimizer, Role};
use crate::matrix::Placement;
use crate::rule::{Kept, Pipeline, Scale};
use crate::rules::OptimizerConfig;

/// One parameter of a plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanEntry {
    /// Path of the parameter.
    pub path: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Its role; `None` for a parameter that only a rule on its path decided.
    pub role: Option<Role>,
    /// Number of attention heads, when the role has them.
    pub heads: Option<usize>,
    /// How it is stored, and its blocks.
    pub placement: Placement,
    /// The optimizer: a kind with its settings, or somebody's own.
    pub optimizer: PlannedOptimizer,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// What the rules make of each other.
    pub(crate) resolved: Resolved,
}

/// The optimizer of a parameter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlannedOptimizer {
    /// A kind of this crate with its settings.
    Kind(OptimizerConfig),
    /// Any other Burn optimizer.
    Own(AnyOptimizer),
}

/// Every parameter of a module, each with exactly one rule. `Display` prints the table.
#[derive(Clone, Debug)]
pub struct Plan {
    entries: Vec<PlanEntry>,
}

impl Plan {
    /// The parameters in the order of the module's fields.
    pub fn entries(&self) -> &[PlanEntry] {
        &self.entries
    }

    /// Number of parameters (weights, not tensors).
    pub fn parameters(&self) -> usize {
        self.entries.iter().map(PlanEntry::count).sum()
    }

    pub(super) fn new(entries: Vec<PlanEntry>) -> Self {
        Self { entries }
    }
}

impl PlanEntry {
    /// Number of weights.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Kind and settings; `None` for an optimizer that is not of this crate.
    pub fn config(&self) -> Option<&OptimizerConfig> {
        match &self.optimizer {
            PlannedOptimizer::Kind(config) => Some(config),
            PlannedOptimizer::Own(_) => None,
        }
    }

    /// The role in words.
    pub(super) fn role_name(&self) -> &'static str {
        self.role.map_or("by path", |role| role.name())
    }

    /// The optimizer in one line.
    pub fn label(&self) -> String {
        match &self.optimizer {
            PlannedOptimizer::Kind(config) => config.label(),
            PlannedOptimizer::Own(optimizer) => optimizer.label().to_string(),
        }
    }

    /// The name by which a record knows the optimizer.
    pub(crate) fn recorded_name(&self) -> String {
        match &self.optimizer {
            PlannedOptimizer::Kind(config) => config.kind().to_string(),
            PlannedOptimizer::Own(optimizer) => optimizer.label().to_string(),
        }
    }

    /// The step, for a rule of this crate.
    fn pipeline(&self) -> Option<Pipeline> {
        match &self.optimizer {
            PlannedOptimizer::Kind(config) => Some(config.pipeline()),
            PlannedOptimizer::Own(optimizer) => match optimizer.inner() {
                Inner::Rule(pipeline) => Some(pipeline.clone()),
                Inner::Other(_) => None,
            },
        }
    }

    /// Decoupled weight decay; `None` for an optimizer that is not of this crate.
    pub fn weight_decay(&self) -> Option<f64> {
        self.pipeline().map(|pipeline| pipeline.decay().rate)
    }

    /// The factor by the shape; `None` for an optimizer that is not of this crate.
    pub fn scale(&self) -> Option<Scale> {
        self.pipeline().map(|pipeline| pipeline.scale())
    }

    /// What is kept between steps; `None` for an optimizer that is not of this crate.
    pub fn memories(&self) -> Option<Vec<Kept>> {
        self.pipeline().map(|pipeline| pipeline.memories())
    }
}
