//! The run folder: layout, lock, and whether an existing one belongs to the same configuration.
//!
//! ```text
//! config.toml       fully resolved; `polaron train config.toml` repeats the run
//! tokenizer.json    for generating text without the data (decoders only)
//! plan.txt          which optimizer updates which parameter
//! metrics.jsonl     one event per line
//! machines.jsonl    on which processors it was trained
//! events.out.tfevents.…  the same events for TensorBoard, with `train.log_to`
//! checkpoints/step-000500/
//! logs/rank-1.log   what the other processes say, if several train the run
//! report.html       what `polaron report` shows, written when training ends
//! run.lock          locked while a process trains in the folder
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use polaron_datasets::{Tokenizer, decode_utf8};
use toml::{Table, Value};

use crate::error::{ConfigError, Error, FileError, FolderError};
use crate::host::device;
use crate::host::progress::say;
use crate::settings::config::{Config, SOURCE, resumable_keys};
use crate::settings::layers::{Layers, parse, read_file, read_text};
use crate::settings::merge;
use crate::store::checkpoint::Store;
use crate::store::files::{Lock, is_locked, lock_file, temporary_name, write_atomically};

const CONFIG: &str = "config.toml";
const TOKENIZER: &str = "tokenizer.json";
const PLAN: &str = "plan.txt";
/// The files that a new run starts with.
const STARTERS: &[&str] = &[TOKENIZER, PLAN, CONFIG];
const LOCK: &str = "run.lock";

/// A folder that holds, or will hold, one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The folder at `path`; nothing is read or created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder at `path`, which must hold a run.
    ///
    /// # Errors
    ///
    /// [`FolderError::NoRun`].
    pub fn existing(path: &Path) -> Result<Self, FolderError> {
        let folder = Self::new(path);
        if folder.config_file().is_file() { Ok(folder) } else { Err(FolderError::NoRun { path: path.into() }) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// `metrics.jsonl`.
    pub fn metrics_file(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `machines.jsonl`.
    pub fn machines_file(&self) -> PathBuf {
        self.path.join("machines.jsonl")
    }

    /// `plan.txt`.
    pub fn plan_file(&self) -> PathBuf {
        self.path.join(PLAN)
    }

    /// `logs`.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// What a process says that does not talk to the user.
    pub fn log_file(&self, rank: usize) -> PathBuf {
        self.logs().join(format!("rank-{rank}.log"))
    }

    /// `checkpoints`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `tokenizer.json`.
    pub fn tokenizer_file(&self) -> PathBuf {
        self.path.join(TOKENIZER)
    }

    /// The checkpoints.
    pub fn store(&self) -> Store {
        Store::new(self.checkpoints())
    }

    /// Whether the folder holds a run (`true`) or is still free (`false`).
    ///
    /// # Errors
    ///
    /// [`FolderError::NotARun`] when it holds something else, [`FileError`] when it cannot be read.
    pub fn holds_run(&self) -> Result<bool, Error> {
        if self.config_file().is_file() {
            return Ok(true);
        }
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(FileError::at("use the run folder", &self.path)(error).into()),
        };
        // A run that was killed while starting may have left any file that is written before the configuration.
        let ours =
            |name: &str| name == LOCK || STARTERS.iter().any(|file| name == *file || name == temporary_name(file));
        let foreign = entries.filter_map(Result::ok).any(|entry| !entry.file_name().to_str().is_some_and(ours));
        if foreign { Err(FolderError::NotARun { path: self.path.clone() }.into()) } else { Ok(false) }
    }

    /// Checks that `config` is the configuration of the run in the folder, and that the run was trained with it. Reporting
    /// keys and the path of the data may differ.
    ///
    /// # Errors
    ///
    /// [`FolderError::Edited`], [`FolderError::OtherConfig`] with every key that differs and both values.
    pub fn check_config(&self, config: &Config) -> Result<(), Error> {
        let file = self.config_file();
        let there = complete(&file, read_file(&file)?)?;
        if let Some((copy, text)) = self.store().trained_with() {
            self.check_copy(&copy, &text)?;
        }
        let differences = merge::differences(&there, &config.to_table()?, &resumable_keys(&there));
        if differences.is_empty() {
            return Ok(());
        }
        Err(FolderError::OtherConfig { path: self.path.clone(), differences }.into())
    }

    /// Checks that the configuration of a run of an earlier version, whose checkpoints hold no configuration, means the same
    /// in this version.
    ///
    /// # Errors
    ///
    /// [`FolderError::EarlierAxis`].
    pub fn check_earlier(&self, config: &Config) -> Result<(), FolderError> {
        let optimizer = &config.optimizer;
        let by_role = matches!(optimizer.stack.as_str(), "hybrid" | "row_norm");
        if by_role && !optimizer.matrix.contains_key("axis") {
            return Err(FolderError::EarlierAxis { file: self.config_file(), stack: optimizer.stack.clone() });
        }
        Ok(())
    }

    /// Checks that the configuration file is the one that a checkpoint was trained with, given path and text of the copy in
    /// that checkpoint; reporting keys and the path of the data may differ.
    ///
    /// # Errors
    ///
    /// [`FolderError::Edited`] with every key that differs and both values.
    pub fn check_copy(&self, copy: &Path, text: &str) -> Result<(), Error> {
        let file = self.config_file();
        let (before, now) = (complete(copy, parse(copy, text)?)?, complete(&file, read_file(&file)?)?);
        let differences = merge::edits(&before, &now, &resumable_keys(&before));
        if differences.is_empty() { Ok(()) } else { Err(FolderError::Edited { file, differences }.into()) }
    }

    /// The configuration of the run in the folder, for reading the run: its device is replaced by the default one, since
    /// this program may have been built without it. Where the file was edited or damaged after training, the copy in the
    /// newest checkpoint is used.
    ///
    /// # Errors
    ///
    /// Those of reading and checking a configuration file.
    pub fn config(&self) -> Result<Config, Error> {
        let (path, text) = self.config_text()?;
        if path != self.config_file() {
            let (file, copy) = (self.config_file(), path.display());
            say(&format!("warning: `{}` was edited after training; using `{copy}` instead", file.display()));
        }
        let device = ("the default", "device.name", Value::String(device::default_name().into()));
        Layers { file: Some((path.clone(), parse(&path, &text)?)), flags: vec![device], ..Layers::default() }.resolve()
    }

    /// Path and text of the file that [`Self::config`] reads.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be read.
    pub fn config_text(&self) -> Result<(PathBuf, String), Error> {
        let file = self.config_file();
        match self.store().trained_with() {
            Some((copy, text)) if self.check_copy(&copy, &text).is_err() => Ok((copy, text)),
            _ => Ok((file.clone(), read_text(&file)?)),
        }
    }

    /// Writes into the configuration file that the data of the run are now at `source`.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn note_source(&self, source: &str) -> Result<(), Error> {
        let file = self.config_file();
        let mut table = read_file(&file)?;
        if merge::lookup(&table, SOURCE).and_then(Value::as_str) == Some(source) {
            return Ok(());
        }
        merge::assign(&mut table, SOURCE, source.into(), "in the run folder")?;
        write_atomically(&file, toml::to_string(&table).map_err(ConfigError::misfit)?.as_bytes())?;
        say(&format!("the data are the same at `{source}`: wrote this path into `{}`", file.display()));
        Ok(())
    }

    /// Creates the folder if needed and takes its lock.
    ///
    /// # Errors
    ///
    /// [`FolderError::Locked`] when another process holds it, [`FileError`] when the folder cannot be created or written.
    pub fn lock(&self) -> Result<Lock, Error> {
        std::fs::create_dir_all(&self.path).map_err(FileError::at("create the run folder", &self.path))?;
        let locked = || FolderError::Locked { path: self.path.clone() }.into();
        lock_file(&self.path.join(LOCK))?.ok_or_else(locked)
    }

    /// Whether a process trains in the folder.
    pub fn is_locked(&self) -> bool {
        is_locked(&self.path.join(LOCK))
    }

    /// Writes the files that a new run starts with: the tokenizer of a decoder, the plan and, last, the configuration, which
    /// makes the folder a run.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn begin(&self, config: &Config, tokenizer: Option<&Tokenizer>, plan: &str) -> Result<(), Error> {
        if let Some(tokenizer) = tokenizer {
            let json = serde_json::to_string(tokenizer).map_err(ConfigError::misfit)?;
            write_atomically(&self.tokenizer_file(), json.as_bytes())?;
        }
        write_atomically(&self.plan_file(), plan.as_bytes())?;
        write_atomically(&self.config_file(), config.to_toml()?.as_bytes())?;
        Ok(())
    }

    /// The tokenizer of the run in the folder.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be read, [`FolderError::Damaged`] when it is not a tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let path = self.tokenizer_file();
        let bytes = std::fs::read(&path).map_err(FileError::at("read", &path))?;
        let (text, _) = decode_utf8(&path, bytes)?;
        serde_json::from_str(&text).map_err(|error| FolderError::Damaged { path, source: error.into() }.into())
    }
}

