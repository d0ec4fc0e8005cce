//! What a training tells a comparison.

/// What a training tells a comparison, in the order of its steps.
#[derive(Clone, Debug, PartialEq)]
pub enum Measurement {
    /// A step.
    Train {
        /// Steps made so far, with this one.
        step: u64,
        /// Loss of its batch, before the update.
        loss: f64,
        /// Seconds that it took, without validation; if not given, the time since the measurement before.
        seconds: Option<f64>,
        /// The part of them spent clipping and updating, if it was measured.
        optimizer_seconds: Option<f64>,
    },
    /// A validation.
    Valid {
        /// Steps made so far.
        step: u64,
        /// Loss over the validation data, which are the same in every run.
        loss: f64,
    },
    /// The run cannot be continued, and that is a result: it counts as worse than every run that finishes. A loss that is not finite
    /// means the same.
    Diverged(String),
    /// The run cannot be continued for another reason: the comparison stops with it.
    Failed(String),
}

impl Measurement {
    /// A step, timed by the comparison.
    pub fn train(step: u64, loss: f64) -> Self {
        Self::Train { step, loss, seconds: None, optimizer_seconds: None }
    }

    /// A validation.
    pub fn valid(step: u64, loss: f64) -> Self {
        Self::Valid { step, loss }
    }

    /// A step that took so many seconds.
    pub fn timed(step: u64, loss: f64, seconds: f64) -> Self {
        Self::Train { step, loss, seconds: Some(seconds), optimizer_seconds: None }
    }
}
