//! Reference vectors: what every optimizer must compute, step by step, and a runner for them.
//!
//! A file holds cases `{name, optimizer, layout, blocks, lr, parameter, gradients, expected,
//! tolerance}`. A case passes if every entry after every step differs from `expected` by at most the
//! tolerance of the dtype it was run in. A case without `expected` has `properties` instead.
//!
//! Expected values of version 1 are those of the exact rule: a case that leaves out the key that chooses how an exact
//! target is computed means the exact method, whatever the default of the kind. That key is `method` of freon, and `polar`
//! of regularized_muon, ssd, polar_grad and error_feedback_muon (`svd`) and of spectral and hybrid (`gram_eigh`).

mod exact;
mod report;
mod spectrum;

pub use report::CaseReport;
pub use spectrum::SpectrumProperties;

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::matrix::{Blocks, Layout, LayoutError, Placement};
use polaron::rule::Pipeline;
use polaron::{ConfigError, OptimizerConfig};
use serde::Deserialize;
use thiserror::Error;

/// The built-in files, name and text: those of an independent float64 program by kind, and PyTorch's own. Every file in the
/// folder `vectors` of this crate is one.
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
    #[serde(deserialize_with = "exact::unless_named")]
    pub optimizer: OptimizerConfig,
    /// How the parameter is stored.
    pub layout: Layout,
    /// Parts with separate updates.
    pub blocks: Option<Blocks>,
    /// Learning rate of every step.
    pub lr: f64,
    /// The parameter before the first step.
    pub parameter: VectorParameter,
    /// One flat array per step.
    pub gradients: Vec<Vec<f64>>,
    /// The parameter after every step, flat; none if the rule does not determine it.
    pub expected: Option<Vec<Vec<f64>>>,
    /// Properties that are checked instead of values.
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
#[non_exhaustive]
pub enum VectorError {
    /// Not JSON, or not of the right form.
    #[error("not a vector file: {source}")]
    Parse {
        /// The message of the parser.
        #[from]
        source: serde_json::Error,
    },
    /// Another format, or a version this program does not know.
    #[error("format \"{format}\" version {version} is not \"optimizer-vectors\" version 1")]
    Version {
        /// The format of the file.
        format: String,
        /// Its version.
        version: u32,
    },
    /// A case whose optimizer cannot be built.
    #[error("case \"{case}\": {source}")]
    Config {
        /// Name of the case.
        case: String,
        /// What is wrong with the optimizer.
        source: ConfigError,
    },
    /// A case whose parameter the optimizer cannot read.
    #[error("case \"{case}\": {source}")]
    Layout {
        /// Name of the case.
        case: String,
        /// Why not.
        source: LayoutError,
    },
    /// A case that contradicts itself.
    #[error("case \"{case}\": {source}")]
    Case {
        /// Name of the case.
        case: String,
        /// How.
        source: CaseFault,
    },
}

/// How a case contradicts itself.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaseFault {
    /// Not a vector, a matrix or a stack of matrices.
    #[error("the rank must be 1, 2 or 3, but the shape is {shape:?}")]
    Rank {
        /// Shape of the parameter.
        shape: Vec<usize>,
    },
    /// A shape without entries, or with too many.
    #[error("the shape {shape:?} is empty, or too large")]
    Size {
        /// Shape of the parameter.
        shape: Vec<usize>,
    },
    /// No expected values and no properties.
    #[error("there must be either `expected` or `properties`")]
    NothingExpected,
    /// Properties of parts of different sizes.
    #[error("`properties` are those of a stack, but `blocks` has parts of different sizes")]
    UnequalParts,
    /// No steps.
    #[error("there must be at least one gradient")]
    NoGradients,
    /// Not one array per gradient.
    #[error("`{key}` has {found} arrays, but there are {gradients} gradients")]
    Steps {
        /// The key.
        key: &'static str,
        /// How many arrays it has.
        found: usize,
        /// How many gradients there are.
        gradients: usize,
    },
    /// An array of another size than the parameter.
    #[error("{place}: {found} entries, but the shape has {expected}")]
    Entries {
        /// Key and step.
        place: String,
        /// How many entries the array has.
        found: usize,
        /// How many the shape has.
        expected: usize,
    },
}

