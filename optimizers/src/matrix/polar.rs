//! Orthogonalisation: the polar factor `U Vᵀ` of `M = U diag(s) Vᵀ`, exactly or by a polynomial.
//!
//! Polynomial methods normalise `X = M / (factor ‖M‖ + eps)` and repeat, for each `(a, b, c)`,
//!
//! ```text
//! A = X Xᵀ (on the short side),   X ← a X + (b A + c A²) X
//! ```
//!
//! which sends every singular value through `p(s) = a s + b s³ + c s⁵`. All of them are equivariant
//! under rotation and transposition, so they run on the stored orientation; only [`Norm::Aol`] looks at units.
//!
//! Where one side is more than 1.5 times the other, several steps are multiplied together on the Gram matrix, and X is
//! multiplied once for all of them:
//!
//! ```text
//! A = X Xᵀ, Q = I;   for each step: P = a I + b A + c A²,  Q ← P Q,  A ← P A P;   X ← Q X
//! ```
//!
//! The result is the same up to rounding, with 28 r³ + 8 r²R instead of 10 r³ + 20 r²R operations for five steps. With the
//! feature `flex`, plain f32 and f64 tensors of Burn's CPU backend are iterated on in place.
//!
//! | method | map on [1e-3, 1] | source |
//! |---|---|---|
//! | `newton_schulz` (5 steps) | into [0.47, 1.21] | Keller Jordan, Muon, 2024 |
//! | `polar_express` (5 steps) | into [0.85, 1.15] | arXiv 2505.16932, safety factor 1.02 |
//! | `converged` (10 steps) | to 1, within 2e-7 on [1.02e-5, 1] | composed here by the recipe of arXiv 2505.16932 |
//!
//! Where a norm other than Frobenius is taken, it comes from the first Gram matrix:
//!
//! ```text
//! X = M / ‖M‖_F,  A = X Xᵀ;   schatten4: D = I / (factor ‖A‖_F^½)   aol: D = diag(1 / (factor √Σ_j |A_ij|))
//! X ← D X,  A ← D A D
//! ```

use burn::tensor::{DType, Tensor};

use super::exact::map_singular_values;
use super::norms::identity_like;
use crate::flex::{self, Iteration, LEAST_SUM, Norm, Normalisation};

/// Newton–Schulz quintic of Muon (Keller Jordan 2024).
pub const NEWTON_SCHULZ: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Polar Express (arXiv 2505.16932), five steps: lower bound 1e-3, cushion 0.02, safety factor 1.02.
pub const POLAR_EXPRESS: [[f64; 3]; 5] = [
    [8.156554524902461, -22.48329292557795, 15.878769915207462],
    [4.042929935166739, -2.808917465908714, 0.5000178451051316],
    [3.8916678022926607, -2.772484153217685, 0.5060648178503393],
    [3.285753657755655, -2.3681294933425376, 0.46449024233003106],
    [2.3465413258596377, -1.7097828382687081, 0.42323551169305323],
];

/// Every Polar Express step after the fifth.
pub const POLAR_EXPRESS_LIMIT: [f64; 3] = [1.875, -1.25, 0.375];

/// Ten steps after which every singular value from 1e-5 to 1 is 1 up to 1.2e-7: the best odd quintic for the interval that
/// the one before leaves (the recipe of Polar Express, arXiv 2505.16932), beginning with [1e-5, 1], each but the last one
/// narrowed by 1 % against rounding. Smaller values grow 3.2e5 times: directions that hold only the rounding errors of f32,
/// below 1e-7 of the norm, stay below 0.03.
pub const CONVERGED: [[f64; 3]; 10] = [
    [8.429564732300472, -24.536523872844498, 17.855261767195074],
    [4.2142607444020115, -3.0667811247572017, 0.5579643790588302],
    [4.211873610272308, -3.0651677616812822, 0.5577854657034061],
    [4.201862027046706, -3.0584189996881257, 0.557042718772823],
    [4.160284382412701, -3.0303128679775497, 0.5539402700602487],
    [3.9958479047848714, -2.9184430912652957, 0.541605986849972],
    [3.455487399946944, -2.5410527819988684, 0.5001356623424968],
    [2.45702248746445, -1.7790459638871565, 0.41815430036119305],
    [1.9043219569834362, -1.2702204092843739, 0.3670926894825141],
    [1.8765865366406624, -1.2531456061355338, 0.37655905155312885],
];

