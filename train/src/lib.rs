//! The training program `polaron`: run folders, checkpoints, resuming, generating, exporting.
//!
//! The binary is a thin shell around [`main`]. The parts are public so that other tools can read what it writes: a run's
//! configuration ([`config`]), its events ([`metrics`]), its checkpoints ([`checkpoint`]) or the whole run ([`loaded`]).

mod cli;
mod data;
mod error;
mod estimate;
mod evaluate;
mod export;
mod exported_state;
mod inspect;
mod interrupt;
mod list;
mod memory;
mod merge;
mod panics;
mod progress;
mod prompt;
mod summary;
mod task;
mod tensors;
mod usage;
mod workers;

pub mod checkpoint;
pub mod compare;
pub mod config;
pub mod device;
pub mod generate;
pub mod layers;
pub mod loaded;
pub mod metrics;
pub mod network;
pub mod recipe;
pub mod report;
pub mod run_folder;
pub mod spectra;
pub mod train;
pub mod trainer;
pub mod verify;

pub use cli::main;
pub use error::{Diverged, EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Error, FileError};
