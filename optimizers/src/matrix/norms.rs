//! Norms, inner products and means of every matrix of a stack.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Axis, Matrix};

/// What an epsilon is measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsMode {
    /// Times the mean of the quantity it is added to: the rule does not depend on the gradient's scale.
    #[default]
    Relative,
    /// As it is, as in the authors' programs.
    Absolute,
}

impl EpsMode {
    /// What to add to `quantity`, whose mean over the last two dimensions is formed for each matrix: `[batch, 1, 1]`.
    pub(crate) fn shift(self, eps: f64, quantity: &Tensor<3>) -> Tensor<3> {
        let mean = quantity.clone().mean_dim(2).mean_dim(1);
        match self {
            EpsMode::Relative => mean * eps,
            EpsMode::Absolute => mean.full_like(eps),
        }
    }
}

/// Frobenius norm of each matrix of a stack `[batch, a, b]`, as `[batch, 1, 1]`.
pub fn frobenius_norm(stack: Tensor<3>) -> Tensor<3> {
    stack.square().sum_dim(2).sum_dim(1).sqrt()
}

/// `⟨X, Y⟩`, the sum of the products of all entries, for each pair of matrices, as `[batch, 1, 1]`.
pub fn inner_product(x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
    (x * y).sum_dim(2).sum_dim(1)
}

/// Sum of squares of each unit along `axis`; the other axis has size 1.
pub fn unit_sums(matrix: &Matrix, axis: Axis) -> Tensor<3> {
    matrix.tensor().clone().square().sum_dim(matrix.dim(axis.other()))
}

/// Every unit along `axis` divided by its norm + e; e is `eps`, or `eps` times the mean unit norm.
///
/// Units that are zero stay zero, also with `eps` 0.
pub fn normalize_units(matrix: Matrix, axis: Axis, eps: f64, mode: EpsMode) -> Matrix {
    let norms = unit_sums(&matrix, axis).sqrt();
    let shift = mode.shift(eps, &norms);
    matrix.map(|x| divide_or_zero(x, norms + shift))
}

/// The matrix without its mean unit: the sum over the units of `axis` becomes zero.
pub fn center(matrix: Matrix, axis: Axis) -> Matrix {
    let dim = matrix.dim(axis);
    matrix.map(|x| x.clone() - x.mean_dim(dim))
}

/// `x` to a power, for `x ≥ 0`.
///
/// Quarters are made of roots and products, which every device computes to rounding; general powers in f64
/// are wrong in the third digit on a Vulkan software device.
pub(crate) fn power(x: Tensor<3>, exponent: f64) -> Tensor<3> {
    let quarters = exponent.abs() * 4.0;
    if quarters.fract() != 0.0 || !(1.0..=8.0).contains(&quarters) {
        return x.powf_scalar(exponent);
    }
    let (root, times) = match quarters as usize {
        even if even % 4 == 0 => (x, even / 4),
        even if even % 2 == 0 => (x.sqrt(), even / 2),
        odd => (x.sqrt().sqrt(), odd),
    };
    let raised = (1..times).fold(root.clone(), |raised, _| raised * root.clone());
    if exponent < 0.0 { raised.recip() } else { raised }
}

/// `x / d` for a norm-like `d ≥ 0` that is zero only where `x` is: 0 / 0 is 0.
pub(crate) fn divide_or_zero(x: Tensor<3>, d: Tensor<3>) -> Tensor<3> {
    let zero = d.clone().equal_scalar(0.0);
    x / d.mask_fill(zero, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn powers_are_powers() {
        let x = Tensor::<3>::from_data([[[0.25, 1.0, 7.5]]], &Device::flex());
        for exponent in [-2.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 1.75, 0.3] {
            let got: Vec<f32> = power(x.clone(), exponent).into_data().try_to_vec().unwrap();
            for (got, x) in got.into_iter().zip([0.25_f64, 1.0, 7.5]) {
                // a few f32 roundings
                assert!((f64::from(got) / x.powf(exponent) - 1.0).abs() < 1e-6, "{x}^{exponent}: {got}");
            }
        }
    }
}
