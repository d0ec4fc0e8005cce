//! Initial weights, equal on every backend, which other programs can draw too.
//!
//! The rule is on the crate's front page; the numbers are computed on the host, never by a device's generator.

use std::f64::consts::TAU;

use burn::module::Param;
use burn::nn::Embedding;
use burn::tensor::{Device, Tensor, TensorData};
use polaron_common::splitmix64;

use crate::settings::model::ModelConfig;

/// Standard deviation of initial weights.
pub(crate) const STD: f64 = 0.02;

/// Standard deviations of the initial weights inside the blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deviations {
    /// Matrices inside the blocks.
    pub hidden: f64,
    /// Those of them whose output is added to the residual stream.
    pub residual: f64,
    /// Routers.
    pub router: f64,
}

impl Deviations {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let hidden = STD / config.width_ratio().sqrt();
        // Two additions to the residual stream per block: its variance stays near that of one block.
        Self { hidden, residual: hidden / (2.0 * config.layers as f64).sqrt(), router: STD / config.width_ratio() }
    }
}

/// 2^-53: the spacing of the uniform numbers.
const STEP: f64 = 1.0 / 9_007_199_254_740_992.0;

/// Makes the parameters below a path, from one seed, on one device.
#[derive(Clone, Debug)]
pub(crate) struct Initializer<'a> {
    /// None for an outline: parameters whose elements are all one zero in memory.
    seed: Option<u64>,
    path: String,
    device: &'a Device,
}

impl<'a> Initializer<'a> {
    pub(crate) fn new(seed: u64, device: &'a Device) -> Self {
        Self { seed: Some(seed), path: String::new(), device }
    }

    /// Makes parameters that have a shape, but no values.
    pub(crate) fn outline(device: &'a Device) -> Self {
        Self { seed: None, path: String::new(), device }
    }

    /// The same for the parameters below `name`.
    pub(crate) fn enter(&self, name: impl std::fmt::Display) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_string(),
            path => format!("{path}.{name}"),
        };
        Self { path, ..self.clone() }
    }

    /// An embedding table, `[entries, d_model]`.
    pub(crate) fn embedding(&self, name: &str, entries: usize, d_model: usize, std: f64) -> Embedding {
        Embedding { weight: self.enter(name).normal([entries, d_model], std) }
    }

    /// The weight below this path, normal with standard deviation `std`.
    pub(crate) fn normal<const D: usize>(&self, shape: [usize; D], std: f64) -> Param<Tensor<D>> {
        self.enter("weight").drawn(shape, std)
    }

    /// The parameter at this path, normal with standard deviation `std`.
    pub(crate) fn drawn<const D: usize>(&self, shape: [usize; D], std: f64) -> Param<Tensor<D>> {
        let Some(seed) = self.seed else { return self.of_one_zero(shape) };
        let values = normal_values(seed, &self.path, shape.iter().product(), std);
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// A parameter whose elements all are `value`.
    pub(crate) fn constant<const D: usize>(&self, value: f32, shape: [usize; D]) -> Param<Tensor<D>> {
        if self.seed.is_none() {
            return self.of_one_zero(shape);
        }
        let values = TensorData::new(vec![value; shape.iter().product()], shape);
        Param::from_tensor(Tensor::from_data(values, self.device))
    }

    fn of_one_zero<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::<D>::zeros([1; D], self.device).expand(shape))
    }
}

/// `count` normal numbers of standard deviation `std` for the parameter at `path`.
fn normal_values(seed: u64, path: &str, count: usize, std: f64) -> Vec<f32> {
    let key = path.bytes().fold(splitmix64(seed), |key, byte| splitmix64(key ^ u64::from(byte)));
    let pairs = (0..count.div_ceil(2) as u64).flat_map(|pair| {
        let at = |offset: u64| splitmix64(key.wrapping_add(2 * pair + offset)) >> 11;
        let (u, v) = ((at(0) + 1) as f64 * STEP, at(1) as f64 * STEP);
        let radius = std * (-2.0 * u.ln()).sqrt();
        let (sin, cos) = (TAU * v).sin_cos();
        [(radius * cos) as f32, (radius * sin) as f32]
    });
    pairs.take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The numbers come from this Python (`sm` is SplitMix64 on integers cut to 64 bits, M the
    // mask):
    //   def normal(seed, path, n, std):
    //       k = sm(seed)
    //       for b in path.encode(): k = sm(k ^ b)
    //       out = []
    //       for p in range((n + 1) // 2):
    //           u = ((sm((k + 2 * p) & M) >> 11) + 1) / 2**53
    //           v = (sm((k + 2 * p + 1) & M) >> 11) / 2**53
    //           r = std * math.sqrt(-2 * math.log(u))
    //           out += [r * math.cos(2 * math.pi * v), r * math.sin(2 * math.pi * v)]
    //       return out[:n]
    #[test]
    fn another_program_draws_the_same_numbers() {
        let expected: [f64; 4] =
            [-0.0028720325648294892, 0.015927486571566275, -0.00164484733821143, 0.04637867926016085];
        let values = normal_values(1337, "blocks.0.attn.wq.weight", 4, 0.02);
        for (value, expected) in values.iter().zip(expected) {
            // One rounding to 32 bits: half a unit in the last place, 2^-24 of the value.
            let tolerance = expected.abs() * 2f64.powi(-23);
            assert!((f64::from(*value) - expected).abs() <= tolerance, "{value} {expected}");
        }
    }

    #[test]
    fn the_numbers_have_the_promised_mean_and_deviation() {
        let count = 100_000;
        let values = normal_values(1, "w.weight", count, 0.02);
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64;
        let variance = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count as f64;
        // Four standard errors: 0.02 / sqrt(count) for the mean, std / sqrt(2 count) for the std.
        assert!(mean.abs() < 4.0 * 0.02 / (count as f64).sqrt(), "{mean}");
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 4.0 / (2.0 * count as f64).sqrt(), "{variance}");
    }

    #[test]
    fn another_path_or_seed_gives_other_numbers() {
        let values = |seed, path| normal_values(seed, path, 4, 1.0);
        assert_eq!(values(1, "a"), values(1, "a"));
        assert_ne!(values(1, "a"), values(1, "b"));
        assert_ne!(values(1, "a"), values(2, "a"));
    }

    #[test]
    fn an_odd_count_is_a_prefix_of_the_next_even_one() {
        assert_eq!(normal_values(3, "x", 5, 1.0), normal_values(3, "x", 6, 1.0)[..5]);
    }
}