/// The safety factor by which Polar Express divides its input.
pub(crate) const POLAR_EXPRESS_NORM_FACTOR: f64 = 1.02;

/// Minimax quintics from a lower bound of 1e-2, in three steps: with [`Norm::Schatten4`] and [`MINIMAX_NORM_FACTOR`] into
/// [0.72, 1.27]. Composed greedily as Polar Express, with a safety factor of 1.01 in every step but the last, so that singular
/// values up to 1.03 times the norm, 1.01 after the factor, stay bounded.
pub const MINIMAX_3: [[f64; 3]; 3] =
    [[8.0132361, -22.9257570, 16.5994147], [3.6005798, -2.6418752, 0.5105054], [2.6613, -1.9771545, 0.4526164]];

/// The same from 4e-3 in four steps, into [0.86, 1.13].
pub const MINIMAX_4: [[f64; 3]; 4] = [
    [8.2583967, -23.8739629, 17.3385829],
    [3.9386083, -2.8782212, 0.5368854],
    [3.2945332, -2.4218523, 0.4860214],
    [2.3085646, -1.6759945, 0.4195739],
];

/// The factor of the norm for [`MINIMAX_3`] and [`MINIMAX_4`].
pub const MINIMAX_NORM_FACTOR: f64 = 1.02;

/// A singular value that can occur, and its image outside [0, 2], if there is one.
///
/// Checked on 4000 points from 1e-3 to 1.01, each divided by the norm factor: a rank-one matrix
/// normalised in low precision reaches slightly more than 1.
pub(crate) fn first_unsafe_value(coefficients: &[[f64; 3]], norm_factor: f64) -> Option<(f64, f64)> {
    let (low, high) = (1e-3_f64, 1.01_f64);
    (0..4000)
        .map(|i| low * (high / low).powf(i as f64 / 3999.0) / norm_factor)
        .map(|s| (s, scalar_map(coefficients, s)))
        .find(|(_, p)| !(0.0..=2.0).contains(p))
}

/// The image of a singular value `s` under a schedule: the composition of `a s + b s³ + c s⁵`.
///
/// ```
/// // five Newton–Schulz steps send 0.1 to 0.7121…
/// let p = polaron::matrix::scalar_map(&[polaron::matrix::NEWTON_SCHULZ; 5], 0.1);
/// assert!((p - 0.7121200817).abs() < 1e-9);
/// ```
pub fn scalar_map(coefficients: &[[f64; 3]], s: f64) -> f64 {
    coefficients.iter().fold(s, |s, [a, b, c]| s * (a + s * s * (b + c * s * s)))
}

/// Applies a polynomial iteration, `X ← a X + (b A + c A²) X` with `A = X Xᵀ`, to every matrix of a stack `[batch, a, b]`.
///
/// The units of [`Norm::Aol`] are those of the shorter of the axes `a` and `b`, and of `a` if both are equal.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use polaron::matrix::{NEWTON_SCHULZ, Norm, Normalisation, polar_polynomial};
///
/// let x = Tensor::<3>::from_data([[[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], &Device::flex());
/// // The Schatten-4 norm of diag(3, 1) is 82^(1/4) = 3.009.
/// let normalisation = Normalisation { norm: Norm::Schatten4, factor: 1.0, eps: 0.0 };
/// let once: Vec<f32> = polar_polynomial(x, &[NEWTON_SCHULZ], normalisation).into_data().try_to_vec()?;
/// let [a, b, c] = NEWTON_SCHULZ;
/// let s = 1.0 / 82.0_f64.powf(0.25);
/// assert!((f64::from(once[4]) - (a * s + b * s.powi(3) + c * s.powi(5))).abs() < 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn polar_polynomial(stack: Tensor<3>, coefficients: &[[f64; 3]], normalisation: Normalisation) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let iteration = Iteration::new(coefficients, [height, width], stack.dtype(), normalisation);
    flex::iterate(stack, &iteration).unwrap_or_else(|stack| on_device(stack, &iteration))
}

