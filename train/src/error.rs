//! What can go wrong in a command, with the exit code that belongs to it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;
use crate::compare::CompareError;
use crate::config::ConfigError;
use crate::device::DeviceError;
use crate::estimate::TooLarge;
use crate::run_folder::FolderError;

/// Exit code: everything was done.
pub const EXIT_DONE: u8 = 0;
/// Exit code: the work itself failed (a diverged run, an internal error).
pub const EXIT_FAILED: u8 = 1;
/// Exit code: bad usage or input, a full or read-only disk included.
pub const EXIT_BAD_INPUT: u8 = 2;
/// Exit code: interrupted by a signal, after saving.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Why a command failed. Every message is one sentence that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The text is missing, damaged or too short.
    #[error(transparent)]
    Data(#[from] polaron_datasets::DataError),
    /// The model cannot be built or loaded.
    #[error(transparent)]
    Model(#[from] polaron_models::ModelError),
    /// The optimizer cannot be built or loaded.
    #[error(transparent)]
    Optimizer(#[from] polaron::LayerwiseError),
    /// The device is unknown, not compiled in or cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The run folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A comparison cannot be made.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model does not fit into the memory.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Bad usage that no other variant covers; the text is the whole message.
    #[error("{0}")]
    Usage(String),
    /// A loss, gradient or weight became NaN or infinite.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// The device failed while working.
    #[error(
        "the device failed while {doing} ({message}): nothing after the last checkpoint is kept, run the command again to resume"
    )]
    DeviceFailed {
        /// What was being done.
        doing: &'static str,
        /// What the backend said.
        message: String,
    },
}

impl Error {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Compare(error) => error.exit_code(),
            Self::Diverged(_) | Self::DeviceFailed { .. } => EXIT_FAILED,
            _ => EXIT_BAD_INPUT,
        }
    }
}

/// A run that left the finite numbers.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the run diverged at step {step}: {what}; stopped before anything non-finite was saved, the checkpoint of step {checkpoint} is \
     intact; lower the learning rate (now {lr}) and start again with another --out"
)]
pub struct Diverged {
    /// The step (counted from 1) that was not taken.
    pub step: u64,
    /// What was not finite, with the first parameter concerned.
    pub what: String,
    /// Step of the newest checkpoint.
    pub checkpoint: u64,
    /// Learning rate of the main rule at that step.
    pub lr: f64,
}

/// A file or folder that could not be read or written.
#[derive(Debug)]
pub struct FileError {
    /// What was tried: "read", "write", "create", ...
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: std::io::Error,
}

impl FileError {
    /// For `map_err`: `.map_err(FileError::at("write", &path))`.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { action, path, source }
    }

    fn advice(&self) -> &'static str {
        match self.source.kind() {
            ErrorKind::NotFound => "check the spelling of the path",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                "free some space or choose a folder on another disk with --out"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "check the permissions or choose another folder with --out"
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                "a file is where a folder is needed, choose another path"
            }
            ErrorKind::IsADirectory => "a folder is where a file is needed, choose another path",
            _ => "check the path and the disk",
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}` ({}): {}", self.action, self.path.display(), self.source, self.advice())
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// `text` in one line: error messages of other libraries often hold several.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
