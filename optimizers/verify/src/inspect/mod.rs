//! Looking at what an optimizer does: the symmetries of its updates, what becomes of singular values, and the spectra of the
//! weights.

mod spectrum;
mod symmetry;

pub use spectrum::{Spectrum, singular_map, singular_values};
pub use symmetry::{Symmetry, symmetry};
