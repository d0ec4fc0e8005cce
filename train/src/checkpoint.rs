//! Checkpoints: written so that a kill at any moment leaves only complete ones, checked when read, and thinned out with
//! care.
//!
//! A checkpoint is a folder `step-000500` with `model.safetensors`, `optimizer.safetensors`, `trainer.json` and the
//! marker `complete.json`, which holds the format version, the step, and length and SHA-256 of the other files. The
//! folder is filled under a temporary name, every file is synced, the marker last, and then it is renamed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polaron_models::NamedTensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{FileError, one_line};
use crate::run_folder::{sync_folder, write_synced};
use crate::tensors;

/// Version of the format written; a newer one is refused.
pub const FORMAT: u32 = 1;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";
const MARKER: &str = "complete.json";
const TEMPORARY: &str = ".tmp-";

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint is incomplete, truncated or changed.
    #[error("the checkpoint file `{}` is damaged ({message}): use an older checkpoint", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A checkpoint of a later version of this program.
    #[error("the checkpoint `{}` has format {format}, but this program reads up to {FORMAT}: use a newer polaron", path.display())]
    Newer {
        /// The checkpoint.
        path: PathBuf,
        /// Its format version.
        format: u32,
    },
    /// There are checkpoints, but none can be used.
    #[error("no checkpoint in `{}` can be used: restore one, or start again with another --out", path.display())]
    NoneGood {
        /// The folder of the checkpoints.
        path: PathBuf,
    },
    /// There is no checkpoint yet.
    #[error("`{}` holds no checkpoint yet: train first", path.display())]
    NoneYet {
        /// The folder of the checkpoints.
        path: PathBuf,
    },
    /// There is no checkpoint of this step.
    #[error("there is no checkpoint of step {step} in `{}`: the steps there are {available}", path.display())]
    NoStep {
        /// The step asked for.
        step: u64,
        /// The folder of the checkpoints.
        path: PathBuf,
        /// The steps that exist, comma separated.
        available: String,
    },
    /// The tensors cannot be stored.
    #[error("the checkpoint of step {step} cannot be written ({message}): please report this")]
    Unstorable {
        /// The step.
        step: u64,
        /// What is wrong.
        message: String,
    },
}

/// Where training stands. The data cursor and the place in the schedule are the step.
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
    /// SHA-256 over tokenizer and tokens of the run's text, in hexadecimal.
    pub data_sha256: String,
    /// SHA-256 of the tokenizer in its stored form, in hexadecimal; empty in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tokenizer_sha256: String,
    /// The configuration that the run was trained with, as TOML text; empty in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
}

/// One checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The weights, by name.
    pub model: Vec<NamedTensor>,
    /// The optimizer record as safetensors bytes.
    pub optimizer: Vec<u8>,
    /// Where training stands.
    pub trainer: TrainerState,
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    step: u64,
    files: BTreeMap<String, Sum>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    sha256: String,
}

