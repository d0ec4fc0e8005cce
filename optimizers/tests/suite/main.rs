//! What the crate promises, on the CPU backend, in f32 and f64. One binary: linking Burn is slow.

mod model;
mod properties;
mod resume;
mod rules;
mod vector_files;
