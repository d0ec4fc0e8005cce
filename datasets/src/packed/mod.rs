//! Packed tokens: a folder of shards with a manifest, written and read.

mod encoder;
mod folder;
mod learning;
mod manifest;
mod open;
mod options;
pub mod pack;
mod shards;

pub use manifest::{Manifest, ShardEntry};
pub use open::Packed;
