//! Norms, inner products and means of every matrix of a stack.

use burn::tensor::{Bool, DType, Tensor};
use serde::{Deserialize, Serialize};

use super::{Axis, Matrix};
/// The unit of an epsilon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsMode {
    /// Relative to the mean of the quantity it is added to: the rule does not depend on the gradient's scale.
    #[default]
    Relative,
    /// Absolute, as in the authors' programs.
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

/// Bounds of the largest entry beyond which f32 cannot hold squares and their sums, and the powers of two that scale such
/// matrices back into range. Multiplying by a power of two does not round.
const SMALL: f64 = 1.0 / (1_u64 << 40) as f64;
const LARGE: f64 = (1_u64 << 40) as f64;
const UP: f64 = (1_u64 << 60) as f64;
const DOWN: f64 = 1.0 / (1_u128 << 70) as f64;

/// A stack whose entries can be squared: in f32, groups of entries (whole matrices, or units) that are too small or too
/// large for that are multiplied by a power of two, the others by 1. The rule restores the scale at its end.
pub(crate) struct InRange {
    /// The stack, multiplied.
    pub stack: Tensor<3>,
    /// Which groups were too small and which too large; `None` in f64, whose range is sufficient.
    moved: Option<[Tensor<3, Bool>; 2]>,
}

impl InRange {
    /// Brings every matrix of the stack into range as a whole.
    pub fn matrices(stack: Tensor<3>) -> Self {
        Self::groups(stack, &[1, 2], SMALL)
    }

    /// The same, but only for matrices that are too large: for a rule that adds an epsilon larger than tiny squares.
    pub fn large_matrices(stack: Tensor<3>) -> Self {
        Self::groups(stack, &[1, 2], 0.0)
    }

    /// Brings every group of entries along these dimensions into range.
    fn groups(stack: Tensor<3>, dims: &[usize], small: f64) -> Self {
        if stack.dtype() != DType::F32 {
            return Self { stack, moved: None };
        }
        let largest = dims.iter().fold(stack.clone().abs(), |x, dim| x.max_dim(*dim));
        let moved = Some([largest.clone().lower_scalar(small), largest.greater_scalar(LARGE)]);
        let range = Self { stack, moved };
        let factor = range.by_factor(|factor| factor);
        Self { stack: range.stack * factor, ..range }
    }

    /// `f` of the factor by which each group was multiplied, limited to the range of f32.
    pub fn by_factor(&self, f: impl Fn(f64) -> f64) -> Tensor<3> {
        let Some([small, large]) = &self.moved else {
            return Tensor::full([1, 1, 1], f(1.0), (&self.stack.device(), self.stack.dtype()));
        };
        let held = |factor| f(factor).min(f64::from(f32::MAX));
        let ordinary = Tensor::full(small.dims(), held(1.0), (&self.stack.device(), self.stack.dtype()));
        ordinary.mask_fill(small.clone(), held(UP)).mask_fill(large.clone(), held(DOWN))
    }

    /// A norm that was measured on the scaled stack, in the units of the original.
    fn undo(&self, length: Tensor<3>) -> Tensor<3> {
        if self.moved.is_none() { length } else { length / self.by_factor(|factor| factor) }
    }
}

/// Frobenius norm of each matrix of a stack `[batch, a, b]`, as `[batch, 1, 1]`; entries may have any size, as long as the
/// norm fits the dtype.
pub fn frobenius_norm(stack: Tensor<3>) -> Tensor<3> {
    let range = InRange::matrices(stack);
    let norm = range.stack.clone().square().sum_dim(2).sum_dim(1).sqrt();
    range.undo(norm)
}

/// How often the Gram matrix is squared for a spectral norm. What is found is `(Σ s^p)^(1/p)` with p = 2^22, which for r
/// singular values exceeds the largest by `ln(r) / p` of itself at most: by 2e-6 for a thousand.
const SQUARINGS: usize = 20;

