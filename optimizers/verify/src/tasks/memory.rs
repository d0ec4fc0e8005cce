//! Associative memory (arXiv 2603.26554): how many facts a d × d matrix recalls.
//!
//! Keys u_i and values v_i are normal with variance 1/d, fact i has the frequency `p_i ∝ i^-α`, α = 1.5. The score of
//! value j for key i is `v_jᵀ W u_i`; a fact is recalled if its own value scores highest. One full-batch step from
//! W = 0 recalls about `d^(1/2α)` facts with gradient descent and `d^(1 + 1/2α)` with (smoothed) Muon: one power of
//! the width more.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::TaskError;
use super::problem::{Finding, SGD, Setting, Trained, config, gaussian, tensor};

const ALPHA: f64 = 1.5;
const FACTS: usize = 4096;

/// Keys, values and frequencies of the facts.
struct Facts {
    keys: Tensor<2>,
    values: Tensor<2>,
    frequency: Tensor<2>,
    first: f64,
}

impl Facts {
    fn new(count: usize, width: usize, seed: u64, device: &Device) -> Self {
        let total: f64 = (1..=count).map(|i| (i as f64).powf(-ALPHA)).sum();
        let frequency = (1..=count).map(|i| (i as f64).powf(-ALPHA) / total).collect();
        let std = (1.0 / width as f64).sqrt();
        Self {
            keys: gaussian([count, width], std, 2 * seed, device),
            values: gaussian([count, width], std, 2 * seed + 1, device),
            frequency: tensor(frequency, [count, 1], device),
            first: 1.0 / total,
        }
    }

    /// Gradient of the cross-entropy at W.
    fn gradient(&self, weights: &Tensor<2>) -> Tensor<2> {
        let scores = self.keys.clone().matmul(weights.clone().transpose()).matmul(self.values.clone().transpose());
        let guessed = softmax(scores, 1) * self.frequency.clone();
        let guessed = guessed.transpose().matmul(self.keys.clone());
        let true_part = self.keys.clone() * self.frequency.clone();
        self.values.clone().transpose().matmul(guessed - true_part)
    }

    /// How many of the first `queries` facts are recalled.
    fn recalled(&self, weights: &Tensor<2>, queries: usize) -> usize {
        let count = self.keys.dims()[0];
        let queries = queries.min(count);
        let keys = self.keys.clone().narrow(0, 0, queries);
        let scores = keys.matmul(weights.clone().transpose()).matmul(self.values.clone().transpose());
        let best: Tensor<2, Int> = scores.argmax(1);
        best.into_data().iter::<i64>().enumerate().filter(|(i, best)| *i as i64 == *best).count()
    }

    /// Muon smoothed at the published level.
    fn muon(&self, width: usize) -> OptimizerConfig {
        let level = 0.25 * self.first * (width as f64).powf(-ALPHA);
        config(&format!(
            r#"{{"kind": "regularized_muon", "momentum": 0.0, "scale": "none", "eps": {level}, "eps_mode": "absolute"}}"#
        ))
    }
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let mut findings = one_step(setting)?;
    findings.extend(sixteen_steps(setting)?);
    Ok(findings)
}

fn one_step(setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let widths = [48, 64, 96, 128];
    let seeds = if setting.quick { 4 } else { 12 };
    let mut findings = Vec::new();
    let (mut by_sgd, mut by_muon) = (Vec::new(), Vec::new());
    for width in widths {
        let queries = (6.0 * (width as f64).powf(1.3)) as usize;
        let (mut sgd, mut muon) = (0.0, 0.0);
        for seed in 1..=seeds {
            let facts = Facts::new(FACTS, width, seed, setting.device);
            let zero = gaussian([width, width], 0.0, 0, setting.device);
            let gradient = facts.gradient(&zero);
            let recalled = |config: &OptimizerConfig| -> Result<f64, ConfigError> {
                let mut trained = Trained::new(config, zero.clone())?;
                trained.step(1.0, gradient.clone());
                Ok(facts.recalled(&trained.weights, queries) as f64 / seeds as f64)
            };
            sgd += recalled(&config(SGD))?;
            muon += recalled(&facts.muon(width))?;
            if let (Some((own, lr)), 1) = (&setting.optimizer, seed) {
                let mut trained = Trained::new(own, zero.clone())?;
                trained.step(*lr, gradient.clone());
                let count = facts.recalled(&trained.weights, queries);
                findings.push(Finding::shown(
                    format!("{}: recalled after one step, width {width}", own.kind()),
                    count,
                    "",
                ));
            }
        }
        findings.push(Finding::shown(
            format!("recalled after one step, width {width}: SGD, Muon"),
            format!("{sgd:.1}, {muon:.1}"),
            published(width),
        ));
        by_sgd.push(sgd);
        by_muon.push(muon);
    }
    let gap = exponent(&widths, &by_muon) - exponent(&widths, &by_sgd);
    findings.push(Finding::judged(
        "power of the width that Muon gains over SGD",
        format!("{gap:.2}"),
        "1, in [0.8, 1.25]",
        (0.8..=1.25).contains(&gap),
    ));
    let ratio = by_muon[3] / by_sgd[3];
    findings.push(Finding::judged("Muon over SGD at width 128", format!("{ratio:.1}"), "at least 8", ratio >= 8.0));
    Ok(findings)
}

/// Counts that another program measured.
fn published(width: usize) -> &'static str {
    match width {
        64 => "6.3, 51",
        128 => "11, 137",
        _ => "",
    }
}

/// Slope of the least-squares line through the logarithms.
fn exponent(widths: &[usize], counts: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> = widths.iter().zip(counts).map(|(w, c)| ((*w as f64).ln(), c.max(0.5).ln())).collect();
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    mean(&|p| (p.0 - x) * (p.1 - y)) / mean(&|p| (p.0 - x).powi(2))
}

fn sixteen_steps(setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let width = 48;
    let facts = Facts::new(2304, width, 1, setting.device);
    let recalled = |config: &OptimizerConfig, lr: f64| -> Result<usize, ConfigError> {
        let mut trained = Trained::new(config, gaussian([width, width], 0.0, 0, setting.device))?;
        for _ in 0..16 {
            trained.step(lr, facts.gradient(&trained.weights));
        }
        Ok(facts.recalled(&trained.weights, 2304))
    };
    let (sgd, muon) = (recalled(&config(SGD), 100.0)?, recalled(&facts.muon(width), 6.9)?);
    let measured = format!("{sgd}, {muon}");
    let what = "recalled after 16 steps, width 48: SGD at its best rate 100, Muon at 6.9";
    let mut findings = vec![Finding::judged(what, measured, "25, 78; Muon at least twice SGD", muon >= 2 * sgd)];
    if let Some((own, lr)) = &setting.optimizer {
        findings.push(Finding::shown(
            format!("{}, lr {lr}: recalled after 16 steps", own.kind()),
            recalled(own, *lr)?,
            "",
        ));
    }
    Ok(findings)
}
