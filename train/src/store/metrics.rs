//! `metrics.jsonl`: one event per line, and which of them a resumed run keeps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use polaron::layerwise::Probe;
use polaron_verify::inspect::{Bulk, Change, Overlap, Spectrum};
use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::networks::routers::RouterReport;
use crate::store::files::write_atomically;

/// One line of `metrics.jsonl`.
///
/// `step` counts finished optimizer steps: the train event of step 1 holds the loss of the first batch, with the
/// initial weights; a valid event of step s belongs to the weights after s steps. `tokens` and both `seconds` are totals
/// since the start of the run, over all its resumed sessions (a perceptron counts images as tokens); `seconds` is training
/// time only (batches, forward, backward, optimizer), without validation and checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A finished optimizer step.
    Train {
        /// Finished steps.
        step: u64,
        /// Mean cross-entropy of the batch before the update, in nats per token.
        loss: f64,
        /// Learning rate of the main rule at this step.
        lr: f64,
        /// Training tokens so far.
        tokens: u64,
        /// Global norm of the gradient before clipping; absent where it was not measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grad_norm: Option<f64>,
        /// Training seconds so far.
        seconds: f64,
        /// The part of `seconds` spent clipping and updating.
        optimizer_seconds: f64,
        /// Factor of the learning rate at this step of every `schedule.rule`, by what it is for; absent without such rules.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        factors: BTreeMap<String, f64>,
        /// Momentum of the matrix rules at this step; absent without `schedule.momentum`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        momentum: Option<f64>,
    },
    /// A validation.
    Valid {
        /// Finished steps.
        step: u64,
        /// Mean cross-entropy over the non-overlapping windows (or the images), in nats per token (or image).
        loss: f64,
        /// Training tokens so far.
        tokens: u64,
        /// Training seconds so far.
        seconds: f64,
        /// The same in bits per byte of text, over the same windows; absent for images, where the tokenizer does not know its
        /// bytes, and in files of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bits_per_byte: Option<f64>,
        /// Share of images whose class has the highest score; absent for tokens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        /// How many evenly spaced windows the loss is over; absent for all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        windows: Option<u64>,
        /// The loss of the trained weights over the same windows; absent where `loss` is theirs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trained_loss: Option<f64>,
        /// The metrics of the routers of a mixture of experts; absent without experts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        router: Option<RouterReport>,
    },
    /// Spectra of the weights, every `train.spectra_every` steps.
    Spectra {
        /// Finished steps.
        step: u64,
        /// Every matrix, in the order of the model.
        matrices: Vec<MatrixSpectrum>,
    },
    /// The largest attention logits of a step, every `train.logits_every` steps.
    Heads {
        /// Finished steps: the logits are those of the batch of the last one, before its update.
        step: u64,
        /// The largest logit of every head, for every attention layer, first to last.
        largest: Vec<Vec<f32>>,
        /// How many heads were scaled down after the update; absent without `optimizer.qk_clip`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clipped: Option<usize>,
    },
    /// What a step would do, measured before it is made; one event for every group of parameters, every `train.probe_every`
    /// steps.
    Probe {
        /// Finished steps, with the one that was measured.
        step: u64,
        /// The measurements.
        #[serde(flatten)]
        probe: Probe,
    },
    /// The largest curvature of the loss, every `train.sharpness_every` steps.
    Sharpness {
        /// Finished steps, with the one before which it was measured.
        step: u64,
        /// The eigenvalue of the Hessian with the largest magnitude; absent where it could not be measured.
        sharpness: Option<f64>,
        /// 2 over the learning rate of the main rule: the largest curvature at which gradient descent with this rate is stable.
        /// Absent where the rate is 0.
        stable_below: Option<f64>,
    },
    /// The energy of Muon or smoothed Muon (arXiv 2605.23871), every `train.energy_every` steps and before the first.
    Energy {
        /// Finished steps.
        step: u64,
        /// The loss on the probe batches; this and the other numbers are absent where they are not finite.
        objective: Option<f64>,
        /// What the momentum adds, see [`LayerwiseOptimizer::energy`](polaron::LayerwiseOptimizer::energy).
        kinetic: Option<f64>,
        /// Both together, which does not rise in the limit of small steps over the full batch.
        total: Option<f64>,
        /// How much of it the last step lost, to first order.
        dissipated: Option<f64>,
        /// Whether it is above that of the record before; absent at the first, and where one of both is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rises: Option<bool>,
    },
    /// The last line.
    End(End),
}

