//! Checkpoints: written so that a kill at any moment leaves only complete ones, checked when read, and removed only when
//! enough newer ones are good.
//!
//! A checkpoint is a folder `step-000500` with `model.safetensors`, `optimizer.safetensors`, `trainer.json` and the
//! marker `complete.json`, which holds the format version, the step, and length and SHA-256 of the other files.
//! `model.safetensors` has the trained weights, from which a run resumes; where averages of them are validated,
//! these are in `evaluation.safetensors`. The folder is written under a temporary name, every file is synced, the marker
//! last, and then it is renamed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polaron_models::NamedTensor;
use serde::{Deserialize, Serialize};

use crate::error::{CheckpointError, FORMAT, FileError, Problem};
use crate::store::files::{sync_folder, write_synced};
use crate::store::sums::{Sum, SummedFile};
use crate::store::tensors;

const MODEL: &str = "model.safetensors";
const EVALUATION: &str = "evaluation.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";
const MARKER: &str = "complete.json";
const TEMPORARY: &str = ".tmp-";

/// The state of training. The position in the data and in the schedule follow from the step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Finished steps.
    pub step: u64,
    /// Training tokens so far.
    pub tokens: u64,
    /// Training seconds so far.
    pub seconds: f64,
    /// The part of them spent clipping and updating.
    pub optimizer_seconds: f64,
    /// SHA-256 of the run's data (of a text: over tokenizer and tokens), in hexadecimal.
    pub data_sha256: String,
    /// SHA-256 of the tokenizer in its stored form, in hexadecimal; empty in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tokenizer_sha256: String,
    /// The configuration that the run was trained with, as TOML text; empty in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
}

/// What a checkpoint is written from. A file is made when it is written, so that only one is in memory at a time.
pub trait Content {
    /// The state of training.
    fn trainer(&self) -> &TrainerState;

