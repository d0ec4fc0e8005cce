//! How data are split: the end of them, a given share, is for validation.

use crate::errors::DataError;

/// Refuses a share that is not strictly between 0 and 1.
pub(crate) fn check_fraction(value: f64) -> Result<(), DataError> {
    // Written so that NaN fails too.
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(DataError::BadFraction { value }) }
}

/// How many of `count` items are for training: `count * (1 - valid_fraction)`, truncated to a whole number.
pub(crate) fn training_part(count: u64, valid_fraction: f64) -> u64 {
    ((count as f64 * (1.0 - valid_fraction)) as u64).min(count)
}
