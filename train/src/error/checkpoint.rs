//! Why a checkpoint cannot be written or read.

use std::path::PathBuf;

use super::file::{FileError, Problem, one_line};

/// Version of the checkpoint format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint is incomplete, truncated or changed.
    #[error("the checkpoint file `{}` is damaged ({}): use an older checkpoint", path.display(), one_line(&source.to_string()))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Problem,
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
    #[error("there is no checkpoint of step {step} in `{}`: the available steps are {available}", path.display())]
    NoStep {
        /// The requested step.
        step: u64,
        /// The folder of the checkpoints.
        path: PathBuf,
        /// The steps that exist, comma separated.
        available: String,
    },
    /// The tensors cannot be stored.
    #[error("the checkpoint of step {step} cannot be written ({}): please report this", one_line(&source.to_string()))]
    Unstorable {
        /// The step.
        step: u64,
        /// What is wrong.
        source: Problem,
    },
}
