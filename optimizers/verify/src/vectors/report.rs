//! The result of a case.

/// The largest deviation of a case and where it is.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// Deviation over tolerance; at most 1 passes, NaN never does.
    pub worst: f64,
    /// Step of the largest deviation, from 1.
    pub step: usize,
    /// Flat index of the entry.
    pub entry: usize,
    /// The computed value.
    pub got: f64,
    /// The expected value.
    pub expected: f64,
}

impl CaseReport {
    /// Whether every entry was within its tolerance.
    pub fn passed(&self) -> bool {
        self.worst <= 1.0
    }

    /// Replaces this report by the other one if that is worse.
    pub(super) fn keep_worse(&mut self, other: Self) {
        // A NaN compares false with everything, but must count as the worst.
        if other.worst > self.worst || (other.worst.is_nan() && !self.worst.is_nan()) {
            *self = other;
        }
    }
}
