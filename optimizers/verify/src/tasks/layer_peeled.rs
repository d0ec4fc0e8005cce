//! The layer-peeled problem with cyclic and with exchangeable targets (arXiv 2605.12756), solved exactly.
//!
//! V tokens and V contexts, `P[j, k] = p[(k - j) mod V]`, `Z = W H`:
//!
//! ```text
//! (1/V) Σ_j CE(P_j, softmax(Z_j)) + (λ/2)(‖W‖² + ‖H‖²)
//! ```
//!
//! The optimal Z is circulant, and the optimum is that of `min_z CE(p, softmax z) + λ Σ_k |DFT(z)_k|`: for V = 7,
//! `p ∝ exp(-1.2 dist(k)) + 0.8 [k = 1]` and λ = 2e-3 it is 1.3407835993552, for V = 12 1.4450553009132 (form and reference ours). The Gram matrices of W and H are circulant too.
//! If all tokens but a context's own are alike (`P = 0.88 I + 0.02`, V = 6), the rows of W are a simplex frame: equal norms, cosines
//! -1 / (V - 1).

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{
    EXACT_MUON, Finding, SGD, Setting, TaskError, Trained, config, cosine, gaussian, scalar, tensor, values,
};

const LAMBDA: f64 = 2e-3;

/// A problem: contexts and tokens, features, and the optimum where it is known.
#[derive(Clone, Copy)]
struct Problem {
    name: &'static str,
    tokens: usize,
    width: usize,
    optimum: Option<f64>,
    /// Whether every context has its own token and all others alike; otherwise tokens stand on a circle.
    exchangeable: bool,
}

const SEVEN: Problem =
    Problem { name: "7 on a circle", tokens: 7, width: 14, optimum: Some(1.3407835993552), exchangeable: false };
const TWELVE: Problem =
    Problem { name: "12 on a circle", tokens: 12, width: 12, optimum: Some(1.4450553009132), exchangeable: false };
const FRAME: Problem = Problem { name: "6 alike", tokens: 6, width: 8, optimum: None, exchangeable: true };

