//! Causal self-attention.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};

use crate::init::Initializer;
use crate::rotary::Rotary;
use crate::{ModelConfig, ProjectionKind};

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

/// What all attentions of one forward pass share.
pub(crate) struct Shared {
    /// Windows in the batch.
    pub batch: usize,
    /// Tokens in a window.
    pub context: usize,
    /// Added to the scores, `[context, context]`.
    pub mask: Tensor<2>,
    /// Rotation of queries and keys.
    pub rotary: Option<Rotary>,
}

impl Shared {
    /// For `batch` windows of `context` tokens; tensors like `like`.
    pub(crate) fn new(batch: usize, context: usize, rotary: Option<Rotary>, like: &Tensor<2>) -> Self {
        let mask = causal_mask(context, &like.device()).cast(like.dtype());
        Self { batch, context, mask, rotary }
    }
}

/// 0 where a token may look, `MASKED` where it may not: `[query, key]`.
fn causal_mask(context: usize, device: &Device) -> Tensor<2> {
    let row = |query: usize| (0..context).map(move |key| if key > query { MASKED } else { 0.0 });
    let values: Vec<f32> = (0..context).flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [context, context]), device)
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
    pub(crate) fn forward(&self, x: Tensor<2>, shared: &Shared) -> Tensor<2> {
        let [query, key, value] = self.project(x);
        let scale = 1.0 / (self.head_dim() as f64).sqrt();
        let (query, key) = match &shared.rotary {
            Some(rotary) => (rotary.query(query), rotary.key(key)),
            None => (query * scale, key),
        };
        self.wo.forward(self.attend(query, key, value, shared))
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

    /// Softmax attention of scaled queries.
    ///
    /// The rows of `exp(scores)` are not normalised before they meet the values: a column of ones
    /// beside the values gives each row's sum in the same product, and only the small result is
    /// divided. That saves the passes of a softmax over the largest tensor of the model, forwards
    /// and backwards.
    fn attend(&self, query: Tensor<2>, key: Tensor<2>, value: Tensor<2>, shared: &Shared) -> Tensor<2> {
        let (batch, context, heads, head_dim) = (shared.batch, shared.context, self.heads, self.head_dim());
        let split = |x: Tensor<2>| x.reshape([batch, context, heads, head_dim]).swap_dims(1, 2);
        let scores = split(query).matmul(split(key).transpose()) + shared.mask.clone().unsqueeze();
        // Keeps the exponential in range; it cancels out, so it needs no gradient.
        let largest = scores.clone().detach().max_dim(3);
        let weights = (scores - largest).exp();
        let value = split(value);
        let ones = Tensor::ones([batch, heads, context, 1], (&value.device(), value.dtype()));
        let sums = weights.matmul(Tensor::cat(vec![value, ones], 3));
        let normaliser = sums.clone().narrow(3, head_dim, 1).recip();
        let mixed = sums.narrow(3, 0, head_dim) * normaliser;
        mixed.swap_dims(1, 2).reshape([batch * context, heads * head_dim])
    }

    fn head_dim(&self) -> usize {
        self.wo.weight.dims()[0] / self.heads
    }
}
