//! Measurements of an optimizer: the symmetries of its updates, their effect on singular values, the spectra of weights and what
//! equilibration changes.

mod bulk;
mod change;
mod circulant;
mod conditioning;
mod directions;
mod spectrum;
mod symmetry;

pub use bulk::Bulk;
pub use change::{Change, Leading, Overlap};
pub use circulant::{Circle, gram};
pub use conditioning::{Conditioning, Equilibrated, conditioning};
pub use directions::Directions;
pub use spectrum::{Spectrum, singular_map};
pub use symmetry::{Symmetry, symmetry};
