//! `(X Xᵀ + l I)^(-a/b) X` by rational iteration, without a singular value decomposition.
//!
//! With `A = X Xᵀ + l I`, eigenvalues in `[l, 1]`, and `C = I`, one step is
//!
//! ```text
//! W = (α I + β A)(I + γ A)⁻¹,   A ← A Wᵇ,   C ← W C              (everything commutes)
//! ```
//!
//! so that `A → I` and `C → A₀^(-1/b)`. The coefficients minimise the spread of
//! `g(x) = x^(1/b) (α + β x) / (1 + γ x)` on `[l, 1]`, scaled to `max g = g(1) = 1`; the next lower
//! bound is `g(l)ᵇ`. As a function of `log x` the best `log g` is odd about `√l`, hence
//!
//! ```text
//! γ = α + β - 1,   α = β γ l,   g(x₁) = 1 at the local maximum x₁
//! ```
//!
//! which leaves one unknown. For b = 2 this is the closed form of QDWH. (Iteration of arXiv
//! 2605.11181 as far as it is known; coefficients derived here and checked against published tables.)
//!
//! `A` is never formed: the iteration runs on a factor `L Lᵀ = A`, and `(I + γ A)⁻¹` comes from the
//! QR decomposition of `[√γ Lᵀ; I]`, so the condition number is not squared.

use burn::tensor::Tensor;
use faer::{Mat, MatRef};

use super::exact::{Scaled, map_on_host};

/// α and β of one step; γ = α + β - 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RationalStep {
    /// α
    pub alpha: f64,
    /// β
    pub beta: f64,
}

/// Below this distance of the lower bound from 1 the limit l → 1 (a Padé approximant) is exact to rounding.
const LIMIT: f64 = 1e-6;

impl RationalStep {
    fn gamma(&self) -> f64 {
        self.alpha + self.beta - 1.0
    }

    /// `log g(x)`
    fn log_gain(&self, x: f64, b: f64) -> f64 {
        x.ln() / b + ((self.alpha + self.beta * x) / (1.0 + self.gamma() * x)).ln()
    }

    /// The best step for eigenvalues in `[lower, 1]` and the exponent `1/b`.
    pub fn best(lower: f64, b: u32) -> Self {
        let b = f64::from(b);
        let limit = (b + 1.0) / (b - 1.0);
        let (mut low, mut high) = (limit, limit / lower);
        if 1.0 - lower < LIMIT {
            return Self::from_alpha(limit, lower);
        }
        loop {
            let middle = (low * high).sqrt();
            // This also ends the loop for a bound that is NaN.
            let inside = middle > low && middle < high;
            if !inside {
                return Self::from_alpha(low, lower);
            }
            match Self::from_alpha(middle, lower).maximum(b) {
                Some(log_maximum) if log_maximum > 0.0 => high = middle,
                _ => low = middle,
            }
        }
    }

    /// β from `α = β γ l` and `γ = α + β - 1`: the positive root of `l β² + l (α - 1) β = α`.
    fn from_alpha(alpha: f64, lower: f64) -> Self {
        let p = lower * (alpha - 1.0);
        Self { alpha, beta: 2.0 * alpha / (p + (p * p + 4.0 * lower * alpha).sqrt()) }
    }

    /// `log g` at its local maximum, the smaller root of
    /// `βγ x² + ((1 + b) β + (1 - b) αγ) x + α = 0`, if it has one.
    fn maximum(&self, b: f64) -> Option<f64> {
        let Self { alpha, beta } = *self;
        let second = beta * self.gamma();
        let first = (1.0 + b) * beta + (1.0 - b) * alpha * self.gamma();
        let discriminant = first * first - 4.0 * second * alpha;
        if discriminant <= 0.0 || first >= 0.0 {
            return None;
        }
        Some(self.log_gain(2.0 * alpha / (discriminant.sqrt() - first), b))
    }
}

/// The best steps in sequence, starting with eigenvalues in `[lower, 1]`.
///
/// ```
/// use polaron::matrix::rational_schedule;
/// // b = 2 is QDWH
/// let step = rational_schedule(1e-6, 2, 1)[0];
/// assert!((step.alpha / 251.992105051 - 1.0).abs() < 1e-11);
/// ```
pub fn rational_schedule(lower: f64, b: u32, steps: usize) -> Vec<RationalStep> {
    let mut lower = lower;
    (0..steps)
        .map(|_| {
            let step = RationalStep::best(lower, b);
            lower = (f64::from(b) * step.log_gain(lower, f64::from(b))).exp().min(1.0);
            step
        })
        .collect()
}

