//! The configuration of a run: its keys, the presets, and the layers of file, flags and `--set`.

pub mod config;
pub mod given_model;
pub mod layers;
pub mod merge;
pub mod methods;
pub mod recipe;
pub mod train;
