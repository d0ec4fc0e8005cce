//! Associative memory (arXiv 2603.26554): how many facts a d × d matrix recalls.
//!
//! Keys u_i and values v_i are normal with variance 1/d, fact i has the frequency `p_i ∝ i^-α`. The score of value j for key i is
//! `v_jᵀ W u_i`; a fact is recalled if its own value scores highest. **Known**, for one step from W = 0:
//!
//! | | gradient descent | (smoothed) Muon |
//! |---|---|---|
//! | recalled | `d^(1/2α)` | `d^(1 + 1/2α)` |
//! | with B drawn facts | at most `B^(1/α)` | at most `B^(1/α)` |
//! | critical batch | `d^(1/2)` | `d^(α + 1/2)` |
//!
//! Muon gains one power of the width, and uses much larger batches. Such small widths raise both exponents by one to two tenths.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{Finding, SGD, Setting, TaskError, Trained, config, gaussian, tensor, uniform};

const ALPHA: f64 = 1.5;
const FACTS: usize = 4096;
const WIDTHS: [usize; 4] = [48, 64, 96, 128];
/// Of the batches.
const WIDTH: usize = 64;

/// Keys, values and frequencies of the facts.
struct Facts {
    keys: Tensor<2>,
    values: Tensor<2>,
    frequency: Vec<f64>,
    alpha: f64,
}

impl Facts {
    fn new(alpha: f64, count: usize, width: usize, seed: u64, device: &Device) -> Self {
        let total: f64 = (1..=count).map(|i| (i as f64).powf(-alpha)).sum();
        let frequency = (1..=count).map(|i| (i as f64).powf(-alpha) / total).collect();
        let std = (1.0 / width as f64).sqrt();
        Self {
            keys: gaussian([count, width], std, 2 * seed, device),
            values: gaussian([count, width], std, 2 * seed + 1, device),
            frequency,
            alpha,
        }
    }

    fn width(&self) -> usize {
        self.keys.dims()[1]
    }

    fn column(&self, shares: Vec<f64>) -> Tensor<2> {
        let rows = shares.len();
        tensor(shares, [rows, 1], &self.keys.device())
    }

    /// Gradient of the cross-entropy at W.
    fn gradient(&self, weights: &Tensor<2>) -> Tensor<2> {
        let frequency = self.column(self.frequency.clone());
        let guessed = softmax(self.scores(weights, self.frequency.len()), 1) * frequency.clone();
        let guessed = guessed.transpose().matmul(self.keys.clone());
        let true_part = self.keys.clone() * frequency;
        self.values.clone().transpose().matmul(guessed - true_part)
    }

    /// The same at W = 0, where all values are guessed alike, for facts with these shares.
    fn first_gradient(&self, shares: Vec<f64>) -> Tensor<2> {
        let true_part = self.keys.clone() * self.column(shares);
        let guessed = self.values.clone().mean_dim(0).transpose().matmul(true_part.clone().sum_dim(0));
        guessed - self.values.clone().transpose().matmul(true_part)
    }

    /// The shares of the facts in a batch that is drawn by their frequencies.
    fn drawn(&self, batch: usize, seed: u64) -> Vec<f64> {
        let mut shares = vec![0.0; self.frequency.len()];
        let below: Vec<f64> = self
            .frequency
            .iter()
            .scan(0.0, |sum, p| {
                *sum += p;
                Some(*sum)
            })
            .collect();
        for i in 0..batch as u64 {
            let at = uniform(1000 + seed, i);
            let fact = below.partition_point(|below| *below < at).min(shares.len() - 1);
            shares[fact] += 1.0 / batch as f64;
        }
        shares
    }

    /// `[queries, facts]`, of the first keys.
    fn scores(&self, weights: &Tensor<2>, queries: usize) -> Tensor<2> {
        let keys = self.keys.clone().narrow(0, 0, queries);
        keys.matmul(weights.clone().transpose()).matmul(self.values.clone().transpose())
    }

    /// How many of the first `queries` facts are recalled.
    fn recalled(&self, weights: &Tensor<2>, queries: usize) -> usize {
        let best: Tensor<2, Int> = self.scores(weights, queries.min(self.frequency.len())).argmax(1);
        best.into_data().iter::<i64>().enumerate().filter(|(i, best)| *i as i64 == *best).count()
    }

