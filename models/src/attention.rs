//! Causal self-attention.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::cache::KeyValues;
use crate::decoder::Deviations;
use crate::init::Initializer;
use crate::linear::{add_bias, linear, matmul};
use crate::norm::Norm;
use crate::rotary::Rotaries;
use crate::{ModelConfig, Parametrization, ProjectionKind, QkNormKind, fused};

/// What a score of a later token becomes. Finite, because not every GPU promises to compute with
/// infinities; its exponential is exactly zero in 16, 32 and 64 bits.
const MASKED: f32 = -1e9;

/// Causal self-attention: either one fused `qkv` projection or `wq`, `wk`, `wv`, then `wo`.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values in one projection, `[d_model, (heads + 2 · kv_heads) · head_dim]`.
    pub qkv: Option<Linear>,
    /// Query projection, `[d_model, heads · head_dim]`.
    pub wq: Option<Linear>,
    /// Key projection, `[d_model, kv_heads · head_dim]`.
    pub wk: Option<Linear>,
    /// Value projection, `[d_model, kv_heads · head_dim]`.
    pub wv: Option<Linear>,
    /// Output projection, `[heads · head_dim, d_model]`.
    pub wo: Linear,
    /// Norm of the queries.
    pub q_norm: Option<Norm>,
    /// Norm of the keys.
    pub k_norm: Option<Norm>,
    /// A score per query head that takes part in every softmax of the head and carries no value, `[heads]`.
    pub sinks: Option<Param<Tensor<1>>>,
    #[module(skip)]
    heads: Heads,
}

/// What an attention layer knows beside its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// Tokens that a query sees, itself included; none sees the whole context.
    pub window: Option<usize>,
}

/// Sizes of one forward pass.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// Windows in the batch.
    pub batch: usize,
    /// Tokens in a window.
    pub context: usize,
    /// Position of their first token.
    pub start: usize,
}

impl Attention {
    pub(crate) fn new(config: &ModelConfig, layer: usize, std: Deviations, init: &Initializer) -> Self {
        let (d_model, query, key) = (config.d_model, config.query_width(), config.key_width());
        let bias = config.attention_bias;
        let project = |name, outputs| Some(init.biased(name, d_model, outputs, std.hidden, bias));
        let (qkv, [wq, wk, wv]) = match config.projection {
            ProjectionKind::Fused => (project("qkv", query + 2 * key), [None, None, None]),
            ProjectionKind::Separate => (None, [project("wq", query), project("wk", key), project("wv", key)]),
        };
        let norm = |width: usize| match config.qk_norm {
            QkNormKind::None => None,
            QkNormKind::PerHead => Some(init.norm(config, config.head_dim())),
            QkNormKind::FullWidth => Some(init.norm(config, width)),
        };
        let head_dim = config.head_dim();
        let scale = match config.parametrization {
            Parametrization::Standard => 1.0 / (head_dim as f64).sqrt(),
            Parametrization::Mup => 1.0 / head_dim as f64,
        };
        Self {
            qkv,
            wq,
            wk,
            wv,
            wo: init.biased("wo", query, d_model, std.residual, bias),
            q_norm: norm(query),
            k_norm: norm(key),
            sinks: config.sinks.then(|| init.constant(0.0, [config.heads])),
            heads: Heads {
                heads: config.heads,
                kv_heads: config.kv_heads(),
                head_dim,
                scale,
                window: config.window(layer),
            },
        }
    }

