//! Reference vectors: what every optimizer must compute, step by step, and a runner for them.
//!
//! A file holds cases `{name, optimizer, layout, blocks, lr, parameter, gradients, expected,
//! tolerance}`. A case passes if every entry after every step differs from `expected` by at most the
//! tolerance of the dtype it was run in. A case without `expected` has `properties` instead.

mod spectrum;

pub use spectrum::SpectrumProperties;

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::Deserialize;
use thiserror::Error;

use polaron::matrix::{Blocks, Layout, Placement};
use polaron::step::State;
use polaron::{ConfigError, ConfiguredOptimizer, OptimizerConfig};

/// The built-in files, by name: an independent float64 program's, and PyTorch's own.
pub const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/vectors.rs"));

/// A file of reference vectors.
#[derive(Clone, Debug, Deserialize)]
pub struct VectorFile {
    format: String,
    version: u32,
    /// The kind of optimizer.
    pub kind: String,
    /// The cases.
    pub cases: Vec<VectorCase>,
}

/// One case: a parameter, its gradients, and the parameter after every step.
#[derive(Clone, Debug, Deserialize)]
pub struct VectorCase {
    /// Unique in the file.
    pub name: String,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// How the parameter is stored.
    pub layout: Layout,
    /// Parts with an update of their own.
    pub blocks: Option<Blocks>,
    /// Learning rate of every step.
    pub lr: f64,
    /// The parameter before the first step.
    pub parameter: VectorParameter,
    /// One flat array per step.
    pub gradients: Vec<Vec<f64>>,
    /// The parameter after every step, flat; none where the rule leaves it open.
    pub expected: Option<Vec<Vec<f64>>>,
    /// What must hold where nothing is expected.
    pub properties: Option<SpectrumProperties>,
    /// Largest allowed deviations.
    pub tolerance: VectorTolerance,
}

/// Shape and row-major values.
#[derive(Clone, Debug, Deserialize)]
pub struct VectorParameter {
    /// Shape as stored, rank 1 to 3.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f64>,
}

/// Largest allowed absolute deviations by dtype.
#[derive(Clone, Debug, Deserialize)]
pub struct VectorTolerance {
    /// For f32.
    pub f32_max_abs: f64,
    /// For f64.
    pub f64_max_abs: f64,
}

/// Why a vector file or a case cannot be run.
#[derive(Debug, Error)]
pub enum VectorError {
    /// Not JSON, or not of the right form.
    #[error("not a vector file: {0}")]
    Parse(#[from] serde_json::Error),
    /// Another format, or a version this program does not know.
    #[error("format \"{0}\" version {1} is not \"optimizer-vectors\" version 1")]
    Version(String, u32),
    /// A case whose optimizer cannot be built.
    #[error("case \"{0}\": {1}")]
    Config(String, ConfigError),
    /// A case that contradicts itself.
    #[error("case \"{0}\": {1}")]
    Case(String, String),
}

/// The largest deviation of a case and where it is.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// Deviation over tolerance; at most 1 passes, NaN never does.
    pub worst: f64,
    /// Step of the largest deviation, from 1.
    pub step: usize,
    /// Flat index of the entry.
    pub entry: usize,
    /// What was computed there.
    pub got: f64,
    /// What was expected there.
    pub expected: f64,
}

impl CaseReport {
    /// Whether every entry was within its tolerance.
    pub fn passed(&self) -> bool {
        self.worst <= 1.0
    }

    /// Takes the other report if it is worse.
    fn keep_worse(&mut self, other: Self) {
        // A NaN compares false with everything: it must win and stay.
        if other.worst > self.worst || (other.worst.is_nan() && !self.worst.is_nan()) {
            *self = other;
        }
    }
}

impl VectorFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// If it is not JSON of this format and version, or configures an optimizer that does not exist.
    pub fn parse(text: &str) -> Result<Self, VectorError> {
        let file: Self = serde_json::from_str(text)?;
        if (file.format.as_str(), file.version) != ("optimizer-vectors", 1) {
            return Err(VectorError::Version(file.format, file.version));
        }
        Ok(file)
    }
}

