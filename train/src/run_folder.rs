//! The run folder: layout, lock, and whether an existing one belongs to the same configuration.
//!
//! ```text
//! config.toml       fully resolved; `polaron train config.toml` repeats the run
//! tokenizer.json    so that text can be generated without the data (decoders)
//! plan.txt          which optimizer updates which parameter
//! metrics.jsonl     one event a line
//! checkpoints/step-000500/
//! report.html       what `polaron report` shows, written when training ends
//! run.lock          held while a process trains into the folder
//! ```

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use polaron_datasets::{Tokenizer, decode_utf8};
use toml::{Table, Value};

use crate::checkpoint::Store;
use crate::config::{Config, ConfigError, RESUMABLE_KEYS, SOURCE};
use crate::device;
use crate::error::{Error, FileError, one_line};
use crate::layers::{Layers, parse, read_file, read_text};
use crate::merge;
use crate::progress::say;

const CONFIG: &str = "config.toml";
const TOKENIZER: &str = "tokenizer.json";
const PLAN: &str = "plan.txt";
/// What a run begins with.
const STARTERS: &[&str] = &[TOKENIZER, PLAN, CONFIG];
const LOCK: &str = "run.lock";

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The folder holds a run of another configuration.
    #[error("`{}` holds a run of another configuration: {}; a run goes on with its own values alone: repeat them, or choose another --out for a new run", path.display(), differences.join(", "))]
    OtherConfig {
        /// The folder.
        path: PathBuf,
        /// One entry per differing key, with both values.
        differences: Vec<String>,
    },
    /// A run of an earlier version, whose stack has another axis in this one.
    #[error("`{}` was begun by a version in which the stack `{stack}` took units along the output axis everywhere; to go on as it began, add the line `axis = \"output\"` to [optimizer.matrix] of that file", file.display())]
    EarlierAxis {
        /// The configuration file.
        file: PathBuf,
        /// The stack.
        stack: String,
    },
    /// The configuration file is not the one that the checkpoints were trained with.
    #[error("`{}` is not what the run was trained with: {}; a run goes on with its own values alone: undo the change to go on, or start a new run with `polaron train {} --out NEW`", file.display(), differences.join(", "), file.display())]
    Edited {
        /// The configuration file.
        file: PathBuf,
        /// One entry per differing key, with both values.
        differences: Vec<String>,
    },
    /// The folder exists, and `--resume never` was given.
    #[error("`{}` exists and --resume never was given: choose another --out, or leave --resume out to go on with that run", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something else.
    #[error("`{}` is not empty and holds no run (no {CONFIG} in it): choose another --out", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A run was asked for, and there is none.
    #[error("`{}` is no run folder (there is no {CONFIG} in it): give the folder that `polaron train` wrote", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// A report was asked for, and there is nothing to report on.
    #[error("`{}` holds neither a run nor a comparison (no {CONFIG} or plan.toml in it): give a folder that `polaron train` or `polaron compare` wrote", path.display())]
    Neither {
        /// The folder.
        path: PathBuf,
    },
    /// Another process trains into the folder.
    #[error("another process is training into `{}`: wait for it, stop it, or choose another --out", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the run is damaged.
    #[error("`{}` is damaged ({message}): restore it, or choose another --out", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The tokenizer of the run is not what it was.
    #[error("the tokenizer `{}` is not the one that the checkpoints were trained with: restore it", path.display())]
    OtherTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// The data of the run are not what they were.
    #[error("the data `{source_name}` are not those that `{}` was begun with, or have changed since (fingerprint {began_with} then, {now} now): restore them, or choose another --out for a new run", path.display())]
    OtherData {
        /// The run folder.
        path: PathBuf,
        /// Name or path of the data.
        source_name: String,
        /// Fingerprint of the data of the run.
        began_with: String,
        /// Fingerprint of the data now.
        now: String,
    },
    /// The data are not those that the program which started this run meant.
    #[error("the data `{source_name}` have changed: their fingerprint is {now}, not {expected}")]
    UnexpectedData {
        /// Name or path of the data.
        source_name: String,
        /// The fingerprint that was asked for.
        expected: String,
        /// Fingerprint of the data now.
        now: String,
    },
    /// There is nothing where the data of the run were.
    #[error("the data of the run in `{}` are not at `{source_name}`: if they were moved, go on with `polaron train --resume {} --data PATH`, which checks that they are the same", path.display(), path.display())]
    DataGone {
        /// The run folder.
        path: PathBuf,
        /// Path of the data.
        source_name: String,
    },
}