impl Sum {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: hex::encode(Sha256::digest(bytes)) }
    }
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The checkpoints in the folder `path`; nothing is read or made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder of the checkpoint of `step`.
    pub fn folder(&self, step: u64) -> PathBuf {
        self.path.join(format!("step-{step:06}"))
    }

    /// The file that says where training stood at `step`.
    pub fn trainer_file(&self, step: u64) -> PathBuf {
        self.folder(step).join(TRAINER)
    }

    /// The steps that have a folder, ascending; damaged ones are among them.
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
            // What cannot be removed now does no harm: it is never read, and overwritten when its step comes again.
            let _ = std::fs::remove_dir_all(self.path.join(name));
        }
    }

    fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().filter_map(Result::ok);
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Writes a checkpoint, then removes those that are no longer needed: the `keep` newest good ones and step 0 stay.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] naming the file; the checkpoints that were there stay as they were, and nothing unfinished
    /// stays behind.
    pub fn write(&self, checkpoint: &Checkpoint, keep: usize) -> Result<(), CheckpointError> {
        let step = checkpoint.trainer.step;
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
            // Training came back to this step from an older checkpoint because this one is damaged.
            std::fs::remove_dir_all(target).map_err(FileError::at("replace", target))?;
        }
        std::fs::rename(temporary, target).map_err(FileError::at("write", target))?;
        Ok(sync_folder(&self.path)?)
    }

    /// Reads every candidate before anything is removed, so that the only good one is never lost to a damaged newer one.
    fn thin_out(&self, keep: usize) {
        let newest_first = self.steps().into_iter().rev();
        let good: Vec<u64> = newest_first.filter(|step| self.check(*step).is_ok()).take(keep.max(1)).collect();
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
        let model = tensors::from_bytes(&model).map_err(|error| self.damaged(step, MODEL, error))?;
        let trainer: TrainerState =
            serde_json::from_slice(&trainer).map_err(|error| self.damaged(step, TRAINER, error))?;
        if trainer.step != step {
            return Err(self.damaged(step, TRAINER, format!("it belongs to step {}", trainer.step)));
        }
        Ok(Checkpoint { model, optimizer, trainer })
    }

    /// The newest checkpoint that is good; every damaged one on the way is passed to `report`. None when there is no
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

    /// Where training stands according to the newest checkpoint that tells it.
    pub fn newest_state(&self) -> Option<TrainerState> {
        let state = |step: u64| serde_json::from_slice(&self.whole(step, TRAINER)?).ok();
        self.steps().into_iter().rev().find_map(state)
    }

    /// One file of a checkpoint, if it is there and as its marker says.
    fn whole(&self, step: u64, name: &str) -> Option<Vec<u8>> {
        let marker = self.parse_marker(step, &self.read(step, MARKER).ok()?).ok()?;
        self.read(step, name).ok().filter(|bytes| marker.files.get(name) == Some(&Sum::of(bytes)))
    }

    /// Reads all files of a checkpoint and compares them with its marker.
    fn check(&self, step: u64) -> Result<BTreeMap<String, Vec<u8>>, CheckpointError> {
        let folder = self.folder(step);
        let bytes = self.read(step, MARKER)?;
        let marker = self.parse_marker(step, &bytes)?;
        let mut files = BTreeMap::new();
        for (name, sum) in marker.files {
            if Path::new(&name).components().count() != 1 {
                return Err(self.damaged(step, MARKER, format!("{name} is no file name")));
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

    fn damaged(&self, step: u64, name: &str, message: impl std::fmt::Display) -> CheckpointError {
        CheckpointError::Damaged { path: self.folder(step).join(name), message: one_line(&message.to_string()) }
    }
}

/// Writes all files of a checkpoint into a fresh folder, the marker last.
fn fill(folder: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let step = checkpoint.trainer.step;
    let unstorable = |message: String| CheckpointError::Unstorable { step, message };
    let model =
        tensors::to_bytes(&checkpoint.model, &BTreeMap::new()).map_err(|error| unstorable(error.to_string()))?;
    let trainer = serde_json::to_vec(&checkpoint.trainer).map_err(|error| unstorable(error.to_string()))?;
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(FileError::at("replace", folder))?;
    }
    std::fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
    let mut files = BTreeMap::new();
    for (name, bytes) in [(MODEL, &model), (OPTIMIZER, &checkpoint.optimizer), (TRAINER, &trainer)] {
        write_synced(&folder.join(name), bytes)?;
        files.insert(name.to_owned(), Sum::of(bytes));
    }
    let marker =
        serde_json::to_vec(&Marker { format: FORMAT, step, files }).map_err(|error| unstorable(error.to_string()))?;
    write_synced(&folder.join(MARKER), &marker)?;
    Ok(sync_folder(folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn checkpoint(step: u64) -> Checkpoint {
        let data = TensorData::new(vec![step as f32, 2.0], [2]);
        Checkpoint {
            model: vec![NamedTensor { name: "w".into(), data }],
            optimizer: vec![1, 2, 3],
            trainer: TrainerState { step, tokens: step * 8, ..TrainerState::default() },
        }
    }

    fn store_with(steps: &[u64], keep: usize) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("checkpoints"));
        for step in steps {
            store.write(&checkpoint(*step), keep).unwrap();
        }
        (folder, store)
    }

    fn flip_a_bit(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (_folder, store) = store_with(&[0, 5], 2);
        let back = store.newest_good(|_| panic!("nothing is damaged")).unwrap().unwrap();
        assert_eq!(back.trainer, checkpoint(5).trainer);
        assert_eq!(back.optimizer, [1, 2, 3]);
        assert_eq!(back.model[0].data.as_bytes(), checkpoint(5).model[0].data.as_bytes());
    }

    #[test]
    fn the_newest_ones_and_step_zero_are_kept() {
        assert_eq!(store_with(&[0, 1, 2, 3, 4], 2).1.steps(), [0, 3, 4]);
        assert_eq!(store_with(&[0, 1, 2, 3, 4], 1).1.steps(), [0, 4]);
        assert_eq!(store_with(&[0, 1], 7).1.steps(), [0, 1]);
    }

    #[test]
    fn a_damaged_checkpoint_does_not_count_as_kept() {
        let (_folder, store) = store_with(&[0, 1, 2, 3], 2);
        flip_a_bit(&store.folder(3).join(MODEL));
        store.write(&checkpoint(4), 2).unwrap();
        assert_eq!(store.steps(), [0, 2, 3, 4]);
        assert_eq!(store.newest_good(|_| ()).unwrap().unwrap().trainer.step, 4);
    }

    #[test]
    fn a_flipped_bit_and_a_truncation_fall_back_and_say_which_file() {
        for file in [MODEL, OPTIMIZER, TRAINER, MARKER] {
            let (_folder, store) = store_with(&[0, 1, 2], 5);
            let path = store.folder(2).join(file);
            if file == OPTIMIZER {
                std::fs::write(&path, [1]).unwrap()
            } else {
                flip_a_bit(&path)
            }
            let mut said = Vec::new();
            let back = store.newest_good(|damage| said.push(damage.to_string())).unwrap().unwrap();
            assert_eq!(back.trainer.step, 1, "{file}");
            assert!(said.len() == 1 && said[0].contains(&path.display().to_string()), "{file}: {said:?}");
        }
    }

    #[test]
    fn a_checkpoint_without_its_marker_does_not_count() {
        let (_folder, store) = store_with(&[0, 1], 5);
        std::fs::remove_file(store.folder(1).join(MARKER)).unwrap();
        assert_eq!(store.newest_good(|_| ()).unwrap().unwrap().trainer.step, 0);
        std::fs::remove_file(store.folder(0).join(MARKER)).unwrap();
        assert!(matches!(store.newest_good(|_| ()), Err(CheckpointError::NoneGood { .. })));
    }

    #[test]
    fn a_newer_format_is_refused_and_not_skipped() {
        let (_folder, store) = store_with(&[0, 1], 5);
        let marker = store.folder(1).join(MARKER);
        let text = std::fs::read_to_string(&marker).unwrap().replace("\"format\":1", "\"format\":9");
        std::fs::write(&marker, text).unwrap();
        assert!(matches!(store.newest_good(|_| ()), Err(CheckpointError::Newer { format: 9, .. })));
    }

    #[test]
    fn a_step_that_does_not_exist_lists_those_that_do() {
        let (_folder, store) = store_with(&[0, 3], 5);
        let said = store.load(2).unwrap_err().to_string();
        assert!(said.contains("step 2") && said.contains("0, 3"), "{said}");
    }

    #[test]
    fn unfinished_checkpoints_are_removed_and_never_read() {
        let (_folder, store) = store_with(&[0], 5);
        fill(&store.path.join(".tmp-step-000007"), &checkpoint(7)).unwrap();
        assert_eq!(store.steps(), [0]);
        store.remove_unfinished();
        assert_eq!(std::fs::read_dir(&store.path).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let said = Store::new(&blocked).write(&checkpoint(0), 2).unwrap_err().to_string();
        assert!(said.contains("cannot create"), "{said}");
    }
}