/// What is left after training.
struct Solved {
    /// Loss above the optimum, where it is known.
    gap: Option<f64>,
    /// The distance of a matrix from a circulant one, as a share of it, of the logits and of the Gram matrices of W and H.
    defects: [f64; 3],
    /// The largest deviation of the norms of W's rows from their mean, as a share, and of their cosines from -1/(V - 1): of a frame.
    frame: f64,
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    // The larger circle is slower, and so is the frame with Muon. The short form ends a few digits earlier.
    let [steps, slow] = if setting.quick { [4000, 10_000] } else { [8000, 20_000] };
    let [circulant, frame] = if setting.quick { [1e-3, 1e-4] } else { [1e-4, 1e-6] };
    let own = [
        ("sgd", config(SGD), 4.0),
        ("adamw", config(r#"{"kind": "adamw"}"#), 0.02),
        ("muon", config(EXACT_MUON), 0.05),
    ];
    let mut findings = Vec::new();
    for (name, config, lr) in own {
        for (problem, steps) in [(SEVEN, steps), (TWELVE, slow), (FRAME, slow)] {
            let solved = problem.solve(&config, lr, steps, setting.device)?;
            findings.extend(judge(&format!("{}, {name}, lr {lr}", problem.name), problem, &solved, [circulant, frame]));
        }
    }
    if let Some((config, lr)) = &setting.optimizer {
        for problem in [SEVEN, TWELVE, FRAME] {
            let Solved { gap, defects: [logits, ..], frame } = problem.solve(config, *lr, steps, setting.device)?;
            let measured = gap.map_or_else(|| format!("{frame:.1e}"), |gap| format!("{gap:.1e}, {logits:.1e}"));
            let (what, wanted) =
                if problem.exchangeable { ("distance from a frame", "0") } else { ("gap, distance", "0, 0") };
            findings.push(Finding::shown(
                format!("{}, {}, lr {lr}: {what}", problem.name, config.kind()),
                measured,
                wanted,
            ));
        }
    }
    Ok(findings)
}

fn judge(name: &str, problem: Problem, solved: &Solved, [circulant, frame]: [f64; 2]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut small = |what: &str, value: f64, limit: f64| {
        let limit_said = format!("below {limit:.0e}");
        findings.push(Finding::judged(format!("{name}: {what}"), format!("{value:.1e}"), limit_said, value < limit));
    };
    if let Some(gap) = solved.gap {
        small("loss above the optimum", gap.abs(), 1e-6);
    }
    if problem.exchangeable {
        small("distance of W from a simplex frame", solved.frame, frame);
        return findings;
    }
    for (what, defect) in ["Z", "W Wᵀ", "Hᵀ H"].into_iter().zip(solved.defects) {
        small(&format!("distance of {what} from a circulant matrix"), defect, circulant);
    }
    findings
}

impl Problem {
    fn solve(self, config: &OptimizerConfig, lr: f64, steps: usize, device: &Device) -> Result<Solved, ConfigError> {
        let Self { tokens, width, optimum, .. } = self;
        let targets = self.targets(device);
        let mut w = Trained::new(config, gaussian([tokens, width], 0.3, 1, device))?;
        let mut h = Trained::new(config, gaussian([width, tokens], 0.3, 2, device))?;
        for step in 0..steps {
            let slope = (softmax(w.weights.clone().matmul(h.weights.clone()), 1) - targets.clone()) / tokens as f64;
            let by_w = slope.clone().matmul(h.weights.clone().transpose()) + w.weights.clone() * LAMBDA;
            let by_h = w.weights.clone().transpose().matmul(slope) + h.weights.clone() * LAMBDA;
            let lr = lr * cosine(step, steps);
            w.step(lr, by_w);
            h.step(lr, by_h);
        }
        let (w, h) = (w.weights, h.weights);
        let logits = w.clone().matmul(h.clone());
        let entropy = -scalar(log_softmax(logits.clone(), 1) * targets) / tokens as f64;
        let ridge = 0.5 * LAMBDA * (scalar(w.clone().square()) + scalar(h.clone().square()));
        let grams = [w.clone().matmul(w.transpose()), h.clone().transpose().matmul(h)];
        let frame = frame_defect(&values(&grams[0]), tokens);
        let [of_w, of_h] = grams.map(|gram| circulant_defect(&values(&gram), tokens));
        let defects = [circulant_defect(&values(&logits), tokens), of_w, of_h];
        Ok(Solved { gap: optimum.map(|optimum| entropy + ridge - optimum), defects, frame })
    }

    fn targets(self, device: &Device) -> Tensor<2> {
        let tokens = self.tokens;
        let weight = |k: usize| match self.exchangeable {
            true => {
                if k == 0 {
                    0.9
                } else {
                    0.02
                }
            }
            false => (-1.2 * k.min(tokens - k) as f64).exp() + if k == 1 { 0.8 } else { 0.0 },
        };
        let total: f64 = (0..tokens).map(weight).sum();
        let entries =
            (0..tokens * tokens).map(|i| weight((i % tokens + tokens - i / tokens) % tokens) / total).collect();
        tensor(entries, [tokens, tokens], device)
    }
}

/// `‖Z - circ(Z)‖ / ‖Z‖`, where circ averages along the cyclic diagonals.
fn circulant_defect(z: &[f64], size: usize) -> f64 {
    let diagonal = |i: usize| (i % size + size - i / size) % size;
    let mut means = vec![0.0; size];
    z.iter().enumerate().for_each(|(i, z)| means[diagonal(i)] += z / size as f64);
    let apart: f64 = z.iter().enumerate().map(|(i, z)| (z - means[diagonal(i)]).powi(2)).sum();
    (apart / z.iter().map(|z| z * z).sum::<f64>()).sqrt()
}

/// How far the rows of this Gram matrix are from equal norms and cosines of -1/(V - 1).
fn frame_defect(gram: &[f64], size: usize) -> f64 {
    let norm = |i: usize| gram[i * size + i].sqrt();
    let mean = (0..size).map(norm).sum::<f64>() / size as f64;
    let norms = (0..size).map(|i| (norm(i) / mean - 1.0).abs());
    let cosine = |i: usize, j: usize| gram[i * size + j] / norm(i) / norm(j);
    let cosines = (0..size * size).filter(|k| k / size != k % size);
    let cosines = cosines.map(|k| (cosine(k / size, k % size) + 1.0 / (size as f64 - 1.0)).abs());
    // Not `f64::max`, which hides a NaN.
    norms.chain(cosines).fold(0.0, |most, off| if off > most || off.is_nan() { off } else { most })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `I - 1/6` with its first row and column times a factor: the Gram matrix of a simplex frame with one longer row.
    fn simplex(longer: f64) -> Vec<f64> {
        let row = |i: usize| if i == 0 { longer } else { 1.0 };
        let entry = |i: usize, j: usize| row(i) * row(j) * (f64::from(u8::from(i == j)) - 1.0 / 6.0);
        (0..36).map(|k| entry(k / 6, k % 6)).collect()
    }

    #[test]
    fn a_frame_has_equal_norms_and_equal_cosines() {
        assert!(frame_defect(&simplex(1.0), 6) < 1e-14);
        // Norms 1.6, 1, 1, 1, 1, 1 with the mean 1.1.
        assert!((frame_defect(&simplex(1.6), 6) - 0.5 / 1.1).abs() < 1e-12);
        let mut turned = simplex(1.0);
        (turned[1], turned[6]) = (0.0, 0.0);
        assert!((frame_defect(&turned, 6) - 0.2).abs() < 1e-12, "a cosine of 0 in place of -1/5");
        turned[7] = f64::NAN;
        assert!(frame_defect(&turned, 6).is_nan(), "what is not a number is no frame");
    }
}
