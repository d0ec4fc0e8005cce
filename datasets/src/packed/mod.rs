//! Packed tokens: a folder of shards with a manifest, written and read.

mod encoder;
mod folder;
pub mod import;
mod learning;
mod manifest;
mod open;
mod options;
pub mod pack;
mod shards;
mod token_file;

pub use manifest::{Manifest, ShardEntry};
pub use open::Packed;