/// Largest singular value of each matrix of a stack, as `[batch, 1, 1]`, by products alone. For a first step, not for
/// every step: 2 r²R + 40 r³ operations.
pub(crate) fn spectral_norm(stack: Tensor<3>) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let size = frobenius_norm(stack.clone());
    let x = divide_or_zero(stack, size.clone());
    let turned = x.clone().swap_dims(1, 2);
    let mut power = if height <= width { x.matmul(turned) } else { turned.matmul(x) };
    // The largest eigenvalue is n₀ (n₁ (n₂ …)^½)^½, n the norms that are divided out before every squaring.
    let mut norms = Vec::new();
    for _ in 0..SQUARINGS {
        let norm = frobenius_norm(power.clone());
        let unit = divide_or_zero(power, norm.clone());
        power = unit.clone().matmul(unit);
        norms.push(norm);
    }
    let last = frobenius_norm(power);
    norms.into_iter().rev().fold(last, |found, norm| found.sqrt() * norm).sqrt() * size
}

/// `⟨X, Y⟩`, the sum of the products of all entries, for each pair of matrices, as `[batch, 1, 1]`.
pub fn inner_product(x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
    (x * y).sum_dim(2).sum_dim(1)
}

/// Sum of squares of each unit along `axis`; the other axis has size 1. Squares must fit the dtype: see [`unit_norms`].
pub fn unit_sums(matrix: &Matrix, axis: Axis) -> Tensor<3> {
    matrix.tensor().clone().square().sum_dim(matrix.dim(axis.other()))
}

/// Norm of each unit along `axis`, for entries of any size; the other axis has size 1.
pub fn unit_norms(matrix: &Matrix, axis: Axis) -> Tensor<3> {
    let dim = matrix.dim(axis.other());
    let range = InRange::groups(matrix.tensor().clone(), &[dim], SMALL);
    let norms = range.stack.clone().square().sum_dim(dim).sqrt();
    range.undo(norms)
}

/// `√(x² + y²)` for `x, y ≥ 0`, without overflow or underflow of the squares.
pub(crate) fn hypotenuse<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    let (high, low) = (x.clone().max_pair(y.clone()), x.min_pair(y));
    let nothing = high.clone().equal_scalar(0.0);
    let ratio = low / high.clone().mask_fill(nothing, 1.0);
    high * (ratio.square() + 1.0).sqrt()
}

/// The sign of every entry; NaN passes through unchanged (`Tensor::sign` would turn it into 0 on some devices).
pub(crate) fn sign(x: Tensor<3>) -> Tensor<3> {
    let lost = x.clone().is_nan();
    let sign = x.clone().sign();
    sign.mask_where(lost, x)
}

