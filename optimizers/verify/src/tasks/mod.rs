//! Tasks with known answers: the results of an optimizer can be compared with a formula or with
//! figures that another program measured.
//!
//! | task | what is known | source |
//! |---|---|---|
//! | `quadratic` | smoothed Muon's energy never rises; its balance closes with the step size | arXiv 2605.23871 |
//! | `nonsmooth` | exact Muon never moves the trace, the usual polynomial runs away | arXiv 2605.08980 |
//! | `memory` | facts that one step stores: Muon beats SGD by one power of the width | arXiv 2603.26554 |
//! | `recall` | pairs that a matrix can store | arXiv 2605.10795 |
//! | `factorisation` | when each eigenvalue is learned; Muon learns the smallest first | arXiv 2605.28613 |
//! | `layer_peeled` | the optimum to thirteen digits; logits are circulant | arXiv 2605.12756 |
//! | `random_features` | the best step of Muon is the nuclear norm over a trace | arXiv 2605.11181 |
//! | `lr_transfer` | under muP the best learning rate does not depend on the width | arXiv 2512.05620 |
//! | `spike` | a teacher's direction appears in the spectrum and is lost again | arXiv 2604.18450 |
//! | `xor` | from which signal strength a kernel sees the classes | arXiv 2605.29669 |
//!
//! Predictions and tolerances of our own are marked as such.

mod factorisation;
mod layer_peeled;
mod lr_transfer;
mod memory;
mod nonsmooth;
mod quadratic;
mod random_features;
mod recall;
mod spike;
mod xor;

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::matrix::{Layout, Placement};
use polaron::rule::Pipeline;
use polaron::rule::State;
use polaron::{ConfigError, OptimizerConfig};
use polaron_common::splitmix64;

/// A task by name.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Name on the command line.
    pub name: &'static str,
    /// Its description in one line.
    pub about: &'static str,
    run: fn(&Setting<'_>) -> Result<Vec<Finding>, ConfigError>,
}

/// How a task is run.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The device; it needs f64.
    pub device: &'a Device,
    /// Smaller sizes where the task allows it.
    pub quick: bool,
    /// An optimizer to run in addition to those of the task, and its learning rate.
    pub optimizer: Option<(OptimizerConfig, f64)>,
}

/// One line of a report: what was measured, what was predicted, and whether a criterion holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was measured.
    pub what: String,
    /// The measured value.
    pub measured: String,
    /// The prediction, or the criterion.
    pub predicted: String,
    /// Whether the criterion holds; `None` for a figure without one.
    pub passed: Option<bool>,
}

impl Finding {
    /// A figure next to its prediction, without a criterion.
    fn shown(what: impl Into<String>, measured: impl ToString, predicted: impl ToString) -> Self {
        let (measured, predicted) = (measured.to_string(), predicted.to_string());
        Self { what: what.into(), measured, predicted, passed: None }
    }

    /// A figure with a criterion.
    fn judged(what: impl Into<String>, measured: impl ToString, predicted: impl ToString, passed: bool) -> Self {
        Self { passed: Some(passed), ..Self::shown(what, measured, predicted) }
    }
}

const fn task(
    name: &'static str,
    about: &'static str,
    run: fn(&Setting<'_>) -> Result<Vec<Finding>, ConfigError>,
) -> Task {
    Task { name, about, run }
}

/// Every task.
pub const TASKS: &[Task] = &[
    task("quadratic", "energy of smoothed Muon on a matrix quadratic", quadratic::run),
    task("nonsmooth", "the 2 × 2 function on which exact Muon stalls", nonsmooth::run),
    task("memory", "facts that associative memory recalls after one step, and after sixteen", memory::run),
    task("recall", "pairs that one matrix can be trained to recall", recall::run),
    task(
        "factorisation",
        "the order and the times in which a deep factorisation learns eigenvalues",
        factorisation::run,
    ),
    task("layer_peeled", "an exactly solvable softmax problem with circulant logits", layer_peeled::run),
    task("random_features", "the best step size on a random-feature quadratic", random_features::run),
    task("lr_transfer", "best learning rates of networks of several widths, with and without muP", lr_transfer::run),
    task("spike", "a teacher's direction that appears in the spectrum and vanishes", spike::run),
    task("xor", "whether the top eigenvectors of a kernel see an XOR problem", xor::run),
];

impl Task {
    /// The task of a name.
    pub fn find(name: &str) -> Option<&'static Task> {
        TASKS.iter().find(|task| task.name == name)
    }

    /// Runs it.
    ///
    /// # Errors
    /// If the optimizer of the setting is not valid.
    pub fn run(&self, setting: &Setting<'_>) -> Result<Vec<Finding>, ConfigError> {
        (self.run)(setting)
    }
}

/// One matrix, stored output by input, with its optimizer.
struct Trained {
    optimizer: Pipeline,
    weights: Tensor<2>,
    state: Option<State<2>>,
}

impl Trained {
    fn new(config: &OptimizerConfig, weights: Tensor<2>) -> Result<Self, ConfigError> {
        Ok(Self { optimizer: config.build(Placement::new(Layout::OutIn))?, weights, state: None })
    }

    fn step(&mut self, lr: f64, gradient: Tensor<2>) {
        let (weights, state) = self.optimizer.step(lr, self.weights.clone(), gradient, self.state.take());
        (self.weights, self.state) = (weights, state);
    }
}

/// A configuration from JSON in this crate.
fn config(json: &str) -> OptimizerConfig {
    match serde_json::from_str(json) {
        Ok(config) => config,
        Err(error) => unreachable!("a configuration of this crate: {error}"),
    }
}

/// Plain gradient descent.
const SGD: &str = r#"{"kind": "sgd", "momentum": 0.0}"#;

/// Muon with the exact polar factor, no momentum and no scale.
const EXACT_MUON: &str =
    r#"{"kind": "muon", "momentum": 0.0, "nesterov": false, "scale": "none", "polar": {"method": "svd"}}"#;

fn tensor(values: Vec<f64>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F64))
}

/// Entry i of stream `seed`, standard normal (Box–Muller on SplitMix64).
fn normal(seed: u64, i: u64) -> f64 {
    let key = splitmix64(seed);
    let at = |offset: u64| splitmix64(key.wrapping_add(2 * i + offset)) >> 11;
    let unit = |x: u64| (x as f64 + 0.5) / 2f64.powi(53);
    (-2.0 * unit(at(0)).ln()).sqrt() * (std::f64::consts::TAU * unit(at(1))).cos()
}

/// A matrix of independent normal entries.
fn gaussian(shape: [usize; 2], std: f64, seed: u64, device: &Device) -> Tensor<2> {
    let values = (0..(shape[0] * shape[1]) as u64).map(|i| std * normal(seed, i)).collect();
    tensor(values, shape, device)
}

fn scalar(x: Tensor<2>) -> f64 {
    x.sum().into_scalar()
}

fn values(x: &Tensor<2>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// From 1 at the first step to nearly 0 at the last.
fn cosine(step: usize, steps: usize) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos())
}
