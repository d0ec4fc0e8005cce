//! Rotary positions: queries and keys turned by angles that grow with the position.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use crate::{ModelConfig, PositionKind, fused};

/// The angles of one base, on the host; made once per model.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    head_dim: usize,
    /// `[context, head_dim / 2]` each.
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

/// The angles of a model's layers; none with learned positions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rotaries {
    full: Option<Rotary>,
    /// Where their base is another.
    sliding: Option<Rotary>,
}

impl Rotaries {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        if config.position != PositionKind::Rotary {
            return Self::default();
        }
        let angles = |base| Rotary::new(base, config.head_dim(), config.context);
        let (full, sliding) = (config.rope_base, config.rope_base_sliding);
        let differ = config.full_every > 1 && sliding > 0.0 && sliding != full;
        Self { full: Some(angles(full)), sliding: differ.then(|| angles(sliding)) }
    }

    /// Those of a layer, by whether it has a sliding window.
    pub(crate) fn of_layer(&self, slides: bool) -> Option<&Rotary> {
        self.sliding.as_ref().filter(|_| slides).or(self.full.as_ref())
    }
}

impl Rotary {
    fn new(base: f64, head_dim: usize, context: usize) -> Self {
        let frequency = |pair: usize| base.powf(-2.0 * pair as f64 / head_dim as f64);
        let frequencies: Vec<f64> = (0..head_dim / 2).map(frequency).collect();
        let table = |function: fn(f64) -> f64| -> Arc<[f32]> {
            let row = |position: usize| frequencies.iter().map(move |f| function(position as f64 * f) as f32);
            (0..context).flat_map(row).collect()
        };
        Self { head_dim, cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Turns every head of `x`, `[batch · context, heads · head_dim]`, whose windows begin at position `start`: feature i
    /// of the head's first half with feature i of its second half.
    pub(crate) fn turn(&self, x: Tensor<2>, start: usize, context: usize) -> Tensor<2> {
        let from = |table: &Arc<[f32]>| match start {
            0 => table.clone(),
            _ => table.iter().skip(start * self.head_dim / 2).take(context * self.head_dim / 2).copied().collect(),
        };
        let (cos, sin) = (from(&self.cos), from(&self.sin));
        fused::rotary(x, &cos, &sin, context, self.head_dim)
            .unwrap_or_else(|x| turn_plainly(x, &cos, &sin, context, self.head_dim))
    }
}

/// The same in Burn's operations: `x · cos + (-second halves, first halves) · sin`.
fn turn_plainly(x: Tensor<2>, cos: &[f32], sin: &[f32], context: usize, head_dim: usize) -> Tensor<2> {
    let [tokens, width] = x.dims();
    let (device, dtype, half) = (x.device(), x.dtype(), head_dim / 2);
    let table = |values: &[f32]| {
        // Both halves of every head turn by the same angles.
        let rows = values.chunks(half).take(context).flat_map(|row| row.repeat(2 * width / head_dim));
        let values = TensorData::new(rows.collect::<Vec<f32>>(), [1, context * width]);
        Tensor::<2>::from_data(values, (&device, dtype))
    };
    let (heads, windows) = ([tokens * width / head_dim, head_dim], [tokens / context, context * width]);
    let x = x.reshape(heads);
    let halves = vec![x.clone().narrow(1, half, half).neg(), x.clone().narrow(1, 0, half)];
    let exchanged = Tensor::cat(halves, 1);
    let turned = x.reshape(windows) * table(cos) + exchanged.reshape(windows) * table(sin);
    turned.reshape([tokens, width])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_turn_rotates_each_pair_by_its_angle() {
        for (base, start) in [(10_000.0, 0), (500.0, 2)] {
            let rotary = Rotary::new(base, 4, 5);
            let x: Vec<f32> = (0..48).map(|i| i as f32 * 0.05 - 1.0).collect();
            let tensor = Tensor::from_data(TensorData::new(x.clone(), [6, 8]), &Device::flex());
            let plainly = turn_plainly(tensor.clone(), &rotary.cos[start * 2..], &rotary.sin[start * 2..], 3, 4);
            for turned in [rotary.turn(tensor.clone(), start, 3), plainly] {
                let turned: Vec<f32> = turned.into_data().try_to_vec().unwrap();
                for at in (0..48).filter(|at| at % 4 < 2) {
                    let position = (start + at / 8 % 3) as f64;
                    let angle = position * f64::powf(base, -2.0 * (at % 4) as f64 / 4.0);
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

    #[test]
    fn sliding_layers_turn_by_a_base_of_their_own() {
        let mut config = ModelConfig::preset("gemma3-tiny").unwrap();
        let rotaries = Rotaries::new(&config);
        let angle = |slides| rotaries.of_layer(slides).unwrap().cos[config.head_dim() / 2 + 1];
        assert_ne!(angle(true), angle(false));
        config.rope_base_sliding = 0.0;
        let rotaries = Rotaries::new(&config);
        assert_eq!(rotaries.of_layer(true).unwrap().cos, rotaries.of_layer(false).unwrap().cos);
    }
}
