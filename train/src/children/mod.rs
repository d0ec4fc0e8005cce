//! `polaron compare`: plans in TOML, and the runs of a comparison as child processes of this program.
//!
//! What a comparison is, and every rule of it, is in [`compare`](crate::compare), which knows nothing of models, data and
//! processes. This room says what `polaron compare` trains: it resolves a plan, gives the comparison a training that starts
//! `polaron train` (`training`), lists runs for other machines (`next`) and estimates times (`estimate`).

mod child;
mod configs;
mod data;
mod estimate;
mod launch;
mod loaded;
mod make;
mod next;
mod race;
mod request;
mod resolve;
mod sizes;
mod state_bytes;
mod training;

pub use estimate::describe as estimate;
pub use launch::Launch;
pub use loaded::LoadedComparison;
pub use make::{check, make};
pub use next::{Next, next};
pub use race::{ADAMW_STEPS, Entry, Track};
pub use request::Request;
pub use resolve::DEFAULT_OPTIMIZERS;
