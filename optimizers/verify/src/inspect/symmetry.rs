//! Equivariance audit: does the update of a transformed gradient equal the transformed update?
//!
//! A rule is *compatible* with a parameter if its updates commute with the symmetries of the network
//! at that parameter: rotations of a hidden space, permutations of tokens, neurons or experts, and for
//! heads and routers the shift of all units by one vector, to which softmax is invariant (arXiv 2605.18106).
//! The audit measures this on whole trajectories: six random gradients, a tall and a wide matrix, in f64
//! if the device has it.

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::matrix::{Layout, Placement, polar_svd};
use polaron::rule::Pipeline;
use polaron::{ConfigError, OptimizerConfig};
use polaron_common::splitmix64;

/// Largest relative errors over both shapes; about 1e-15 where the rule has the symmetry, 0.01 to 2 where it does not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Symmetry {
    /// Rotation of the output units.
    pub rotate_outputs: f64,
    /// Permutation of the output units.
    pub permute_outputs: f64,
    /// Rotation of the input units.
    pub rotate_inputs: f64,
    /// Permutation of the input units.
    pub permute_inputs: f64,
    /// Change of the update when one vector is added to every output unit of the gradient.
    pub shift: f64,
    /// Sum of the update over output units, if that of the gradient is zero.
    pub zero_sum: f64,
    /// Power with which the update grows with the gradient: 0 for a rule that ignores its size, 1 for a linear one.
    pub degree: f64,
}

impl Symmetry {
    /// The six errors in the order of the fields.
    pub fn errors(&self) -> [f64; 6] {
        [self.rotate_outputs, self.permute_outputs, self.rotate_inputs, self.permute_inputs, self.shift, self.zero_sum]
    }

    /// The larger of each error; the degree of `self`.
    fn worse(&self, other: &Self) -> Self {
        Self {
            rotate_outputs: self.rotate_outputs.max(other.rotate_outputs),
            permute_outputs: self.permute_outputs.max(other.permute_outputs),
            rotate_inputs: self.rotate_inputs.max(other.rotate_inputs),
            permute_inputs: self.permute_inputs.max(other.permute_inputs),
            shift: self.shift.max(other.shift),
            zero_sum: self.zero_sum.max(other.zero_sum),
            degree: self.degree,
        }
    }
}

/// The shapes of the audit, outputs by inputs: a tall matrix and a wide one.
const SHAPES: [[usize; 2]; 2] = [[24, 10], [6, 20]];
const STEPS: u64 = 6;

/// Measures the symmetries of the optimizer of a configuration.
///
/// # Errors
/// If the configuration is not valid.
pub fn symmetry(config: &OptimizerConfig, device: &Device) -> Result<Symmetry, ConfigError> {
    let optimizer = config.build(Placement::new(Layout::OutIn))?;
    let dtype = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
    let audits = SHAPES.map(|shape| Audit { optimizer: &optimizer, device, dtype, shape }.measure());
    let [tall, wide] = audits;
    Ok(tall.worse(&wide))
}

struct Audit<'a> {
    optimizer: &'a Pipeline,
    device: &'a Device,
    dtype: DType,
    shape: [usize; 2],
}

impl Audit<'_> {
    fn measure(&self) -> Symmetry {
        let [outputs, inputs] = self.shape;
        let plain = self.walk(|g, _| g);
        let left = |q: Tensor<2>| {
            let moved = self.walk(|g, _| q.clone().matmul(g));
            distance(q.matmul(plain.clone()), moved)
        };
        let right = |q: Tensor<2>| {
            let moved = self.walk(|g, _| g.matmul(q.clone()));
            distance(plain.clone().matmul(q), moved)
        };
        let shifted = self.walk(|g, step| g + self.random([1, inputs], 100 + step));
        let centered = self.walk(|g, _| g.clone() - g.mean_dim(0));
        let sum = norm(centered.clone().sum_dim(0)) / (norm(centered) * (outputs as f64).sqrt());
        let factor = 4.0_f64;
        let grown = norm(self.walk(|g, _| g * factor));
        Symmetry {
            rotate_outputs: left(self.rotation(outputs, 1)),
            permute_outputs: left(self.permutation(outputs)),
            rotate_inputs: right(self.rotation(inputs, 2)),
            permute_inputs: right(self.permutation(inputs)),
            shift: distance(plain.clone(), shifted),
            zero_sum: sum,
            degree: (grown / norm(plain.clone())).ln() / factor.ln(),
        }
    }

    /// The weights, from zero, after steps with changed gradients.
    fn walk(&self, change: impl Fn(Tensor<2>, u64) -> Tensor<2>) -> Tensor<2> {
        let mut weights = Tensor::<2>::zeros(self.shape, (self.device, self.dtype));
        let mut state = None;
        for step in 1..=STEPS {
            let gradient = change(self.random(self.shape, 10 + step), step);
            (weights, state) = self.optimizer.step(0.1, weights, gradient, state);
        }
        weights
    }

    /// Uniform numbers in [-1, 1).
    fn random(&self, shape: [usize; 2], seed: u64) -> Tensor<2> {
        let values: Vec<f64> = (0..(shape[0] * shape[1]) as u64)
            .map(|i| (splitmix64(seed << 32 | i) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
            .collect();
        let data = TensorData::new(values, shape).convert_dtype(self.dtype);
        Tensor::from_data(data, (self.device, self.dtype))
    }

    fn rotation(&self, size: usize, seed: u64) -> Tensor<2> {
        polar_svd(self.random([size, size], seed).unsqueeze(), 0.0).squeeze_dim(0)
    }

    /// Shifts every unit by seven places, cyclically.
    fn permutation(&self, size: usize) -> Tensor<2> {
        let values: Vec<f64> =
            (0..size * size).map(|k| f64::from(u8::from((k / size + 7) % size == k % size))).collect();
        let data = TensorData::new(values, [size, size]).convert_dtype(self.dtype);
        Tensor::from_data(data, (self.device, self.dtype))
    }
}

fn norm(x: Tensor<2>) -> f64 {
    x.square().sum().into_scalar::<f64>().sqrt()
}

/// `‖x - y‖ / ‖x‖`
fn distance(x: Tensor<2>, y: Tensor<2>) -> f64 {
    norm(x.clone() - y) / norm(x)
}
