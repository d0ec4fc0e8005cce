//! What is on disk: the run folder, checkpoints, events, and writing files so that they survive a kill.

pub mod checkpoint;
pub mod files;
pub mod huggingface;
pub mod metrics;
pub mod run_folder;
pub mod shards;
pub mod tensors;
pub mod weights;
