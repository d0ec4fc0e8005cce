//! One-sided inverse roots: `(X Xᵀ + e I)^(-1/2) X` or `X (Xᵀ X + e I)^(-1/2)`.
//!
//! Both are the same function `s → s / √(s² + e)` of the singular values, so the smaller Gram
//! matrix can be used for either; only the size of a relative `e` depends on the side.

use burn::tensor::Tensor;

use super::exact::map_singular_values;
use super::norms::{divide_or_zero, frobenius_norm, hypotenuse, identity_like};
use super::{Axis, EpsMode, Matrix, POLAR_EXPRESS_LIMIT};

/// Polar Express without a safety factor (arXiv 2505.16932, the paper's own list without its last row).
const POLAR_EXPRESS_PAPER: [[f64; 3]; 7] = [
    [8.28721201814563, -23.595886519098837, 17.300387312530933],
    [4.107059111542203, -2.9478499167379106, 0.5448431082926601],
    [3.9486908534822946, -2.908902115962949, 0.5518191394370137],
    [3.3184196573706015, -2.488488024314874, 0.51004894012372],
    [2.300652019954817, -1.6689039845747493, 0.4188073119525673],
    [1.891301407787398, -1.2679958271945868, 0.37680408948524835],
    [1.8750014808534479, -1.2500016453999487, 0.3750001645474248],
];

/// How much larger than 1 the spectrum may be in the coupled iteration.
const SAFETY: f64 = 1.05;

/// Exactly `s → s / √(s² + e)`.
pub(crate) fn gram_root(stack: Tensor<3>, size: usize, eps: f64, mode: EpsMode) -> Tensor<3> {
    map_singular_values(stack, |_, s| {
        let shift = match mode {
            EpsMode::Absolute => eps,
            EpsMode::Relative => eps * s.iter().map(|s| s * s).sum::<f64>() / size as f64,
        };
        s.iter().map(|s| if *s == 0.0 { 0.0 } else { s / (s * s + shift).sqrt() }).collect()
    })
}

/// The root of the ridge of every matrix, `[batch, 1, 1]`: `√eps`, or `√eps` times the root mean square singular value of as
/// many as `size`.
pub(crate) fn root_level(stack: &Tensor<3>, size: usize, eps: f64, mode: EpsMode) -> Tensor<3> {
    let norm = frobenius_norm(stack.clone());
    match mode {
        EpsMode::Relative => norm * (eps / size as f64).sqrt(),
        EpsMode::Absolute => norm.full_like(eps.sqrt()),
    }
}

/// `(X Xᵀ + l² I)^(-1/2) X` with a level l for every matrix, `[batch, 1, 1]`: the first columns of the polar factor of
/// `[X | l I]`, with the identity on the long side, that of the inputs if X is square. A zero matrix gives zero.
///
/// No Gram matrix is inverted, so that f32 keeps what the singular values hold, not only what their squares do.
pub(crate) fn appended_root(matrix: Matrix, level: Tensor<3>, polar: impl FnOnce(Matrix) -> Matrix) -> Matrix {
    let short = if matrix.outputs() <= matrix.inputs() { Axis::Output } else { Axis::Input };
    let (size, long_dim) = (matrix.size(short), matrix.dim(short.other()));
    let [batch, height, width] = matrix.tensor().dims();
    let square = matrix.tensor().clone().narrow(1, 0, size).narrow(2, 0, size);
    let level = identity_like(&square) * level.expand([batch, size, size]);
    let longer = matrix.map(|x| Tensor::cat(vec![x, level], long_dim));
    polar(longer).map(|factor| factor.narrow(1, 0, height).narrow(2, 0, width))
}

/// `A^(-1/2) X` on the short side, `A = X Xᵀ + e I`, by the coupled iteration
///
/// ```text
/// Y = A / α, Z = I, α = 1.02 ‖A‖_F + e
/// R = sym(I - Z Y),  T = (a+b+c) I - (b+2c) R + c R²,  Y ← Y T,  Z ← T Z;   result Z X / √α
/// ```
///
/// `size` is that of the Gram matrix on the side of the rule: its norm counts `e` once for each of
/// its eigenvalues, including those that the short side does not have.
pub(crate) fn coupled_root(stack: Tensor<3>, size: usize, eps: f64, mode: EpsMode, steps: usize) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let tall = height > width;
    // Normalised first: the Gram matrix of gradients of 1e12 and its square do not fit into f32. The ridge of 1e-30 does
    // not either where it is measured in their norm, so an absolute one takes part in the normalisation.
    let norm = frobenius_norm(stack.clone());
    let (norm, shift) = match mode {
        EpsMode::Relative => {
            let shift = norm.full_like(eps / size as f64);
            (norm, shift)
        }
        EpsMode::Absolute => {
            let root = norm.full_like(eps.sqrt());
            let norm = hypotenuse(norm, root.clone());
            (norm.clone(), divide_or_zero(root, norm).square())
        }
    };
    let x = divide_or_zero(stack, norm);
    let transposed = x.clone().swap_dims(1, 2);
    let gram = if tall { transposed.matmul(x.clone()) } else { x.clone().matmul(transposed) };
    let root = inverse_square_root(gram, shift, size, steps);
    if tall { x.matmul(root) } else { root.matmul(x) }
}

fn inverse_square_root(gram: Tensor<3>, shift: Tensor<3>, size: usize, steps: usize) -> Tensor<3> {
    let short = gram.dims()[1];
    let eye = identity_like(&gram);
    let gram = gram + shift.clone() * eye.clone();
    let missing = size.saturating_sub(short) as f64;
    let norm = (frobenius_norm(gram.clone()).square() + shift.clone().square() * missing).sqrt();
    let alpha = norm * 1.02 + shift;
    let zero = alpha.clone().equal_scalar(0.0);
    let alpha = alpha.mask_fill(zero, 1.0);
    let (mut y, mut z) = (gram / alpha.clone(), eye.clone());
    for [a, b, c] in coupled_schedule(steps) {
        let residual = eye.clone() - z.clone().matmul(y.clone());
        let residual = (residual.clone() + residual.swap_dims(1, 2)) * 0.5;
        let square = residual.clone().matmul(residual.clone());
        let t = eye.clone() * (a + b + c) - residual * (b + 2.0 * c) + square * c;
        y = y.matmul(t.clone());
        z = t.matmul(z);
    }
    z / alpha.sqrt()
}

fn coupled_schedule(steps: usize) -> impl Iterator<Item = [f64; 3]> {
    let safe = |[a, b, c]: [f64; 3]| [a / SAFETY, b / SAFETY.powi(3), c / SAFETY.powi(5)];
    POLAR_EXPRESS_PAPER.into_iter().map(safe).chain(std::iter::repeat(POLAR_EXPRESS_LIMIT)).take(steps)
}
