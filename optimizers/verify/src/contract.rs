//! The promises of every optimizer, as a check for any of them: of this project, Burn's own, or yours.
//!
//! ```
//! use burn::tensor::Device;
//! use polaron::{matrix::Matrix, rule::{Direction, Pipeline}};
//! use polaron_verify::contract;
//!
//! /// The sign of every entry.
//! #[derive(Clone, Debug)]
//! struct Sign;
//!
//! impl Direction for Sign {
//!     fn direction(&self, momentum: Matrix) -> Matrix {
//!         momentum.map(|m| m.sign())
//!     }
//! }
//!
//! contract::check(&Pipeline::new(Sign), &Device::flex())?;
//! # Ok::<(), contract::Broken>(())
//! ```
//!
//! The promises, on a matrix and on a stack of matrices, in f32, and in f64 if the device has it:
//!
//! | promise | why |
//! |---|---|
//! | the same inputs give the same bytes | runs can be repeated |
//! | gradients are unchanged | other code reads them |
//! | a zero gradient gives a finite step that at most shrinks the weights | dead layers |
//! | gradients of size 1e-12 and 1e12 and of rank one give finite weights | spikes, vanishing gradients |
//! | a state survives its record byte for byte | checkpoints |
//! | resuming from a record equals continuing | checkpoints |
//! | `ModuleOptimizer` and `LayerwiseOptimizer` give the same bytes as the bare step | both forms of an optimizer |
//! | accumulated micro-batches equal one batch | gradient accumulation |
//!
//! A configuration also promises to round-trip through JSON and TOML, to refuse unknown keys and to
//! describe itself: [`check_config`].

use burn::module::{Module, Param};
use burn::optim::{
    GradientsAccumulator, GradientsParams, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::OptimizerConfig;
use polaron::layerwise::{AnyOptimizer, Layerwise, LayerwiseError, Rule};
use polaron::matrix::Placement;
use polaron_common::splitmix64;
use thiserror::Error;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub promise: &'static str,
    /// Where and how it was broken.
    pub detail: String,
}

/// The promises that an optimizer did not keep.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", self.lines())]
#[non_exhaustive]
pub struct Broken {
    /// At least one.
    pub violations: Vec<Violation>,
}

impl Broken {
    fn unless_empty(violations: Vec<Violation>) -> Result<(), Self> {
        if violations.is_empty() { Ok(()) } else { Err(Self { violations }) }
    }

    fn lines(&self) -> String {
        let lines = self.violations.iter().map(|violation| format!("\n  {}: {}", violation.promise, violation.detail));
        format!("{} promises are broken:{}", self.violations.len(), lines.collect::<String>())
    }
}

/// Checks every promise listed in the module's documentation.
///
/// # Errors
/// All promises that are broken, and where.
pub fn check<O: Optimizer>(optimizer: &O, device: &Device) -> Result<(), Broken> {
    let mut checker = Checker { optimizer, device, dtype: DType::F32, broken: Vec::new() };
    for dtype in [DType::F32, DType::F64] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        checker.dtype = dtype;
        checker.check_rank([6, 10]);
        checker.check_rank([10, 6]);
        checker.check_rank([3, 5, 4]);
        checker.check_modules();
    }
    Broken::unless_empty(checker.broken)
}

/// [`check`] for the optimizer of a configuration, and the promises of the configuration itself.
///
/// # Errors
/// All promises that are broken, and where.
pub fn check_config(config: &OptimizerConfig, device: &Device) -> Result<(), Broken> {
    let mut broken = check_words(config);
    match config.build(Placement::default()) {
        Ok(optimizer) => {
            if let Err(more) = check(&optimizer, device) {
                broken.extend(more.violations);
            }
        }
        Err(error) => broken.push(Violation { promise: "the configuration is valid", detail: error.to_string() }),
    }
    Broken::unless_empty(broken)
}

fn check_words(config: &OptimizerConfig) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut want = |kept: bool, promise: &'static str, detail: &str| {
        if !kept {
            broken.push(Violation { promise, detail: format!("{}: {detail}", config.kind()) });
        }
    };
    let about = config.describe();
    let words = [about.kind, about.source, &about.formula, &about.state(), &about.cost.to_string()];
    want(words.iter().all(|text| !text.is_empty()), "it describes itself", "an empty description");
    let json = serde_json::to_string(config).ok().and_then(|text| serde_json::from_str(&text).ok());
    want(json.as_ref() == Some(config), "it round-trips through JSON", "another configuration came back");
    let toml = toml::to_string(config).ok().and_then(|text| toml::from_str(&text).ok());
    want(toml.as_ref() == Some(config), "it round-trips through TOML", "another configuration came back");
    let unknown = serde_json::Map::from_iter([("no_such_key".to_string(), true.into())]);
    want(config.merge(&unknown).is_err(), "it refuses unknown keys", "\"no_such_key\" was accepted");
    broken
}

