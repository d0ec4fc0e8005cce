//! Helpers shared by the crates of polaron: a counter-based random generator, the nearest valid name for an unknown one,
//! and numbers and tables as text.
//!
//! It has no stability promise of its own; do not depend on it directly.

mod counter;
mod names;
mod text;

pub use counter::splitmix64;
pub use names::{did_you_mean, did_you_mean_or_list, nearest};
pub use text::{Align, csv, markdown_table, table, thousands};
