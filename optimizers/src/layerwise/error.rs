//! Errors of a layerwise optimizer, most of them found before the first step.

use thiserror::Error;

#[cfg(feature = "exact")]
use super::energy_error::EnergyError;
use super::qk_clip_error::QkClipError;
use super::record_error::RecordError;
use crate::setting::ConfigError;
use crate::wrappers::WrapperError;

/// Why a layerwise optimizer cannot be built, or its record cannot be loaded.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum LayerwiseError {
    /// A pattern that cannot be read.
    #[error("pattern \"{pattern}\" is not valid: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The message of the parser.
        message: String,
    },
    /// A configuration that is not valid TOML, or has a value of another type.
    #[error("optimizer: {message}")]
    Toml {
        /// The message of the parser.
        message: String,
    },
    /// Clipping, which an optimizer of the plain Burn form does not have.
    #[error(
        "Burn's ModuleOptimizer cannot apply a {what} of {threshold} to all parameters together: turn it off with \
         .{what}(None), or build the LayerwiseOptimizer, which can"
    )]
    CannotCarry {
        /// The method that sets it.
        what: &'static str,
        /// The threshold.
        threshold: f64,
    },
    /// A wrapper, which an optimizer of the plain Burn form does not have.
    #[error(
        "Burn's ModuleOptimizer has no place for the wrapper {wrapper}: build the LayerwiseOptimizer, or call the methods of \
         polaron::wrappers around its steps"
    )]
    CannotWrap {
        /// Kind of the wrapper.
        wrapper: &'static str,
    },
    /// A wrapper that is called out of order, or cannot load its record.
    #[error("{0}")]
    Wrapper(#[from] WrapperError),
    /// A change of basis that does not fit the model.
    #[error("\"{path}\" cannot be given another basis: {reason}")]
    Basis {
        /// Path of the parameter.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A weight decay that needs the factor of the schedule, which a step of the plain Burn form does not know.
    #[error(
        "Burn's ModuleOptimizer tells a step the learning rate but not the factor of the schedule, by which {optimizer} \
         decays \"{path}\": set decay = \"coupled\", or build the LayerwiseOptimizer"
    )]
    NoFactor {
        /// Path of the parameter.
        path: String,
        /// The optimizer of the rule.
        optimizer: String,
    },
    /// A rule table that cannot be read.
    #[error("rule {number}: {message}")]
    Rule {
        /// Position in the list, from 1.
        number: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A `[schedule]` table that is not valid TOML, or has a value of another type.
    #[error("schedule: {message}")]
    ScheduleToml {
        /// The message of the parser.
        message: String,
    },
    /// A table of a schedule for part of the parameters that cannot be read.
    #[error("schedule rule {number}: {message}")]
    Schedule {
        /// Position in the list, from 1.
        number: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A schedule that matches no parameter.
    #[error("{what} matches no parameter{near}")]
    ScheduleMatchesNothing {
        /// The schedule.
        what: String,
        /// What the model has instead.
        near: String,
    },
    /// A momentum schedule without a momentum.
    #[error("no matrix of the blocks is updated by a rule with a momentum of its own: leave the momentum schedule out")]
    NoMomentum,
    /// A momentum schedule for an average whose bias is removed as if the momentum were constant.
    #[error(
        "\"{path}\" is updated by {optimizer} with momentum_form = \"ema_debiased\", which removes the bias of a constant \
         momentum: choose \"ema\" or \"heavy_ball\", or leave the momentum schedule out"
    )]
    DebiasedMomentum {
        /// Path of the parameter.
        path: String,
        /// The optimizer of the rule.
        optimizer: String,
    },
    /// Schedules that a step cannot follow, since it does not know which step it is.
    #[error("the plan has schedules of its own: call set_step(step, steps) before every step")]
    StepUnknown,
    /// Schedules of its own, which an optimizer of the plain Burn form does not have.
    #[error(
        "Burn's ModuleOptimizer cannot follow a schedule for part of the parameters or of the momentum, since it does not know \
         the number of steps: leave them out, or build the LayerwiseOptimizer, which can"
    )]
    CannotSchedule,
    /// A configuration with a value that cannot be used.
    #[error("optimizer: {0}")]
    Config(#[from] ConfigError),
    /// A parameter whose role is not known.
    #[error(
        "parameter \"{path}\" of shape {shape:?} has no role: add .assign(\"{path}\", Role::…), or a rule that \
         matches it; if it is stored [d_out, d_in], add \
         .assign_hint(RoleHint::new(\"{path}\", Role::Hidden).with_layout(Layout::OutIn))"
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
    /// A parameter without a rule.
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
        /// Some of the paths in the model.
        paths: String,
    },
    /// A rule that is overridden on all its parameters.
    #[error(
        "{what} has no effect: later rules, the last of which freeze parameters, override it on every parameter that it matches; \
         remove it or move it to the end"
    )]
    Overridden {
        /// The rule.
        what: String,
    },
    /// First weights that are to be put onto norm balls, of which no rule has one.
    #[error(
        "no parameter can be scaled onto a norm ball: only `scion` has one; choose the stack scion, or leave `onto_balls` out"
    )]
    NoBall,
    /// A rule for the parts of fused projections that has none.
    #[error(
        "{what} has blocks = \"parts\", but the model names no parts of a matrix that it updates: add \
         RoleHint::with_parts, or give the sizes as blocks = {{ axis = \"output\", sizes = […] }}"
    )]
    NoParts {
        /// The rule.
        what: String,
    },
    /// A plan without a parameter that is trained.
    #[error("every parameter is frozen, so nothing is left to train: freeze fewer of them")]
    AllFrozen,
    /// A rule that cannot change the one that it overrides.
    #[error("the {rule} cannot be used for \"{path}\": {message}")]
    Change {
        /// Path of the parameter.
        path: String,
        /// The rule.
        rule: String,
        /// Why not.
        message: String,
    },
    /// A matrix rule on a parameter that is not a matrix, or blocks that do not fit.
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
    /// Directions of a parameter that cannot stay as they are.
    #[error("the project of \"{path}\": {message}")]
    Project {
        /// Path of the parameter.
        path: String,
        /// Why not.
        message: String,
    },
    /// Directions that are not those of the model, or that are named and not given.
    #[error("the directions `{name}`: {message}")]
    Directions {
        /// The name of their file, or the one that they were given by.
        name: String,
        /// What is wrong with them.
        message: String,
    },
    /// A matrix of zeros under a rule that keeps its norm.
    #[error(
        "\"{path}\" is updated by {optimizer}, whose steps are a share of the norm of every matrix, and one of its matrices has \
         the norm {norm:e}, so that it could never change: initialise it with other numbers, or give it a rule without that \
         norm_control"
    )]
    ZeroMatrix {
        /// Path of the parameter.
        path: String,
        /// The optimizer of the rule.
        optimizer: String,
        /// The smallest norm of its matrices (experts, blocks).
        norm: f64,
    },
    /// An optimizer without a width rule, although learning rates follow the width.
    #[error("\"{path}\" is updated by {optimizer}, for which no width rule is known: {reason}")]
    Width {
        /// Path of the parameter.
        path: String,
        /// The optimizer of the rule.
        optimizer: String,
        /// Why not, and which optimizer has one.
        reason: String,
    },
    /// Several paths that lead to one parameter.
    #[error(
        "{} are one parameter with one id (a clone keeps the id), of which only the first path would be trained: to tie \
         weights keep it once and use it twice, for example x.matmul(embed.weight.val().transpose()) as the head; for \
         separate parameters initialise each, or give the copy a new id with \
         Param::from_tensor(copy.val().detach())",
        quoted(paths)
    )]
    Shared {
        /// The paths.
        paths: Vec<String>,
    },
    /// A model that changed after the optimizer was built.
    #[error("parameter \"{path}\" {change}: the model changed after the optimizer was built; build it again")]
    Changed {
        /// Path of the parameter.
        path: String,
        /// The change.
        change: String,
    },
    /// A gradient that does not fit its parameter.
    #[error(
        "the gradient of \"{path}\" is {gradient}, but the parameter is {parameter}: take the gradients from the model \
         that is updated"
    )]
    Gradient {
        /// Path of the parameter.
        path: String,
        /// Shape and element type of the parameter, or its device.
        parameter: String,
        /// The same of the gradient.
        gradient: String,
    },
    /// A gradient with a NaN or an infinity.
    #[error(
        "the gradient of \"{path}\" is not finite: nothing was updated; lower the learning rate or skip this batch"
    )]
    NotFinite {
        /// Path of the first such parameter.
        path: String,
    },
    /// A number that cannot be used.
    #[error("{what} must be {rule}, got {value}")]
    Number {
        /// What the number is for.
        what: String,
        /// What it must be.
        rule: &'static str,
        /// The number.
        value: f64,
    },
    /// A model without parameters.
    #[error("the model has no float parameters")]
    NoParameters,
    /// An energy that is not known.
    #[cfg(feature = "exact")]
    #[error("the energy is not known: {0}")]
    Energy(#[from] EnergyError),
    /// Logits that do not fit the model.
    #[error("QK-clip: {0}")]
    QkClip(#[from] QkClipError),
    /// A record of other parameters or other optimizers.
    #[error("the optimizer record does not fit this plan: {0}")]
    Record(#[from] RecordError),
}

impl LayerwiseError {
    pub(crate) fn changed(path: &str, change: impl Into<String>) -> Self {
        Self::Changed { path: path.to_string(), change: change.into() }
    }

    /// Refuses a number that is negative or not finite.
    pub(crate) fn check_rate(what: impl Into<String>, value: f64) -> Result<(), Self> {
        match value >= 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(Self::Number { what: what.into(), rule: "a finite number of at least 0", value }),
        }
    }

    /// The threshold of a clip; `None` and 0 turn it off.
    pub(crate) fn check_threshold(what: &str, threshold: Option<f64>) -> Result<Option<f64>, Self> {
        let rule = "a finite number above 0, or none or 0 for no clipping";
        match threshold {
            None | Some(0.0) => Ok(None),
            Some(value) if value > 0.0 && value.is_finite() => Ok(threshold),
            Some(value) => Err(Self::Number { what: what.into(), rule, value }),
        }
    }
}

fn quoted(paths: &[String]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("\"{path}\"")).collect();
    quoted.join(" and ")
}
