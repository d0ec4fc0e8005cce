//! Causal self-attention.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::cache::KeyValues;
use super::linear::{Linear, linear, linear_part};
use super::mask::Masks;
use super::norm::Norm;
use super::positions::Positions;
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::{Deviations, Initializer};
use crate::settings::choices::{Parametrization, ProjectionKind, QkNormKind};
use crate::settings::model::ModelConfig;
use crate::shapes::{Heads, LargestLogits, Windows};

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
    /// A score per query head that takes part in every softmax of the head and has no value vector, `[heads]`.
    pub sinks: Option<Param<Tensor<1>>>,
    #[module(skip)]
    heads: Heads,
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
            QkNormKind::PerHead => Some(Norm::new(config, config.head_dim(), init)),
            QkNormKind::FullWidth => Some(Norm::new(config, width, init)),
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

    /// Maps `x`, `[batch · context, d_model]`, to the same shape. With a `cache`, the tokens follow those in it and
    /// are added to it. The largest logit of every head is added to `logits`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        windows: Windows,
        positions: &Positions,
        cache: Option<&mut KeyValues>,
        logits: Option<&mut LargestLogits>,
    ) -> Tensor<2> {
        #[cfg(feature = "flex")]
        let mut logits = logits;
        #[cfg(feature = "flex")]
        if cache.is_none()
            && let Some(mixed) = self.mix_jointly(&x, windows, positions, logits.as_deref_mut())
        {
            return linear(&self.wo, mixed);
        }
        linear(&self.wo, self.mix_separately(x, windows, positions, cache, logits))
    }

    /// Attention directly from the fused projection, `[tokens, heads · head_dim]`: if queries and keys are used as projected, and
    /// the fused kernel applies.
    #[cfg(feature = "flex")]
    fn mix_jointly(
        &self,
        x: &Tensor<2>,
        windows: Windows,
        positions: &Positions,
        logits: Option<&mut LargestLogits>,
    ) -> Option<Tensor<2>> {
        let between = self.q_norm.is_some() || self.k_norm.is_some() || self.sinks.is_some();
        let qkv = self.qkv.as_ref().filter(|_| !between && !positions.turn_heads())?;
        let serves = fused::serve(&[x, &qkv.weight.val()]);
        serves.then(|| fused::joint_attention(self.heads, windows, linear(qkv, x.clone()), logits))
    }

    /// The same from separate queries, keys and values.
    fn mix_separately(
        &self,
        x: Tensor<2>,
        windows: Windows,
        positions: &Positions,
        cache: Option<&mut KeyValues>,
        logits: Option<&mut LargestLogits>,
    ) -> Tensor<2> {
        let Windows { batch, context, .. } = windows;
        let Heads { heads, kv_heads, head_dim, window, .. } = self.heads;
        let [query, key, value] = self.project(x);
        let place = |x: Tensor<2>, norm: &Option<Norm>| {
            let x = match norm {
                Some(norm) => norm.forward(x),
                None => x,
            };
            positions.turn(x, windows, window.is_some())
        };
        let (query, key) = (place(query, &self.q_norm), place(key, &self.k_norm));
        let sinks = self.sinks.as_ref().map(Param::val);
        #[cfg(feature = "flex")]
        if cache.is_none()
            && fused::serve(&[&query, &key, &value])
            && sinks.as_ref().is_none_or(|sinks| fused::serve(&[&query, sinks]))
        {
            return fused::attention(self.heads, windows, [query, key, value], sinks, logits);
        }
        let split = |x: Tensor<2>, heads| x.reshape([batch, context, heads, head_dim]).swap_dims(1, 2);
        let (query, key, value) = (split(query, heads), split(key, kv_heads), split(value, kv_heads));
        let (key, value) = match cache {
            Some(cache) => cache.extend(key, value, window),
            None => (key, value),
        };
        let mixed = self.mix([query, key, value], sinks, &positions.masks, logits);
        mixed.swap_dims(1, 2).reshape([batch * context, heads * head_dim])
    }

    /// Queries `[batch, heads, queries, head_dim]`, keys and values `[batch, kv_heads, keys, head_dim]`; the last query has
    /// the position of the last key.
    fn mix(
        &self,
        [query, key, value]: [Tensor<4>; 3],
        sinks: Option<Tensor<1>>,
        masks: &Masks,
        logits: Option<&mut LargestLogits>,
    ) -> Tensor<4> {
        let ([batch, heads, queries, head_dim], keys) = (query.dims(), key.dims()[2]);
        let kv_heads = self.heads.kv_heads;
        // The queries that share a key head are stacked, so that keys are never repeated.
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
        let scores = masks.hide(scores * self.heads.scale, self.heads.window);
        if let Some(logits) = logits {
            // A hidden score is far below those that a query sees, of which there is at least one: its own key.
            let largest = scores.clone().inner().max_dim(3).max_dim(2).max_dim(0);
            logits.add(largest.reshape([heads]));
        }
        let weights = softmax_with_sinks(scores, sinks);
        apart(shared(weights, keys).matmul(value), head_dim)
    }

    /// Queries, `[tokens, heads · head_dim]`, keys and values, `[tokens, kv_heads · head_dim]`.
    fn project(&self, x: Tensor<2>) -> [Tensor<2>; 3] {
        let (query, key) = (self.heads.heads * self.heads.head_dim, self.heads.kv_heads * self.heads.head_dim);
        let part = |index: usize, start: usize, width: usize| {
            let separate = [&self.wq, &self.wk, &self.wv];
            match (&self.qkv, separate[index]) {
                (Some(qkv), _) => linear_part(qkv, x.clone(), start, width),
                (None, Some(projection)) => linear(projection, x.clone()),
                (None, None) => unreachable!("either qkv or all of wq, wk, wv"),
            }
        };
        [part(0, 0, query), part(1, query, key), part(2, query + key, key)]
    }
}

/// Softmax over the keys of `scores`, `[batch, heads, queries, keys]`, in Burn's operations. `sinks`, `[heads]`, take part
/// and are dropped afterwards.
fn softmax_with_sinks(scores: Tensor<4>, sinks: Option<Tensor<1>>) -> Tensor<4> {
    let [batch, heads, queries, keys] = scores.dims();
    match sinks {
        None => softmax(scores, 3),
        Some(sinks) => {
            let sinks = sinks.reshape([1, heads, 1, 1]).expand([batch, heads, queries, 1]);
            softmax(Tensor::cat(vec![scores, sinks], 3), 3).narrow(3, 0, keys)
        }
    }
}
