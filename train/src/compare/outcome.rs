//! The outcome of a run, read from its `metrics.jsonl`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::store::machines;
use crate::store::metrics::MatrixSpectrum;
use crate::store::metrics::{self, End, Event};
use crate::store::run_folder::RunFolder;

/// A loss, and the point in training at which it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Finished steps.
    pub step: f64,
    /// Training tokens.
    pub tokens: f64,
    /// Training seconds, without validation.
    pub seconds: f64,
    /// Nats per token.
    pub loss: f64,
}

/// A run that has ended: finished or diverged.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it diverged, if it did.
    pub diverged: Option<String>,
    /// Validation loss after the last step; None for a run that diverged.
    pub loss: Option<f64>,
    /// Its end: finished steps, tokens, seconds.
    pub end: End,
    /// Validation losses that can be compared with each other, because they are over the same windows.
    pub curve: Vec<Point>,
    /// Training loss of every step.
    pub train: Vec<Point>,
    /// Spectra of the weights, if they were recorded.
    pub spectra: Vec<Snapshot>,
    /// Models of the processors that it was trained on; empty if they are not known.
    pub cpus: Vec<String>,
}

/// Spectra of all matrices at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Finished steps.
    pub step: f64,
    /// The matrices, in the order of the model.
    pub matrices: Vec<MatrixSpectrum>,
}

impl Outcome {
    /// Reads the run in a folder; None if it has not ended, or if there is no run.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let folder = RunFolder::new(folder);
        let events = metrics::read(&folder.metrics_file())?;
        let Some(Event::End(end)) = events.last() else { return Ok(None) };
        let diverged = match end.status.as_str() {
            "finished" => None,
            "diverged" => Some(end.reason.clone().unwrap_or_else(|| "the run diverged".into())),
            _ => return Ok(None),
        };
        Ok(Some(Self::of(&events, end, diverged, machines::cpus(&folder.machines_file())?)))
    }

    fn of(events: &[Event], end: &End, diverged: Option<String>, cpus: Vec<String>) -> Self {
        let loss = if diverged.is_some() { None } else { end.valid_loss };
        Self {
            loss,
            curve: validations(events),
            train: train_losses(events),
            spectra: snapshots(events),
            cpus,
            end: end.clone(),
            diverged,
        }
    }

    /// Share of the training time spent clipping and updating; None if it was not measured.
    pub fn optimizer_share(&self) -> Option<f64> {
        (self.end.seconds > 0.0 && self.end.optimizer_seconds > 0.0)
            .then(|| self.end.optimizer_seconds / self.end.seconds)
    }
}

/// The validation losses over the same number of windows as the first of them.
pub fn validations(events: &[Event]) -> Vec<Point> {
    let coverage = |event: &Event| match event {
        Event::Valid { windows, .. } => Some(*windows),
        _ => None,
    };
    let first = events.iter().find_map(coverage);
    let points = events.iter().filter(|event| coverage(event) == first).filter_map(|event| match event {
        Event::Valid { step, loss, tokens, seconds, .. } => Some(point(*step, *tokens, *seconds, *loss)),
        _ => None,
    });
    points.collect()
}

/// The training loss of every step.
pub fn train_losses(events: &[Event]) -> Vec<Point> {
    let points = events.iter().filter_map(|event| match event {
        Event::Train { step, loss, tokens, seconds, .. } => Some(point(*step, *tokens, *seconds, *loss)),
        _ => None,
    });
    points.collect()
}

/// The spectra of the weights, if they were recorded.
pub fn snapshots(events: &[Event]) -> Vec<Snapshot> {
    let snapshots = events.iter().filter_map(|event| match event {
        Event::Spectra { step, matrices } => Some(Snapshot { step: *step as f64, matrices: matrices.clone() }),
        _ => None,
    });
    snapshots.collect()
}

fn point(step: u64, tokens: u64, seconds: f64, loss: f64) -> Point {
    Point { step: step as f64, tokens: tokens as f64, seconds, loss }
}

/// Where a curve first falls to `target`, interpolated linearly between its points; None if it never does.
pub fn first_reach(curve: &[Point], target: f64) -> Option<Point> {
    let index = curve.iter().position(|point| point.loss <= target)?;
    let after = curve[index];
    let Some(before) = index.checked_sub(1).map(|index| curve[index]) else { return Some(after) };
    let share = (before.loss - target) / (before.loss - after.loss);
    let between = |from: f64, to: f64| from + share * (to - from);
    Some(Point {
        step: between(before.step, after.step),
        tokens: between(before.tokens, after.tokens),
        seconds: between(before.seconds, after.seconds),
        loss: target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: &[f64]) -> Vec<Point> {
        losses.iter().enumerate().map(|(i, loss)| point(10 * (i as u64 + 1), 100, i as f64, *loss)).collect()
    }

    #[test]
    fn a_target_is_reached_between_two_validations() {
        let curve = curve(&[4.0, 3.0, 2.0, 2.5, 1.0]);
        let at = |target| first_reach(&curve, target).map(|point| point.step);
        assert_eq!(at(3.0), Some(20.0));
        assert_eq!(at(2.25), Some(27.5));
        assert_eq!(at(2.0), Some(30.0));
        assert_eq!(at(4.5), Some(10.0));
        assert_eq!(at(1.75), Some(45.0));
        assert_eq!(at(0.5), None);
        assert_eq!(first_reach(&[], 1.0), None);
    }

    #[test]
    fn losses_over_other_windows_are_not_mixed_in() {
        let valid = |step, windows| {
            let (loss, tokens, seconds, bits_per_byte, trained_loss) = (2.0, 1, 1.0, None, None);
            let (accuracy, router) = (None, None);
            Event::Valid { step, loss, tokens, seconds, bits_per_byte, accuracy, windows, trained_loss, router }
        };
        let events = [valid(10, Some(8)), valid(20, Some(8)), valid(30, None)];
        assert_eq!(validations(&events).len(), 2);
        assert_eq!(validations(&events[2..]).len(), 1);
    }
}
