//! Pages: self-contained HTML about runs and comparisons.

mod chart;
mod comparison;
pub mod csv;
mod curves;
mod energy;
mod heads;
mod html;
mod names;
pub mod page;
mod probes;
mod profile;
mod runs;
mod sharpness;
mod weights;

pub use page::{FILE, page};
