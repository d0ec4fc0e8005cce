//! Comparisons of optimizers on a training loop of one's own: any model and data of Burn.
//!
//! [`Comparison`] holds the plan, and its [`run`](Comparison::run) is given one function: from a [`Trial`](crate::compare::Trial),
//! which says optimizer, learning rate, seed and steps, to what the training measured. Everything else is what `polaron compare`
//! does: the same tuning, pairing, statistics, files and page, and the same resumption, since both give their function to
//! [`compare`](crate::compare).

mod builder;
mod training;

pub use builder::Comparison;
pub use training::{Training, train};
