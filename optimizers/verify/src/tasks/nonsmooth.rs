//! `f(W) = c |W₁₁ + W₂₂| + |W₁₁ - W₂₂|` on 2 × 2 matrices, c < 1 (arXiv 2605.08980).
//!
//! The update of exact Muon without momentum is always `±diag(1, -1)`: the trace never moves, and
//! `f ≥ c |tr W₀|` whatever the schedule. The orthogonaliser makes a clear difference: the usual Newton–Schulz
//! polynomial maps the smaller singular value above the larger and diverges, while smoothing and error feedback
//! reach the minimum.

use burn::tensor::{Device, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{EXACT_MUON, Finding, Setting, TaskError, Trained, config, tensor, values};

const C: f64 = 0.5;
const START: [f64; 2] = [1.3, 0.9];

const NEWTON_SCHULZ: &str = r#"{"kind": "muon", "momentum": 0.0, "nesterov": false, "scale": "none"}"#;
const SMOOTHED: &str =
    r#"{"kind": "regularized_muon", "momentum": 0.0, "scale": "none", "eps": 0.2, "eps_mode": "absolute"}"#;
const ERROR_FEEDBACK: &str = r#"{"kind": "error_feedback_muon", "momentum": 0.0}"#;

/// Trace, last and best value of a run.
struct Outcome {
    trace: f64,
    last: f64,
    best: f64,
}

type Schedule = fn(usize) -> f64;

const SCHEDULES: [(&str, Schedule); 3] =
    [("1/(t+1)", |t| 1.0 / (t as f64 + 1.0)), ("(t+1)^-0.51", |t| (t as f64 + 1.0).powf(-0.51)), ("0.01", |_| 0.01)];

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let (steps, device) = (3000, setting.device);
    let mut findings = Vec::new();
    for (name, schedule) in SCHEDULES {
        let exact = descend(&config(EXACT_MUON), schedule, steps, device)?;
        let drift = (exact.trace - 2.2).abs();
        findings.push(Finding::judged(
            format!("exact Muon, lr {name}: trace"),
            format!("{:.6}", exact.trace),
            "2.2",
            drift < 1e-9,
        ));
        let stuck = (1.1 - 1e-9..1.12).contains(&exact.last);
        findings.push(Finding::judged(
            format!("exact Muon, lr {name}: f"),
            format!("{:.4}", exact.last),
            "1.10",
            stuck,
        ));
    }
    for ((name, schedule), (f, trace)) in SCHEDULES.into_iter().zip([(2.7, 5.5), (20.5, 40.9), (6.8, 13.6)]) {
        let runaway = descend(&config(NEWTON_SCHULZ), schedule, steps, device)?;
        let near = (runaway.last / f - 1.0).abs() < 0.1;
        let measured = format!("{:.2}, trace {:.1}", runaway.last, runaway.trace);
        findings.push(Finding::judged(
            format!("Newton–Schulz, lr {name}: f"),
            measured,
            format!("{f}, trace {trace}"),
            near,
        ));
    }
    let smoothed = descend(&config(SMOOTHED), SCHEDULES[1].1, steps, device)?;
    findings.push(Finding::judged(
        "smoothed (0.2), lr (t+1)^-0.51: f",
        format!("{:.1e}", smoothed.last),
        "3e-4",
        smoothed.last < 1e-3,
    ));
    let (long, rate) = (10_000, |_| 1.0 / 100.0);
    let feedback = descend(&config(ERROR_FEEDBACK), rate, long, device)?;
    let reached = feedback.last <= 0.045 && feedback.best <= 0.006;
    let measured = format!("last {:.4}, best {:.4}", feedback.last, feedback.best);
    findings.push(Finding::judged(
        "error feedback, lr 1/√T, T = 10,000: f",
        measured,
        "last ≤ 0.045, best ≤ 0.006",
        reached,
    ));
    if let Some((own, lr)) = &setting.optimizer {
        let lr = *lr;
        let outcome = descend(own, |t| lr / (t as f64 + 1.0).sqrt(), steps, device)?;
        let measured = format!("{:.4}, trace {:.3}", outcome.last, outcome.trace);
        findings.push(Finding::shown(format!("{}, lr {lr}/√(t+1): f", own.kind()), measured, "0 at the minimum"));
    }
    Ok(findings)
}

fn descend(
    config: &OptimizerConfig,
    lr: impl Fn(usize) -> f64,
    steps: usize,
    device: &Device,
) -> Result<Outcome, ConfigError> {
    let mut trained = Trained::new(config, tensor(vec![START[0], 0.0, 0.0, START[1]], [2, 2], device))?;
    let mut best = f64::INFINITY;
    for step in 0..steps {
        let (_, sum, difference) = value(&trained.weights);
        let sign = |x: f64| if x >= 0.0 { 1.0 } else { -1.0 };
        let (along, across) = (C * sign(sum), sign(difference));
        trained.step(lr(step), tensor(vec![along + across, 0.0, 0.0, along - across], [2, 2], device));
        best = best.min(value(&trained.weights).0);
    }
    let (last, trace, _) = value(&trained.weights);
    Ok(Outcome { trace, last, best })
}

/// f, the sum and the difference of the diagonal.
fn value(weights: &Tensor<2>) -> (f64, f64, f64) {
    let w = values(weights);
    let (sum, difference) = (w[0] + w[3], w[0] - w[3]);
    (C * sum.abs() + difference.abs(), sum, difference)
}
