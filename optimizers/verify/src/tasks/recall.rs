//! Recall capacity (arXiv 2605.10795): p random pairs in R^d, one matrix that ranks every value first for its key.
//!
//! The load is `L = p ln p / d²`; all pairs can be stored up to 1/2 as d grows, and up to more for small d (ours: about
//! 0.95 at d = 32). Trained by cross-entropy from three times the Hebbian matrix. A stress test, not a ranking: tuned
//! optimizers are close.
//!
//! How that is possible: the other scores of a key are about normal with a deviation σ, so the largest of them is near the extreme-value
//! threshold `σ √(2 ln p)` (for so few pairs about a fifth below), and the true score must be above it. The Hebbian matrix puts some true
//! scores far below and others far above. Training takes from these and gives to those until all are just above: the histogram of true
//! scores over the largest other becomes narrow, and begins at 1.
//!
//! Two layers of rank k have `2 d k - k²` free numbers in place of d², and store about as much less (ours).

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{
    EXACT_MUON, Finding, SGD, Setting, TaskError, Trained, config, cosine, gaussian, scalar, tensor, values,
};

const WIDTH: usize = 32;
const STEPS: usize = 800;
const ADAMW: &str = r#"{"kind": "adamw"}"#;
/// Rank of two layers, and a load that they can store and one that they cannot.
const RANKS: [(usize, f64, f64); 2] = [(16, 0.6, 0.9), (8, 0.4, 0.6)];
/// Ours: so much narrower at least is the histogram of true scores after training.
const NARROWER: f64 = 0.5;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let mut findings = one_layer(setting)?;
    findings.extend(two_layers(setting)?);
    Ok(findings)
}

fn one_layer(setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let optimizers = [("sgd", config(SGD), 5000.0), ("adamw", config(ADAMW), 1.0), ("muon", config(EXACT_MUON), 1.0)];
    let mut findings = Vec::new();
    for (load, possible) in [(0.5, true), (0.8, true), (1.1, false)] {
        let facts = Pairs::new(load, setting.device);
        let name = format!("load {load} ({} pairs)", facts.count());
        let first = TrueScores::of(&facts.scores(&facts.hebbian));
        findings.push(Finding::shown(format!("{name}, Hebbian: {HISTOGRAM}"), first.histogram(), ""));
        for (optimizer, config, lr) in &optimizers {
            let Learned { steps, scores } = facts.learn(config, *lr, None)?;
            findings.push(judge(format!("{name}, {optimizer}, lr {lr}"), steps, possible));
            if steps.is_some() {
                let found = TrueScores::of(&scores);
                findings.push(Finding::shown(format!("{name}, {optimizer}: {HISTOGRAM}"), found.histogram(), ""));
                let share = found.spread() / first.spread();
                let what = format!("{name}, {optimizer}: spread of true scores over that of the Hebbian matrix");
                findings.push(Finding::judged(
                    what,
                    format!("{share:.2}"),
                    format!("below {NARROWER}"),
                    share < NARROWER,
                ));
            }
        }
        if let Some((own, lr)) = &setting.optimizer {
            let steps = facts.learn(own, *lr, None)?.steps;
            findings.push(Finding::shown(format!("{name}, {}, lr {lr}: {ALL}", own.kind()), shown(steps), ""));
        }
    }
    Ok(findings)
}

fn two_layers(setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
    let optimizers = [("adamw", config(ADAMW), 0.3), ("muon", config(EXACT_MUON), 0.3)];
    let mut findings = Vec::new();
    for (rank, below, above) in RANKS {
        for (load, possible) in [(below, true), (above, false)] {
            let facts = Pairs::new(load, setting.device);
            let name = format!("two layers of rank {rank}, load {load}");
            for (optimizer, config, lr) in &optimizers {
                let steps = facts.learn(config, *lr, Some(rank))?.steps;
                findings.push(judge(format!("{name}, {optimizer}, lr {lr}"), steps, possible));
            }
            if let Some((own, lr)) = &setting.optimizer {
                let steps = facts.learn(own, *lr, Some(rank))?.steps;
                findings.push(Finding::shown(format!("{name}, {}, lr {lr}: {ALL}", own.kind()), shown(steps), ""));
            }
        }
    }
    Ok(findings)
}

