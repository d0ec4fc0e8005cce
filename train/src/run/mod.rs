//! One training run: its preparation, its training loop, and loading it from its folder.

pub mod averaging;
pub mod energy;
pub mod estimate;
pub mod evaluation;
pub mod loaded;
pub mod operations;
pub mod prepare;
pub mod prepared;
pub mod probing;
pub mod prompt;
pub mod refactoring;
pub mod rope;
pub mod saved;
pub mod spectra;
pub mod start;
pub mod summary;
pub mod team;
pub mod trainer;
pub mod validations;
