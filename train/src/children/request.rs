//! A comparison as a command asks for it.

use std::path::PathBuf;

use toml::{Table, Value};

/// A comparison as a command asks for it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The plan file.
    pub file: Option<(PathBuf, Table)>,
    /// Whether the file is the plan of a folder, to which optimizers and learning rates are added; otherwise they replace those of the
    /// file.
    pub adds: bool,
    /// `--optimizers`: names of the file's optimizers, or stacks.
    pub optimizers: Option<Vec<String>>,
    /// Flags for `[compare]`: the flag, the key there, the value.
    pub settings: Vec<(&'static str, &'static str, Value)>,
    /// Flags for the runs, as for `polaron train`.
    pub flags: Vec<(&'static str, &'static str, Value)>,
    /// `--threads`: CPU threads in total, shared among the jobs.
    pub threads: Option<usize>,
    /// `--set`: key and raw value.
    pub sets: Vec<(String, String)>,
}
