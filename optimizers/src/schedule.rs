//! Schedules: a factor between 0 and 1 that multiplies every learning rate of a step, and the momentum over the steps.
//!
//! ```
//! use polaron::Schedule;
//!
//! let schedule = Schedule::cosine(100); // 100 warm-up steps, then down to a tenth
//! assert_eq!(schedule.factor(100, 2000), 1.0); // step 100 of 2000, counted from 0
//! assert!((schedule.factor(2000, 2000) - 0.1).abs() < 1e-15);
//! ```
//!
//! [`Layerwise::schedule`](crate::Layerwise::schedule) gives part of the parameters a schedule of their own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::setting::choice;

choice! {
    /// Shape of the schedule after the warm-up.
    pub enum ScheduleKind {
        /// 1 until the end.
        Constant = "constant",
        /// Half a cosine from 1 to `min_factor`.
        Cosine = "cosine",
        /// Warm-up, stable, decay: 1, then a straight line to `min_factor` over the last `decay_fraction` of the steps.
        Wsd = "wsd",
        /// 1, then a power of the share of the steps that are left, over the last `decay_fraction` of them; never below
        /// `min_factor`.
        Power = "power",
        /// 1 in the first step after the warm-up, and in the t-th `t^-power`; never below `min_factor`. Does not depend on the
        /// length of the training. With power 3/4, and a momentum with power 1/2, that of the theory of MuonEq (arXiv 2603.28254),
        /// where `min_factor` is 0.
        InversePower = "inverse_power",
    }
}

choice! {
    /// Denominator of the linear warm-up over w steps.
    pub enum WarmupRule {
        /// (i + 1) / (w + 1): the step after the warm-up is the first with factor 1.
        Nanogpt = "nanogpt",
        /// (i + 1) / w: the last warm-up step has factor 1.
        Llama = "llama",
        /// i / w: the first step has factor 0, the step after the warm-up is the first with factor 1.
        Transformers = "transformers",
    }
}

/// A schedule: linear warm-up, then one of five shapes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Steps of linear warm-up; 0 is none.
    pub warmup: u64,
    /// Denominator of the warm-up.
    pub warmup_rule: WarmupRule,
    /// Where `cosine` and `wsd` end and what the powers stay above, as a share of the peak, 0 to 1.
    pub min_factor: f64,
    /// Share of all steps over which `wsd` and `power` decay, 0 to 1.
    pub decay_fraction: f64,
    /// The exponent of `power` and `inverse_power`, above 0; `None` is that of [`ScheduleKind::exponent`]. No other shape has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
}

impl ScheduleKind {
    /// The exponent unless another one is set; `None` for a shape without.
    pub fn exponent(self) -> Option<f64> {
        match self {
            Self::Power => Some(1.2),
            Self::InversePower => Some(0.75),
            Self::Constant | Self::Cosine | Self::Wsd => None,
        }
    }
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
            power: None,
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

    /// 1 after `warmup` steps, then `((S - i) / (S - d))^1.2` over the last fifth of the S steps, at least 0.1.
    pub fn power(warmup: u64) -> Self {
        Self { kind: ScheduleKind::Power, ..Self::constant(warmup) }
    }

    /// The factor of step `step` (counted from 0) of `steps`.
    ///
    /// With w warm-up steps, S steps, m = `min_factor` and d = max(w, S - round(S `decay_fraction`)), after the warm-up:
    /// cosine m + (1 - m) (1 + cos(π min(1, (i - w) / (S - w)))) / 2;
    /// wsd 1 before step d, then 1 - (1 - m) (i - d) / (S - d);
    /// power 1 before step d, then max(m, ((S - i) / (S - d))^`power`);
    /// inverse_power max(m, (i - w + 1)^-`power`).
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup {
            let (i, w) = (step as f64, self.warmup as f64);
            return match self.warmup_rule {
                WarmupRule::Nanogpt => (i + 1.0) / (w + 1.0),
                WarmupRule::Llama => (i + 1.0) / w,
                WarmupRule::Transformers => i / w,
            };
        }
        let depth = 1.0 - self.min_factor;
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => {
                let progress = progress(step, self.warmup, steps);
                self.min_factor + depth * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            ScheduleKind::Wsd => 1.0 - depth * progress(step, self.decay_start(steps), steps),
            ScheduleKind::Power => {
                let left = 1.0 - progress(step, self.decay_start(steps), steps);
                left.powf(self.exponent()).max(self.min_factor)
            }
            ScheduleKind::InversePower => {
                let number = (step - self.warmup + 1) as f64;
                number.powf(-self.exponent()).max(self.min_factor)
            }
        }
    }

    /// 1 for a shape that has none.
    fn exponent(&self) -> f64 {
        self.power.or(self.kind.exponent()).unwrap_or(1.0)
    }

    /// The step at which `wsd` and `power` begin to decay.
    fn decay_start(&self, steps: u64) -> u64 {
        let decaying = (steps as f64 * self.decay_fraction).round() as u64;
        steps.saturating_sub(decaying).max(self.warmup)
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
            ScheduleKind::Power => {
                let power = self.exponent();
                write!(f, "constant, then the share of the steps that are left to the power {power}")?;
                write!(f, " over the last {decay_fraction} of the steps, at least {min_factor} of it")?;
            }
            ScheduleKind::InversePower => {
                write!(f, "the number of the step to the power -{}, at least {min_factor} of it,", self.exponent())?;
            }
        }
        write!(f, " after {warmup} warm-up steps")
    }
}

