//! The optimizers of a comparison: their names, and the learning rates that each of them tries.

use super::plan::Contender;
use super::range::round;
use crate::error::CompareError;

const MAX_NAME: usize = 40;

/// Checks that there are at least `least` optimizers, with names of their own.
///
/// # Errors
///
/// [`CompareError::SameName`], [`CompareError::TooFew`].
pub fn check_names(chosen: &[Contender], least: usize) -> Result<(), CompareError> {
    for (index, contender) in chosen.iter().enumerate() {
        // On some file systems two names that differ only in case are the same folder.
        if chosen[..index].iter().any(|other| other.name.eq_ignore_ascii_case(&contender.name)) {
            return Err(CompareError::SameName { name: contender.name.clone() });
        }
    }
    if chosen.len() < least {
        return Err(CompareError::TooFew { count: chosen.len() });
    }
    Ok(())
}

/// Checks that every optimizer tries the same number of learning rates.
///
/// # Errors
///
/// [`CompareError::UnequalGrids`].
pub fn check_grids(contenders: &[Contender]) -> Result<(), CompareError> {
    let Some(first) = contenders.first() else { return Ok(()) };
    match contenders.iter().find(|contender| contender.lrs.len() != first.lrs.len()) {
        Some(other) => {
            let [first, other] = [first, other].map(|c| (c.name.clone(), c.lrs.len()));
            Err(CompareError::UnequalGrids { first, other })
        }
        None => Ok(()),
    }
}

/// Checks that a name can be part of a file name.
///
/// # Errors
///
/// [`CompareError::BadName`].
pub fn check_name(name: &str) -> Result<(), CompareError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let good = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(fits) && !name.starts_with('.');
    if good { Ok(()) } else { Err(CompareError::BadName { name: name.into() }) }
}

/// Sorts learning rates, and checks that they are positive, finite and different.
///
/// # Errors
///
/// [`CompareError::BadRate`].
pub fn check_rates(lrs: &mut [f64], name: &str) -> Result<(), CompareError> {
    lrs.sort_by(f64::total_cmp);
    let bad = lrs.iter().find(|lr| !(lr.is_finite() && **lr > 0.0));
    let twice = lrs.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    match bad.or(twice) {
        Some(lr) => Err(CompareError::BadRate { name: name.into(), lr: *lr }),
        None => Ok(()),
    }
}

/// `points` rates around `centre`, which is one of them, each `factor` times the previous one.
pub fn grid(centre: f64, points: u64, factor: f64) -> Vec<f64> {
    let below = (points as i32 - 1) / 2;
    (0..points as i32).map(|index| round(centre * factor.powi(index - below))).collect()
}
