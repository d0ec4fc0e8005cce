//! What can be wrong with a configuration.

use std::path::PathBuf;

use polaron_common::did_you_mean;

use super::file::{Problem, one_line};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key that does not exist.
    #[error("unknown key `{key}` {place}{hint}")]
    UnknownKey {
        /// The full dotted key.
        key: String,
        /// Where it was given.
        place: String,
        /// Empty, or a question that proposes the nearest key.
        hint: String,
    },
    /// A value of the wrong type.
    #[error("`{key}` must be {expected}, but it is the {found} {place}")]
    WrongType {
        /// The full dotted key.
        key: String,
        /// The type it must have.
        expected: &'static str,
        /// Type and value found.
        found: String,
        /// Where it was given.
        place: String,
    },
    /// A value outside its range.
    #[error("`{key}` is {value}, but {rule}")]
    BadValue {
        /// The full dotted key.
        key: String,
        /// The value.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// A name that is not among the choices.
    #[error("`{key}` is `{value}`, but it must be one of {choices}{hint}")]
    BadChoice {
        /// The full dotted key.
        key: String,
        /// The name given.
        value: String,
        /// All names, comma separated.
        choices: String,
        /// Empty, or a question that proposes the nearest name.
        hint: String,
    },
    /// The file is not TOML.
    #[error("`{}` is not valid TOML at line {line}, column {column}: {message}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The message of the parser.
        message: String,
    },
    /// Settings of a model that are not those of the weights to start from.
    #[error(
        "the weights of `{}` belong to another model: in [model] {}; leave these keys out, the model of the weights decides them",
        path.display(),
        differences.join(", ")
    )]
    OtherModel {
        /// The folder of the weights.
        path: PathBuf,
        /// One entry per differing key, with both values.
        differences: Vec<String>,
    },
    /// A `--set` without an equals sign.
    #[error("`--set {text}` has no `=`: write it as `--set key=value`, for example `--set train.batch=24`")]
    BadSet {
        /// The argument.
        text: String,
    },
    /// Anything else that the TOML library rejects.
    #[error("the configuration is not valid: {}", one_line(&source.to_string()))]
    Misfit {
        /// Its error.
        source: Problem,
    },
}

impl ConfigError {
    pub(crate) fn misfit(error: impl Into<Problem>) -> Self {
        Self::Misfit { source: error.into() }
    }

    /// Checks that a rule holds for the value of a key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`] with the rule.
    pub(crate) fn ensure(holds: bool, key: &str, value: impl std::fmt::Display, rule: &str) -> Result<(), Self> {
        if holds {
            return Ok(());
        }
        Err(Self::BadValue { key: key.into(), value: value.to_string(), rule: rule.into() })
    }

    /// Checks that `value` is one of `choices`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadChoice`] with the nearest of them.
    pub fn check_choice(key: &str, value: &str, choices: &[&str]) -> Result<(), Self> {
        if choices.contains(&value) {
            return Ok(());
        }
        Err(Self::bad_choice(key, value, choices))
    }

    /// A name that is not among the choices, with the nearest of them.
    pub(crate) fn bad_choice(key: &str, value: &str, choices: &[&str]) -> Self {
        let hint = did_you_mean(value, choices.iter().copied());
        Self::BadChoice { key: key.into(), value: value.into(), choices: choices.join(", "), hint }
    }
}