/// A folder that holds, or will hold, one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// Held by the one process that works in a folder; let go when dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl RunFolder {
    /// The folder at `path`; nothing is read or made.
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

    /// Where it is.
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

    /// `plan.txt`.
    pub fn plan_file(&self) -> PathBuf {
        self.path.join(PLAN)
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
    /// [`FolderError::NotARun`] when something else is there, [`FileError`] when it cannot be looked at.
    pub fn holds_run(&self) -> Result<bool, Error> {
        if self.config_file().is_file() {
            return Ok(true);
        }
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(FileError::at("use the run folder", &self.path)(error).into()),
        };
        // A start that was killed may have left anything that is written before the configuration.
        let ours =
            |name: &str| name == LOCK || STARTERS.iter().any(|file| name == *file || name == temporary_name(file));
        let foreign = entries.filter_map(Result::ok).any(|entry| !entry.file_name().to_str().is_some_and(ours));
        if foreign { Err(FolderError::NotARun { path: self.path.clone() }.into()) } else { Ok(false) }
    }

    /// Checks that `config` is the configuration of the run in the folder, and that this is still the one it was trained
    /// with. Reporting keys and the place of the data may differ.
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
        let differences = merge::differences(&there, &config.to_table()?, RESUMABLE_KEYS);
        if differences.is_empty() {
            return Ok(());
        }
        Err(FolderError::OtherConfig { path: self.path.clone(), differences }.into())
    }

    /// Checks that a run of an earlier version, whose checkpoints hold no configuration, means the same in this one.
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

    /// Checks that the configuration file is what a checkpoint was trained with, given the file and the text of its copy
    /// in it; reporting keys and the place of the data may differ.
    ///
    /// # Errors
    ///
    /// [`FolderError::Edited`] with every key that differs and both values.
    pub fn check_copy(&self, copy: &Path, text: &str) -> Result<(), Error> {
        let file = self.config_file();
        let (before, now) = (complete(copy, parse(copy, text)?)?, complete(&file, read_file(&file)?)?);
        let differences = merge::edits(&before, &now, RESUMABLE_KEYS);
        if differences.is_empty() { Ok(()) } else { Err(FolderError::Edited { file, differences }.into()) }
    }

    /// The configuration of the run in the folder, for reading the run: its device is replaced by the default one, since
    /// this program may have been built without it. Where the file was edited or damaged after the training, the copy in the
    /// newest checkpoint counts.
    ///
    /// # Errors
    ///
    /// Those of reading and checking a configuration file.
    pub fn config(&self) -> Result<Config, Error> {
        let (path, text) = self.config_text()?;
        if path != self.config_file() {
            let (file, copy) = (self.config_file(), path.display());
            say(&format!("warning: `{}` was edited after the training; what counts is `{copy}`", file.display()));
        }
        let device = ("the default", "device.name", Value::String(device::default_name().into()));
        Layers { file: Some((path.clone(), parse(&path, &text)?)), flags: vec![device], ..Layers::default() }.resolve()
    }

    /// File and text of [`Self::config`].
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

    /// Notes in the configuration file that the data of the run lie at `source` now.
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
        say(&format!("the data are the same at `{source}`: noted in `{}`", file.display()));
        Ok(())
    }

    /// Makes the folder if needed and takes its lock.
    ///
    /// # Errors
    ///
    /// [`FolderError::Locked`] when another process holds it, [`FileError`] when the folder cannot be made or written.
    pub fn lock(&self) -> Result<Lock, Error> {
        std::fs::create_dir_all(&self.path).map_err(FileError::at("create the run folder", &self.path))?;
        let locked = || FolderError::Locked { path: self.path.clone() }.into();
        lock_file(&self.path.join(LOCK))?.ok_or_else(locked)
    }

    /// Writes what a new run begins with: the tokenizer of a decoder, plan and, last, the configuration that makes the folder a run.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn begin(&self, config: &Config, tokenizer: Option<&Tokenizer>, plan: &str) -> Result<(), Error> {
        if let Some(tokenizer) = tokenizer {
            let json = serde_json::to_string(tokenizer).map_err(|error| self.unstorable(&error))?;
            write_atomically(&self.tokenizer_file(), json.as_bytes())?;
        }
        write_atomically(&self.plan_file(), plan.as_bytes())?;
        write_atomically(&self.config_file(), config.to_toml()?.as_bytes())?;
        Ok(())
    }

    fn unstorable(&self, error: &serde_json::Error) -> ConfigError {
        ConfigError::Misfit { message: one_line(&error.to_string()) }
    }

    /// The tokenizer of the run in the folder.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be read, [`FolderError::Damaged`] when it is not one.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let path = self.tokenizer_file();
        let bytes = std::fs::read(&path).map_err(FileError::at("read", &path))?;
        let (text, _) = decode_utf8(&path, bytes)?;
        serde_json::from_str(&text)
            .map_err(|error| FolderError::Damaged { path, message: one_line(&error.to_string()) }.into())
    }
}

/// Locks a file, which is made if needed; None when another process holds it.
///
/// # Errors
///
/// [`FileError`] when it cannot be written or locked.
pub fn lock_file(path: &Path) -> Result<Option<Lock>, FileError> {
    let file = File::options().create(true).append(true).open(path).map_err(FileError::at("write", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(FileError::at("lock", path)(error)),
    }
}

/// A configuration file over the defaults. A run of an earlier version left out keys that did not exist yet: it computed
/// what their defaults say.
fn complete(path: &Path, table: Table) -> Result<Table, Error> {
    Layers { file: Some((path.into(), table)), ..Layers::default() }.table()
}

fn temporary_name(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Writes a file so that it is either the old or the complete new one, whatever happens.
///
/// # Errors
///
/// [`FileError`] naming the file; nothing temporary stays behind.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(temporary_name(&name));
    let written = write_synced(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(FileError::at("write", path)))
        .and_then(|()| sync_folder(path.parent().unwrap_or(Path::new("."))));
    written.map_err(|error| {
        // Best effort: the error to report is the one above.
        let _ = std::fs::remove_file(&temporary);
        FileError { path: path.into(), ..error }
    })
}

/// Writes a file and waits until it is on the disk.
///
/// # Errors
///
/// [`FileError`] naming the file.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(FileError::at("write", path))
}

/// Waits until the entries of a folder (a rename, a new file) are on the disk.
///
/// # Errors
///
/// [`FileError`] naming the folder.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // Windows cannot open a folder as a file; its renames are written through.
    if cfg!(unix) {
        File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::at("write", path))
    } else {
        Ok(())
    }
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
