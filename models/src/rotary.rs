//! Rotary positions: queries and keys turned by angles that grow with the position.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use crate::{ModelConfig, PositionKind, fused};

/// Base of the rotary angles: pair i of a head of dimension h turns by `ROTARY_BASE^(-2i / h)` per position.
pub const ROTARY_BASE: f64 = 10_000.0;

/// The angles of one configuration, on the host; made once per model.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    heads: usize,
    head_dim: usize,
    /// `[context, head_dim / 2]` each.
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl Rotary {
    /// Angles for `config`; none with learned positions.
    pub(crate) fn new(config: &ModelConfig) -> Option<Self> {
        if config.position != PositionKind::Rotary {
            return None;
        }
        let head_dim = config.head_dim();
        let frequency = |pair: usize| ROTARY_BASE.powf(-2.0 * pair as f64 / head_dim as f64);
        let frequencies: Vec<f64> = (0..head_dim / 2).map(frequency).collect();
        let table = |function: fn(f64) -> f64| -> Arc<[f32]> {
            let row = |position: usize| frequencies.iter().map(move |f| function(position as f64 * f) as f32);
            (0..config.context).flat_map(row).collect()
        };
        Some(Self { heads: config.heads, head_dim, cos: table(f64::cos), sin: table(f64::sin) })
    }

    /// Turns every head of `x`, `[batch · context, d_model]`: feature i of the head's first half with feature i of its
    /// second half.
    pub(crate) fn turn(&self, x: Tensor<2>, context: usize) -> Tensor<2> {
        fused::rotary(x, &self.cos, &self.sin, context, self.head_dim).unwrap_or_else(|x| self.turn_plainly(x, context))
    }

    /// The same in Burn's operations: `x · cos + (-second halves, first halves) · sin`.
    fn turn_plainly(&self, x: Tensor<2>, context: usize) -> Tensor<2> {
        let [tokens, d_model] = x.dims();
        let (device, dtype, half) = (x.device(), x.dtype(), self.head_dim / 2);
        let table = |values: &[f32]| {
            // Both halves of every head turn by the same angles.
            let rows = values.chunks(half).take(context).flat_map(|row| row.repeat(2 * self.heads));
            let values = TensorData::new(rows.collect::<Vec<f32>>(), [1, context * d_model]);
            Tensor::<2>::from_data(values, (&device, dtype))
        };
        let (heads, windows) = ([tokens * self.heads, self.head_dim], [tokens / context, context * d_model]);
        let x = x.reshape(heads);
        let halves = vec![x.clone().narrow(1, half, half).neg(), x.clone().narrow(1, 0, half)];
        let exchanged = Tensor::cat(halves, 1);
        let turned = x.reshape(windows) * table(&self.cos) + exchanged.reshape(windows) * table(&self.sin);
        turned.reshape([tokens, d_model])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_turn_rotates_each_pair_by_its_angle() {
        let mut config = ModelConfig::preset("llama-d64").unwrap();
        (config.d_model, config.heads, config.context) = (8, 2, 5);
        let rotary = Rotary::new(&config).unwrap();
        let x: Vec<f32> = (0..48).map(|i| i as f32 * 0.05 - 1.0).collect();
        let tensor = Tensor::from_data(TensorData::new(x.clone(), [6, 8]), &Device::flex());
        for turned in [rotary.turn(tensor.clone(), 3), rotary.turn_plainly(tensor, 3)] {
            let turned: Vec<f32> = turned.into_data().try_to_vec().unwrap();
            for at in (0..48).filter(|at| at % 4 < 2) {
                let angle = (at / 8 % 3) as f64 * 10_000f64.powf(-2.0 * (at % 4) as f64 / 4.0);
                let (a, b) = (f64::from(x[at]), f64::from(x[at + 2]));
                let expected = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
                for (found, expected) in [turned[at], turned[at + 2]].into_iter().zip(expected) {
                    // A handful of 32-bit roundings of numbers below two.
                    assert!((f64::from(found) - expected).abs() < 1e-6, "{at}: {found} {expected}");
                }
            }
        }
    }
}
