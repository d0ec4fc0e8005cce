//! Why a command failed, and the exit code of each failure.

use super::checkpoint::CheckpointError;
use super::compare::CompareError;
use super::config::ConfigError;
use super::device::DeviceError;
use super::exit::{EXIT_BAD_INPUT, EXIT_FAILED};
use super::file::{FileError, Problem, one_line};
use super::folder::FolderError;
use super::memory::TooLarge;
use super::ranks::RanksError;
use super::weights::WeightsError;

/// Why a command failed. Every message is one sentence that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data are missing, damaged or too short.
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
    /// Weights of other programs cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model does not fit into the memory.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Several processes cannot train together.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// Bad usage that no other variant covers; the text is the whole message.
    #[error("{0}")]
    Usage(String),
    /// A loss, gradient or weight became NaN or infinite.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// The device failed during an operation.
    #[error(
        "the device failed while {doing} ({}): nothing after the last checkpoint is kept, run the command again to resume",
        one_line(&source.to_string())
    )]
    DeviceFailed {
        /// What was being done.
        doing: &'static str,
        /// The error of the backend.
        source: Problem,
    },
}

impl Error {
    /// Builds the error in `map_err`: `.map_err(Error::device_failed("validating"))`.
    pub(crate) fn device_failed<E: Into<Problem>>(doing: &'static str) -> impl Fn(E) -> Self + Copy {
        move |source| Self::DeviceFailed { doing, source: source.into() }
    }

    /// Whether every process of a run ends with it, so that none waits for another.
    pub fn is_common(&self) -> bool {
        match self {
            Self::Ranks(error) => error.is_common(),
            Self::Diverged(_) => true,
            _ => false,
        }
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Compare(error) => error.exit_code(),
            Self::Ranks(error) => error.exit_code(),
            Self::Diverged(_) | Self::DeviceFailed { .. } => EXIT_FAILED,
            _ => EXIT_BAD_INPUT,
        }
    }
}

/// A run whose loss, gradient or weights became non-finite.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the run diverged at step {step}: {what}; stopped before anything non-finite was saved, the checkpoint of step {checkpoint} is \
     intact; lower the learning rate (now {lr}) and start again with another --out"
)]
pub struct Diverged {
    /// The step (counted from 1) that was not taken.
    pub step: u64,
    /// What became non-finite, with the first parameter concerned.
    pub what: String,
    /// Step of the newest checkpoint.
    pub checkpoint: u64,
    /// Learning rate of the main rule at that step.
    pub lr: f64,
}