/// `factor · A^(-a/b) X` for every matrix of a stack, with `X` of norm 1 and `A = X Xᵀ + ridge I` on its short side, in f64 on
/// the host.
///
/// The factor is a function of the mean `z = (tr A^(1-c) / r)^(1/(2-2c))` for `c = a/b` (for c = 1 its limit `exp(log det A /
/// 2r)`), the norm that the matrix had, `‖A^(-c) X‖²` and the rank r.
pub(crate) fn map_by_rational_power(
    stack: Tensor<3>,
    [a, b]: [u32; 2],
    ridge: f64,
    steps: usize,
    factor: impl Fn(f64, f64, f64, usize) -> f64,
) -> Tensor<3> {
    // The iteration works on a factor of A, which takes half of b.
    let [a, b] = if b % 2 == 1 { [2 * a, 2 * b] } else { [a, b] };
    let schedule = rational_schedule(ridge, b, steps);
    map_on_host(stack, |_, Scaled { unit, largest }| {
        let norm = unit.norm_l2();
        let tall = unit.nrows() > unit.ncols();
        let short = if tall { unit.transpose() } else { unit };
        let x = short * faer::Scale(1.0 / norm);
        let (product, z) = power_and_mean(&x, a, b, ridge, &schedule);
        let factor = factor(z, norm * largest, inner(&product, &product), x.nrows());
        let scaled = faer::Scale(factor) * &product;
        if tall { scaled.transpose().to_owned() } else { scaled }
    })
}

/// `A^(-a/b) X` and z.
fn power_and_mean(x: &Mat<f64>, a: u32, b: u32, ridge: f64, schedule: &[RationalStep]) -> (Mat<f64>, f64) {
    let rank = x.nrows() as f64;
    if a == 0 {
        // tr A = ‖X‖² + r ridge
        return (x.clone(), ((1.0 + rank * ridge) / rank).sqrt());
    }
    let RationalPower { product, trace, log_determinant } = rational_power(x.as_ref(), a, b, ridge, schedule);
    if a == b {
        return (product, (log_determinant / (2.0 * rank)).exp());
    }
    // tr A^(1-c) = <D₀, X> + ridge tr A^(-c): the share of the ridge must be included.
    let trace = inner(&product, x) + ridge * trace;
    (product, (trace / rank).powf(0.5 / (1.0 - f64::from(a) / f64::from(b))))
}

fn inner(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    (0..x.ncols()).flat_map(|j| (0..x.nrows()).map(move |i| x[(i, j)] * y[(i, j)])).sum()
}

/// The result of the iteration for one matrix.
struct RationalPower {
    /// `A^(-a/b) X`
    product: Mat<f64>,
    /// `tr A^(-a/b)`
    trace: f64,
    /// `log det A`
    log_determinant: f64,
}

/// `A^(-a/b) X` with `A = X Xᵀ + ridge I`, for `X` with no more rows than columns and norm at most 1.
///
/// `b` must be even: half of it is applied to the factor of `A`.
fn rational_power(x: MatRef<'_, f64>, a: u32, b: u32, ridge: f64, schedule: &[RationalStep]) -> RationalPower {
    let (k, n) = (x.nrows(), x.ncols());
    let stacked = Mat::from_fn(n + k, k, |i, j| match i < n {
        true => x[(j, i)],
        false if i - n == j => ridge.sqrt(),
        false => 0.0,
    });
    let mut factor = stacked.qr().thin_R().transpose().to_owned();
    let log_determinant = (0..k).map(|i| 2.0 * factor[(i, i)].abs().ln()).sum();
    let mut root = Mat::<f64>::identity(k, k);
    for step in schedule {
        let w = step_matrix(&factor, step);
        for _ in 0..b / 2 {
            factor = &w * &factor;
        }
        root = &w * &root;
    }
    let power = (1..a).fold(root.clone(), |power, _| &root * &power);
    let trace = (0..k).map(|i| power[(i, i)]).sum();
    RationalPower { product: &power * x, trace, log_determinant }
}

