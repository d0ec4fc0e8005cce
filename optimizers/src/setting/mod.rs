//! What every configuration is built on: which values a key allows, and the errors. Uses serde and no tensors.

mod error;
mod keys;
mod settings;
#[cfg(test)]
mod test_numbers;
mod value;

pub use error::ConfigError;
pub(crate) use keys::{Given, check_keys, read_fields, read_number, take_tag};
pub(crate) use settings::{Keys, is_default, settings};
#[cfg(test)]
pub(crate) use test_numbers::numbers;
pub(crate) use value::{Numbers, Setting, choice, choices_of};
