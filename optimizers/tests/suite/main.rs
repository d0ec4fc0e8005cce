//! What the crate promises, on the CPU backend, in f32 and f64. One binary: linking Burn is slow.

mod contract;
mod model;
mod numbers;
mod properties;
mod qk_clip;
mod resume;
mod rules;
mod stacks;
mod symmetry;
mod vector_files;