    /// Muon smoothed at the published level.
    fn muon(&self) -> OptimizerConfig {
        let level = 0.25 * self.frequency[0] * (self.width() as f64).powf(-self.alpha);
        config(&format!(
            r#"{{"kind": "regularized_muon", "momentum": 0.0, "scale": "none", "eps": {level}, "eps_mode": "absolute"}}"#
        ))
    }

    /// What SGD, Muon and the optimizer of the setting recall after one step on facts with these shares.
    fn after_one_step(&self, shares: Vec<f64>, setting: &Setting<'_>) -> Result<Vec<f64>, ConfigError> {
        let queries = (6.0 * (self.width() as f64).powf(1.3)) as usize;
        let gradient = self.first_gradient(shares);
        let mut optimizers = vec![(config(SGD), 1.0), (self.muon(), 1.0)];
        optimizers.extend(setting.optimizer.clone());
        let recalled = |(config, lr): (OptimizerConfig, f64)| {
            let mut trained = Trained::new(&config, gradient.zeros_like())?;
            trained.step(lr, gradient.clone());
            Ok(self.recalled(&trained.weights, queries) as f64)
        };
        optimizers.into_iter().map(recalled).collect()
    }
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let mut findings = widths(ALPHA, setting)?;
    if !setting.quick {
        findings.extend(widths(1.2, setting)?);
        findings.extend(widths(2.0, setting)?);
    }
    findings.extend(batches(setting)?);
    findings.extend(sixteen_steps(setting)?);
    Ok(findings)
}

/// The names of the optimizers in the order of the counts.
fn names(setting: &Setting<'_>) -> String {
    match &setting.optimizer {
        Some((own, lr)) => format!("SGD, Muon, {} (lr {lr})", own.kind()),
        None => "SGD, Muon".into(),
    }
}

fn listed(counts: &[f64], digits: usize) -> String {
    counts.iter().map(|count| format!("{count:.digits$}")).collect::<Vec<_>>().join(", ")
}

/// The mean of counts over `seeds` drawings of the facts.
fn mean(seeds: u64, counts: impl Fn(u64) -> Result<Vec<f64>, ConfigError>) -> Result<Vec<f64>, ConfigError> {
    let all = (1..=seeds).map(counts).collect::<Result<Vec<_>, _>>()?;
    Ok((0..all[0].len()).map(|k| all.iter().map(|counts| counts[k]).sum::<f64>() / seeds as f64).collect())
}

