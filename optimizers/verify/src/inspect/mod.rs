//! Measurements of an optimizer: the symmetries of its updates, their effect on singular values, and the spectra of
//! weights.

mod bulk;
mod spectrum;
mod symmetry;

pub use bulk::Bulk;
pub use spectrum::{Spectrum, singular_map, singular_values};
pub use symmetry::{Symmetry, symmetry};