/// The spectrum of one matrix of the weights, and how it changed. What is absent is not defined, for the reason stated, or not in
/// files of earlier versions. For a stack of experts, every number is the mean over the experts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixSpectrum {
    /// Its path in the model.
    pub name: String,
    /// Whether the run never changes it; then it has neither overlap nor changes. Absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// Its singular values in a few numbers.
    #[serde(flatten)]
    pub spectrum: Spectrum,
    /// What of it noise explains; absent for matrices with fewer than two singular values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<Bulk>,
    /// The scale of its bulk over that at step 0; absent at the first record, in runs that did not record step 0, and for matrices
    /// whose bulk there was 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk_scale: Option<f64>,
    /// How far its first singular vectors turned since the last record; absent at the first record, and for a zero matrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// The change since the last record; absent at the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_last: Option<Change>,
    /// The change since step 0; absent at the first record, and in runs that did not record step 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_start: Option<Change>,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// "finished", "interrupted" or "diverged".
    pub status: String,
    /// Finished steps.
    pub step: u64,
    /// Last validation loss, if there was one.
    pub valid_loss: Option<f64>,
    /// Lowest validation loss, if there was one.
    pub best_valid_loss: Option<f64>,
    /// The step it belongs to.
    pub best_step: Option<u64>,
    /// Training tokens.
    pub tokens: u64,
    /// Training seconds.
    pub seconds: f64,
    /// The part spent clipping and updating.
    pub optimizer_seconds: f64,
    /// Largest memory of the process in bytes, where the system reports it.
    pub peak_memory_bytes: Option<u64>,
    /// Why a run diverged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Event {
    /// Finished steps at this event.
    pub fn step(&self) -> u64 {
        match self {
            Self::Train { step, .. }
            | Self::Valid { step, .. }
            | Self::Spectra { step, .. }
            | Self::Heads { step, .. }
            | Self::Probe { step, .. }
            | Self::Sharpness { step, .. }
            | Self::Energy { step, .. }
            | Self::End(End { step, .. }) => *step,
        }
    }
}

/// `metrics.jsonl`, open for more lines.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    path: PathBuf,
}

impl Metrics {
    /// Opens the file for a run that resumes at `step`: events up to that step are kept byte for byte; later events, end
    /// events and incomplete lines are removed. Returns the events that are kept.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn resume(path: &Path, step: u64) -> Result<(Self, Vec<Event>), FileError> {
        let bytes = read_or_empty(path)?;
        let (kept, events) = keep_until(&bytes, step);
        if kept != bytes {
            write_atomically(path, &kept)?;
        }
        let file = File::options().create(true).append(true).open(path).map_err(FileError::at("write", path))?;
        Ok((Self { file, path: path.into() }, events))
    }

    /// Appends one line. It is passed to the operating system at once, so that it survives the end of this process.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn write(&mut self, event: &Event) -> Result<(), FileError> {
        let mut line = serde_json::to_vec(event).map_err(|error| FileError::at("write", &self.path)(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(FileError::at("write", &self.path))
    }

    /// Waits until every line is on the disk.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync_all().map_err(FileError::at("write", &self.path))
    }
}

/// All events of a file; incomplete lines are ignored.
///
/// # Errors
///
/// [`FileError`] naming the file; a file that does not exist holds no events.
pub fn read(path: &Path) -> Result<Vec<Event>, FileError> {
    Ok(lines(&read_or_empty(path)?).filter_map(parse).collect())
}

/// The lines of the events up to a step, without those about the end of a session.
///
/// # Errors
///
/// [`FileError`] naming the file; a file that does not exist holds no events.
pub fn until(path: &Path, step: u64) -> Result<Vec<u8>, FileError> {
    Ok(keep_until(&read_or_empty(path)?, step).0)
}

fn read_or_empty(path: &Path) -> Result<Vec<u8>, FileError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(FileError::at("read", path)),
    }
}

/// Complete lines, without their line break; a last line cut off by a kill is not one of them.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}

