//! Errors of a configuration.

use polaron_common::did_you_mean_or_list;
use thiserror::Error;

/// What is wrong with a configuration.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A name that does not exist.
    #[error("{}", unknown(what, name, valid))]
    Name {
        /// What the name stands for.
        what: &'static str,
        /// The unknown name.
        name: String,
        /// The valid names.
        valid: Vec<&'static str>,
    },
    /// A required key that is missing.
    #[error("missing \"{key}\"; one of {}", valid.join(", "))]
    Missing {
        /// The key.
        key: &'static str,
        /// Its possible values.
        valid: Vec<&'static str>,
    },
    /// A key that the kind does not have.
    #[error("{owner}: {}", unknown("key", key, valid))]
    Key {
        /// The kind, method or table that the key was given to.
        owner: String,
        /// The key.
        key: String,
        /// The valid keys.
        valid: Vec<String>,
    },
    /// A value out of range or of the wrong type.
    #[error("{key}: {message}")]
    Value {
        /// The key.
        key: String,
        /// What the value must be, and what it is.
        message: String,
    },
}

impl ConfigError {
    /// A value that cannot be used, and why.
    pub(crate) fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }
}

fn unknown(what: &str, name: &str, valid: &[impl AsRef<str>]) -> String {
    format!("unknown {what} `{name}`{}", did_you_mean_or_list(name, valid.iter().map(AsRef::as_ref)))
}