const ALL: &str = "steps until all are recalled";

fn judge(name: String, steps: Option<usize>, possible: bool) -> Finding {
    let wanted = if possible { "all within 800 steps" } else { "never" };
    Finding::judged(format!("{name}: {ALL}"), shown(steps), wanted, steps.is_some() == possible)
}

fn shown(steps: Option<usize>) -> String {
    steps.map_or("not in 800".into(), |steps| steps.to_string())
}

/// Keys and values, and the sum of all `v uᵀ`, three times.
struct Pairs {
    keys: Tensor<2>,
    values: Tensor<2>,
    hebbian: Tensor<2>,
}

/// The steps until all pairs were recalled, and the last scores.
struct Learned {
    steps: Option<usize>,
    scores: Tensor<2>,
}

impl Pairs {
    /// As many as have this load.
    fn new(load: f64, device: &Device) -> Self {
        let (pairs, std) = (pairs_at(load), (1.0 / WIDTH as f64).sqrt());
        let (keys, values) = (gaussian([pairs, WIDTH], std, 1, device), gaussian([pairs, WIDTH], std, 2, device));
        let hebbian = values.clone().transpose().matmul(keys.clone()) * 3.0;
        Self { keys, values, hebbian }
    }

    fn count(&self) -> usize {
        self.keys.dims()[0]
    }

    /// Row i has the scores of all values for key i.
    fn scores(&self, weights: &Tensor<2>) -> Tensor<2> {
        self.keys.clone().matmul(weights.clone().transpose()).matmul(self.values.clone().transpose())
    }

    fn learn(&self, config: &OptimizerConfig, lr: f64, rank: Option<usize>) -> Result<Learned, ConfigError> {
        let (pairs, device) = (self.count(), self.keys.device());
        let identity = (0..pairs * pairs).map(|k| f64::from(u8::from(k / pairs == k % pairs))).collect();
        let identity = tensor(identity, [pairs, pairs], &device);
        let mut memory = match rank {
            None => Memory::one(config, &self.hebbian)?,
            Some(rank) => Memory::two(config, &self.hebbian, rank)?,
        };
        for step in 0..STEPS {
            let scores = self.scores(&memory.weights());
            if all_first(&scores) {
                return Ok(Learned { steps: Some(step), scores });
            }
            let slope = (softmax(scores, 1) - identity.clone()) / pairs as f64;
            let gradient = self.values.clone().transpose().matmul(slope.transpose()).matmul(self.keys.clone());
            memory.step(lr * cosine(step, STEPS), gradient);
        }
        Ok(Learned { steps: None, scores: self.scores(&memory.weights()) })
    }
}

/// The number of pairs with `p ln p / d²` nearest to the load.
fn pairs_at(load: f64) -> usize {
    let wanted = load * (WIDTH * WIDTH) as f64;
    (2..WIDTH * WIDTH).find(|p| *p as f64 * (*p as f64).ln() >= wanted).unwrap_or(WIDTH)
}

fn all_first(scores: &Tensor<2>) -> bool {
    let best = scores.clone().argmax(1).into_data();
    best.iter::<i64>().enumerate().all(|(i, best)| i as i64 == best)
}

/// The matrix, or two layers whose product is in its place.
struct Memory {
    /// The matrix itself without an inner layer.
    outer: Trained,
    inner: Option<Trained>,
}

impl Memory {
    fn one(config: &OptimizerConfig, whole: &Tensor<2>) -> Result<Self, ConfigError> {
        Ok(Self { outer: Trained::new(config, whole.clone())?, inner: None })
    }

    /// A random inner layer of this rank, and an outer one that brings the product near `whole`; of equal norms.
    fn two(config: &OptimizerConfig, whole: &Tensor<2>, rank: usize) -> Result<Self, ConfigError> {
        let inner = gaussian([rank, WIDTH], (1.0 / WIDTH as f64).sqrt(), 3, &whole.device());
        let outer = whole.clone().matmul(inner.clone().transpose());
        let norm = |x: &Tensor<2>| scalar(x.clone().square()).sqrt();
        let factor = (norm(&outer) / norm(&inner)).sqrt();
        let (outer, inner) = (Trained::new(config, outer / factor)?, Trained::new(config, inner * factor)?);
        Ok(Self { outer, inner: Some(inner) })
    }

