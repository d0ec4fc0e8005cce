//! The subcommands, one file each: parse, call, print.

mod circulant;
pub mod cli;
mod compare;
mod conditioning;
mod cost;
mod data;
mod delta;
mod eval;
mod export;
mod exported_folder;
mod exported_state;
mod generate;
mod inspect;
mod launch;
mod list;
mod race;
mod report;
mod run_args;
mod task;
mod train;
mod training;
mod usage;
pub mod verify;
