//! Errors of wrappers.

use thiserror::Error;

/// Why a wrapper refuses a step, or cannot load a record.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrapperError {
    /// A parameter that the model no longer has, or that has another shape.
    #[error("parameter \"{path}\" {change}: the model changed after the wrapper was built; build it again")]
    Changed {
        /// Path of the parameter.
        path: String,
        /// The change.
        change: String,
    },
    /// A step for which the wrapper was not asked where to take the gradient.
    #[error(
        "{kind} decides where gradients are taken: call `before_forward` on the model before every forward pass of training"
    )]
    NoForward {
        /// The wrapper.
        kind: &'static str,
    },
    /// A record of another wrapper.
    #[error("the record was written {} and is loaded {}", with(was), with(is))]
    Kind {
        /// The wrapper that wrote it; empty for none.
        was: String,
        /// The one that loads it.
        is: String,
    },
    /// A part of a record that is missing.
    #[error("the record of {kind} has no {name}: it is damaged, or of another model")]
    Missing {
        /// The wrapper.
        kind: String,
        /// What is missing.
        name: String,
    },
    /// A copy that does not fit its parameter.
    #[error("the record of {kind} has a {name} with {was} and must have {is}")]
    Misfit {
        /// The wrapper.
        kind: String,
        /// Path and name of the copy.
        name: String,
        /// Its shape and element type.
        was: String,
        /// What they must be.
        is: String,
    },
    /// A copy that belongs to no parameter.
    #[error("the record of {kind} has \"{name}\", which belongs to no trained parameter")]
    Unknown {
        /// The wrapper.
        kind: String,
        /// Path and name of the copy.
        name: String,
    },
}

fn with(kind: &str) -> String {
    if kind.is_empty() { "without a wrapper".into() } else { format!("with the wrapper {kind}") }
}
