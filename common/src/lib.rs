//! What the crates of polaron share: a counter-based random generator, the nearest name, numbers and tables as text.
//!
//! One way for each of these things. The crate changes with those that use it; do not depend on it directly.

mod counter;
mod names;
mod text;

pub use counter::splitmix64;
pub use names::{did_you_mean, did_you_mean_or_list, nearest};
pub use text::{Align, markdown_table, table, thousands};
