//! Every parameter its rule: roles, plans, ready-made stacks, and the optimizer that holds them.

mod any;
mod builder;
mod check;
mod config;
mod error;
mod fit;
mod gradients;
mod inference;
mod module_optimizer;
mod optimizer;
mod pattern;
mod plan;
mod qk_clip;
mod record;
mod resolve;
mod role;
mod rule;
mod stack;

pub use any::AnyOptimizer;
pub use builder::Layerwise;
pub use config::{AdamWPart, EdgesPart, LayerwiseConfig};
pub use error::LayerwiseError;
pub use gradients::first_non_finite;
pub use optimizer::{LayerwiseOptimizer, ParameterUpdate};
pub use pattern::Pattern;
pub use plan::{ParameterInfo, Plan, PlanEntry};
pub use qk_clip::{HeadLogits, clip_heads};
pub use record::LayerwiseRecord;
pub use role::{Role, RoleHint, Roles};
pub use rule::{BlockChoice, Rule, RuleOptimizer};
