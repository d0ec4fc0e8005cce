//! What all tasks share: settings, findings, and small matrix problems.

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{LayerwiseConfig, LayerwiseError};
use polaron::matrix::{Layout, Placement};
use polaron::rule::{Pipeline, State};
use polaron::{ConfigError, OptimizerConfig};
use polaron_common::splitmix64;
use serde_json::{Map, Value};
use thiserror::Error;

/// Why a task was not run.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum TaskError {
    /// An optimizer for a task that has no place for it.
    #[error("the task {task} takes no optimizer: {reason}")]
    TakesNone {
        /// The task.
        task: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// Settings of an optimizer that are not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A stack that does not fit a network.
    #[error(transparent)]
    Layerwise(#[from] LayerwiseError),
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
    /// What was measured, or a sentence.
    pub what: String,
    /// The measured value; empty for a sentence.
    pub measured: String,
    /// The prediction, or the criterion.
    pub predicted: String,
    /// Whether the criterion holds; `None` for a figure without one.
    pub passed: Option<bool>,
}

impl Finding {
    /// A figure next to its prediction, without a criterion.
    pub(super) fn shown(what: impl Into<String>, measured: impl ToString, predicted: impl ToString) -> Self {
        let (measured, predicted) = (measured.to_string(), predicted.to_string());
        Self { what: what.into(), measured, predicted, passed: None }
    }

    /// A sentence without a figure.
    pub(super) fn note(text: impl ToString) -> Self {
        Self { what: text.to_string(), measured: String::new(), predicted: String::new(), passed: None }
    }

    /// A figure with a criterion.
    pub(super) fn judged(
        what: impl Into<String>,
        measured: impl ToString,
        predicted: impl ToString,
        passed: bool,
    ) -> Self {
        Self { passed: Some(passed), ..Self::shown(what, measured, predicted) }
    }
}

/// One matrix, stored output by input, with its optimizer.
pub(super) struct Trained {
    optimizer: Pipeline,
    pub weights: Tensor<2>,
    pub state: Option<State<2>>,
}

impl Trained {
    pub fn new(config: &OptimizerConfig, weights: Tensor<2>) -> Result<Self, ConfigError> {
        Ok(Self { optimizer: config.build(Placement::new(Layout::OutIn))?, weights, state: None })
    }

    pub fn step(&mut self, lr: f64, gradient: Tensor<2>) {
        let (weights, state) = self.optimizer.step(lr, self.weights.clone(), gradient, self.state.take());
        (self.weights, self.state) = (weights, state);
    }
}

/// A configuration from JSON in this crate.
pub(super) fn config(json: &str) -> OptimizerConfig {
    match serde_json::from_str(json) {
        Ok(config) => config,
        Err(error) => unreachable!("a configuration of this crate: {error}"),
    }
}

/// The stack of a kind with these settings.
pub(super) fn stack_of(own: &OptimizerConfig, lr: f64) -> Result<LayerwiseConfig, LayerwiseError> {
    let mut matrix = match serde_json::to_value(own) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(),
    };
    matrix.remove("kind");
    Ok(LayerwiseConfig { lr, matrix, ..LayerwiseConfig::stack(own.kind())? })
}

/// Plain gradient descent.
pub(super) const SGD: &str = r#"{"kind": "sgd", "momentum": 0.0}"#;

/// Muon with the exact polar factor, no momentum and no scale.
pub(super) const EXACT_MUON: &str =
    r#"{"kind": "muon", "momentum": 0.0, "nesterov": false, "scale": "none", "polar": {"method": "svd"}}"#;

pub(super) fn tensor(values: Vec<f64>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F64))
}

/// Entry i of stream `seed`, uniform between 0 and 1.
pub(super) fn uniform(seed: u64, i: u64) -> f64 {
    ((splitmix64(splitmix64(seed).wrapping_add(i)) >> 11) as f64 + 0.5) / 2f64.powi(53)
}

/// Entry i of stream `seed`, standard normal (Box–Muller on SplitMix64).
pub(crate) fn normal(seed: u64, i: u64) -> f64 {
    let (radius, angle) = (uniform(seed, 2 * i), uniform(seed, 2 * i + 1));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// A matrix of independent normal entries.
pub(super) fn gaussian(shape: [usize; 2], std: f64, seed: u64, device: &Device) -> Tensor<2> {
    let values = (0..(shape[0] * shape[1]) as u64).map(|i| std * normal(seed, i)).collect();
    tensor(values, shape, device)
}

pub(super) fn scalar(x: Tensor<2>) -> f64 {
    x.sum().into_scalar()
}

pub(super) fn values(x: &Tensor<2>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// From 1 at the first step to nearly 0 at the last.
pub(super) fn cosine(step: usize, steps: usize) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos())
}