    /// Maps `x`, `[batch · context, d_model]`, to the same shape. With a `cache`, the tokens follow those that it holds,
    /// and are added to it.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        windows: Windows,
        rotaries: &Rotaries,
        cache: Option<&mut KeyValues>,
    ) -> Tensor<2> {
        let mixed = match self.mix_jointly(&x, windows, rotaries, cache.is_some()) {
            Some(mixed) => mixed,
            None => self.mix_apart(x, windows, rotaries, cache),
        };
        linear(&self.wo, mixed)
    }

    /// Attention straight from one projection, `[tokens, heads · head_dim]`: where nothing happens to queries and keys in
    /// between, and a fused layer serves.
    fn mix_jointly(&self, x: &Tensor<2>, windows: Windows, rotaries: &Rotaries, cached: bool) -> Option<Tensor<2>> {
        let turned = rotaries.of_layer(self.heads.window.is_some()).is_some();
        let between = turned || self.q_norm.is_some() || self.k_norm.is_some() || self.sinks.is_some();
        let qkv = self.qkv.as_ref().filter(|_| !cached && !between)?;
        let projected = fused::matmul(x.clone(), qkv.weight.val(), false).ok()?;
        fused::joint_attention(self.heads, windows, add_bias(projected, qkv)).ok()
    }

    /// The same from queries, keys and values that are projected apart.
    fn mix_apart(
        &self,
        x: Tensor<2>,
        windows: Windows,
        rotaries: &Rotaries,
        cache: Option<&mut KeyValues>,
    ) -> Tensor<2> {
        let Windows { batch, context, start } = windows;
        let Heads { heads, kv_heads, head_dim, window, .. } = self.heads;
        let [query, key, value] = self.project(x);
        let place = |x: Tensor<2>, norm: &Option<Norm>| {
            let x = match norm {
                Some(norm) => norm.forward(x),
                None => x,
            };
            match rotaries.of_layer(window.is_some()) {
                Some(rotary) => rotary.turn(x, start, context),
                None => x,
            }
        };
        let mut parts = [place(query, &self.q_norm), place(key, &self.k_norm), value];
        if cache.is_none() {
            let sinks = self.sinks.as_ref().map(Param::val);
            match fused::attention(self.heads, windows, parts, sinks) {
                Ok(mixed) => return mixed,
                Err(given) => parts = given,
            }
        }
        let split = |x: Tensor<2>, heads| x.reshape([batch, context, heads, head_dim]).swap_dims(1, 2);
        let [query, key, value] = parts;
        let (query, key, value) = (split(query, heads), split(key, kv_heads), split(value, kv_heads));
        let (key, value) = match cache {
            Some(cache) => cache.extend(key, value, window),
            None => (key, value),
        };
        let mixed = self.mix(query, key, value);
        mixed.swap_dims(1, 2).reshape([batch * context, heads * head_dim])
    }

    /// Queries `[batch, heads, queries, head_dim]`, keys and values `[batch, kv_heads, keys, head_dim]`; the last query
    /// stands where the last key stands.
    fn mix(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let ([batch, heads, queries, head_dim], keys) = (query.dims(), key.dims()[2]);
        let kv_heads = self.heads.kv_heads;
        // The queries that share a key head stand below one another, so that keys are never repeated.
        let rows = heads / kv_heads * queries;
        let shared = |x: Tensor<4>, width| match heads == kv_heads {
            true => x,
            false => x.reshape([batch, kv_heads, rows, width]),
        };
        let apart = |x: Tensor<4>, width| match heads == kv_heads {
            true => x,
            false => x.reshape([batch, heads, queries, width]),
        };
        let scores = apart(shared(query, head_dim).matmul(key.transpose()), keys);
        let Heads { scale, window, .. } = self.heads;
        let weights = causal_softmax(scores, scale, window, self.sinks.as_ref().map(Param::val));
        apart(shared(weights, keys).matmul(value), head_dim)
    }

    /// Queries, `[tokens, heads · head_dim]`, keys and values, `[tokens, kv_heads · head_dim]`.
    fn project(&self, x: Tensor<2>) -> [Tensor<2>; 3] {
        // Cutting the weight instead of the projected activations: it is the smaller tensor, and
        // the backward pass of a cut writes the whole of what was cut.
        let (query, key) = (self.heads.heads * self.heads.head_dim, self.heads.kv_heads * self.heads.head_dim);
        let part = |index: usize, start: usize, width: usize| {
            let separate = [&self.wq, &self.wk, &self.wv];
            match (&self.qkv, separate[index]) {
                (Some(qkv), _) => {
                    let projected = matmul(x.clone(), qkv.weight.val().narrow(1, start, width));
                    match &qkv.bias {
                        Some(bias) => projected + bias.val().narrow(0, start, width).unsqueeze(),
                        None => projected,
                    }
                }
                (None, Some(projection)) => linear(projection, x.clone()),
                (None, None) => unreachable!("either qkv or all of wq, wk, wv"),
            }
        };
        [part(0, 0, query), part(1, query, key), part(2, query + key, key)]
    }
}

/// Softmax of `scores · scale`, `[batch, heads, queries, keys]`, where a query sees the keys up to its own, and of these
/// the last `window`; in Burn's operations. `sinks`, `[heads]`, take part and are left out again.
pub(crate) fn causal_softmax(
    scores: Tensor<4>,
    scale: f64,
    window: Option<usize>,
    sinks: Option<Tensor<1>>,
) -> Tensor<4> {
    let [batch, heads, queries, keys] = scores.dims();
    let mask = causal_mask(queries, keys, window, &scores.device()).cast(scores.dtype());
    let scores = scores * scale + mask.unsqueeze();
    match sinks {
        None => softmax(scores, 3),
        Some(sinks) => {
            let sinks = sinks.reshape([1, heads, 1, 1]).expand([batch, heads, queries, 1]);
            softmax(Tensor::cat(vec![scores, sinks], 3), 3).narrow(3, 0, keys)
        }
    }
}

/// 0 where a token may look, `MASKED` where it may not: `[queries, keys]`, the last of both at the same position.
fn causal_mask(queries: usize, keys: usize, window: Option<usize>, device: &Device) -> Tensor<2> {
    let window = window.unwrap_or(keys);
    let row = |query: usize| {
        let last = keys - queries + query;
        (0..keys).map(move |key| if key > last || last - key >= window { MASKED } else { 0.0 })
    };
    let values: Vec<f32> = (0..queries).flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [queries, keys]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sees_its_window_and_nothing_later() {
        let seen = |queries, keys, window| -> Vec<bool> {
            let mask: Vec<f32> = causal_mask(queries, keys, window, &Device::flex()).into_data().try_to_vec().unwrap();
            mask.into_iter().map(|x| x == 0.0).collect()
        };
        let (o, x) = (false, true);
        assert_eq!(seen(3, 3, None), [x, o, o, x, x, o, x, x, x]);
        assert_eq!(seen(3, 3, Some(2)), [x, o, o, x, x, o, o, x, x]);
        assert_eq!(seen(2, 4, Some(3)), [x, x, x, o, o, x, x, x]);
        assert_eq!(seen(1, 2, Some(1)), [o, x]);
    }
}
