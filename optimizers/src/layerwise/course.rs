//! What changes over the steps: the factor of a learning rate, and the momentum.

use crate::schedule::{MomentumSchedule, Schedule};

/// When a step is, as its caller says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    /// The factor of every learning rate that has no schedule of its own.
    pub factor: f64,
    /// The share of the training that is done.
    pub progress: f64,
    /// The number of the step, from 0, and of all steps.
    pub position: (u64, u64),
}

/// What of a step changes over the steps, for some parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Course {
    pub schedule: Option<Schedule>,
    pub momentum: Option<MomentumSchedule>,
}

impl Course {
    /// The factor of the learning rate.
    pub fn factor(&self, when: &When) -> f64 {
        let (step, steps) = when.position;
        self.schedule.map_or(when.factor, |schedule| schedule.factor(step, steps))
    }

    /// The momentum, if it is not that of the rule.
    pub fn momentum(&self, when: &When) -> Option<f64> {
        let (step, steps) = when.position;
        self.momentum.map(|momentum| momentum.factor(step, steps))
    }
}