/// Every unit along `axis` divided by its norm + e; e is `eps`, or `eps` times the mean unit norm.
///
/// Units that are zero stay zero, even with `eps` 0.
pub fn normalize_units(matrix: Matrix, axis: Axis, eps: f64, mode: EpsMode) -> Matrix {
    let norms = unit_norms(&matrix, axis);
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
/// Multiples of 1/4, and every power in f64, are computed from roots and products, which are accurate on every device: in
/// f64, the general power of Burn's ndarray backend rounds the exponent to f32, and that of a Vulkan software device is wrong
/// in the third digit.
pub(crate) fn power(x: Tensor<3>, exponent: f64) -> Tensor<3> {
    let size = exponent.abs();
    let by_roots = size <= 2.0 && (size * 4.0).fract() == 0.0 || x.dtype() == DType::F64;
    if !by_roots {
        return x.powf_scalar(exponent);
    }
    let mut raised = (size >= 1.0).then(|| (1..size as usize).fold(x.clone(), |raised, _| raised * x.clone()));
    // The binary digits of the fraction, one root each; f64 resolves no more than 53.
    let (mut rest, mut root) = (size.fract(), x.clone());
    for _ in 0..53 {
        if rest == 0.0 {
            break;
        }
        (rest, root) = (rest * 2.0, root.sqrt());
        if rest >= 1.0 {
            rest -= 1.0;
            raised = Some(raised.map_or(root.clone(), |raised| raised * root.clone()));
        }
    }
    let raised = raised.unwrap_or_else(|| x.ones_like());
    if exponent < 0.0 { raised.recip() } else { raised }
}

/// `x / d` for a norm-like `d ≥ 0` that is zero only where `x` is: 0 / 0 is 0.
pub(crate) fn divide_or_zero(x: Tensor<3>, d: Tensor<3>) -> Tensor<3> {
    let zero = d.clone().equal_scalar(0.0);
    x / d.mask_fill(zero, 1.0)
}

/// Every matrix scaled to this Frobenius norm; zero stays zero.
pub(crate) fn with_norm(x: Tensor<3>, norm: f64) -> Tensor<3> {
    let old = frobenius_norm(x.clone());
    divide_or_zero(x, old) * norm
}

/// The identity, in the shape and dtype of a stack of square matrices.
pub(crate) fn identity_like(stack: &Tensor<3>) -> Tensor<3> {
    let [batch, size, _] = stack.dims();
    let eye = Tensor::<2>::eye(size, &stack.device()).cast(stack.dtype());
    eye.unsqueeze::<3>().expand([batch, size, size])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn norms_of_tiny_and_huge_matrices_are_those_of_f64() {
        let values = |x: Tensor<3>| x.into_data().iter::<f32>().map(f64::from).collect::<Vec<_>>();
        for scale in [1e-37_f64, 1e-30, 1e-20, 1e-12, 1.0, 1e12, 1e20, 1e30, 1e37] {
            // the second unit is far below the first where f32 has such numbers, the third zero
            let low = if scale > 1e-29 { 1e-7 * scale } else { 0.0 };
            let entries = [[[3.0 * scale, 4.0 * scale], [0.6 * low, 0.8 * low], [0.0, 0.0]]];
            let x = Tensor::<3>::from_data(entries, &Device::flex());
            let norm = values(frobenius_norm(x.clone()))[0];
            assert!((norm / (5.0 * scale) - 1.0).abs() < 1e-6, "{scale}: {norm}");
            let norms = values(unit_norms(&Matrix::new(x, crate::matrix::Layout::OutIn), Axis::Output));
            for (norm, want) in norms.into_iter().zip([5.0 * scale, low, 0.0]) {
                assert!((norm - want).abs() <= 1e-6 * want, "{scale}: {norm} instead of {want}");
            }
        }
    }

    #[test]
    fn the_spectral_norm_is_the_largest_singular_value() {
        for [height, width] in [[1, 1], [1, 7], [6, 1], [5, 9], [12, 12], [40, 17]] {
            let x = crate::setting::numbers([3, height, width], 5, DType::F64);
            let largest = std::cell::RefCell::new(Vec::new());
            let _ = crate::matrix::map_singular_values(x.clone(), |_, s| {
                largest.borrow_mut().push(s[0]);
                s.to_vec()
            });
            let found: Vec<f64> = spectral_norm(x.clone()).into_data().iter::<f64>().collect();
            let single: Vec<f32> = spectral_norm(x.cast(DType::F32) * 1e30).into_data().try_to_vec().unwrap();
            for ((want, found), single) in largest.into_inner().into_iter().zip(found).zip(single) {
                // 17 equal singular values would be found too large by 7e-7 of them
                assert!((found / want - 1.0).abs() < 1e-6, "{height} x {width}: {found} instead of {want}");
                assert!((f64::from(single) / want / 1e30 - 1.0).abs() < 4e-6, "{height} x {width}: {single}");
            }
        }
        assert_eq!(spectral_norm(Tensor::zeros([1, 3, 4], &Device::flex())).into_scalar::<f32>(), 0.0);
    }

    #[test]
    fn the_hypotenuse_of_sides_of_any_size_is_right() {
        for [x, y] in [[3.0, 4.0], [3e-30, 4e-30], [3e30, 4e30], [0.0, 5.0], [0.0, 0.0], [1e30, 1e-30]] {
            let side = |x: f64| Tensor::<1>::from_floats([x], &Device::flex());
            let got = hypotenuse(side(x), side(y)).into_scalar::<f64>();
            assert!((got - x.hypot(y)).abs() <= 1e-6 * got, "{x} {y}: {got}");
        }
    }

    #[test]
    fn powers_are_powers() {
        let values = [1e-6_f64, 0.25, 1.0, 7.5, 3e5];
        let x = |dtype| Tensor::<3>::from_data([[values]], (&Device::flex(), dtype));
        for exponent in [-2.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 1.75, 0.3, 1.0 / 3.0, -1.0 / 6.0, 2.7, -1.9999]
        {
            // a few roundings of f32, and 60 of f64
            for (dtype, most) in [(DType::F32, 2e-6), (DType::F64, 1e-14)] {
                let got: Vec<f64> = power(x(dtype), exponent).into_data().iter::<f64>().collect();
                for (got, x) in got.into_iter().zip(values) {
                    assert!((got / x.powf(exponent) - 1.0).abs() < most, "{x}^{exponent} as {dtype:?}: {got}");
                }
            }
        }
    }
}
