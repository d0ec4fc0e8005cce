//! Deep matrix factorisation of a perturbed target: `½ ‖W_N … W_1 - B‖²` from `W_j = a I` (arXiv 2605.28613; numbers ours).
//!
//! `B = A + ν H`, with A of eigenvalues 10, 5, 1 and zeros (n = 20), and the reflection `H = I - 2 v vᵀ / vᵀv`, v = (1, …, 20), whose
//! norm is 1. In the eigenbasis of B gradient descent is exactly, for every eigenvalue λ,
//!
//! ```text
//! w ← w - lr (w^N - λ) w^(N-1)          eigenvalues of the product: p = w^N
//! ```
//!
//! The product passes through a phase of effective rank `Σ|p| / max|p|` near 1 that is shorter the larger ν is; and it is nearest
//! to A before it reaches B: to stop early removes part of the noise.

use burn::tensor::Device;
use faer::{Mat, Side};
use polaron::{ConfigError, OptimizerConfig};

use super::factorisation::{EIGENVALUES, LR, SIZE, descend};
use super::problem::{Finding, SGD, Setting, TaskError, config, tensor};

const STEPS: usize = 8000;
/// Steps of the short form in which the matrices are compared with the recursion.
const QUICK: usize = 500;
/// Every so many steps the product is looked at.
const EVERY: usize = 10;

/// A row of the published table.
struct Row {
    noise: f64,
    depth: usize,
    start: f64,
    seen: Seen,
}

/// What is looked at in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    /// The smallest `‖W_N … W_1 - A‖ / ‖A‖`, and its step.
    best: (f64, usize),
    /// The same at the end.
    end: f64,
    /// The effective rank at the end.
    rank: f64,
    /// The first and the last step at which it is within 0.05 of 1.
    phase: (usize, usize),
}

const fn row(noise: f64, (depth, start): (usize, f64), seen: Seen) -> Row {
    Row { noise, depth, start, seen }
}

const TABLE: [Row; 6] = [
    row(0.0, (2, 0.01), Seen { best: (0.000106, 8000), end: 0.000106, rank: 1.60006, phase: (350, 860) }),
    row(0.5, (2, 0.01), Seen { best: (0.063182, 3440), end: 0.101928, rank: 1.95075, phase: (350, 780) }),
    row(1.0, (2, 0.01), Seen { best: (0.125811, 1050), end: 0.388008, rank: 3.17993, phase: (350, 720) }),
    row(0.0, (3, 0.1), Seen { best: (0.079652, 8000), end: 0.079652, rank: 1.51229, phase: (880, 1750) }),
    row(0.5, (3, 0.1), Seen { best: (0.063182, 6340), end: 0.077265, rank: 1.67344, phase: (850, 1600) }),
    row(1.0, (3, 0.1), Seen { best: (0.126146, 1650), end: 0.158983, rank: 1.88103, phase: (810, 1470) }),
];

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let mut findings = Vec::new();
    let mut phases = Vec::new();
    for Row { noise, depth, start, seen } in TABLE {
        let target = Target::new(noise);
        let name = format!("noise {noise}, N = {depth}");
        let found = target.look(&target.recursion(depth, start, STEPS));
        phases.push(found.phase.1 - found.phase.0);
        findings.extend(judge(&name, found, seen));
        let steps = if setting.quick { QUICK } else { STEPS };
        let apart = target.apart(depth, start, steps, setting.device)?;
        let what = format!("{name}: matrices against the recursion, {steps} steps");
        findings.push(Finding::judged(what, format!("{apart:.0e}"), "below 1e-10", apart < 1e-10));
    }
    // Three rows with rising noise for each depth.
    let shorter = phases.chunks(3).all(|phases| phases.is_sorted_by(|a, b| a > b));
    let said = if shorter { "yes" } else { "no" };
    findings.push(Finding::judged("more noise, a shorter phase of rank 1", said, "yes", shorter));
    if let Some((own, lr)) = &setting.optimizer {
        let steps = if setting.quick { QUICK } else { STEPS / 2 };
        let (error, step) = Target::new(1.0).best_of(own, *lr, steps, setting.device)?;
        let what = format!("{}, lr {lr}, noise 1, N = 3: nearest to A in {steps} steps", own.kind());
        findings.push(Finding::shown(what, format!("{error:.6} at {step}"), "gradient descent: 0.126146"));
    }
    Ok(findings)
}

fn judge(name: &str, found: Seen, known: Seen) -> Vec<Finding> {
    // half of the last published digit
    let near = |found: f64, known: f64, digit: f64| (found - known).abs() <= 0.51 * digit;
    let best = near(found.best.0, known.best.0, 1e-6) && found.best.1 == known.best.1;
    let at = |(error, step): (f64, usize)| format!("{error:.6} at {step}");
    let span = |(first, last): (usize, usize)| format!("{first} to {last}");
    vec![
        Finding::judged(format!("{name}: nearest to A"), at(found.best), at(known.best), best),
        Finding::judged(
            format!("{name}: distance from A at the end"),
            format!("{:.6}", found.end),
            format!("{:.6}", known.end),
            near(found.end, known.end, 1e-6),
        ),
        Finding::judged(
            format!("{name}: effective rank at the end"),
            format!("{:.5}", found.rank),
            format!("{:.5}", known.rank),
            near(found.rank, known.rank, 1e-5),
        ),
        Finding::judged(
            format!("{name}: steps of rank 1"),
            span(found.phase),
            span(known.phase),
            found.phase == known.phase,
        ),
    ]
}

fn clean(i: usize) -> f64 {
    EIGENVALUES.get(i).copied().unwrap_or(0.0)
}

