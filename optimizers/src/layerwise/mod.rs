//! A rule for every parameter: roles, plans, ready-made stacks, and the optimizer that holds them.

mod any;
mod ball;
mod basis;
mod builder;
mod check;
mod config;
mod config_parts;
mod course;
mod decide;
#[cfg(feature = "exact")]
mod energy;
#[cfg(feature = "exact")]
mod energy_error;
mod error;
mod exchange;
mod frozen;
mod gradients;
mod groups;
mod inference;
mod module_optimizer;
mod norms;
mod objective;
mod optimizer;
mod parameters;
mod pattern;
mod plan;
mod probe;
mod project;
mod qk_clip;
mod qk_clip_error;
mod record;
mod record_error;
mod resolve;
mod role;
mod rule;
mod scheduled;
mod scheduling;
mod sharpness;
mod stack;
mod states;
mod table;
mod width;

pub use any::{AnyOptimizer, PlannedOptimizer};
pub use basis::BasisChange;
pub use builder::Layerwise;
pub use config::LayerwiseConfig;
pub use config_parts::{AdamWPart, EdgesPart};
#[cfg(feature = "exact")]
pub use energy_error::EnergyError;
pub use error::LayerwiseError;
pub use gradients::first_non_finite;
pub use groups::{ParameterUpdate, Stacking};
pub use objective::Objective;
pub use optimizer::LayerwiseOptimizer;
pub use parameters::ParameterInfo;
pub use pattern::Pattern;
pub use plan::{Plan, PlanEntry};
pub use probe::{Probe, ProbeGroups};
pub use project::Project;
pub use qk_clip::{HeadLogits, clip_heads};
pub use qk_clip_error::QkClipError;
pub use record::LayerwiseRecord;
pub use record_error::RecordError;
pub use role::{Role, RoleHint, Roles};
pub use rule::{BlockChoice, Rule, RuleOptimizer};
pub use scheduling::{ScheduleConfig, ScheduleRule};
