//! What is on disk: the run folder, checkpoints, events and logs, and writing files so that they survive a kill.

pub mod checkpoint;
mod event_file;
mod fields;
pub mod files;
pub mod huggingface;
pub mod log;
pub mod machines;
pub mod metrics;
pub mod run_folder;
pub mod shards;
mod sums;
mod tensorboard;
pub mod tensors;
pub mod weights;