/// The momentum of the matrix rules over the steps: a straight line from `start` to `peak`, then `peak`, then a straight
/// line to `end` over the last steps.
///
/// ```
/// use polaron::schedule::MomentumSchedule;
///
/// let momentum = MomentumSchedule::default();
/// assert!((momentum.factor(150, 5000) - 0.90).abs() < 1e-12);
/// assert_eq!(momentum.factor(300, 5000), 0.95);
/// assert!((momentum.factor(4975, 5000) - 0.90).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MomentumSchedule {
    /// The factor of the first step, above 0 and below 1.
    pub start: f64,
    /// Steps from `start` to `peak`; 0 is none.
    pub warmup: u64,
    /// The factor between, above 0 and below 1.
    pub peak: f64,
    /// Steps from `peak` to `end`, the last of the training; 0 is none.
    pub cooldown: u64,
    /// The factor after the last step, above 0 and below 1.
    pub end: f64,
    /// If it is given, the factor is `1 - t^-power` in the t-th step instead, 0 in the first; above 0. The other keys are then
    /// without effect and must be left out. 1/2 in the theory of MuonEq (arXiv 2603.28254).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
}

impl Default for MomentumSchedule {
    /// From 0.85 to 0.95 in 300 steps, and back over the last 50, as in the speedruns of NanoGPT.
    fn default() -> Self {
        Self { start: 0.85, warmup: 300, peak: 0.95, cooldown: 50, end: 0.85, power: None }
    }
}

impl MomentumSchedule {
    /// The factor μ of step `step` (counted from 0) of `steps`. A cooldown longer than the run begins after the warm-up.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let Self { start, warmup, peak, cooldown, end, power } = *self;
        if let Some(power) = power {
            return 1.0 - (step as f64 + 1.0).powf(-power);
        }
        if step < warmup {
            return start + (peak - start) * progress(step, 0, warmup);
        }
        let down = steps.saturating_sub(cooldown).max(warmup);
        let share = if cooldown == 0 { 0.0 } else { progress(step, down, steps) };
        peak + (end - peak) * share
    }
}

impl fmt::Display for MomentumSchedule {
    /// The course of the factor, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, warmup, peak, cooldown, end, power } = self;
        if let Some(power) = power {
            return write!(f, "1 - t^-{power} in the t-th step");
        }
        write!(f, "from {start} to {peak} in {warmup} steps, to {end} over the last {cooldown}")
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
        Schedule { kind, warmup: 10, warmup_rule, min_factor: 0.1, decay_fraction: 0.2, power: None }
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
    fn an_inverse_power_follows_the_number_of_the_step_whatever_the_length() {
        let theory = Schedule { min_factor: 0.0, ..schedule(ScheduleKind::InversePower, WarmupRule::Llama) };
        for steps in [20, 2000] {
            close(theory.factor(10, steps), 1.0);
            close(theory.factor(25, steps), 0.125);
            close(Schedule { power: Some(0.5), ..theory }.factor(25, steps), 0.25);
            close(Schedule { min_factor: 0.2, ..theory }.factor(25, steps), 0.2);
            let momentum = MomentumSchedule { power: Some(0.5), ..MomentumSchedule::default() };
            assert_eq!([0, 3, 24].map(|step| momentum.factor(step, steps)), [0.0, 0.5, 0.8]);
        }
        assert!(theory.to_string().starts_with("the number of the step to the power -0.75"), "{theory}");
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

    #[test]
    fn power_falls_as_the_share_that_is_left_and_stops_at_the_floor() {
        let power = Schedule { min_factor: 0.04, decay_fraction: 0.5, ..Schedule::power(0) };
        close(power.factor(49, 100), 1.0);
        close(power.factor(75, 100), 0.5_f64.powf(1.2));
        close(power.factor(100, 100), 0.04);
        close(power.factor(7000, 100), 0.04);
        close(Schedule { power: Some(2.0), ..power }.factor(75, 100), 0.25);
    }

    /// Muon and AdamW of the symmetry paper's program, 1000 steps.
    #[test]
    fn the_two_published_schedules_have_their_factors() {
        let muon = Schedule { min_factor: 0.0, decay_fraction: 0.4, ..Schedule::wsd(0) };
        for (step, factor) in [(599, 1.0), (800, 0.5), (1000, 0.0)] {
            close(muon.factor(step, 1000), factor);
        }
        let adamw = Schedule { min_factor: 0.0, warmup_rule: WarmupRule::Transformers, ..Schedule::cosine(100) };
        for (step, factor) in [(0, 0.0), (50, 0.5), (100, 1.0), (550, 0.5), (1000, 0.0)] {
            close(adamw.factor(step, 1000), factor);
        }
    }

    #[test]
    fn momentum_rises_stays_and_falls() {
        let momentum = MomentumSchedule { start: 0.8, warmup: 10, peak: 0.9, cooldown: 20, end: 0.7, power: None };
        for (step, factor) in [(0, 0.8), (5, 0.85), (10, 0.9), (80, 0.9), (90, 0.8), (100, 0.7), (500, 0.7)] {
            close(momentum.factor(step, 100), factor);
        }
        let never = MomentumSchedule { warmup: 0, cooldown: 0, ..momentum };
        assert!([0, 50, 100, 200].iter().all(|step| never.factor(*step, 100) == 0.9));
        let long = MomentumSchedule { cooldown: 1000, ..momentum };
        for (step, factor) in [(9, 0.89), (10, 0.9), (15, 0.8), (20, 0.7)] {
            close(long.factor(step, 20), factor);
        }
    }
}
