//! Causal self-attention.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::init::Initializer;
use crate::rotary::Rotary;
use crate::{ModelConfig, ProjectionKind, fused};

/// What a score of a later token becomes. Finite, because not every GPU promises to compute with
/// infinities; its exponential is exactly zero in 16, 32 and 64 bits.
const MASKED: f32 = -1e9;

/// Causal self-attention: either one fused `qkv` projection or `wq`, `wk`, `wv`, then `wo`.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values in one projection, `[d_model, 3 · d_model]`.
    pub qkv: Option<Linear>,
    /// Query projection, `[d_model, d_model]`.
    pub wq: Option<Linear>,
    /// Key projection, `[d_model, d_model]`.
    pub wk: Option<Linear>,
    /// Value projection, `[d_model, d_model]`.
    pub wv: Option<Linear>,
    /// Output projection, `[d_model, d_model]`.
    pub wo: Linear,
    #[module(skip)]
    heads: usize,
}

/// Sizes of one forward pass.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// Windows in the batch.
    pub batch: usize,
    /// Tokens in a window.
    pub context: usize,
}

impl Attention {
    pub(crate) fn new(config: &ModelConfig, std: f64, residual_std: f64, init: &Initializer) -> Self {
        let d_model = config.d_model;
        let project = |name, outputs| Some(init.linear(name, d_model, outputs, std));
        let (qkv, [wq, wk, wv]) = match config.projection {
            ProjectionKind::Fused => (project("qkv", 3 * d_model), [None, None, None]),
            ProjectionKind::Separate => (None, ["wq", "wk", "wv"].map(|name| project(name, d_model))),
        };
        let wo = init.linear("wo", d_model, d_model, residual_std);
        Self { qkv, wq, wk, wv, wo, heads: config.heads }
    }

    /// Maps `x`, `[batch · context, d_model]`, to the same shape.
    pub(crate) fn forward(&self, x: Tensor<2>, windows: Windows, rotary: Option<&Rotary>) -> Tensor<2> {
        let Windows { batch, context } = windows;
        let (heads, head_dim) = (self.heads, self.wo.weight.dims()[0] / self.heads);
        let [query, key, value] = self.project(x);
        let turn = |x| match rotary {
            Some(rotary) => rotary.turn(x, context),
            None => x,
        };
        let split = |x: Tensor<2>| x.reshape([batch, context, heads, head_dim]).swap_dims(1, 2);
        let scores = split(turn(query)).matmul(split(turn(key)).transpose());
        let scale = 1.0 / (head_dim as f64).sqrt();
        let weights = fused::causal_softmax(scores, scale).unwrap_or_else(|scores| causal_softmax(scores, scale));
        let mixed = weights.matmul(split(value));
        self.wo.forward(mixed.swap_dims(1, 2).reshape([batch * context, heads * head_dim]))
    }

    /// Queries, keys and values, `[tokens, d_model]` each.
    fn project(&self, x: Tensor<2>) -> [Tensor<2>; 3] {
        // Cutting the weight instead of the projected activations: it is the smaller tensor, and
        // the backward pass of a cut writes the whole of what was cut.
        let part = |index: usize| {
            let separate = [&self.wq, &self.wk, &self.wv];
            match (&self.qkv, separate[index]) {
                (Some(qkv), _) => {
                    let weight = qkv.weight.val();
                    let width = weight.dims()[0];
                    x.clone().matmul(weight.narrow(1, index * width, width))
                }
                (None, Some(linear)) => linear.forward(x.clone()),
                (None, None) => unreachable!("either qkv or all of wq, wk, wv"),
            }
        };
        [part(0), part(1), part(2)]
    }
}

/// Softmax of `scores · scale`, `[batch, heads, query, key]`, where query i sees the keys up to i; in Burn's operations.
pub(crate) fn causal_softmax(scores: Tensor<4>, scale: f64) -> Tensor<4> {
    let [.., context] = scores.dims();
    let mask = causal_mask(context, &scores.device()).cast(scores.dtype());
    softmax(scores * scale + mask.unsqueeze(), 3)
}

/// 0 where a token may look, `MASKED` where it may not: `[query, key]`.
fn causal_mask(context: usize, device: &Device) -> Tensor<2> {
    let row = |query: usize| (0..context).map(move |key| if key > query { MASKED } else { 0.0 });
    let values: Vec<f32> = (0..context).flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [context, context]), device)
}