/// A configuration file over the defaults. A file of an earlier version lacks the keys that did not exist yet: their defaults
/// are what it computed.
fn complete(path: &Path, table: Table) -> Result<Table, Error> {
    Layers { file: Some((path.into(), table)), ..Layers::default() }.table()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_folder_a_run_and_a_foreign_folder_are_told_apart() {
        let base = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(base.path().join("a"));
        assert!(!folder.holds_run().unwrap());
        let lock = folder.lock().unwrap();
        assert!(!folder.holds_run().unwrap());
        drop(lock);
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        assert!(folder.holds_run().unwrap_err().to_string().contains("holds no run"));
        std::fs::write(folder.config_file(), "").unwrap();
        assert!(folder.holds_run().unwrap());
    }

    #[test]
    fn a_folder_is_locked_once() {
        let base = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(base.path());
        let lock = folder.lock().unwrap();
        let said = folder.lock().unwrap_err().to_string();
        assert!(said.contains("another process is training"), "{said}");
        drop(lock);
        folder.lock().unwrap();
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_temporary() {
        let base = tempfile::tempdir().unwrap();
        let target = base.path().join("x");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("inside"), "old").unwrap();
        let said = write_atomically(&target, b"new").unwrap_err().to_string();
        assert!(said.contains("cannot write") && said.contains(&target.display().to_string()), "{said}");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 1);
        write_atomically(&base.path().join("y"), b"new").unwrap();
        assert_eq!(std::fs::read(base.path().join("y")).unwrap(), b"new");
    }
}
