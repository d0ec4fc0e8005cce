//! The layer-peeled problem with cyclic targets (arXiv 2605.12756), solved exactly.
//!
//! V tokens and V contexts, `P[j, k] = p[(k - j) mod V]`, `Z = W H`:
//!
//! ```text
//! (1/V) Σ_j CE(P_j, softmax(Z_j)) + (λ/2)(‖W‖² + ‖H‖²)
//! ```
//!
//! The optimal Z is circulant, and the optimum is that of `min_z CE(p, softmax z) + λ Σ_k |DFT(z)_k|`: for V = 7,
//! `p ∝ exp(-1.2 dist(k)) + 0.8 [k = 1]` and λ = 2e-3 it is 1.3407835993552 (form and reference ours).

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{EXACT_MUON, Finding, SGD, Setting, Trained, config, cosine, gaussian, scalar, tensor, values};

const TOKENS: usize = 7;
const WIDTH: usize = 14;
const LAMBDA: f64 = 2e-3;
const OPTIMUM: f64 = 1.3407835993552;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let steps = if setting.quick { 2000 } else { 8000 };
    let own = [
        ("sgd", config(SGD), 4.0),
        ("adamw", config(r#"{"kind": "adamw"}"#), 0.02),
        ("muon", config(EXACT_MUON), 0.05),
    ];
    let mut findings = Vec::new();
    for (name, config, lr) in own {
        let (gap, defect) = solve(&config, lr, steps, setting.device)?;
        findings.push(Finding::judged(
            format!("{name}, lr {lr}: loss above the optimum"),
            format!("{gap:.1e}"),
            "below 1e-6",
            gap.abs() < 1e-6,
        ));
        let what = format!("{name}, lr {lr}: distance of Z from a circulant matrix");
        findings.push(Finding::judged(what, format!("{defect:.1e}"), "below 1e-4", defect < 1e-4));
    }
    if let Some((config, lr)) = &setting.optimizer {
        let (gap, defect) = solve(config, *lr, steps, setting.device)?;
        let measured = format!("{gap:.1e}, {defect:.1e}");
        findings.push(Finding::shown(format!("{}, lr {lr}: gap, distance", config.kind()), measured, "0, 0"));
    }
    Ok(findings)
}

/// Loss above the optimum, and `‖Z - circ(Z)‖ / ‖Z‖`.
fn solve(config: &OptimizerConfig, lr: f64, steps: usize, device: &Device) -> Result<(f64, f64), ConfigError> {
    let targets = targets(device);
    let mut w = Trained::new(config, gaussian([TOKENS, WIDTH], 0.3, 1, device))?;
    let mut h = Trained::new(config, gaussian([WIDTH, TOKENS], 0.3, 2, device))?;
    for step in 0..steps {
        let slope = (softmax(w.weights.clone().matmul(h.weights.clone()), 1) - targets.clone()) / TOKENS as f64;
        let by_w = slope.clone().matmul(h.weights.clone().transpose()) + w.weights.clone() * LAMBDA;
        let by_h = w.weights.clone().transpose().matmul(slope) + h.weights.clone() * LAMBDA;
        let lr = lr * cosine(step, steps);
        w.step(lr, by_w);
        h.step(lr, by_h);
    }
    let logits = w.weights.clone().matmul(h.weights.clone());
    let entropy = -scalar(log_softmax(logits.clone(), 1) * targets) / TOKENS as f64;
    let ridge = 0.5 * LAMBDA * (scalar(w.weights.square()) + scalar(h.weights.square()));
    Ok((entropy + ridge - OPTIMUM, circulant_defect(&values(&logits))))
}

fn targets(device: &Device) -> Tensor<2> {
    let weight = |k: usize| (-1.2 * k.min(TOKENS - k) as f64).exp() + if k == 1 { 0.8 } else { 0.0 };
    let total: f64 = (0..TOKENS).map(weight).sum();
    let entries = (0..TOKENS * TOKENS).map(|i| weight((i % TOKENS + TOKENS - i / TOKENS) % TOKENS) / total).collect();
    tensor(entries, [TOKENS, TOKENS], device)
}

fn circulant_defect(z: &[f64]) -> f64 {
    let diagonal = |i: usize| (i % TOKENS + TOKENS - i / TOKENS) % TOKENS;
    let mut means = [0.0; TOKENS];
    z.iter().enumerate().for_each(|(i, z)| means[diagonal(i)] += z / TOKENS as f64);
    let apart: f64 = z.iter().enumerate().map(|(i, z)| (z - means[diagonal(i)]).powi(2)).sum();
    (apart / z.iter().map(|z| z * z).sum::<f64>()).sqrt()
}
