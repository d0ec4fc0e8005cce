//! What can be wrong with a configuration.

use polaron_common::did_you_mean_or_list;
use thiserror::Error;

/// What is wrong with a configuration.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A name that does not exist.
    #[error("{}", unknown(what, name, valid))]
    Name {
        /// What it should be the name of.
        what: &'static str,
        /// The name that was given.
        name: String,
        /// The names there are.
        valid: Vec<&'static str>,
    },
    /// A key that must be there.
    #[error("missing \"{key}\"; one of {}", valid.join(", "))]
    Missing {
        /// The key.
        key: &'static str,
        /// What it can be.
        valid: Vec<&'static str>,
    },
    /// A key that the kind does not have.
    #[error("{owner}: {}", unknown("key", key, valid))]
    Key {
        /// The kind, method or table that the key was given to.
        owner: String,
        /// The key.
        key: String,
        /// The keys there are.
        valid: Vec<String>,
    },
    /// A value out of range or of the wrong type.
    #[error("{key}: {message}")]
    Value {
        /// The key.
        key: String,
        /// What it must be, and what it was.
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
