//! Looking at what an optimizer does: which symmetries its updates respect.

mod symmetry;

pub use symmetry::{AUDITED, AuditedRule, Symmetry, symmetry};