/// For a matrix longer than this times its short side, iterating on the Gram matrix is cheaper.
const GRAM_ASPECT: f64 = 1.5;

/// How much rounding errors of the Gram matrix may grow before it is recomputed.
///
/// A step multiplies small eigenvalues, and their errors, by a². Up to this limit the result is as close to the exact
/// iteration as that of the plain loop, even for condition numbers of 1e12, and singular values keep their bounds if the
/// device multiplies in TF32. Without a limit, five steps of Polar Express in TF32 reach singular values of 5 and 22.
const GRAM_GROWTH: f64 = 200.0;

impl<'a> Iteration<'a> {
    /// The steps for matrices of this shape and type.
    fn new(coefficients: &'a [[f64; 3]], shape: [usize; 2], dtype: DType, normalisation: Normalisation) -> Self {
        let (short, long) = (shape[0].min(shape[1]) as f64, shape[0].max(shape[1]) as f64);
        // In half precision even the growth of a single step is too much.
        let gram = long > GRAM_ASPECT * short && matches!(dtype, DType::F32 | DType::F64);
        let mut growth = 1.0;
        let segments = coefficients.chunk_by(|[a, ..], _| {
            growth *= a * a;
            let together = gram && growth <= GRAM_GROWTH;
            if !together {
                growth = 1.0;
            }
            together
        });
        Self { segments: segments.collect(), normalisation }
    }
}

/// The iteration in Burn's operations.
fn on_device(stack: Tensor<3>, iteration: &Iteration<'_>) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let normalisation = iteration.normalisation;
    let mut x = normalised(stack, normalisation);
    let mut identity = None;
    // The iterate is `scale · x`: the factor a of single steps is applied as late as possible, to save launches.
    let mut scale = 1.0;
    for (index, steps) in iteration.segments.iter().enumerate() {
        let waits = matches!(**steps, [[a, ..]] if a > 0.0);
        if scale > LARGEST_SCALE || (scale != 1.0 && !waits) {
            x = x * scale;
            scale = 1.0;
        }
        let transposed = x.clone().swap_dims(1, 2);
        let wide = height <= width;
        let mut gram = if wide { x.clone().matmul(transposed) } else { transposed.matmul(x.clone()) };
        if let Some(shrink) = (index == 0).then(|| shrinks(&gram, normalisation)).flatten() {
            let turned = shrink.clone().swap_dims(1, 2);
            x = x * if wide { shrink.clone() } else { turned.clone() };
            gram = gram * shrink * turned;
        }
        let multiplied = |factor: Tensor<3>, x: Tensor<3>| if wide { factor.matmul(x) } else { x.matmul(factor) };
        x = match **steps {
            // without an identity matrix, which would take additional launches
            [[a, b, c]] if waits => {
                let square = scale * scale;
                scale *= a;
                multiplied(powers(gram, b * square / a, c * square * square / a), x.clone()) + x
            }
            _ => {
                let identity = identity.get_or_insert_with(|| identity_like(&gram)).clone();
                multiplied(composed(gram, steps, identity), x)
            }
        };
    }
    if scale == 1.0 { x } else { x * scale }
}

/// Beyond this, the fourth power of the scale could leave the range of f32.
const LARGEST_SCALE: f64 = 1e4;

/// Largest number of entries of a matrix for a single reduction.
const AT_ONCE: usize = 1 << 16;

