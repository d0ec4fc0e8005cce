//! Deep matrix factorisation `½ ‖W_N … W_1 - A‖²` from `W_j = a I` (arXiv 2605.28613, 2011.13772; times ours).
//!
//! A is diagonal with eigenvalues 10, 5, 1 and zeros (n = 20). Gradient descent learns the large eigenvalues
//! first: an eigenvalue λ reaches 90 % after about
//!
//! ```text
//! N = 2:  (ln(λ/a²) + ln 9) / (2 λ lr)          N ≥ 3:  a^(2-N) / ((N-2) λ lr)
//! ```
//!
//! steps. Muon learns all at once, the smallest first.

use burn::tensor::{Device, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{EXACT_MUON, Finding, SGD, Setting, TaskError, Trained, config, tensor, values};

pub(super) const SIZE: usize = 20;
pub(super) const EIGENVALUES: [f64; 3] = [10.0, 5.0, 1.0];
pub(super) const LR: f64 = 1e-3;

/// The name of a run, and the expected time of each eigenvalue, largest first.
type Expected<'a> = (&'a str, &'a [f64]);

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let device = setting.device;
    let formula = EIGENVALUES.map(|eigenvalue| ((eigenvalue / 1e-4).ln() + 9f64.ln()) / (2.0 * eigenvalue * LR));
    let two = times(&config(SGD), 2, 0.01, 6200, |_| LR, device)?;
    let mut findings = judge(("gradient descent, N = 2", &formula), two);
    let three = times(&config(SGD), 3, 0.1, 2200, |_| LR, device)?;
    findings.extend(judge(("gradient descent, N = 3", &[1020.0, 2020.0]), three));
    let steps = 1500;
    let linear = |lr: f64| move |step: usize| lr * (1.0 - step as f64 / steps as f64);
    let muon = times(&config(EXACT_MUON), 3, 0.1, steps, linear(0.005), device)?;
    findings.extend(judge(("exact Muon, N = 3", &[470.0, 355.0, 185.0]), muon));
    let order = matches!(muon, [Some(large), Some(middle), Some(small)] if small < middle && middle < large);
    let said = if order { "yes" } else { "no" };
    findings.push(Finding::judged("exact Muon learns the smallest eigenvalue first", said, "yes", order));
    if let Some((own, lr)) = &setting.optimizer {
        let reached = times(own, 3, 0.1, steps, linear(*lr), device)?.map(shown).join(" / ");
        let what = format!("{}, lr {lr}, N = 3: steps to 90 % of 10 / 5 / 1", own.kind());
        findings.push(Finding::shown(what, reached, ""));
    }
    Ok(findings)
}

fn judge((name, expected): Expected<'_>, reached: [Option<usize>; 3]) -> Vec<Finding> {
    let cases = EIGENVALUES.into_iter().zip(reached).zip(expected);
    cases
        .map(|((eigenvalue, time), expected)| {
            let near = time.is_some_and(|time| (time as f64 / expected - 1.0).abs() < 0.05);
            let what = format!("{name}: steps to 90 % of {eigenvalue}");
            Finding::judged(what, shown(time), format!("{expected:.0} ± 5 %"), near)
        })
        .collect()
}

fn shown(time: Option<usize>) -> String {
    time.map_or("not reached".into(), |time| time.to_string())
}

/// The step at which each eigenvalue reaches 90 %.
fn times(
    config: &OptimizerConfig,
    depth: usize,
    start: f64,
    steps: usize,
    lr: impl Fn(usize) -> f64,
    device: &Device,
) -> Result<[Option<usize>; 3], ConfigError> {
    let target = diagonal(|i| EIGENVALUES.get(i).copied().unwrap_or(0.0), device);
    let mut reached = [None; 3];
    descend(config, &target, (depth, start), steps, lr, |step, whole| {
        for (i, eigenvalue) in EIGENVALUES.into_iter().enumerate() {
            if reached[i].is_none() && whole[i * SIZE + i] >= 0.9 * eigenvalue {
                reached[i] = Some(step);
            }
        }
    })?;
    Ok(reached)
}

pub(super) fn diagonal(entry: impl Fn(usize) -> f64, device: &Device) -> Tensor<2> {
    let entries = (0..SIZE * SIZE).map(|k| if k / SIZE == k % SIZE { entry(k / SIZE) } else { 0.0 }).collect();
    tensor(entries, [SIZE, SIZE], device)
}

/// Trains the factors, `depth` of them beginning at `start` times the identity, on the target. Passes the number of finished steps
/// and the entries of the product after it.
pub(super) fn descend(
    config: &OptimizerConfig,
    target: &Tensor<2>,
    (depth, start): (usize, f64),
    steps: usize,
    lr: impl Fn(usize) -> f64,
    mut after: impl FnMut(usize, &[f64]),
) -> Result<(), ConfigError> {
    let device = &target.device();
    let mut factors =
        (0..depth).map(|_| Trained::new(config, diagonal(|_| start, device))).collect::<Result<Vec<_>, _>>()?;
    for step in 0..steps {
        let weights: Vec<Tensor<2>> = factors.iter().map(|factor| factor.weights.clone()).collect();
        let slope = product(&weights, device) - target.clone();
        for (i, factor) in factors.iter_mut().enumerate() {
            let (inner, outer) = (product(&weights[..i], device), product(&weights[i + 1..], device));
            factor.step(lr(step), outer.transpose().matmul(slope.clone()).matmul(inner.transpose()));
        }
        let now: Vec<Tensor<2>> = factors.iter().map(|factor| factor.weights.clone()).collect();
        after(step + 1, &values(&product(&now, device)));
    }
    Ok(())
}

/// `W_k … W_1` of the factors in the order 1 to k; the identity for none.
fn product(factors: &[Tensor<2>], device: &Device) -> Tensor<2> {
    factors.iter().fold(diagonal(|_| 1.0, device), |product, factor| factor.clone().matmul(product))
}
