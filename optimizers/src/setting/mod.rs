//! The ground of every configuration: what a key may be, the errors, the nearest valid name. Knows serde and no tensor.

mod counter;
mod error;
mod keys;
mod nearest;
mod settings;
mod value;

pub use counter::splitmix64;
#[cfg(test)]
pub(crate) use counter::tests;
pub use error::ConfigError;
pub(crate) use keys::{Given, check_keys, key, read_fields, take_tag};
pub use nearest::nearest;
pub(crate) use settings::{Keys, settings};
pub(crate) use value::{Numbers, Setting, choice, choices_of};
