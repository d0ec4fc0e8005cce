//! The plan: the rule of every parameter, as data.

use std::collections::BTreeSet;

use burn::module::Module;

use super::course::Course;
use super::{PlannedOptimizer, Role, ScheduleRule};
use crate::matrix::Placement;
use crate::rule::{DecayForm, Kept, Projection, Scale};
use crate::rules::OptimizerConfig;
use crate::schedule::{MomentumSchedule, Schedule};
use crate::wrappers::{Trained, WrapperConfig};

/// One parameter of a plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanEntry {
    /// Path of the parameter.
    pub path: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Its role; `None` for a parameter without a role that is matched by a rule on its path.
    pub role: Option<Role>,
    /// Number of attention heads, when the role has them.
    pub heads: Option<usize>,
    /// How it is stored, and its blocks.
    pub placement: Placement,
    /// The optimizer: a kind with its settings, or another optimizer.
    pub optimizer: PlannedOptimizer,
    /// Learning rate before the schedule; 0 if it is frozen.
    pub lr: f64,
    /// Its own schedule; `None` if it follows the factor that is given to a step.
    pub schedule: Option<Schedule>,
    /// The momentum of its rule over the steps; `None` if it is constant.
    pub momentum: Option<MomentumSchedule>,
    /// Directions that training leaves as they are; `None` if all may change.
    pub projection: Option<Projection>,
    /// The rules that it is made of, by index, in rising order of precedence.
    pub(crate) rules: Vec<usize>,
}

/// Every parameter of a module, each with exactly one rule. `Display` prints the table.
#[derive(Clone, Debug)]
pub struct Plan {
    entries: Vec<PlanEntry>,
    /// What goes around the steps.
    wrapper: Option<WrapperConfig>,
    schedules: Vec<ScheduleRule>,
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

    /// Number of parameters that are frozen.
    pub fn frozen(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_frozen()).map(PlanEntry::count).sum()
    }

    /// The wrapper of the optimizer.
    pub fn wrapper(&self) -> Option<&WrapperConfig> {
        self.wrapper.as_ref()
    }

    /// The parameters of a module that are not frozen.
    pub(super) fn trained<M: Module>(&self, module: &M) -> Trained {
        let trained: BTreeSet<&str> =
            self.entries.iter().filter(|entry| !entry.is_frozen()).map(|entry| entry.path.as_str()).collect();
        Trained::of(module, |path| trained.contains(path))
    }

    pub(super) fn new(entries: Vec<PlanEntry>, schedules: Vec<ScheduleRule>) -> Self {
        Self { entries, schedules, wrapper: None }
    }

    pub(super) fn with_wrapper(mut self, wrapper: Option<WrapperConfig>) -> Self {
        self.wrapper = wrapper;
        self
    }

    /// The schedules for part of the parameters, in rising order of precedence.
    pub fn schedules(&self) -> &[ScheduleRule] {
        &self.schedules
    }

    /// The momentum over the steps, where it is not constant.
    pub fn momentum(&self) -> Option<MomentumSchedule> {
        self.entries.iter().find_map(|entry| entry.momentum)
    }

    /// Whether a step has to know which one it is.
    pub(super) fn needs_step(&self) -> bool {
        !self.schedules.is_empty() || self.momentum().is_some()
    }
}

impl PlanEntry {
    /// Number of weights.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// What of its step changes over the steps.
    pub(super) fn course(&self) -> Course {
        Course { schedule: self.schedule, momentum: self.momentum }
    }

    /// Whether it never changes, see [`Layerwise::freeze`](super::Layerwise::freeze).
    pub fn is_frozen(&self) -> bool {
        self.optimizer.is_frozen()
    }

    /// Kind and settings; `None` for an optimizer that is not of this crate.
    pub fn config(&self) -> Option<&OptimizerConfig> {
        self.optimizer.config()
    }

    /// The role in words.
    pub(super) fn role_name(&self) -> &'static str {
        self.role.map_or("by path", |role| role.name())
    }

    /// The optimizer in one line.
    pub fn label(&self) -> String {
        self.optimizer.label()
    }

    /// The name of the optimizer in records. It tells directions that stay as they are from others.
    pub(crate) fn recorded_name(&self) -> String {
        let name = self.optimizer.kind().map_or_else(|| self.label(), str::to_string);
        match &self.projection {
            Some(projection) => format!("{name} ({}, {:016x})", projection.label(), projection.fingerprint()),
            None => name,
        }
    }

    /// Decoupled weight decay; `None` for an optimizer that is not of this crate.
    pub fn weight_decay(&self) -> Option<f64> {
        self.optimizer.pipeline().map(|pipeline| pipeline.decay().rate)
    }

    /// Whether it decays by the factor of the schedule alone.
    pub(super) fn decays_independently(&self) -> bool {
        let decay = self.optimizer.pipeline().map(|pipeline| pipeline.decay());
        decay.is_some_and(|decay| decay.form == DecayForm::Independent && decay.rate != 0.0)
    }

    /// The factor by the shape; `None` for an optimizer that is not of this crate.
    pub fn scale(&self) -> Option<Scale> {
        self.optimizer.pipeline().map(|pipeline| pipeline.scale())
    }

    /// Numbers kept between steps, of buffers per unit as many as the longer side has at most; `None` for an optimizer that is not
    /// of this crate.
    pub fn state(&self) -> Option<usize> {
        let [matrices, outputs, inputs] = self.placement.matrices(&self.shape);
        Some(self.memories()?.into_iter().map(|kept| kept.extent.numbers(matrices, outputs, inputs)).sum())
    }

    /// Operations of the matrix products of one update ([`Cost::product_operations`](crate::rule::Cost::product_operations)); of a
    /// matrix that is updated in blocks as many as of the whole.
    pub fn product_operations(&self) -> f64 {
        let (Some(config), [.., rows, columns]) = (self.config(), self.shape.as_slice()) else { return 0.0 };
        let matrices = self.count() / (rows * columns).max(1);
        matrices as f64 * config.describe().cost.product_operations(*rows, *columns)
    }

    /// The buffers kept between steps; `None` for an optimizer that is not of this crate.
    pub fn memories(&self) -> Option<Vec<Kept>> {
        self.optimizer.pipeline().map(|pipeline| pipeline.memories())
    }
}