impl VectorFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// If it is not JSON of this format and version, or configures an optimizer that does not exist.
    pub fn parse(text: &str) -> Result<Self, VectorError> {
        let file: Self = serde_json::from_str(text)?;
        if (file.format.as_str(), file.version) != ("optimizer-vectors", 1) {
            return Err(VectorError::Version { format: file.format, version: file.version });
        }
        Ok(file)
    }
}

impl VectorCase {
    /// Runs the case in f32 or f64 on a device.
    ///
    /// # Errors
    /// If the optimizer cannot be built, or shapes and arrays do not fit.
    pub fn run(&self, device: &Device, dtype: DType) -> Result<CaseReport, VectorError> {
        let fault = |source: CaseFault| VectorError::Case { case: self.name.clone(), source };
        self.check().map_err(fault)?;
        let placement = Placement { blocks: self.blocks, ..Placement::new(self.layout) };
        let misfit = |source: ConfigError| VectorError::Config { case: self.name.clone(), source };
        let optimizer = self.optimizer.build(placement).map_err(misfit)?;
        let misfit = |source| VectorError::Layout { case: self.name.clone(), source };
        optimizer.check(&self.parameter.shape).map_err(misfit)?;
        Ok(match *self.parameter.shape.as_slice() {
            [a] => self.run_rank(&optimizer, [a], device, dtype),
            [a, b] => self.run_rank(&optimizer, [a, b], device, dtype),
            [e, a, b] => self.run_rank(&optimizer, [e, a, b], device, dtype),
            _ => return Err(fault(CaseFault::Rank { shape: self.parameter.shape.clone() })),
        })
    }

    fn run_rank<const D: usize>(
        &self,
        optimizer: &Pipeline,
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
        optimizer: &Pipeline,
        shape: [usize; D],
        device: &Device,
        dtype: DType,
    ) -> Vec<Tensor<D>> {
        let tensor = |values: &[f64]| {
            let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
            Tensor::<D>::from_data(data, (device, dtype))
        };
        let mut parameter = tensor(&self.parameter.data);
        let mut state = None;
        let mut weights = vec![parameter.clone()];
        for gradient in &self.gradients {
            (parameter, state) = optimizer.step(self.lr, parameter, tensor(gradient), state);
            weights.push(parameter.clone());
        }
        weights
    }

    fn check(&self) -> Result<(), CaseFault> {
        let shape = &self.parameter.shape;
        let count = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size)).filter(|count| *count > 0);
        let count = count.ok_or_else(|| CaseFault::Size { shape: shape.clone() })?;
        if self.gradients.is_empty() {
            return Err(CaseFault::NoGradients);
        }
        if self.expected.is_none() && self.properties.is_none() {
            return Err(CaseFault::NothingExpected);
        }
        check_entries("`parameter`", &self.parameter.data, count)?;
        self.check_steps("gradients", &self.gradients, count)?;
        if let Some(expected) = &self.expected {
            self.check_steps("expected", expected, count)?;
        }
        if self.properties.is_some() && self.blocks.is_some_and(|blocks| blocks.are_unequal()) {
            return Err(CaseFault::UnequalParts);
        }
        if let Some(properties) = &self.properties {
            self.check_steps("properties.momentum", &properties.momentum, count)?;
        }
        Ok(())
    }

    fn check_steps(&self, key: &'static str, steps: &[Vec<f64>], count: usize) -> Result<(), CaseFault> {
        if steps.len() != self.gradients.len() {
            return Err(CaseFault::Steps { key, found: steps.len(), gradients: self.gradients.len() });
        }
        let mut numbered = steps.iter().zip(1..);
        numbered.try_for_each(|(array, step)| check_entries(&format!("`{key}`, step {step}"), array, count))
    }
}

fn check_entries(place: &str, array: &[f64], expected: usize) -> Result<(), CaseFault> {
    if array.len() == expected {
        return Ok(());
    }
    Err(CaseFault::Entries { place: place.to_owned(), found: array.len(), expected })
}
