//! The training program `polaron`: run folders, checkpoints, resuming, comparing, text generation and export.
//!
//! The binary only calls [`main`]. The modules are public so that other tools can read what it writes: a run's configuration
//! ([`settings::config`]), its events ([`store::metrics`]), its checkpoints ([`store::checkpoint`]) or the whole run
//! ([`run::loaded`]).

pub mod commands;
mod error;

pub mod children;
pub mod compare;
pub mod host;
pub mod networks;
pub mod own;
pub mod report;
pub mod run;
pub mod settings;
pub mod store;

pub use commands::cli::main;
pub use compare::{Measurement, Results, Trial};
pub use error::{
    CheckpointError, CompareError, ConfigError, DeviceError, Diverged, EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED,
    EXIT_INTERRUPTED, Error, FileError, FolderError, RanksError, TooLarge, WeightsError,
};
pub use own::Comparison;