fn keep_until(bytes: &[u8], step: u64) -> (Vec<u8>, Vec<Event>) {
    let (mut kept, mut events) = (Vec::with_capacity(bytes.len()), Vec::new());
    for line in lines(bytes) {
        let Some(event) = parse(line) else { continue };
        if event.step() <= step && !matches!(event, Event::End(_)) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
            events.push(event);
        }
    }
    (kept, events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polaron_models::RouterMetrics;

    fn train(step: u64) -> Event {
        Event::Train {
            step,
            loss: 2.5,
            lr: 0.02,
            tokens: step * 8,
            grad_norm: Some(1.0),
            seconds: 0.5,
            optimizer_seconds: 0.1,
            factors: BTreeMap::new(),
            momentum: None,
        }
    }

    fn valid(step: u64) -> Event {
        Event::Valid {
            step,
            loss: 2.25,
            tokens: step * 8,
            seconds: 0.5,
            bits_per_byte: None,
            accuracy: None,
            windows: None,
            trained_loss: None,
            router: None,
        }
    }

    fn end(step: u64) -> Event {
        Event::End(End {
            status: "interrupted".into(),
            step,
            valid_loss: None,
            best_valid_loss: None,
            best_step: None,
            tokens: 0,
            seconds: 0.0,
            optimizer_seconds: 0.0,
            peak_memory_bytes: None,
            reason: None,
        })
    }

    fn text(events: &[Event]) -> Vec<u8> {
        events.iter().flat_map(|event| [serde_json::to_vec(event).unwrap(), vec![b'\n']].concat()).collect()
    }

    #[test]
    fn a_line_has_the_promised_fields() {
        let line = serde_json::to_string(&train(3)).unwrap();
        assert_eq!(
            line,
            r#"{"event":"train","step":3,"loss":2.5,"lr":0.02,"tokens":24,"grad_norm":1.0,"seconds":0.5,"optimizer_seconds":0.1}"#
        );
        let mut own = train(3);
        if let Event::Train { factors, momentum, .. } = &mut own {
            (*factors, *momentum) = (BTreeMap::from([("adamw".to_owned(), 0.5)]), Some(0.875));
        }
        let line = serde_json::to_string(&own).unwrap();
        assert!(line.ends_with(r#""optimizer_seconds":0.1,"factors":{"adamw":0.5},"momentum":0.875}"#), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), own);
        let line = serde_json::to_string(&valid(3)).unwrap();
        assert_eq!(line, r#"{"event":"valid","step":3,"loss":2.25,"tokens":24,"seconds":0.5}"#);
        assert!(serde_json::to_string(&end(3)).unwrap().starts_with(r#"{"event":"end","status":"interrupted""#));
    }

    #[test]
    fn a_validation_with_experts_holds_the_means_and_every_router() {
        let metrics = |logits: &[f32]| RouterMetrics::of_logits(logits, 2, 1);
        let batches = [
            vec![metrics(&[1.0, 0.0]), metrics(&[0.0, 1.0, 1.0, 0.0])],
            vec![metrics(&[0.0, 1.0, 1.0, 0.0]), metrics(&[0.0, 1.0, 1.0, 0.0])],
        ];
        let report = RouterReport::of_batches(&batches).unwrap();
        assert_eq!([0, 1].map(|index| report.layers[index].load_cv), [0.5, 0.0]);
        assert_eq!(report.mean.load_cv, 0.25);
        let mut event = valid(1);
        if let Event::Valid { router, .. } = &mut event {
            *router = Some(report);
        }
        let line = serde_json::to_string(&event).unwrap();
        assert!(
            line.contains(r#""router":{"load_cv":0.25,"#) && line.contains(r#""layers":[{"load_cv":0.5,"#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        assert_eq!(RouterReport::of_batches(&[vec![], vec![]]), None);
    }

    #[test]
    fn resuming_keeps_the_events_up_to_the_checkpoint_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut bytes = text(&[train(1), train(2), valid(2), train(3), end(3)]);
        bytes.extend_from_slice(br#"{"event":"train","st"#);
        std::fs::write(&path, bytes).unwrap();
        let (mut metrics, events) = Metrics::resume(&path, 2).unwrap();
        assert_eq!(events, [train(1), train(2), valid(2)]);
        metrics.write(&train(3)).unwrap();
        metrics.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), text(&[train(1), train(2), valid(2), train(3)]));
    }

    #[test]
    fn a_missing_file_and_an_incomplete_last_line_are_not_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert!(read(&path).unwrap().is_empty());
        std::fs::write(&path, [text(&[train(1)]), b"{\"event".to_vec()].concat()).unwrap();
        assert_eq!(read(&path).unwrap(), [train(1)]);
    }
}
