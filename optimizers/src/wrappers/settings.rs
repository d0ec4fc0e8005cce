//! The settings of wrappers.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::setting::{ConfigError, Given, Keys, Numbers, read_fields, settings, take_tag};

/// More steps than any run has.
const MOST_STEPS: u64 = 1_000_000_000_000;

settings! {
    /// Settings of [`EmaNesterov`](super::EmaNesterov).
    pub struct EmaNesterovConfig {
        /// How far ahead gradients are taken, in units of the mean step; times the schedule's factor.
        strength, with_strength: f64 = 0.5, in Numbers::FACTOR;
        /// Decay of the mean step.
        beta, with_beta: f64 = 0.99, in Numbers::FACTOR;
        /// First steps, in which the mean is only collected.
        prefill, with_prefill: u64 = 300, in 0..=MOST_STEPS;
        /// Share of the training after which gradients are taken at the weights again.
        until, with_until: f64 = 0.6, in Numbers::from_to(0.0, 1.0);
    }
}

settings! {
    /// Settings of [`OuterNesterov`](super::OuterNesterov).
    pub struct OuterNesterovConfig {
        /// Decay of the outer momentum.
        momentum, with_momentum: f64 = 0.9, in Numbers::FACTOR;
        /// Outer learning rate.
        lr, with_lr: f64 = 0.7, in Numbers::from_to(0.0, 10.0);
        /// Steps between two outer steps, K.
        every, with_every: u64 = 50, in 1..=MOST_STEPS;
    }
}

settings! {
    /// Settings of [`ScheduleFree`](super::ScheduleFree).
    pub struct ScheduleFreeConfig {
        /// Share of the average in the point at which gradients are taken.
        beta, with_beta: f64 = 0.9, in Numbers::from_to(0.0, 1.0);
    }
}

settings! {
    /// Settings of [`WeightAverage`](super::WeightAverage).
    pub struct WeightAverageConfig {
        /// Steps over which the average decays to 1/e of its weight.
        horizon, with_horizon: f64 = 150.0, in Numbers::from_to(1.0, 1e12);
        /// Share of the average in the evaluated weights.
        mix, with_mix: f64 = 0.6, in Numbers::from_to(0.0, 1.0);
    }
}

impl EmaNesterovConfig {
    /// Its name in configurations and records.
    pub const KIND: &'static str = "ema_nesterov";
}

impl OuterNesterovConfig {
    /// Its name in configurations and records.
    pub const KIND: &'static str = "outer_nesterov";
}

impl ScheduleFreeConfig {
    /// Its name in configurations and records.
    pub const KIND: &'static str = "schedule_free";
}

impl WeightAverageConfig {
    /// Its name in records.
    pub const KIND: &'static str = "weight_average";
}

/// A wrapper of the optimizer: `{ kind = "ema_nesterov", strength = 0.4 }`.
///
/// ```
/// use polaron::wrappers::{OuterNesterovConfig, WrapperConfig};
///
/// let config: WrapperConfig = serde_json::from_str(r#"{ "kind": "outer_nesterov", "every": 20 }"#)?;
/// assert_eq!(config, OuterNesterovConfig::new().with_every(20).into());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given", tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WrapperConfig {
    /// A look ahead along the mean of the last steps.
    EmaNesterov(EmaNesterovConfig),
    /// A Nesterov step along what every K steps changed.
    OuterNesterov(OuterNesterovConfig),
    /// Schedule-free training.
    ScheduleFree(ScheduleFreeConfig),
}

impl WrapperConfig {
    /// The names of all kinds.
    pub const KINDS: [&'static str; 3] = [EmaNesterovConfig::KIND, OuterNesterovConfig::KIND, ScheduleFreeConfig::KIND];

    /// Copies of the trained parameters that every kind has at one time, at most.
    pub const COPIES: usize = 2;

    /// The defaults of a kind.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn of_kind(kind: &str) -> Result<Self, ConfigError> {
        Self::try_from(Given([("kind".to_string(), kind.into())].into_iter().collect()))
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EmaNesterov(_) => EmaNesterovConfig::KIND,
            Self::OuterNesterov(_) => OuterNesterovConfig::KIND,
            Self::ScheduleFree(_) => ScheduleFreeConfig::KIND,
        }
    }

    /// Whether its average takes the place of a decay of the learning rate, which should be constant after the warm-up.
    pub fn replaces_schedule(&self) -> bool {
        matches!(self, Self::ScheduleFree(_))
    }

    /// Refuses values out of range; `owner` is the table that they are in.
    ///
    /// # Errors
    /// The first such value, and what it must be.
    pub fn validate(&self, owner: &str) -> Result<(), ConfigError> {
        self.settings().check_keys(owner)
    }

    /// Every key of a kind, each with values under which the wrapper behaves differently from the default, as
    /// [`OptimizerConfig::choices`](crate::OptimizerConfig::choices). `None` for a kind that does not exist.
    pub fn choices(kind: &str) -> Option<Vec<(&'static str, Vec<Value>)>> {
        Self::of_kind(kind).ok().map(|config| config.settings().choices())
    }

    fn settings(&self) -> &dyn Keys {
        match self {
            Self::EmaNesterov(settings) => settings,
            Self::OuterNesterov(settings) => settings,
            Self::ScheduleFree(settings) => settings,
        }
    }
}

impl fmt::Display for WrapperConfig {
    /// What it does, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind())?;
        match self {
            Self::EmaNesterov(EmaNesterovConfig { strength, beta, prefill, until }) => write!(
                f,
                "gradients {strength} of the mean step (decay {beta}) ahead, after {prefill} steps and until {} % of the run",
                100.0 * until
            ),
            Self::OuterNesterov(OuterNesterovConfig { momentum, lr, every }) => {
                write!(
                    f,
                    "every {every} steps a Nesterov step along their change, momentum {momentum}, learning rate {lr}"
                )
            }
            Self::ScheduleFree(ScheduleFreeConfig { beta }) => {
                write!(f, "gradients at {beta} of the way to the mean of all steps, which is evaluated")
            }
        }
    }
}

impl TryFrom<Given> for WrapperConfig {
    type Error = ConfigError;

    fn try_from(Given(mut map): Given) -> Result<Self, ConfigError> {
        let kind = take_tag(&mut map, "kind", "wrapper", &Self::KINDS)?;
        Ok(match kind.as_str() {
            EmaNesterovConfig::KIND => Self::EmaNesterov(read_fields(&kind, map)?),
            OuterNesterovConfig::KIND => Self::OuterNesterov(read_fields(&kind, map)?),
            _ => Self::ScheduleFree(read_fields(&kind, map)?),
        })
    }
}

macro_rules! into_wrapper {
    ($($kind:ident($settings:ident)),*) => {$(
        impl From<$settings> for WrapperConfig {
            fn from(settings: $settings) -> Self {
                Self::$kind(settings)
            }
        }
    )*};
}
into_wrapper!(EmaNesterov(EmaNesterovConfig), OuterNesterov(OuterNesterovConfig), ScheduleFree(ScheduleFreeConfig));
