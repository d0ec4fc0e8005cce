//! The energy of Muon or smoothed Muon, recorded during training if `train.energy_every` is set.

use polaron::rule::Energy;
use polaron::{LayerwiseError, LayerwiseOptimizer};

use crate::error::{ConfigError, Error};
use crate::settings::config::Config;
use crate::store::metrics::Event;

/// The newest energy in `metrics.jsonl`: step, and the total if it is finite.
#[derive(Clone, Copy, Debug)]
pub struct EnergyRecords(Option<(u64, Option<f64>)>);

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
        // JSON has no other numbers.
        let known = |value: f64| value.is_finite().then_some(value);
        let total = known(objective + energy.kinetic);
        let last = self.0.replace((step, total)).and_then(|(_, last)| last);
        let rises = total.zip(last).map(|(total, last)| total > last);
        let [objective, kinetic, dissipated] = [objective, energy.kinetic, energy.dissipated].map(known);
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
    if every == 0 {
        return Ok(());
    }
    let refuse = |error: LayerwiseError| ConfigError::ensure(false, "train.energy_every", every, &error.to_string());
    Ok(optimizer.energy(1.0).map(drop).or_else(refuse)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_not_finite_is_recorded_as_absent_and_read_again() {
        let mut records = EnergyRecords::of(&[]);
        let mut rises = |step, objective| match records.add(step, objective, Energy::default()) {
            event @ Event::Energy { rises, .. } => {
                let line = serde_json::to_string(&event).unwrap();
                assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
                assert!(EnergyRecords::of(&[event]).holds(step));
                rises
            }
            other => panic!("{other:?}"),
        };
        assert_eq!([rises(0, 2.0), rises(1, 3.0), rises(2, f64::NAN)], [None, Some(true), None]);
        assert_eq!([rises(3, f64::INFINITY), rises(4, 1.0), rises(5, 0.5)], [None, None, Some(false)]);
    }
}
