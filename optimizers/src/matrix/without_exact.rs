//! Placeholder for decompositions on the host without the feature `exact`.

use burn::tensor::Tensor;

/// Needs the feature `exact`.
///
/// # Panics
/// Always. Settings that lead here are refused by [`OptimizerConfig::validate`](crate::OptimizerConfig::validate).
pub fn map_singular_values(_stack: Tensor<3>, _f: impl Fn(usize, &[f64]) -> Vec<f64>) -> Tensor<3> {
    panic!("an exact function of singular values needs the feature `exact` of the crate polaron")
}

/// Needs the feature `exact`.
///
/// # Panics
/// As [`map_singular_values`].
pub(crate) fn map_by_rational_power(
    stack: Tensor<3>,
    _fraction: [u32; 2],
    _ridge: f64,
    _steps: usize,
    _factor: impl Fn(f64, f64, f64, usize) -> f64,
) -> Tensor<3> {
    map_singular_values(stack, |_, s| s.to_vec())
}
