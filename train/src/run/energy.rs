//! The energy of Muon or smoothed Muon, recorded during training if `train.energy_every` is set.

use polaron::LayerwiseOptimizer;
use polaron::rule::Energy;

use crate::error::{ConfigError, Error};
use crate::settings::config::Config;
use crate::store::metrics::Event;

/// The newest energy in `metrics.jsonl`: step and total.
#[derive(Clone, Copy, Debug)]
pub struct EnergyRecords(Option<(u64, f64)>);

impl EnergyRecords {
    /// That of a resumed run, by its events.
    pub fn of(events: &[Event]) -> Self {
        Self(events.iter().rev().find_map(|event| match event {
            Event::Energy { step, total, .. } => Some((*step, *total)),
            _ => None,
        }))
    }

    /// Whether the newest one is that of this step.
    pub fn holds(&self, step: u64) -> bool {
        self.0.is_some_and(|(last, _)| last == step)
    }

    /// The event for this step, with the loss on the probe batches.
    pub fn add(&mut self, step: u64, objective: f64, energy: Energy) -> Event {
        let Energy { kinetic, dissipated, .. } = energy;
        let total = objective + kinetic;
        let rises = self.0.replace((step, total)).map(|(_, last)| total > last);
        Event::Energy { step, objective, kinetic, total, dissipated, rises }
    }
}

/// Refuses the measurement of an energy that the optimizer does not have.
///
/// # Errors
///
/// If it is wanted and not known, with the reason.
pub fn check(config: &Config, optimizer: &LayerwiseOptimizer) -> Result<(), Error> {
    let every = config.train.energy_every;
    match optimizer.energy(1.0) {
        Err(error) if every > 0 => Ok(ConfigError::ensure(false, "train.energy_every", every, &error.to_string())?),
        _ => Ok(()),
    }
}