/// B, with its eigenvalues and eigenvectors.
struct Target {
    matrix: Mat<f64>,
    eigenvalues: Vec<f64>,
    vectors: Mat<f64>,
}

impl Target {
    fn new(noise: f64) -> Self {
        let square: f64 = (1..=SIZE).map(|i| (i * i) as f64).sum();
        let matrix = Mat::from_fn(SIZE, SIZE, |i, j| {
            let same = f64::from(u8::from(i == j));
            same * clean(i) + noise * (same - 2.0 * ((i + 1) * (j + 1)) as f64 / square)
        });
        let Ok(found) = matrix.self_adjoint_eigen(Side::Lower) else {
            unreachable!("the eigenvalues of a finite symmetric matrix converge")
        };
        let eigenvalues = found.S().column_vector().iter().copied().collect();
        Self { vectors: found.U().to_owned(), matrix, eigenvalues }
    }

    /// The eigenvalues of the product after each of the steps, from step 0.
    fn recursion(&self, depth: usize, start: f64, steps: usize) -> Vec<Vec<f64>> {
        let power = |w: f64, exponent: usize| w.powi(exponent as i32);
        let mut factors = [start; SIZE];
        let mut products = vec![factors.iter().map(|w| power(*w, depth)).collect()];
        for _ in 0..steps {
            for (w, eigenvalue) in factors.iter_mut().zip(&self.eigenvalues) {
                *w -= LR * (power(*w, depth) - eigenvalue) * power(*w, depth - 1);
            }
            products.push(factors.iter().map(|w| power(*w, depth)).collect());
        }
        products
    }

    fn look(&self, products: &[Vec<f64>]) -> Seen {
        // ‖P - A‖² = Σ p² - 2 Σ p (Qᵀ A Q)_ii + ‖A‖²
        let along = |i: usize| (0..SIZE).map(|j| clean(j) * self.vectors[(j, i)].powi(2)).sum::<f64>();
        let along: Vec<f64> = (0..SIZE).map(along).collect();
        let norm = EIGENVALUES.iter().map(|value| value * value).sum::<f64>();
        let distance = |p: &[f64]| {
            let square: f64 = p.iter().zip(&along).map(|(p, along)| p * p - 2.0 * p * along).sum::<f64>() + norm;
            (square / norm).sqrt()
        };
        let rank = |p: &[f64]| {
            let largest = p.iter().map(|p| p.abs()).fold(0.0, f64::max);
            p.iter().map(|p| p.abs()).sum::<f64>() / largest
        };
        let looked = || products.iter().enumerate().step_by(EVERY);
        let errors = looked().map(|(step, p)| (distance(p), step));
        let best = errors.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        let mut phase = looked().filter(|(_, p)| (rank(p) - 1.0).abs() <= 0.05).map(|(step, _)| step);
        let first = phase.next().unwrap_or_default();
        let last = &products[products.len() - 1];
        Seen { best, end: distance(last), rank: rank(last), phase: (first, phase.next_back().unwrap_or(first)) }
    }

    fn entries(&self) -> Vec<f64> {
        (0..SIZE * SIZE).map(|k| self.matrix[(k / SIZE, k % SIZE)]).collect()
    }

    /// The largest difference of an entry between gradient descent on the matrices and the recursion, at any step.
    fn apart(&self, depth: usize, start: f64, steps: usize, device: &Device) -> Result<f64, ConfigError> {
        let products = self.recursion(depth, start, steps);
        let target = tensor(self.entries(), [SIZE, SIZE], device);
        let mut apart = 0.0_f64;
        descend(
            &config(SGD),
            &target,
            (depth, start),
            steps,
            |_| LR,
            |step, whole| {
                if step % EVERY != 0 {
                    return;
                }
                let scaled = Mat::from_fn(SIZE, SIZE, |i, j| self.vectors[(i, j)] * products[step][j]);
                let known = &scaled * self.vectors.transpose();
                let difference = (0..SIZE * SIZE).map(|k| (whole[k] - known[(k / SIZE, k % SIZE)]).abs());
                // Not `f64::max`, which hides a NaN.
                apart = difference.fold(apart, |most, apart| if apart > most || apart.is_nan() { apart } else { most });
            },
        )?;
        Ok(apart)
    }

    /// The smallest distance from A in a run of another optimizer, with three factors, and its step.
    fn best_of(
        &self,
        own: &OptimizerConfig,
        lr: f64,
        steps: usize,
        device: &Device,
    ) -> Result<(f64, usize), ConfigError> {
        let target = tensor(self.entries(), [SIZE, SIZE], device);
        let norm = EIGENVALUES.iter().map(|value| value * value).sum::<f64>();
        let mut best = (f64::INFINITY, 0);
        descend(
            own,
            &target,
            (3, 0.1),
            steps,
            |_| lr,
            |step, whole| {
                let entry = |k: usize| whole[k] - if k / SIZE == k % SIZE { clean(k / SIZE) } else { 0.0 };
                let error = ((0..SIZE * SIZE).map(|k| entry(k).powi(2)).sum::<f64>() / norm).sqrt();
                if error < best.0 {
                    best = (error, step);
                }
            },
        )?;
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_perturbed_target_has_the_known_eigenvalues() {
        for (noise, known) in
            [(0.5, [10.4996832846, 5.4988383519, 1.4984291501]), (1.0, [10.9994194204, 5.998008443, 1.997904972])]
        {
            let target = Target::new(noise);
            for (found, known) in target.eigenvalues.iter().rev().zip(known) {
                assert!((found - known).abs() < 1e-10, "{noise}: {found} instead of {known}");
            }
        }
    }
}
