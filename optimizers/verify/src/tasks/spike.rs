//! A transient spike (arXiv 2604.18450): linear regression on anisotropic data learns a teacher's direction and loses it.
//!
//! Half of the 300 features have variance 1, half 0.02; `Y = θ u uᵀ x + noise`, 600 samples. Gradient flow from zero is
//! `W(t) = C⁻¹ (I - exp(-t C)) Xᵀ Y / n`. For θ = 1.5 the top eigenvector of `W + Wᵀ` overlaps with u at first, until the
//! noise of the weak features has grown; for θ = 12 the overlap stays, for θ = 0.5 it never appears. No optimizer takes
//! part: ground truth for diagnostics of outliers.

use faer::{Mat, Side};

use super::problem::{Finding, Setting, TaskError, normal};

const FEATURES: usize = 300;
const SAMPLES: usize = 600;
const WEAK: f64 = 0.02;
const TIMES: [f64; 6] = [0.01, 1.0, 10.0, 32.0, 100.0, 3162.0];

/// Teacher strength, overlaps that another program measured, and the criterion for ours.
type Case = (f64, &'static str, fn(&[f64]) -> bool);

const CASES: [Case; 3] = [
    (0.5, "at most .05 always", |overlap| overlap.iter().all(|o| *o < 0.25)),
    (1.5, ".59 .62 .52 .09 .03 .00", |overlap| {
        overlap[..3].iter().all(|o| *o > 0.4) && overlap[4..].iter().all(|o| *o < 0.25)
    }),
    (12.0, ".80 .82 .88 .93 .94 .89", |overlap| overlap.iter().all(|o| *o > 0.6)),
];

pub(super) fn run(_setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let scale = |j: usize| if j < FEATURES / 2 { 1.0 } else { WEAK.sqrt() };
    let x = Mat::from_fn(SAMPLES, FEATURES, |i, j| scale(j) * normal(1, (i * FEATURES + j) as u64));
    let noise = Mat::from_fn(SAMPLES, FEATURES, |i, j| normal(2, (i * FEATURES + j) as u64));
    let direction = Mat::from_fn(FEATURES, 1, |i, _| normal(3, i as u64));
    let direction = &direction * faer::Scale(1.0 / direction.norm_l2());
    let count = SAMPLES as f64;
    let covariance = x.transpose() * &x * faer::Scale(1.0 / count);
    let Ok(eigen) = covariance.self_adjoint_eigen(Side::Lower) else {
        return Ok(vec![Finding::judged("eigenvalues of the covariance", "not found", "found", false)]);
    };
    let mut findings = Vec::new();
    for (strength, published, holds) in CASES {
        let teacher = &x * &direction * direction.transpose() * faer::Scale(strength);
        let moment = x.transpose() * (teacher + &noise) * faer::Scale(1.0 / count);
        let rotated = eigen.U().transpose() * moment;
        let overlaps: Vec<f64> = TIMES
            .into_iter()
            .map(|time| {
                let grown = |s: f64| if s > 0.0 { -(-time * s).exp_m1() / s } else { time };
                let scaled =
                    Mat::from_fn(FEATURES, FEATURES, |i, j| grown(eigen.S().column_vector()[i]) * rotated[(i, j)]);
                overlap(&(eigen.U() * scaled), &direction)
            })
            .collect();
        let shown = overlaps.iter().map(|o| format!("{o:.2}")).collect::<Vec<_>>().join(" ");
        let what = format!("teacher {strength}: overlap at t = .01, 1, 10, 32, 100, 3162");
        findings.push(Finding::judged(what, shown, published, holds(&overlaps)));
    }
    Ok(findings)
}

/// `⟨q, u⟩²` for the top eigenvector q of `W + Wᵀ`.
fn overlap(weights: &Mat<f64>, direction: &Mat<f64>) -> f64 {
    let symmetric = weights + weights.transpose();
    symmetric.self_adjoint_eigen(Side::Lower).map_or(f64::NAN, |eigen| {
        let top = eigen.U().col(FEATURES - 1);
        (0..FEATURES).map(|i| top[i] * direction[(i, 0)]).sum::<f64>().powi(2)
    })
}
