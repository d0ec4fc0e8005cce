//! Learning-rate schedules: a factor between 0 and 1 that multiplies every learning rate of a step.
//!
//! ```
//! use polaron::Schedule;
//!
//! let schedule = Schedule::cosine(100); // 100 warm-up steps, then down to a tenth
//! assert_eq!(schedule.factor(100, 2000), 1.0); // step 100 of 2000, counted from 0
//! assert!((schedule.factor(2000, 2000) - 0.1).abs() < 1e-15);
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// Shape of the schedule after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScheduleKind {
    /// 1 until the end.
    Constant,
    /// Half a cosine from 1 to `min_factor`.
    Cosine,
    /// Warm-up, stable, decay: 1, then a straight line to `min_factor` over the last `decay_fraction` of the steps.
    Wsd,
}

/// Denominator of the linear warm-up over w steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarmupRule {
    /// (i + 1) / (w + 1): the step after the warm-up is the first with factor 1.
    Nanogpt,
    /// (i + 1) / w: the last warm-up step has factor 1.
    Llama,
}

/// A schedule: linear warm-up, then one of three shapes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Steps of linear warm-up; 0 is none.
    pub warmup: u64,
    /// Denominator of the warm-up.
    pub warmup_rule: WarmupRule,
    /// Where `cosine` and `wsd` end, as a share of the peak, 0 to 1.
    pub min_factor: f64,
    /// Share of all steps over which `wsd` decays, 0 to 1.
    pub decay_fraction: f64,
}

impl Schedule {
    /// 1 after `warmup` steps.
    pub fn constant(warmup: u64) -> Self {
        Self {
            kind: ScheduleKind::Constant,
            warmup,
            warmup_rule: WarmupRule::Llama,
            min_factor: 0.1,
            decay_fraction: 0.2,
        }
    }

    /// Half a cosine to 0.1 after `warmup` steps.
    pub fn cosine(warmup: u64) -> Self {
        Self { kind: ScheduleKind::Cosine, ..Self::constant(warmup) }
    }

    /// 1 after `warmup` steps, then a straight line to 0.1 over the last fifth of all steps.
    pub fn wsd(warmup: u64) -> Self {
        Self { kind: ScheduleKind::Wsd, ..Self::constant(warmup) }
    }

    /// The factor of step `step` (counted from 0) of `steps`.
    ///
    /// With w warm-up steps, S steps and m = `min_factor`, after the warm-up:
    /// cosine m + (1 - m) (1 + cos(π min(1, (i - w) / (S - w)))) / 2;
    /// wsd 1 before step d = max(w, S - round(S `decay_fraction`)), then 1 - (1 - m) (i - d) / (S - d).
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup {
            let denominator = match self.warmup_rule {
                WarmupRule::Nanogpt => self.warmup as f64 + 1.0,
                WarmupRule::Llama => self.warmup as f64,
            };
            return (step as f64 + 1.0) / denominator;
        }
        let depth = 1.0 - self.min_factor;
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => {
                let progress = progress(step, self.warmup, steps);
                self.min_factor + depth * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            ScheduleKind::Wsd => {
                let decaying = (steps as f64 * self.decay_fraction).round() as u64;
                let start = steps.saturating_sub(decaying).max(self.warmup);
                1.0 - depth * progress(step, start, steps)
            }
        }
    }
}

impl fmt::Display for Schedule {
    /// The course of the learning rate, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min_factor, decay_fraction, warmup, .. } = self;
        match self.kind {
            ScheduleKind::Constant => write!(f, "constant")?,
            ScheduleKind::Cosine => write!(f, "cosine to {min_factor} of it")?,
            ScheduleKind::Wsd => {
                write!(f, "constant, then to {min_factor} of it over the last {decay_fraction} of the steps")?;
            }
        }
        write!(f, " after {warmup} warm-up steps")
    }
}

/// How far `step` is from `start` (0) to `end` (1).
fn progress(step: u64, start: u64, end: u64) -> f64 {
    let length = end.saturating_sub(start).max(1);
    (step.saturating_sub(start) as f64 / length as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, warmup_rule: WarmupRule) -> Schedule {
        Schedule { kind, warmup: 10, warmup_rule, min_factor: 0.1, decay_fraction: 0.2 }
    }

    /// The formulas are evaluated in f64 on both sides; the last bit of the cosine may differ.
    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-15, "{left} is not {right}");
    }

    #[test]
    fn both_warm_up_rules_follow_their_formula() {
        let nanogpt = schedule(ScheduleKind::Constant, WarmupRule::Nanogpt);
        let llama = schedule(ScheduleKind::Constant, WarmupRule::Llama);
        for i in 0..10 {
            close(nanogpt.factor(i, 100), (i as f64 + 1.0) / 11.0);
            close(llama.factor(i, 100), (i as f64 + 1.0) / 10.0);
        }
        close(nanogpt.factor(10, 100), 1.0);
        close(llama.factor(10, 100), 1.0);
    }

    #[test]
    fn cosine_starts_at_one_and_is_halfway_in_the_middle() {
        let cosine = schedule(ScheduleKind::Cosine, WarmupRule::Nanogpt);
        close(cosine.factor(10, 110), 1.0);
        close(cosine.factor(60, 110), 0.1 + 0.9 * 0.5);
        close(cosine.factor(110, 110), 0.1);
        close(cosine.factor(5000, 110), 0.1);
        close(cosine.factor(35, 110), 0.1 + 0.45 * (1.0 + (std::f64::consts::PI * 0.25).cos()));
    }

    #[test]
    fn wsd_is_stable_and_then_falls_in_a_straight_line() {
        let wsd = schedule(ScheduleKind::Wsd, WarmupRule::Llama);
        for i in 10..=80 {
            close(wsd.factor(i, 100), 1.0);
        }
        close(wsd.factor(90, 100), 1.0 - 0.9 * 0.5);
        close(wsd.factor(100, 100), 0.1);
    }

    #[test]
    fn a_decay_longer_than_the_run_begins_after_the_warm_up() {
        let wsd = Schedule { decay_fraction: 1.0, ..schedule(ScheduleKind::Wsd, WarmupRule::Llama) };
        close(wsd.factor(9, 20), 1.0);
        close(wsd.factor(10, 20), 1.0);
        close(wsd.factor(15, 20), 0.55);
    }

    #[test]
    fn no_warm_up_and_a_run_shorter_than_its_warm_up_stay_finite() {
        let bare = Schedule { warmup: 0, ..schedule(ScheduleKind::Cosine, WarmupRule::Nanogpt) };
        close(bare.factor(0, 1), 1.0);
        let long = Schedule { warmup: 50, ..bare };
        close(long.factor(4, 5), 5.0 / 51.0);
        assert!(long.factor(60, 5).is_finite());
    }
}
