//! The sizes of a comparison: their defaults and their ranges.

use super::plan::Settings;
use crate::error::{CompareError, ConfigError, Error};

/// Verdict seeds and tuning seeds begin here, far apart.
const FIRST_SEED: u64 = 1;
const FIRST_TUNE_SEED: u64 = 10_001;
const MAX_SEEDS: u64 = 1000;
const MAX_TRIALS: u64 = 1000;

impl Settings {
    /// The defaults for verdict runs of so many steps, so many runs at a time.
    pub fn of(steps: u64, jobs: u64) -> Self {
        Self {
            race: String::new(),
            steps,
            tune_steps: (steps.saturating_mul(3) / 5).max(1),
            seeds: 3,
            seeds_before: Vec::new(),
            optimizers_before: Vec::new(),
            first_seed: FIRST_SEED,
            tune_seeds: 1,
            first_tune_seed: FIRST_TUNE_SEED,
            lrs: Vec::new(),
            trials: 0,
            halvings: 0,
            lr_points: 3,
            lr_factor: 3.0,
            extensions: 3,
            targets: Vec::new(),
            valid_every: (steps / 40).max(1),
            valid_windows: None,
            tune_windows: None,
            sensitivity: false,
            jobs,
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// A value out of its range, tuning seeds among those of the verdict.
    pub fn check(&self) -> Result<(), Error> {
        let settings = self;
        let at_least = |key: &str, value: u64, least: u64| {
            ensure(value >= least, key, value, &format!("it must be at least {least}"))
        };
        at_least("steps", settings.steps, 1)?;
        at_least("tune_steps", settings.tune_steps, 1)?;
        at_least("seeds", settings.seeds, 1)?;
        at_least("tune_seeds", settings.tune_seeds, 1)?;
        at_least("lr_points", settings.lr_points, 1)?;
        at_least("valid_every", settings.valid_every, 1)?;
        at_least("jobs", settings.jobs, 1)?;
        for (key, value) in [("seeds", settings.seeds), ("tune_seeds", settings.tune_seeds)] {
            ensure(value <= MAX_SEEDS, key, value, &format!("it must not exceed {MAX_SEEDS}"))?;
        }
        ensure(settings.trials <= MAX_TRIALS, "trials", settings.trials, &format!("it must not exceed {MAX_TRIALS}"))?;
        let halved = settings.halvings == 0
            || settings.halvings < 20 && settings.trials.min(settings.tune_steps) >> settings.halvings > 0;
        let (trials, steps) = (settings.trials, settings.tune_steps);
        let rule =
            format!("{trials} candidates of a search and {steps} steps of tuning cannot be halved so many times");
        ensure(halved, "halvings", settings.halvings, &rule)?;
        for (key, value) in [("lr_points", settings.lr_points), ("extensions", settings.extensions)] {
            ensure(value <= 50, key, value, "it must not exceed 50")?;
        }
        ensure(
            settings.lr_factor > 1.0 && settings.lr_factor <= 1000.0,
            "lr_factor",
            settings.lr_factor,
            "it must be above 1 and at most 1000",
        )?;
        for target in &settings.targets {
            ensure(target.is_finite() && *target > 0.0, "targets", target, "every target must be a positive number")?;
        }
        for (key, first, number) in [
            ("first_seed", settings.first_seed, settings.seeds),
            ("first_tune_seed", settings.first_tune_seed, settings.tune_seeds),
        ] {
            let last = i64::MAX as u64 - 1;
            let rule = format!("with {number} seeds from there, the last one must not exceed {last}: begin lower");
            ensure(first.checked_add(number).is_some_and(|end| end <= last), key, first, &rule)?;
        }
        let overlap = |a: u64, n: u64, b: u64, m: u64| a < b.saturating_add(m) && b < a.saturating_add(n);
        if overlap(settings.first_seed, settings.seeds, settings.first_tune_seed, settings.tune_seeds) {
            return Err(CompareError::SharedSeeds.into());
        }
        Ok(())
    }
}

fn ensure(holds: bool, key: &str, value: impl std::fmt::Display, rule: &str) -> Result<(), ConfigError> {
    ConfigError::ensure(holds, &format!("compare.{key}"), value, rule)
}