    /// Passes the file of the weights to `write`, part after part.
    ///
    /// # Errors
    ///
    /// When the weights cannot be stored.
    fn model(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem>;

    /// Whether the weights to evaluate are others than the trained ones.
    fn has_evaluation(&self) -> bool;

    /// The same as [`Self::model`] for the weights to evaluate, if there are others.
    ///
    /// # Errors
    ///
    /// When the weights cannot be stored.
    fn evaluation(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem>;

    /// The same for the file of the optimizer's record.
    ///
    /// # Errors
    ///
    /// When the record cannot be stored.
    fn optimizer(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem>;
}

impl Content for Checkpoint {
    fn trainer(&self) -> &TrainerState {
        &self.trainer
    }

    fn model(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem> {
        Ok(tensors::write(&self.model, write)?)
    }

    fn has_evaluation(&self) -> bool {
        self.evaluation.is_some()
    }

    fn evaluation(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem> {
        self.evaluation.as_ref().map_or(Ok(()), |weights| Ok(tensors::write(weights, write)?))
    }

    fn optimizer(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem> {
        write(&self.optimizer);
        Ok(())
    }
}

/// One checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The trained weights, by name.
    pub model: Vec<NamedTensor>,
    /// The weights to evaluate, by name; None where they are the trained ones.
    pub evaluation: Option<Vec<NamedTensor>>,
    /// The optimizer record as safetensors bytes.
    pub optimizer: Vec<u8>,
    /// The state of training.
    pub trainer: TrainerState,
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    step: u64,
    files: BTreeMap<String, Sum>,
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The checkpoints in the folder `path`; nothing is read or created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder of the checkpoint of `step`.
    pub fn folder(&self, step: u64) -> PathBuf {
        self.path.join(format!("step-{step:06}"))
    }

    /// The file with the state of training at `step`.
    pub fn trainer_file(&self, step: u64) -> PathBuf {
        self.folder(step).join(TRAINER)
    }

    /// The steps that have a folder, ascending; damaged ones are included.
    pub fn steps(&self) -> Vec<u64> {
        let names = self.entries().into_iter();
        let mut steps: Vec<u64> = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }

    /// Removes what a killed process left unfinished. Only the process that holds the run's lock may call this.
    pub fn remove_unfinished(&self) {
        for name in self.entries().into_iter().filter(|name| name.starts_with(TEMPORARY)) {
            tracing::info!("removing the unfinished checkpoint {name}");
            // What cannot be removed now does no harm: it is never read, and it is replaced when its step is written again.
            let _ = std::fs::remove_dir_all(self.path.join(name));
        }
    }

    fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().filter_map(Result::ok);
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Writes a checkpoint, then removes those that are no longer needed: the `keep` newest good ones and step 0 are kept.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] naming the file; the existing checkpoints are left unchanged, and nothing unfinished is left.
    pub fn write(&self, checkpoint: &impl Content, keep: usize) -> Result<(), CheckpointError> {
        let step = checkpoint.trainer().step;
        let target = self.folder(step);
        let temporary = self.path.join(format!("{TEMPORARY}step-{step:06}"));
        let written = fill(&temporary, checkpoint).and_then(|()| self.publish(&temporary, &target));
        if let Err(error) = written {
            // Best effort: the error to report is the first one.
            let _ = std::fs::remove_dir_all(&temporary);
            return Err(error);
        }
        tracing::info!("wrote the checkpoint of step {step}");
        self.thin_out(keep);
        Ok(())
    }

    fn publish(&self, temporary: &Path, target: &Path) -> Result<(), CheckpointError> {
        if target.exists() {
            // Training resumed from an older checkpoint, because this one is damaged, and reached its step again.
            std::fs::remove_dir_all(target).map_err(FileError::at("replace", target))?;
        }
        std::fs::rename(temporary, target).map_err(FileError::at("write", target))?;
        Ok(sync_folder(&self.path)?)
    }

    /// Checks every candidate before anything is removed, so that the only good one is never lost to a damaged newer one.
    fn thin_out(&self, keep: usize) {
        let newest_first = self.steps().into_iter().rev();
        let good: Vec<u64> = newest_first.filter(|step| self.is_good(*step)).take(keep.max(1)).collect();
        let Some(oldest) = good.last().copied().filter(|_| good.len() >= keep) else { return };
        for step in self.steps().into_iter().filter(|step| *step != 0 && *step < oldest) {
            let folder = self.folder(step);
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::warn!("cannot remove the old checkpoint `{}` ({error})", folder.display());
            }
        }
    }

    /// Reads and checks the checkpoint of one step.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NoStep`] with the steps that exist, [`CheckpointError::Damaged`] naming the file,
    /// [`CheckpointError::Newer`].
    pub fn load(&self, step: u64) -> Result<Checkpoint, CheckpointError> {
        if !self.folder(step).is_dir() {
            let available = self.steps().iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            if available.is_empty() {
                return Err(CheckpointError::NoneYet { path: self.path.clone() });
            }
            return Err(CheckpointError::NoStep { step, path: self.path.clone(), available });
        }
        let mut files = self.check(step)?;
        let mut take =
            |name: &str| files.remove(name).ok_or_else(|| self.damaged(step, MARKER, format!("{name} is not listed")));
        let (model, optimizer, trainer) = (take(MODEL)?, take(OPTIMIZER)?, take(TRAINER)?);
        let weights =
            |name: &str, bytes: &[u8]| tensors::from_bytes(bytes).map_err(|error| self.damaged(step, name, error));
        let model = weights(MODEL, &model)?;
        let evaluation = files.get(EVALUATION).map(|bytes| weights(EVALUATION, bytes)).transpose()?;
        let trainer: TrainerState =
            serde_json::from_slice(&trainer).map_err(|error| self.damaged(step, TRAINER, error))?;
        if trainer.step != step {
            return Err(self.damaged(step, TRAINER, format!("it belongs to step {}", trainer.step)));
        }
        Ok(Checkpoint { model, evaluation, optimizer, trainer })
    }

    /// SHA-256 of the trained weights of a checkpoint, or of those to evaluate, in hexadecimal, as its marker says.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`] for a marker that cannot be read.
    pub fn weights_sha256(&self, step: u64, evaluation: bool) -> Result<String, CheckpointError> {
        let marker = self.parse_marker(step, &self.read(step, MARKER)?)?;
        let name = if evaluation { EVALUATION } else { MODEL };
        let sum = marker.files.get(name).ok_or_else(|| self.damaged(step, MARKER, format!("{name} is not listed")))?;
        Ok(sum.sha256.clone())
    }

    /// The newest checkpoint that is good; every damaged one that is newer is passed to `report`. None when there is no
    /// checkpoint at all.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Newer`], [`CheckpointError::NoneGood`] when there are only damaged ones, and
    /// [`CheckpointError::File`] when a file cannot be read at all.
    pub fn newest_good(&self, mut report: impl FnMut(&CheckpointError)) -> Result<Option<Checkpoint>, CheckpointError> {
        let steps = self.steps();
        for step in steps.iter().rev() {
            match self.load(*step) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(damage @ CheckpointError::Damaged { .. }) => report(&damage),
                Err(other) => return Err(other),
            }
        }
        if steps.is_empty() { Ok(None) } else { Err(CheckpointError::NoneGood { path: self.path.clone() }) }
    }

    /// The configuration that the newest checkpoint was trained with, and the file that holds it; None without one.
    pub fn trained_with(&self) -> Option<(PathBuf, String)> {
        let state = self.newest_state().filter(|state| !state.config.is_empty())?;
        Some((self.trainer_file(state.step), state.config))
    }

    /// The state of training in the newest checkpoint whose state can be read.
    pub fn newest_state(&self) -> Option<TrainerState> {
        let state = |step: u64| serde_json::from_slice(&self.whole(step, TRAINER)?).ok();
        self.steps().into_iter().rev().find_map(state)
    }

    /// One file of a checkpoint, if it exists and matches the marker.
    fn whole(&self, step: u64, name: &str) -> Option<Vec<u8>> {
        let marker = self.parse_marker(step, &self.read(step, MARKER).ok()?).ok()?;
        self.read(step, name).ok().filter(|bytes| marker.files.get(name) == Some(&Sum::of(bytes)))
    }

    /// Whether all files of a checkpoint match its marker.
    fn is_good(&self, step: u64) -> bool {
        let marker = self.read(step, MARKER).and_then(|bytes| self.parse_marker(step, &bytes));
        marker.is_ok_and(|marker| {
            let found = |name: &str| Sum::of_file(&self.folder(step).join(name));
            marker.files.iter().all(|(name, sum)| found(name).is_ok_and(|found| found == *sum))
        })
    }

    /// Reads all files of a checkpoint and compares them with its marker.
    fn check(&self, step: u64) -> Result<BTreeMap<String, Vec<u8>>, CheckpointError> {
        let folder = self.folder(step);
        let bytes = self.read(step, MARKER)?;
        let marker = self.parse_marker(step, &bytes)?;
        let mut files = BTreeMap::new();
        for (name, sum) in marker.files {
            if Path::new(&name).components().count() != 1 {
                return Err(self.damaged(step, MARKER, format!("{name} is not a file name")));
            }
            let bytes = self.read(step, &name)?;
            let found = Sum::of(&bytes);
            if found.bytes != sum.bytes {
                return Err(self.damaged(step, &name, format!("{} bytes instead of {}", found.bytes, sum.bytes)));
            }
            if found != sum {
                return Err(self.damaged(step, &name, "its checksum does not match"));
            }
            files.insert(name, bytes);
        }
        tracing::debug!("checked `{}`", folder.display());
        Ok(files)
    }

    fn parse_marker(&self, step: u64, bytes: &[u8]) -> Result<Marker, CheckpointError> {
        /// What every version of the marker holds.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(|error| self.damaged(step, MARKER, error))?;
        if version.format > FORMAT {
            return Err(CheckpointError::Newer { path: self.folder(step), format: version.format });
        }
        let marker: Marker = serde_json::from_slice(bytes).map_err(|error| self.damaged(step, MARKER, error))?;
        if marker.step != step {
            return Err(self.damaged(step, MARKER, format!("it belongs to step {}", marker.step)));
        }
        Ok(marker)
    }

    fn read(&self, step: u64, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let path = self.folder(step).join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(self.damaged(step, name, "it is missing"))
            }
            Err(error) => Err(FileError::at("read", &path)(error).into()),
        }
    }

