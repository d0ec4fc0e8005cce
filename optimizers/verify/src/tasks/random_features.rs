//! The best step on `½ E|(W - W*) φ|²` with feature covariance Σ ∼ 1/i (after arXiv 2605.11181).
//!
//! The gradient is `G = (W - W*) Σ`, the Hessian sends D to `D Σ`. For a direction D the best step is `⟨G, D⟩ / ⟨D, D Σ⟩`
//! and lowers the loss by half the descent potential `⟨G, D⟩² / ⟨D, D Σ⟩` (ours). With at least as many outputs as features
//! and `D = polar(G)` that step is exactly `‖G‖_nuclear / tr Σ`; gradient descent's best step swings from step to step
//! instead.

use burn::tensor::Tensor;
use polaron::matrix::polar_svd;
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{Finding, Setting, TaskError, Trained, gaussian, scalar, tensor};

const FEATURES: usize = 64;
const STEPS: usize = 60;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let polar = |gradient: &Tensor<2>| polar_svd(gradient.clone().unsqueeze(), 0.0).squeeze_dim(0);
    let muon = descend(setting, polar);
    let sgd = descend(setting, |gradient| gradient.clone());
    let mut findings = vec![
        Finding::judged(
            "Muon: best step times tr Σ over the nuclear norm, largest distance from 1",
            format!("{:.1e}", muon.off_nuclear),
            "below 1e-10",
            muon.off_nuclear < 1e-10,
        ),
        Finding::judged(
            "decrease over half the descent potential, largest distance from 1",
            format!("{:.1e}", muon.off_potential.max(sgd.off_potential)),
            "below 1e-8",
            muon.off_potential.max(sgd.off_potential) < 1e-8,
        ),
        Finding::judged(
            "mean change of the logarithm of the best step: SGD, Muon",
            format!("{:.3}, {:.3}", sgd.swing, muon.swing),
            "SGD swings more",
            sgd.swing > muon.swing,
        ),
        Finding::shown(
            "loss after 60 best steps, share of the first: SGD, Muon",
            format!("{:.1e}, {:.1e}", sgd.left, muon.left),
            "",
        ),
    ];
    if let Some((config, lr)) = &setting.optimizer {
        let left = trained(setting, config, *lr)?;
        findings.push(Finding::shown(
            format!("{}, lr {lr}: loss left after 60 steps", config.kind()),
            format!("{left:.1e}"),
            "",
        ));
    }
    Ok(findings)
}

/// The problem: covariance as a row, and the first error.
fn problem(setting: &Setting<'_>) -> (Tensor<2>, Tensor<2>) {
    let harmonic: f64 = (1..=FEATURES).map(|i| 1.0 / i as f64).sum();
    let spectrum = (1..=FEATURES).map(|i| FEATURES as f64 / (harmonic * i as f64)).collect();
    (tensor(spectrum, [1, FEATURES], setting.device), gaussian([FEATURES, FEATURES], 1.0, 1, setting.device))
}

struct Path {
    off_nuclear: f64,
    off_potential: f64,
    swing: f64,
    left: f64,
}

fn descend(setting: &Setting<'_>, direction: impl Fn(&Tensor<2>) -> Tensor<2>) -> Path {
    let (spectrum, mut error) = problem(setting);
    let loss = |error: &Tensor<2>| 0.5 * scalar(error.clone().square() * spectrum.clone());
    let (first, trace) = (loss(&error), scalar(spectrum.clone()));
    let mut path = Path { off_nuclear: 0.0, off_potential: 0.0, swing: 0.0, left: 1.0 };
    let mut last: Option<f64> = None;
    for _ in 0..STEPS {
        let gradient = error.clone() * spectrum.clone();
        let d = direction(&gradient);
        let (slope, curvature) = (scalar(gradient * d.clone()), scalar(d.clone().square() * spectrum.clone()));
        let best = slope / curvature;
        let before = loss(&error);
        error = error - d * best;
        let decrease = before - loss(&error);
        path.off_nuclear = path.off_nuclear.max((best * trace / slope - 1.0).abs());
        path.off_potential = path.off_potential.max((decrease / (0.5 * slope * slope / curvature) - 1.0).abs());
        if let Some(last) = last {
            path.swing += (best / last).ln().abs() / (STEPS - 1) as f64;
        }
        last = Some(best);
    }
    path.left = loss(&error) / first;
    path
}

fn trained(setting: &Setting<'_>, config: &OptimizerConfig, lr: f64) -> Result<f64, ConfigError> {
    let (spectrum, error) = problem(setting);
    let loss = |error: &Tensor<2>| 0.5 * scalar(error.clone().square() * spectrum.clone());
    let first = loss(&error);
    let mut trained = Trained::new(config, error)?;
    for _ in 0..STEPS {
        trained.step(lr, trained.weights.clone() * spectrum.clone());
    }
    Ok(loss(&trained.weights) / first)
}
