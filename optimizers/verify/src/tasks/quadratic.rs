//! The energy of smoothed Muon on `J(W) = ½ ‖A (W - W*)‖²`, full batch (arXiv 2605.23871; constants ours).
//!
//! With momentum factor `1 - dt` and learning rate `dt`, `H = J + (lr / (1-μ)) ψ(M)` cannot rise in the
//! limit of small steps, where `ψ(M) = Σ √(s² + l²) - l`; and `H₀ - H_t = Σ lr ⟨h(M), M⟩` up to an error of first
//! order in dt. Published for a 20 × 12 quadratic: H never rises for dt from 0.2 to 0.01.

use burn::tensor::Tensor;
use polaron::matrix::singular_values;
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{Finding, Setting, TaskError, Trained, config, gaussian, scalar};

const LEVEL: f64 = 0.1;
const TIME: f64 = 20.0;

/// The result of a run at one step size.
struct Energy {
    rises: usize,
    steps: usize,
    residual: f64,
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let mut findings = Vec::new();
    let mut before: Option<f64> = None;
    for dt in [0.1, 0.05, 0.02, 0.01] {
        let Energy { rises, steps, residual } = measure(setting, dt)?;
        let what = format!("dt {dt}: steps on which the energy rises");
        findings.push(Finding::judged(what, format!("{rises} of {steps}"), "0", rises == 0));
        // First order: the residual falls about as dt does; 0.8 leaves room for the higher orders.
        let falls = before.is_none_or(|before| residual < 0.8 * before);
        let what = format!("dt {dt}: what the balance leaves open, share of the energy spent");
        findings.push(Finding::judged(what, format!("{:.2} %", 100.0 * residual), "falls with dt", falls));
        before = Some(residual);
    }
    Ok(findings)
}

pub(super) fn smoothed(momentum: f64) -> OptimizerConfig {
    config(&format!(
        r#"{{"kind": "regularized_muon", "momentum": {momentum}, "scale": "none", "eps": {LEVEL}, "eps_mode": "absolute"}}"#
    ))
}

fn measure(setting: &Setting<'_>, dt: f64) -> Result<Energy, ConfigError> {
    let device = setting.device;
    // Curvatures from 0.1 to 1.
    let curvature: Vec<f64> = (0..20).map(|i| 0.1 + 0.9 * f64::from(i) / 19.0).collect();
    let curvature = super::problem::tensor(curvature, [20, 1], device);
    let target = gaussian([20, 12], 0.5, 1, device);
    let loss = |w: &Tensor<2>| 0.5 * scalar((w.clone() - target.clone()).square() * curvature.clone());
    let gradient = |w: &Tensor<2>| (w.clone() - target.clone()) * curvature.clone();
    let mut trained = Trained::new(&smoothed(1.0 - dt), target.zeros_like())?;
    let steps = (TIME / dt) as usize;
    let (mut energy, mut rises, mut spent) = (loss(&trained.weights), 0, 0.0);
    let first = energy;
    for _ in 0..steps {
        trained.step(dt, gradient(&trained.weights));
        let momentum = momentum_of(&trained);
        let now = loss(&trained.weights) + potential(&momentum);
        // 1e-12: rounding of the sums
        rises += usize::from(now > energy + 1e-12);
        spent += dt * dissipation(&momentum);
        energy = now;
    }
    Ok(Energy { rises, steps, residual: ((first - energy) - spent).abs() / (first - energy) })
}

/// Zero before the first step.
pub(super) fn momentum_of(trained: &Trained) -> Tensor<2> {
    let momentum = trained.state.as_ref().and_then(|state| state.buffer("momentum"));
    momentum.unwrap_or_else(|| trained.weights.zeros_like())
}

/// `ψ(M)`; the factor lr / (1-μ) is 1 here.
pub(super) fn potential(momentum: &Tensor<2>) -> f64 {
    sum_of(momentum, |s| (s * s + LEVEL * LEVEL).sqrt() - LEVEL)
}

/// `⟨h(M), M⟩`
pub(super) fn dissipation(momentum: &Tensor<2>) -> f64 {
    sum_of(momentum, |s| s * s / (s * s + LEVEL * LEVEL).sqrt())
}

/// A sum over the singular values.
fn sum_of(matrix: &Tensor<2>, f: impl Fn(f64) -> f64) -> f64 {
    singular_values(&matrix.to_data()).iter().flatten().map(|s| f(*s)).sum()
}
