//! Why the energy of an optimizer is not known.

use thiserror::Error;

/// Why an energy is not known.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum EnergyError {
    /// No rule has one.
    #[error("no parameter is updated by muon or regularized_muon: choose one of them, or measure none")]
    Nothing,
    /// A rule that has one, and an option with which it has not.
    #[error("\"{path}\" is updated by {optimizer} with {option}: choose {remedy}, or measure none")]
    Option {
        /// Path of the parameter.
        path: String,
        /// The optimizer of the rule.
        optimizer: String,
        /// The option.
        option: &'static str,
        /// The value that has an energy.
        remedy: &'static str,
    },
    /// A wrapper, which moves the weights too.
    #[error("the wrapper {wrapper} moves the weights too: leave it out, or measure none")]
    Wrapped {
        /// Kind of the wrapper.
        wrapper: &'static str,
    },
}