/// `W = ρ I + (α - ρ)(I + γ L Lᵀ)⁻¹`, `ρ = β/γ`
fn step_matrix(factor: &Mat<f64>, step: &RationalStep) -> Mat<f64> {
    let k = factor.nrows();
    let gamma = step.gamma();
    // [Lᵀ; γ^(-1/2) I] spans the same space as [√γ Lᵀ; I] and has entries of size 1.
    let stacked = Mat::from_fn(2 * k, k, |i, j| match i < k {
        true => factor[(j, i)],
        false if i - k == j => gamma.powf(-0.5),
        false => 0.0,
    });
    let q = stacked.qr().compute_thin_Q();
    let lower = q.as_ref().subrows(k, k);
    let inverse = lower * lower.transpose();
    let rho = step.beta / gamma;
    Mat::from_fn(k, k, |i, j| {
        let symmetric = 0.5 * (inverse[(i, j)] + inverse[(j, i)]);
        (step.alpha - rho) * symmetric + if i == j { rho } else { 0.0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// b, lower bound, (α, β) of every step.
    type Table = (u32, f64, &'static [(f64, f64)]);

    /// Published tables. One digit is corrected: the last α of the last one was printed as 1.28891516767; a
    /// two-dimensional Newton solution of the same equations gives 1.28891515767 as well.
    const TABLES: &[Table] = &[
        (2, 1e-6, &[(251.992105051, 15749.2591994), (6.63683542866, 7.94347841245), (3.05751607415, 1.05834309885)]),
        (
            2,
            1e-12,
            &[
                (25198.4210773, 158727507.236),
                (29.3855905392, 201.435437565),
                (3.76538545456, 1.91183917807),
                (3.00187461653, 1.00187549508),
            ],
        ),
        (
            3,
            1e-6,
            &[
                (33.4386924835, 5766.42326339),
                (3.76540873568, 8.83145741353),
                (2.0486270577, 1.09993047334),
                (2.00000449931, 1.00000899863),
            ],
        ),
        (
            4,
            1e-8,
            &[
                (26.0290486509, 51006.1587405),
                (3.70206882234, 27.1081009214),
                (1.78463510618, 1.39283516001),
                (1.66681771227, 1.00045319841),
            ],
        ),
        (
            6,
            1e-6,
            &[
                (5.48842985615, 2340.49667827),
                (1.98017775523, 8.08452256417),
                (1.42365663003, 1.12285711718),
                (1.40000462826, 1.00002314145),
            ],
        ),
        (
            8,
            1e-12,
            &[
                (9.2662782989, 3044052.09153),
                (2.67154535007, 220.865262533),
                (1.4777179574, 3.10568621683),
                (1.28891515767, 1.02257407484),
            ],
        ),
    ];

    #[test]
    fn the_coefficients_are_those_of_the_published_tables() {
        for (b, lower, table) in TABLES {
            for (step, (alpha, beta)) in rational_schedule(*lower, *b, table.len()).iter().zip(*table) {
                assert!((step.alpha / alpha - 1.0).abs() < 1e-9, "b {b}, l {lower}: {step:?} instead of {alpha}");
                assert!((step.beta / beta - 1.0).abs() < 1e-9, "b {b}, l {lower}: {step:?} instead of {beta}");
            }
        }
    }

    #[test]
    fn for_b_2_the_coefficients_are_the_closed_form_of_qdwh() {
        for lower in [1e-14, 1e-9, 1e-4, 0.1, 0.9] {
            let d = f64::cbrt(4.0 * (1.0 - lower) / (lower * lower));
            let root = (1.0 + d).sqrt();
            let alpha = root + 0.5 * (8.0 - 4.0 * d + 8.0 * (2.0 - lower) / (lower * root)).sqrt();
            let beta = (alpha - 1.0).powi(2) / 4.0;
            let step = RationalStep::best(lower, 2);
            // the closed form loses digits for small bounds: d² cancels under the root
            assert!((step.alpha / alpha - 1.0).abs() < 1e-9, "{lower}: {step:?} instead of {alpha}");
            assert!((step.beta / beta - 1.0).abs() < 1e-9, "{lower}: {step:?} instead of {beta}");
        }
    }

    #[test]
    fn a_bound_that_is_no_number_ends_too() {
        assert!(RationalStep::best(f64::NAN, 4).beta.is_nan());
    }

    #[test]
    fn four_steps_bring_every_eigenvalue_to_one() {
        for b in [2, 4, 6, 8, 20] {
            let schedule = rational_schedule(1e-6, b, 4);
            for i in 0..=100 {
                let mut x = 1e-6_f64.powf(f64::from(i) / 100.0);
                for step in &schedule {
                    x = (f64::from(b) * step.log_gain(x, f64::from(b))).exp();
                }
                assert!((x - 1.0).abs() < 1e-12, "b {b}: {x}");
            }
        }
    }

    #[test]
    fn the_power_of_a_diagonal_matrix_is_the_power_of_its_entries() {
        let s = [0.9, 0.4, 0.1, 0.01];
        let x = Mat::from_fn(4, 6, |i, j| if i == j { s[i] } else { 0.0 });
        let ridge = 1e-6;
        for (a, b) in [(1, 2), (4, 6), (3, 4), (2, 2)] {
            let power = rational_power(x.as_ref(), a, b, ridge, &rational_schedule(ridge, b, 4));
            let expected = |s: f64| (s * s + ridge).powf(-f64::from(a) / f64::from(b));
            let mut trace = 0.0;
            for (i, s) in s.into_iter().enumerate() {
                let want = expected(s) * s;
                trace += expected(s);
                // condition number 1e4 of the factor times f64 rounding
                assert!((power.product[(i, i)] / want - 1.0).abs() < 1e-9, "{a}/{b} at {s}");
            }
            assert!((power.trace / trace - 1.0).abs() < 1e-9);
            let log_determinant: f64 = s.into_iter().map(|s| (s * s + ridge).ln()).sum();
            assert!((power.log_determinant - log_determinant).abs() < 1e-9);
        }
    }
}