    fn damaged(&self, step: u64, name: &str, problem: impl Into<Problem>) -> CheckpointError {
        CheckpointError::Damaged { path: self.folder(step).join(name), source: problem.into() }
    }
}

/// Writes all files of a checkpoint into a fresh folder, the marker last.
fn fill(folder: &Path, checkpoint: &impl Content) -> Result<(), CheckpointError> {
    let trainer = checkpoint.trainer();
    let step = trainer.step;
    let unstorable = |source: Problem| CheckpointError::Unstorable { step, source };
    let state = serde_json::to_vec(trainer).map_err(|error| unstorable(error.into()))?;
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(FileError::at("replace", folder))?;
    }
    std::fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
    let mut files = BTreeMap::new();
    type Fill<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8])) -> Result<(), Problem>;
    let contents: [(&str, Fill<'_>); 4] = [
        (MODEL, &|write| checkpoint.model(write)),
        (EVALUATION, &|write| checkpoint.evaluation(write)),
        (OPTIMIZER, &|write| checkpoint.optimizer(write)),
        (TRAINER, &|write| {
            write(&state);
            Ok(())
        }),
    ];
    for (name, content) in contents.into_iter().filter(|(name, _)| *name != EVALUATION || checkpoint.has_evaluation()) {
        let path = folder.join(name);
        let mut file = SummedFile::create(&path).map_err(FileError::at("write", &path))?;
        content(&mut |part| file.write(part)).map_err(unstorable)?;
        files.insert(name.to_owned(), file.finish().map_err(FileError::at("write", &path))?);
    }
    let marker =
        serde_json::to_vec(&Marker { format: FORMAT, step, files }).map_err(|error| unstorable(error.into()))?;
    write_synced(&folder.join(MARKER), &marker)?;
    Ok(sync_folder(folder)?)
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
