//! Processes that train one model together, and how they exchange numbers.

mod exchange;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
mod world;

pub use exchange::{Crew, Ranks, in_turn, tell};
pub use launcher::{follows, local_ranks};
pub use world::{abort, enter, leave};