/// A module with one parameter of each form that a matrix rule can update.
#[derive(Module, Debug)]
struct Layers {
    matrix: Param<Tensor<2>>,
    stack: Param<Tensor<3>>,
}

impl Layers {
    fn bytes(self) -> [Vec<u8>; 2] {
        [bytes(self.matrix.val()), bytes(self.stack.val())]
    }
}

struct Checker<'a, O: Optimizer> {
    optimizer: &'a O,
    device: &'a Device,
    dtype: DType,
    broken: Vec<Violation>,
}

const LR: f64 = 0.125;

impl<O: Optimizer> Checker<'_, O> {
    fn want(&mut self, kept: bool, promise: &'static str, detail: impl FnOnce() -> String) {
        if !kept {
            let dtype = self.dtype;
            self.broken.push(Violation { promise, detail: format!("{} ({dtype:?})", detail()) });
        }
    }

    /// Numbers in [-1, 1] that are multiples of 1/64: sums of a few are exact in f32.
    fn numbers<const D: usize>(&self, shape: [usize; D], seed: u64) -> Tensor<D> {
        let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64)
            .map(|i| (splitmix64(seed << 32 | i) % 129) as f64 / 64.0 - 1.0)
            .collect();
        let data = TensorData::new(values, shape).convert_dtype(self.dtype);
        Tensor::from_data(data, (self.device, self.dtype))
    }

    /// Weights and state after steps with the gradients of `seeds`.
    fn walk<const D: usize>(
        &self,
        weights: Tensor<D>,
        state: Option<O::State<D>>,
        seeds: std::ops::Range<u64>,
    ) -> (Tensor<D>, Option<O::State<D>>) {
        seeds.fold((weights, state), |(weights, state), seed| {
            let gradient = self.numbers(weights.dims(), seed);
            self.optimizer.step(LR, weights, gradient, state)
        })
    }

    fn check_rank<const D: usize>(&mut self, shape: [usize; D]) {
        self.check_repeatable(shape);
        self.check_zero(shape);
        self.check_extremes(shape);
        self.check_record(shape);
    }

    fn check_repeatable<const D: usize>(&mut self, shape: [usize; D]) {
        let run = || self.walk(self.numbers(shape, 0), None, 1..4).0;
        let same = bytes(run()) == bytes(run());
        self.want(same, "the same inputs give the same bytes", || format!("shape {shape:?}"));
        let gradient = self.numbers(shape, 1);
        let before = bytes(gradient.clone());
        let _ = self.optimizer.step(LR, self.numbers(shape, 0), gradient.clone(), None);
        let kept = bytes(gradient) == before;
        self.want(kept, "gradients are unchanged", || format!("shape {shape:?}"));
    }

    fn check_zero<const D: usize>(&mut self, shape: [usize; D]) {
        let weights = self.numbers(shape, 0);
        let (after, _) = self.optimizer.step(LR, weights.clone(), weights.zeros_like(), None);
        let (before, after) = (values(weights), values(after));
        let shrink = before.iter().zip(&after).find(|(w, _)| **w != 0.0).map_or(1.0, |(w, after)| after / w);
        let rounding = if self.dtype == DType::F64 { 1e-14 } else { 1e-6 };
        let kept = (0.0..=1.0 + rounding).contains(&shrink)
            && before.iter().zip(&after).all(|(w, after)| (after - w * shrink).abs() <= rounding);
        let promise = "a zero gradient gives a finite step that at most shrinks the weights";
        self.want(kept, promise, || format!("shape {shape:?}"));
    }

    fn check_extremes<const D: usize>(&mut self, shape: [usize; D]) {
        let plain = self.numbers(shape, 1);
        let rank_one = plain.clone().narrow(D - 1, 0, 1).repeat_dim(D - 1, shape[D - 1]);
        for size in [1e-12, 1e12] {
            for (name, gradient) in [("full rank", &plain), ("rank one", &rank_one)] {
                let gradient = gradient.clone() * size;
                let (after, state) = self.optimizer.step(LR, self.numbers(shape, 0), gradient.clone(), None);
                let (after, _) = self.optimizer.step(LR, after, gradient, state);
                let finite = values(after).iter().all(|w| w.is_finite());
                let promise = "gradients of size 1e-12 and 1e12 and of rank one give finite weights";
                self.want(finite, promise, || format!("shape {shape:?}, {name}, size {size:e}"));
            }
        }
    }

    fn check_record<const D: usize>(&mut self, shape: [usize; D]) {
        let (weights, state) = self.walk(self.numbers(shape, 0), None, 1..4);
        let Some(state) = state else { return };
        let written = flatten(&state);
        let restored = unflatten::<O, D>(flatten(&state), self.device);
        let survives = "a state survives its record byte for byte";
        let Some(restored) = restored else {
            return self.want(false, survives, || format!("shape {shape:?}: it cannot be read back"));
        };
        let same = describe(&flatten(&restored)) == describe(&written);
        self.want(same, survives, || format!("shape {shape:?}"));
        if !same {
            // A state of another dtype would panic in the next step.
            return;
        }
        let straight = self.walk(weights.clone(), Some(state), 4..7).0;
        let resumed = self.walk(weights, Some(restored), 4..7).0;
        let same = bytes(straight) == bytes(resumed);
        self.want(same, "resuming from a record equals continuing", || format!("shape {shape:?}"));
    }

    fn check_modules(&mut self) {
        let bare = [
            bytes(self.walk(self.numbers([6, 10], 0), None, 1..4).0),
            bytes(self.walk(self.numbers([3, 5, 4], 0), None, 1..4).0),
        ];
        let same = self.by_module_optimizer(false) == bare;
        self.want(same, "ModuleOptimizer gives the same bytes as the bare step", || "three steps".into());
        let same = self.by_module_optimizer(true) == bare;
        self.want(same, "accumulated micro-batches equal one batch", || "four parts, three steps".into());
        match self.by_layerwise() {
            Ok(layerwise) => {
                let same = layerwise == bare;
                self.want(same, "LayerwiseOptimizer gives the same bytes as the bare step", || "three steps".into());
            }
            Err(error) => self.want(false, "LayerwiseOptimizer accepts it", || error.to_string()),
        }
    }

    fn layers(&self) -> Layers {
        // In training, parameters of a module are on the autodiff device, and their gradients are not.
        Layers {
            matrix: Param::from_tensor(Tensor::from_inner(self.numbers([6, 10], 0))),
            stack: Param::from_tensor(Tensor::from_inner(self.numbers([3, 5, 4], 0))),
        }
    }

    /// Three steps of Burn's optimizer, with whole gradients or with the sum of four parts.
    fn by_module_optimizer(&self, in_parts: bool) -> [Vec<u8>; 2] {
        let mut optimizer = ModuleOptimizer::from(self.optimizer.clone());
        let module = (1..4).fold(self.layers(), |module, seed| {
            let grads = if in_parts { self.accumulated(&module, seed) } else { self.gradients(&module, seed) };
            optimizer.step(LR, module, grads)
        });
        module.bytes()
    }

    fn accumulated(&self, module: &Layers, seed: u64) -> GradientsParams {
        let mut accumulator = GradientsAccumulator::new();
        for part in 0..4 {
            accumulator.accumulate(module, self.part_of_gradients(module, seed, part));
        }
        accumulator.grads()
    }

    fn by_layerwise(&self) -> Result<[Vec<u8>; 2], LayerwiseError> {
        let rule = Rule::path("/.*/", AnyOptimizer::new(self.optimizer.clone()))?;
        let mut layerwise = Layerwise::new().lr(LR).rule(rule).build(&self.layers())?;
        let module = (1..4).fold(self.layers(), |module, seed| {
            let grads = self.gradients(&module, seed);
            layerwise.step(1.0, module, grads)
        });
        Ok(module.bytes())
    }

    fn gradients(&self, module: &Layers, seed: u64) -> GradientsParams {
        let mut grads = GradientsParams::new();
        grads.register(module.matrix.id, self.numbers([6, 10], seed));
        grads.register(module.stack.id, self.numbers([3, 5, 4], seed));
        grads
    }

    /// Four parts that add up to [`Checker::gradients`], exactly.
    fn part_of_gradients(&self, module: &Layers, seed: u64, part: u64) -> GradientsParams {
        let mut grads = GradientsParams::new();
        grads.register(module.matrix.id, self.part([6, 10], seed, part));
        grads.register(module.stack.id, self.part([3, 5, 4], seed, part));
        grads
    }

    fn part<const D: usize>(&self, shape: [usize; D], seed: u64, part: u64) -> Tensor<D> {
        let noise = |part: u64| self.numbers(shape, 1000 + 4 * seed + part);
        match part {
            3 => self.numbers(shape, seed) - noise(0) - noise(1) - noise(2),
            part => noise(part),
        }
    }
}

fn bytes<const D: usize>(tensor: Tensor<D>) -> Vec<u8> {
    tensor.into_data().as_bytes().to_vec()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert_dtype(DType::F64).iter::<f64>().collect()
}

fn flatten(state: &impl RecordState) -> StateSink {
    let mut sink = StateSink::default();
    state.state_flatten("p", &mut sink);
    sink
}

fn unflatten<O: Optimizer, const D: usize>(sink: StateSink, device: &Device) -> Option<O::State<D>> {
    let mut source = StateSource::new(sink.scalars.into_iter().collect());
    sink.tensors.into_iter().for_each(|(name, data)| source.insert_tensor(name, data));
    RecordState::state_unflatten("p", &mut source, device)
}

/// Everything in a record, in a form that can be compared.
fn describe(sink: &StateSink) -> Vec<String> {
    let tensors = sink.tensors.iter().map(|(name, data)| format!("{name} {:?} {:?}", data.dtype(), data.as_bytes()));
    let scalars = sink.scalars.iter().map(|(name, value)| format!("{name} {value:?}"));
    tensors.chain(scalars).collect()
}