/// The Frobenius norm of every matrix, `[batch, 1, 1]`. For entries of any size, as
/// [`frobenius_norm`](super::frobenius_norm), but with half the launches: relative to the largest entry no square overflows
/// or underflows.
fn norm_of(stack: &Tensor<3>) -> Tensor<3> {
    let smallest = match stack.dtype() {
        DType::F64 => f64::MIN_POSITIVE,
        // 2^-24, the smallest positive number
        DType::F16 => 5.960464477539063e-8,
        _ => f64::from(f32::MIN_POSITIVE),
    };
    let [batch, height, width] = stack.dims();
    // Small matrices are reduced at once, large ones first along their rows, which uses more of a GPU.
    let shape = if height * width <= AT_ONCE { [batch, 1, height * width] } else { [batch, height, width] };
    let overall = |x: Tensor<3>, reduce: fn(Tensor<3>, usize) -> Tensor<3>| match shape[1] {
        1 => reduce(x, 2),
        _ => reduce(reduce(x, 2), 1),
    };
    let rows = stack.clone().reshape(shape);
    let largest = overall(rows.clone(), Tensor::max_abs_dim).clamp_min(smallest);
    let unit = rows / largest.clone();
    overall(unit.square(), Tensor::sum_dim).sqrt() * largest
}

/// `X / (factor ‖X‖_F + eps)`, by which every normalisation begins.
fn normalised(stack: Tensor<3>, normalisation: Normalisation) -> Tensor<3> {
    let (factor, eps) = normalisation.first();
    let mut norm = norm_of(&stack);
    if factor != 1.0 {
        norm = norm * factor;
    }
    match eps {
        // 0 / 0 must be 0: a zero matrix has no direction.
        0.0 => stack / one_for_zero(norm),
        eps => stack / (norm + eps),
    }
}

fn one_for_zero(norm: Tensor<3>) -> Tensor<3> {
    let zero = norm.clone().equal_scalar(0.0);
    norm.mask_fill(zero, 1.0)
}

/// The factor of every unit of X that its Gram matrix asks for, `[batch, r, 1]` or `[batch, 1, 1]`.
fn shrinks(gram: &Tensor<3>, Normalisation { norm, factor, .. }: Normalisation) -> Option<Tensor<3>> {
    let size = match norm {
        Norm::Frobenius => return None,
        Norm::Schatten4 => one_for_zero(norm_of(gram).sqrt()),
        Norm::Aol => gram.clone().abs().sum_dim(2).clamp_min(LEAST_SUM).sqrt(),
    };
    Some((size * factor).recip())
}

/// `b A + c A²`
fn powers(gram: Tensor<3>, b: f64, c: f64) -> Tensor<3> {
    if c == 0.0 {
        return gram * b;
    }
    gram.clone().matmul(gram.clone()) * c + gram * b
}

/// The product of the steps' polynomials `a I + b A + c A²`, each in the Gram matrix of the iterate before that step.
fn composed(mut gram: Tensor<3>, steps: &[[f64; 3]], identity: Tensor<3>) -> Tensor<3> {
    let mut total: Option<Tensor<3>> = None;
    for (index, &[a, b, c]) in steps.iter().enumerate() {
        let step = powers(gram.clone(), b, c) + identity.clone() * a;
        if index + 1 < steps.len() {
            gram = step.clone().matmul(gram.matmul(step.clone()));
        }
        total = Some(match total {
            Some(total) => step.matmul(total),
            None => step,
        });
    }
    total.unwrap_or(identity)
}

/// Exact polar factor `Σ u_i v_iᵀ` over the singular values above `rcond` times the largest; the others count as 0.
///
/// The decomposition is a host round trip in the precision of the tensor. A matrix with a NaN or an
/// infinity has no decomposition and returns NaN.
pub fn polar_svd(stack: Tensor<3>, rcond: f64) -> Tensor<3> {
    map_singular_values(stack, |_, s| {
        let cut_off = rcond * s.first().copied().unwrap_or(0.0);
        s.iter().map(|s| f64::from(u8::from(*s > cut_off))).collect()
    })
}

#[cfg(test)]
#[path = "polar_tests.rs"]
mod tests;