    fn weights(&self) -> Tensor<2> {
        let outer = self.outer.weights.clone();
        self.inner.as_ref().map_or(outer.clone(), |inner| outer.matmul(inner.weights.clone()))
    }

    /// With the gradient of the whole matrix.
    fn step(&mut self, lr: f64, gradient: Tensor<2>) {
        let by_outer = match &mut self.inner {
            None => gradient,
            Some(inner) => {
                let by_outer = gradient.clone().matmul(inner.weights.clone().transpose());
                inner.step(lr, self.outer.weights.clone().transpose().matmul(gradient));
                by_outer
            }
        };
        self.outer.step(lr, by_outer);
    }
}

/// Of each key the score of its own value over the largest of the others, both from the mean of the others, in rising order.
struct TrueScores(Vec<f64>);

/// Upper ends of the bins of a histogram; the last bin has none.
const BINS: [f64; 5] = [0.5, 0.75, 1.0, 1.25, 1.5];
const HISTOGRAM: &str = "true scores over the largest other, below .5 .75 1 1.25 1.5, above";

impl TrueScores {
    fn of(scores: &Tensor<2>) -> Self {
        let (pairs, all) = (scores.dims()[0], values(scores));
        let over = |i: usize| {
            let row = &all[i * pairs..(i + 1) * pairs];
            let others = || (0..pairs).filter(|j| *j != i).map(|j| row[j]);
            let mean = others().sum::<f64>() / (pairs - 1) as f64;
            (row[i] - mean) / (others().fold(f64::NEG_INFINITY, f64::max) - mean)
        };
        let mut over: Vec<f64> = (0..pairs).map(over).collect();
        over.sort_by(f64::total_cmp);
        Self(over)
    }

    fn histogram(&self) -> String {
        let mut counts = [0; BINS.len() + 1];
        self.0.iter().for_each(|score| counts[BINS.iter().filter(|end| score >= end).count()] += 1);
        counts.map(|count| count.to_string()).join(" ")
    }

    /// The width of the middle nine tenths.
    fn spread(&self) -> f64 {
        let at = |share: f64| self.0[(share * (self.0.len() - 1) as f64).round() as usize];
        at(0.95) - at(0.05)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_true_score_is_measured_by_the_largest_of_the_others() {
        // Others -1 and 1, -2 and 2, 0 and 2 with the mean 1.
        let scores = tensor(vec![3.0, -1.0, 1.0, -2.0, 1.0, 2.0, 0.0, 2.0, 1.5], [3, 3], &Device::flex());
        assert_eq!(TrueScores::of(&scores).0, [0.5, 0.5, 3.0]);
        assert_eq!(TrueScores(vec![0.1, 0.25, 0.6, 0.9, 1.3, 1.4]).histogram(), "2 1 1 0 2 0");
        assert_eq!(TrueScores((0..=100).map(f64::from).collect()).spread(), 90.0);
    }

    #[test]
    fn two_layers_of_full_rank_begin_with_equal_norms_and_learn_by_the_gradient_of_their_product() {
        let facts = Pairs::new(0.3, &Device::flex());
        let memory = Memory::two(&config(SGD), &facts.hebbian, WIDTH).unwrap();
        let (outer, inner) = (&memory.outer, memory.inner.as_ref().unwrap());
        let norm = |x: &Trained| scalar(x.weights.clone().square());
        assert!((norm(inner) / norm(outer) - 1.0).abs() < 1e-12);
        let (before, gradient) = (memory.weights(), gaussian([WIDTH, WIDTH], 1.0, 9, &Device::flex()));
        let known = outer.weights.clone().matmul(outer.weights.clone().transpose()).matmul(gradient.clone())
            + gradient.clone().matmul(inner.weights.clone().transpose()).matmul(inner.weights.clone());
        let (mut after, lr) = (memory, 1e-6);
        after.step(lr, gradient);
        let moved = (before - after.weights()) / lr;
        let apart = (scalar((moved - known.clone()).square()) / scalar(known.square())).sqrt();
        assert!(apart < 1e-4, "{apart}");
    }
}
