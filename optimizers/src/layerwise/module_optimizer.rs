//! The parts of the plain Burn form: a schedule, and a fallback group that must not be used.

use std::sync::Arc;

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::Optimizer;
use burn::tensor::{Device, Tensor};

use super::LayerwiseError;

/// Factor of every learning rate at a step, counted from 0.
pub(crate) type Factor = Arc<dyn Fn(u64) -> f64 + Send + Sync>;

/// A learning rate times a factor that depends on the step.
#[derive(Clone)]
pub(crate) struct ScheduledLr {
    lr: f64,
    factor: Factor,
    step: u64,
}

impl ScheduledLr {
    pub fn new(lr: f64, factor: Factor) -> Self {
        Self { lr, factor, step: 0 }
    }
}

impl LrScheduler for ScheduledLr {
    /// # Panics
    /// If the factor is negative or not finite.
    fn step(&mut self) -> f64 {
        let factor = (self.factor)(self.step);
        let checked = LayerwiseError::check_rate(format!("the factor of step {}", self.step), factor);
        checked.unwrap_or_else(|error| panic!("{error}"));
        let lr = self.lr * factor;
        self.step += 1;
        lr
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(step) = record.scalar("step") {
            self.step = step;
        }
    }
}

/// The group of a frozen parameter.
#[derive(Clone)]
pub(crate) struct Frozen;

impl Optimizer for Frozen {
    type State<const D: usize> = ();

    fn step<const D: usize>(
        &self,
        _lr: f64,
        tensor: Tensor<D>,
        _grad: Tensor<D>,
        _state: Option<()>,
    ) -> (Tensor<D>, Option<()>) {
        (tensor, None)
    }

    fn to_device<const D: usize>(_state: (), _device: &Device) {}
}

/// Burn requires a group that matches everything. The plan has a group for every parameter, so this one
/// is used only for a parameter that is not in the plan.
#[derive(Clone)]
pub(crate) struct Uncovered;

impl Optimizer for Uncovered {
    type State<const D: usize> = ();

    fn step<const D: usize>(
        &self,
        _lr: f64,
        tensor: Tensor<D>,
        _grad: Tensor<D>,
        _state: Option<()>,
    ) -> (Tensor<D>, Option<()>) {
        panic!(
            "a parameter of shape {:?} is not in the plan: the model changed after the optimizer was built; build it again",
            tensor.dims()
        )
    }

    fn to_device<const D: usize>(_state: (), _device: &Device) {}
}
