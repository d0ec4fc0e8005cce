//! The promises of the crate, on the CPU backend, in f32 and f64. One binary: linking Burn is slow.

mod bad_values;
mod burn_nn;
mod clipping;
mod converged;
mod energy;
mod extremes;
mod freezing;
mod model;
mod numbers;
mod own_rules;
mod parts;
mod probing;
mod properties;
mod qk_clip;
mod rates;
mod records;
mod records_v1;
mod resume;
mod rules;
mod scheduling;
mod shared;
mod stacking;
mod stacks;
mod step_options;
mod widths;
mod wrappers;
