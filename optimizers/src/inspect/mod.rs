//! Looking at what an optimizer does: the symmetries of its updates, and what becomes of singular values.

mod spectrum;
mod symmetry;

pub use spectrum::singular_map;
pub use symmetry::{AUDITED, AuditedRule, Symmetry, symmetry};