/// What one step recalls at several widths, and the powers of the width in that.
fn widths(alpha: f64, setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let seeds = if setting.quick { 4 } else { 12 };
    let (mut findings, mut counts, names) = (Vec::new(), Vec::new(), names(setting));
    for width in WIDTHS {
        let found = mean(seeds, |seed| {
            let facts = Facts::new(alpha, FACTS, width, seed, setting.device);
            facts.after_one_step(facts.frequency.clone(), setting)
        })?;
        let what = format!("α {alpha}, width {width}: recalled after one step by {names}");
        let published = if alpha == ALPHA { published(width) } else { "" };
        findings.push(Finding::shown(what, listed(&found, 1), published));
        counts.push(found);
    }
    let powers: Vec<f64> =
        (0..counts[0].len()).map(|k| exponent(&counts.iter().map(|found| found[k]).collect::<Vec<_>>())).collect();
    let by_sgd = 0.5 / alpha;
    let known = listed(&[by_sgd, 1.0 + by_sgd], 2);
    findings.push(Finding::shown(format!("α {alpha}: powers of the width in that"), listed(&powers, 2), known));
    let gap = powers[1] - powers[0];
    findings.push(Finding::judged(
        format!("α {alpha}: power of the width that Muon gains over SGD"),
        format!("{gap:.2}"),
        "1, in [0.8, 1.25]",
        (0.8..=1.25).contains(&gap),
    ));
    if alpha == ALPHA {
        let ratio = counts[3][1] / counts[3][0];
        findings.push(Finding::judged("Muon over SGD at width 128", format!("{ratio:.1}"), "at least 8", ratio >= 8.0));
    }
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

/// Slope of the least-squares line through the logarithms of [`WIDTHS`] and counts.
fn exponent(counts: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> = WIDTHS.iter().zip(counts).map(|(w, c)| ((*w as f64).ln(), c.max(0.5).ln())).collect();
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    mean(&|p| (p.0 - x) * (p.1 - y)) / mean(&|p| (p.0 - x).powi(2))
}

/// What one step recalls from a batch of drawn facts.
fn batches(setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let (seeds, largest) = if setting.quick { (4, 10) } else { (12, 14) };
    let sizes: Vec<usize> = (4..=largest).step_by(2).map(|power| 1 << power).collect();
    let recalled = |batch: Option<usize>| {
        mean(seeds, |seed| {
            let facts = Facts::new(ALPHA, FACTS, WIDTH, seed, setting.device);
            let shares = batch.map_or_else(|| facts.frequency.clone(), |batch| facts.drawn(batch, seed));
            facts.after_one_step(shares, setting)
        })
    };
    let counts = sizes.iter().map(|batch| recalled(Some(*batch))).collect::<Result<Vec<_>, _>>()?;
    let whole = recalled(None)?;
    let names = names(setting);
    let mut findings: Vec<Finding> = sizes
        .iter()
        .zip(&counts)
        .map(|(batch, found)| {
            let published = match batch {
                16 => "6 to 9 by SGD at any batch",
                64 => "22 by Muon",
                256 => "51 by Muon",
                _ => "",
            };
            let what = format!("width {WIDTH}, batch {batch}: recalled after one step by {names}");
            Finding::shown(what, listed(found, 1), published)
        })
        .collect();
    let ratio = |k: usize| counts[3][k] / counts[0][k];
    let what = |name: &str| format!("a batch of 1024 over one of 16, {name}");
    findings.push(Finding::judged(what("Muon"), format!("{:.1}", ratio(1)), "above 4", ratio(1) > 4.0));
    findings.push(Finding::judged(what("SGD"), format!("{:.2}", ratio(0)), "below 1.5", ratio(0) < 1.5));
    // Ours: a batch is large enough if it gives nine tenths of what all facts give.
    let enough = |k: usize| sizes.iter().zip(&counts).find(|(_, found)| found[k] >= 0.9 * whole[k]);
    let critical: Vec<String> = (0..whole.len())
        .map(|k| enough(k).map_or_else(|| format!("above {}", 1 << largest), |(batch, _)| batch.to_string()))
        .collect();
    let predicted = listed(&[(WIDTH as f64).sqrt(), (WIDTH as f64).powf(ALPHA + 0.5)], 0);
    findings.push(Finding::shown(
        format!("smallest of these batches for nine tenths of {}", listed(&whole, 1)),
        critical.join(", "),
        format!("about {predicted} for large widths; Muon 256 to 1024 in another program"),
    ));
    Ok(findings)
}

fn sixteen_steps(setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let width = 48;
    let facts = Facts::new(ALPHA, 2304, width, 1, setting.device);
    let recalled = |config: &OptimizerConfig, lr: f64| -> Result<usize, ConfigError> {
        let mut trained = Trained::new(config, gaussian([width, width], 0.0, 0, setting.device))?;
        for _ in 0..16 {
            trained.step(lr, facts.gradient(&trained.weights));
        }
        Ok(facts.recalled(&trained.weights, 2304))
    };
    let (sgd, muon) = (recalled(&config(SGD), 100.0)?, recalled(&facts.muon(), 6.9)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gradient_is_that_of_the_loss_at_zero() {
        let device = Device::flex();
        let facts = Facts::new(ALPHA, 40, 8, 1, &device);
        let known = facts.gradient(&gaussian([8, 8], 0.0, 0, &device));
        let found = facts.first_gradient(facts.frequency.clone());
        let apart = (found - known).abs().max().into_scalar::<f64>();
        assert!(apart < 1e-15, "{apart}");
    }

    #[test]
    fn facts_are_drawn_by_their_frequencies() {
        let facts = Facts::new(ALPHA, 40, 8, 1, &Device::flex());
        let shares = facts.drawn(100_000, 1);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        // Three standard deviations of a share are at most 0.005.
        for (share, frequency) in shares.iter().zip(&facts.frequency) {
            assert!((share - frequency).abs() < 0.005, "{share} {frequency}");
        }
        assert_ne!(shares, facts.drawn(100_000, 2));
    }

    #[test]
    fn an_exponent_is_the_slope_of_a_power() {
        let counts = WIDTHS.map(|width| 3.0 * (width as f64).powf(0.7));
        assert!((exponent(&counts) - 0.7).abs() < 1e-12);
    }
}
