//! The results of the checks, on the CPU backend, in f32 and f64. One binary: linking Burn is slow.

mod conformance;
mod contract;
mod defaults;
mod symmetry;
mod vector_files;
