//! Rotary positions: queries and keys turned by angles that grow with the position.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{ModelConfig, PositionKind};

/// Base of the angles: pair i of a head of dimension h turns by `BASE^(-2i / h)` per position.
const BASE: f64 = 10_000.0;

/// The tables of one configuration, on the host; made once per model.
#[derive(Clone, Debug)]
pub(crate) struct RotaryTables {
    d_model: usize,
    head_dim: usize,
    /// `[context, d_model]` each, repeated for every head.
    query: Turn<Vec<f32>>,
    key: Turn<Vec<f32>>,
    /// `[head_dim, head_dim]`: exchanges the halves of a head and negates the new first one.
    exchange: Vec<f32>,
}

/// Factors of a vector and of the same vector with its halves exchanged.
#[derive(Clone, Debug)]
struct Turn<T> {
    cos: T,
    sin: T,
}

/// The tables on a device, cut to the tokens of one forward pass.
pub(crate) struct Rotary {
    query: Turn<Tensor<2>>,
    key: Turn<Tensor<2>>,
    exchange: Tensor<2>,
}

impl RotaryTables {
    /// Tables for `config`; none with learned positions.
    pub(crate) fn new(config: &ModelConfig) -> Option<Self> {
        if config.position != PositionKind::Rotary {
            return None;
        }
        let head_dim = config.head_dim();
        Some(Self {
            d_model: config.d_model,
            head_dim,
            // The scale of the scores costs nothing here.
            query: Turn::new(config, 1.0 / (head_dim as f64).sqrt()),
            key: Turn::new(config, 1.0),
            exchange: exchange(head_dim),
        })
    }

    /// The tables for the first `context` positions.
    pub(crate) fn on(&self, context: usize, device: &Device, dtype: DType) -> Rotary {
        let make = |values: &[f32], shape: [usize; 2]| {
            let values = values.iter().copied().take(shape[0] * shape[1]).collect::<Vec<f32>>();
            Tensor::from_data(TensorData::new(values, shape), (device, dtype))
        };
        let turn = |turn: &Turn<Vec<f32>>| {
            let shape = [1, context * self.d_model];
            Turn { cos: make(&turn.cos, shape), sin: make(&turn.sin, shape) }
        };
        Rotary {
            query: turn(&self.query),
            key: turn(&self.key),
            exchange: make(&self.exchange, [self.head_dim, self.head_dim]),
        }
    }
}

impl Turn<Vec<f32>> {
    fn new(config: &ModelConfig, scale: f64) -> Self {
        let (head_dim, half) = (config.head_dim(), config.head_dim() / 2);
        let frequencies: Vec<f64> = (0..half).map(|pair| BASE.powf(-2.0 * pair as f64 / head_dim as f64)).collect();
        let table = |function: fn(f64) -> f64| {
            let row = |position: usize| {
                let head = frequencies.iter().map(move |f| function(position as f64 * f) * scale);
                let head: Vec<f32> = head.map(|value| value as f32).collect();
                // Both halves of every head turn by the same angles.
                head.repeat(2 * config.heads)
            };
            (0..config.context).flat_map(row).collect()
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// `x · exchange` is `(-second half, first half)` of x.
fn exchange(head_dim: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let entry = |from: usize, to: usize| match (from, to) {
        _ if from == to + half => -1.0,
        _ if to == from + half => 1.0,
        _ => 0.0,
    };
    (0..head_dim).flat_map(|from| (0..head_dim).map(move |to| entry(from, to))).collect()
}

impl Rotary {
    /// Turns and scales queries, `[batch · context, d_model]`.
    pub(crate) fn query(&self, x: Tensor<2>) -> Tensor<2> {
        self.turn(&self.query, x)
    }

    /// Turns keys, `[batch · context, d_model]`.
    pub(crate) fn key(&self, x: Tensor<2>) -> Tensor<2> {
        self.turn(&self.key, x)
    }

    /// `x · cos + exchanged(x) · sin`. The halves are exchanged by a small product: cutting and
    /// joining would write the whole tensor several times, backwards even more often.
    fn turn(&self, turn: &Turn<Tensor<2>>, x: Tensor<2>) -> Tensor<2> {
        let [tokens, d_model] = x.dims();
        let [head_dim, _] = self.exchange.dims();
        let [_, window] = turn.cos.dims();
        let windows = [tokens * d_model / window, window];
        let heads = x.clone().reshape([tokens * d_model / head_dim, head_dim]);
        let exchanged = heads.matmul(self.exchange.clone()).reshape(windows);
        let turned = x.reshape(windows) * turn.cos.clone() + exchanged * turn.sin.clone();
        turned.reshape([tokens, d_model])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_rotates_each_pair_by_its_angle() {
        let mut config = ModelConfig::preset("llama-d64").unwrap();
        (config.d_model, config.heads, config.context) = (8, 2, 3);
        let device = Device::flex();
        let tables = RotaryTables::new(&config).unwrap();
        let rotary = tables.on(3, &device, DType::F32);
        let x: Vec<f32> = (0..24).map(|i| i as f32 * 0.1 - 1.0).collect();
        let turned = rotary.key(Tensor::from_data(TensorData::new(x.clone(), [3, 8]), &device));
        let turned: Vec<f32> = turned.into_data().try_to_vec().unwrap();
        for (position, head, pair) in (0..3).flat_map(|p| [(p, 0, 0), (p, 0, 1), (p, 1, 0), (p, 1, 1)]) {
            let at = position * 8 + head * 4 + pair;
            let angle = position as f64 * 10_000f64.powf(-2.0 * pair as f64 / 4.0);
            let (a, b) = (f64::from(x[at]), f64::from(x[at + 2]));
            let expected = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
            for (found, expected) in [turned[at], turned[at + 2]].into_iter().zip(expected) {
                // A handful of 32-bit roundings of numbers below two.
                assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }

    #[test]
    fn a_query_is_scaled_by_the_root_of_the_head_dimension() {
        let mut config = ModelConfig::preset("llama-d64").unwrap();
        (config.d_model, config.heads, config.context) = (8, 2, 3);
        let device = Device::flex();
        let rotary = RotaryTables::new(&config).unwrap().on(2, &device, DType::F32);
        let x = Tensor::ones([4, 8], &device);
        let (query, key) = (rotary.query(x.clone()), rotary.key(x));
        let difference = (query * 2.0 - key).abs().max().into_scalar::<f32>();
        // The head dimension is 4, so the scale is exactly one half.
        assert_eq!(difference, 0.0);
    }
}
