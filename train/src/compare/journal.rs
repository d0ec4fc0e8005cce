//! The files of a run whose training only tells what it measures: the same as those of `polaron train`, as far as a comparison reads
//! them.
//!
//! ```text
//! config.toml       everything that determines the run
//! machines.jsonl    the processor
//! metrics.jsonl     what was measured; the last line says how the run ended
//! ```

use std::collections::BTreeMap;
use std::time::Instant;

use super::measurement::Measurement;
use super::trial::Trial;
use crate::error::{CompareError, Error, FileError};
use crate::store::files::write_atomically;
use crate::store::machines;
use crate::store::metrics::{End, Event, Metrics};
use crate::store::run_folder::RunFolder;

/// Writes what a training tells into the folder of its trial. One that tells nothing keeps its files itself.
///
/// # Errors
///
/// Files that cannot be written, [`CompareError::TrialFailed`].
pub fn record(trial: &Trial, told: impl IntoIterator<Item = Measurement>) -> Result<(), Error> {
    let mut told = told.into_iter();
    let since = Instant::now();
    let Some(first) = told.next() else { return Ok(()) };
    let mut journal = Journal::begin(trial, since)?;
    for measurement in std::iter::once(first).chain(told) {
        if journal.write(measurement)? || trial.is_stopped() {
            return Ok(());
        }
    }
    journal.finish()
}

struct Journal<'a> {
    trial: &'a Trial,
    metrics: Metrics,
    /// When the training began to work on its next measurement.
    since: Instant,
    /// Steps, tokens and seconds so far.
    so_far: End,
    /// The step of the last validation.
    validated: Option<u64>,
}

impl<'a> Journal<'a> {
    fn begin(trial: &'a Trial, since: Instant) -> Result<Self, Error> {
        let folder = RunFolder::new(trial.folder());
        std::fs::create_dir_all(folder.path()).map_err(FileError::at("create the folder", folder.path()))?;
        write_atomically(&folder.config_file(), trial.to_toml()?.as_bytes())?;
        // What a process that was killed left of this run is made again.
        write_atomically(&folder.metrics_file(), b"")?;
        machines::note(&folder.machines_file(), 0)?;
        let (metrics, _) = Metrics::resume(&folder.metrics_file(), 0)?;
        Ok(Self { trial, metrics, since, so_far: End::default(), validated: None })
    }

    /// Writes a measurement. Returns whether it ends the run.
    fn write(&mut self, measurement: Measurement) -> Result<bool, Error> {
        let worked = self.since.elapsed().as_secs_f64();
        let ends = match measurement {
            Measurement::Train { step, loss, seconds, optimizer_seconds } => {
                self.check_step(step, self.so_far.step + 1)?;
                if !loss.is_finite() {
                    return self.diverged(format!("the training loss of step {step} is {loss}"));
                }
                self.so_far.step = step;
                self.so_far.tokens = step * self.trial.per_step();
                self.so_far.seconds += seconds.unwrap_or(worked);
                self.so_far.optimizer_seconds += optimizer_seconds.unwrap_or_default();
                self.train(loss)?;
                false
            }
            Measurement::Valid { step, loss } => {
                self.check_step(step, self.so_far.step)?;
                if !loss.is_finite() {
                    return self.diverged(format!("the validation loss after step {step} is {loss}"));
                }
                self.so_far.step = step;
                self.valid(loss)?;
                false
            }
            Measurement::Diverged(reason) => self.diverged(reason)?,
            Measurement::Failed(message) => return Err(self.failed(message)),
        };
        self.since = Instant::now();
        Ok(ends)
    }

    fn train(&mut self, loss: f64) -> Result<(), Error> {
        let End { step, tokens, seconds, optimizer_seconds, .. } = self.so_far;
        let (factors, momentum) = (BTreeMap::new(), None);
        let lr = self.trial.lr() * self.trial.factor(step);
        let event =
            Event::Train { step, loss, lr, tokens, grad_norm: None, seconds, optimizer_seconds, factors, momentum };
        Ok(self.metrics.write(&event)?)
    }

    fn valid(&mut self, loss: f64) -> Result<(), Error> {
        let End { step, tokens, seconds, .. } = self.so_far;
        self.validated = Some(step);
        self.so_far.valid_loss = Some(loss);
        if self.so_far.best_valid_loss.is_none_or(|best| loss < best) {
            (self.so_far.best_valid_loss, self.so_far.best_step) = (Some(loss), Some(step));
        }
        let (bits_per_byte, accuracy, windows, trained_loss, router) = (None, None, None, None, None);
        let event =
            Event::Valid { step, loss, tokens, seconds, bits_per_byte, accuracy, windows, trained_loss, router };
        Ok(self.metrics.write(&event)?)
    }

    fn check_step(&self, step: u64, least: u64) -> Result<(), Error> {
        let last = self.trial.last_step();
        if (least..=last).contains(&step) {
            return Ok(());
        }
        Err(self.failed(format!("it measured at step {step} after step {} of {last}", self.so_far.step)))
    }

    fn diverged(&mut self, reason: String) -> Result<bool, Error> {
        self.end("diverged", Some(reason))?;
        Ok(true)
    }

    fn finish(mut self) -> Result<(), Error> {
        let last = self.trial.last_step();
        if self.validated != Some(last) {
            let seen = self.validated.map_or("it has none".into(), |step| format!("its last one is at step {step}"));
            return Err(self.failed(format!("a run ends with a validation after its last step, {last}, but {seen}")));
        }
        self.end("finished", None)
    }

    fn end(&mut self, status: &str, reason: Option<String>) -> Result<(), Error> {
        self.metrics.write(&Event::End(End { status: status.into(), reason, ..self.so_far.clone() }))?;
        Ok(self.metrics.sync()?)
    }

    fn failed(&self, message: String) -> Error {
        CompareError::TrialFailed { run: self.trial.name().into(), message }.into()
    }
}
