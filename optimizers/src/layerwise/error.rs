//! What can be wrong with a layerwise optimizer, found before the first step.

use thiserror::Error;

use crate::config::ConfigError;

/// Why a layerwise optimizer cannot be built, or its record cannot be loaded.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum LayerwiseError {
    /// A pattern that cannot be read.
    #[error("pattern \"{pattern}\" is not valid: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What the parser says.
        message: String,
    },
    /// A stack that does not exist.
    #[error("{0}")]
    Stack(String),
    /// A rule table that cannot be read.
    #[error("rule {number}: {message}")]
    Rule {
        /// Position in the list, from 1.
        number: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A configuration with a value that cannot be used.
    #[error("optimizer: {0}")]
    Config(#[from] ConfigError),
    /// Nothing says what the parameter is for.
    #[error(
        "parameter \"{path}\" of shape {shape:?} has no role: add .assign(\"{path}\", Role::…), or a rule that matches it"
    )]
    NoRole {
        /// Path of the parameter.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Two hints or two assignments disagree.
    #[error(
        "parameter \"{path}\" has two roles: \"{first}\" says {first_role}, \"{second}\" says {second_role}; make one pattern narrower"
    )]
    TwoRoles {
        /// Path of the parameter.
        path: String,
        /// The first pattern.
        first: String,
        /// Its role.
        first_role: &'static str,
        /// The second pattern.
        second: String,
        /// Its role.
        second_role: &'static str,
    },
    /// No rule for the parameter.
    #[error("parameter \"{path}\" ({role}) has no optimizer: add a rule for role \"{role}\" or for its path")]
    NoRule {
        /// Path of the parameter.
        path: String,
        /// Its role.
        role: &'static str,
    },
    /// A rule or an assignment that matches no parameter.
    #[error("{what} matches no parameter; the model has {paths}")]
    MatchesNothing {
        /// The rule or assignment.
        what: String,
        /// Some of the paths there are.
        paths: String,
    },
    /// A rule whose parameters all went to later rules.
    #[error(
        "{what} wins nowhere: later rules override it on every parameter it matches; remove it or move it to the end"
    )]
    Overridden {
        /// The rule.
        what: String,
    },
    /// A matrix rule on something that is no matrix, or blocks that do not fit.
    #[error("parameter \"{path}\" ({role}) cannot use {optimizer}: {message}")]
    DoesNotFit {
        /// Path of the parameter.
        path: String,
        /// Its role.
        role: &'static str,
        /// The optimizer of the rule.
        optimizer: String,
        /// Why not.
        message: String,
    },
    /// No width rule for an optimizer where learning rates follow the width.
    #[error("\"{path}\" is updated by {optimizer}, for which no width rule is known: {reason}")]
    Width {
        /// Path of the parameter.
        path: String,
        /// The optimizer of the rule.
        optimizer: String,
        /// Why not, and what has one.
        reason: String,
    },
    /// A model without parameters.
    #[error("the model has no float parameters")]
    NoParameters,
    /// Logits that do not fit the model.
    #[error("QK-clip: {0}")]
    QkClip(String),
    /// A record of other parameters or other optimizers.
    #[error("the optimizer record does not fit this plan: {0}")]
    Record(String),
}