impl VectorCase {
    /// Runs the case in f32 or f64 on a device.
    ///
    /// # Errors
    /// If the optimizer cannot be built, or shapes and arrays do not fit together.
    pub fn run(&self, device: &Device, dtype: DType) -> Result<CaseReport, VectorError> {
        self.check()?;
        let placement = Placement { blocks: self.blocks, ..Placement::new(self.layout) };
        let misfit = |error: ConfigError| VectorError::Config(self.name.clone(), error);
        let optimizer = self.optimizer.build(placement).map_err(misfit)?;
        if self.optimizer.is_matrix_rule() {
            placement.check(&self.parameter.shape).map_err(|error| misfit(error.into()))?;
        }
        Ok(match *self.parameter.shape.as_slice() {
            [a] => self.run_rank(&optimizer, [a], device, dtype),
            [a, b] => self.run_rank(&optimizer, [a, b], device, dtype),
            [e, a, b] => self.run_rank(&optimizer, [e, a, b], device, dtype),
            _ => return Err(self.fault("the rank must be 1, 2 or 3")),
        })
    }

    fn run_rank<const D: usize>(
        &self,
        optimizer: &ConfiguredOptimizer,
        shape: [usize; D],
        device: &Device,
        dtype: DType,
    ) -> CaseReport {
        let tolerance = if dtype == DType::F64 { self.tolerance.f64_max_abs } else { self.tolerance.f32_max_abs };
        let placement = Placement { blocks: self.blocks, ..Placement::new(self.layout) };
        let mut report = CaseReport { worst: 0.0, step: 0, entry: 0, got: 0.0, expected: 0.0 };
        let weights = self.trajectory(optimizer, shape, device, dtype);
        for (step, pair) in weights.windows(2).enumerate() {
            if let Some(expected) = &self.expected {
                let got = pair[1].to_data().convert_dtype(DType::F64);
                for (entry, (got, expected)) in got.iter::<f64>().zip(&expected[step]).enumerate() {
                    let worst = (got - expected).abs() / tolerance;
                    report.keep_worse(CaseReport { worst, step: step + 1, entry, got, expected: *expected });
                }
            }
            if let Some(properties) = &self.properties {
                let update = (pair[0].clone() - pair[1].clone()) / self.lr;
                properties.check(step, update, &placement, tolerance, &mut report);
            }
        }
        report
    }

    /// The parameter before the first and after every step.
    fn trajectory<const D: usize>(
        &self,
        optimizer: &ConfiguredOptimizer,
        shape: [usize; D],
        device: &Device,
        dtype: DType,
    ) -> Vec<Tensor<D>> {
        let tensor = |values: &[f64]| {
            let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
            Tensor::<D>::from_data(data, (device, dtype))
        };
        let mut parameter = tensor(&self.parameter.data);
        let mut state: Option<State<D>> = None;
        let mut weights = vec![parameter.clone()];
        for gradient in &self.gradients {
            (parameter, state) = optimizer.step(self.lr, parameter, tensor(gradient), state);
            weights.push(parameter.clone());
        }
        weights
    }

    fn check(&self) -> Result<(), VectorError> {
        let count = self.parameter.shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let count = count.filter(|count| *count > 0).ok_or_else(|| self.fault("the shape is empty, or too large"))?;
        let momentum = self.properties.as_ref().map(|properties| &properties.momentum);
        let wanted: Vec<&Vec<Vec<f64>>> = self.expected.iter().chain(momentum).collect();
        if wanted.is_empty() {
            return Err(self.fault("there must be either expected values or properties"));
        }
        if self.gradients.is_empty() || wanted.iter().any(|steps| steps.len() != self.gradients.len()) {
            return Err(self.fault("there must be as many expected arrays as gradients, and at least one"));
        }
        let arrays = wanted.into_iter().flatten().chain(&self.gradients).chain([&self.parameter.data]);
        if arrays.into_iter().any(|array| array.len() != count) {
            return Err(self.fault("an array does not have as many entries as the shape"));
        }
        Ok(())
    }

    fn fault(&self, message: &str) -> VectorError {
        VectorError::Case(self.name.clone(), message.to_string())
    }
}
