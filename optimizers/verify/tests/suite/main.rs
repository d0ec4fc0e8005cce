//! The results of the checks, on the CPU backend, in f32 and f64. One binary: linking Burn is slow.

mod contract;
mod symmetry;
mod vector_files;
