//! Settings of models: keys, choices and presets, checks, and what can be computed from them without a tensor.

pub(crate) mod choices;
mod counts;
mod keys;
pub(crate) mod lora;
pub(crate) mod memory;
pub(crate) mod mlp;
pub(crate) mod model;
mod papers;
mod presets;
pub(crate) mod rope_bounds;
mod small;
mod table;
mod validate;
