//! Numbers that a counter and a seed alone determine, so that other programs can draw them too.

use polaron_common::splitmix64;

/// `x` of 2^64, scaled to a whole number below `count`.
pub(crate) fn below(x: u64, count: usize) -> usize {
    ((u128::from(x) * count as u128) >> 64) as usize
}

/// One number below `count` for each of the `rows` rows of step `step` (from 0): for row i it is `(x * count) >> 64` in
/// 128-bit arithmetic, where `x = splitmix64(splitmix64(seed) + step * rows + i)` in wrapping 64-bit arithmetic.
pub(crate) fn rows_of_step(seed: u64, step: u64, rows: usize, count: usize) -> Vec<usize> {
    let first = splitmix64(seed).wrapping_add(step.wrapping_mul(rows as u64));
    (0..rows as u64).map(|row| below(splitmix64(first.wrapping_add(row)), count)).collect()
}

/// The numbers below `count` in an order that `seed` alone determines.
pub(crate) fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let key = splitmix64(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(splitmix64(key.wrapping_add(last as u64)), last + 1));
    }
    order
}
