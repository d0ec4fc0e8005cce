//! Why a run folder cannot be used.

use std::path::PathBuf;

use super::file::{Problem, one_line};

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The folder holds a run of another configuration.
    #[error("`{}` holds a run of another configuration: {}; a run can only be resumed with its own values: repeat them, or choose another --out for a new run", path.display(), differences.join(", "))]
    OtherConfig {
        /// The folder.
        path: PathBuf,
        /// One entry per differing key, with both values.
        differences: Vec<String>,
    },
    /// A run of an earlier version, in which its stack used another axis than now.
    #[error("`{}` was written by a version in which the stack `{stack}` used the output axis for every matrix; to resume the run, add the line `axis = \"output\"` to [optimizer.matrix] of that file", file.display())]
    EarlierAxis {
        /// The configuration file.
        file: PathBuf,
        /// The stack.
        stack: String,
    },
    /// The configuration file is not the one that the checkpoints were trained with.
    #[error("`{}` is not the configuration that the run was trained with: {}; a run can only be resumed with its own values: undo the change to resume it, or start a new run with `polaron train {} --out NEW`", file.display(), differences.join(", "), file.display())]
    Edited {
        /// The configuration file.
        file: PathBuf,
        /// One entry per differing key, with both values.
        differences: Vec<String>,
    },
    /// The folder exists, and `--resume never` was given.
    #[error("`{}` exists and --resume never was given: choose another --out, or leave out --resume to resume that run", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something that is not a run.
    #[error("`{}` is not empty and holds no run (no config.toml in it): choose another --out", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A run was requested, but the folder holds none.
    #[error("`{}` is not a run folder (there is no config.toml in it): give the folder that `polaron train` wrote", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Weights were requested, but the folder holds none.
    #[error("`{}` is neither a run folder (there is no config.toml in it) nor a model of Hugging Face (no config.json): give the folder that `polaron train` wrote, or one with config.json and model.safetensors", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A report was requested, but the folder holds nothing to report on.
    #[error("`{}` holds neither a run nor a comparison (no config.toml or plan.toml in it): give a folder that `polaron train` or `polaron compare` wrote", path.display())]
    Neither {
        /// The folder.
        path: PathBuf,
    },
    /// Another process trains in the folder.
    #[error("another process is training in `{}`: wait for it, stop it, or choose another --out", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the run is damaged.
    #[error("`{}` is damaged ({}): restore it, or choose another --out", path.display(), one_line(&source.to_string()))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Problem,
    },
    /// The tokenizer of the run has changed.
    #[error("the tokenizer `{}` is not the one that the checkpoints were trained with: restore it", path.display())]
    OtherTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// The weights to start from are not the ones that a configuration names.
    #[error("the weights of step {step} in `{}` are not those that `train.init_sha256` names ({named}; their SHA-256 is {now} now): restore them, or leave that key out to start from the present ones", path.display())]
    OtherWeights {
        /// The folder of the weights.
        path: PathBuf,
        /// Their step.
        step: u64,
        /// The checksum in the configuration.
        named: String,
        /// Their checksum.
        now: String,
    },
    /// The data of the run have changed.
    #[error("the data `{source_name}` are not those that `{}` was trained with, or have changed since (fingerprint {began_with} then, {now} now): restore them, or choose another --out for a new run", path.display())]
    OtherData {
        /// The run folder.
        path: PathBuf,
        /// Name or path of the data.
        source_name: String,
        /// Fingerprint of the data of the run.
        began_with: String,
        /// Fingerprint of the data now.
        now: String,
    },
    /// The data are not those that the program which started this run expected.
    #[error("the data `{source_name}` have changed: their fingerprint is {now}, not {expected}")]
    UnexpectedData {
        /// Name or path of the data.
        source_name: String,
        /// The fingerprint it expected.
        expected: String,
        /// Fingerprint of the data now.
        now: String,
    },
    /// The data of the run are no longer at their path.
    #[error("the data of the run in `{}` are not at `{source_name}`: if they were moved, resume with `polaron train --resume {} --data PATH`, which checks that they are the same", path.display(), path.display())]
    DataGone {
        /// The run folder.
        path: PathBuf,
        /// Path of the data.
        source_name: String,
    },
}
