//! Every error of the program, with a message of one sentence and an exit code.
//!
//! The errors of all rooms are defined here, in the lowest room, so that every room can return [`Error`].

mod all;
mod checkpoint;
mod compare;
mod config;
mod device;
mod exit;
mod file;
mod folder;
mod memory;
mod ranks;
mod weights;

pub use all::{Diverged, Error};
pub use checkpoint::{CheckpointError, FORMAT};
pub use compare::CompareError;
pub use config::ConfigError;
pub use device::DeviceError;
pub use exit::{EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED};
pub use file::{FileError, Problem, one_line};
pub use folder::FolderError;
pub use memory::{TooLarge, bytes};
pub use ranks::RanksError;
pub use weights::WeightsError;
