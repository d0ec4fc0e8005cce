//! The keys of a decoder, and what follows from them directly.

use polaron::Role;

use super::choices::{
    FeedForwardKind, NormKind, Parametrization, PositionKind, ProjectionKind, QkNormKind, RouterKind,
};
use super::keys::{above_zero, at_least_one, keys, not_negative, rope_base_or_zero};

/// Default base of the rotary angles: pair i of a head of dimension h turns by `base^(-2i / h)` per position.
pub const ROTARY_BASE: f64 = 10_000.0;

keys! {
    /// Sizes and choices of a decoder: everything except the size of the vocabulary, which depends on the text.
    ///
    /// In a file, `preset` alone is enough. Every other key overrides the preset's value; where a file does not set
    /// `hidden`, it follows `d_model` by the preset's rule. In Rust, start from [`ModelConfig::preset`] and set fields.
    ///
    /// ```
    /// let config: polaron_models::ModelConfig = toml::from_str("preset = \"llama-d64\"\nlayers = 2")?;
    /// assert_eq!((config.layers, config.d_model, config.hidden), (2, 64, 192));
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct ModelConfig {
        /// The preset that this configuration started from.
        preset = "llama-d64";
        /// Width of the residual stream.
        d_model: usize = 64, in at_least_one;
        /// Rows of the embedding table and of the head, where they are more than the tokenizer has tokens: the others are never
        /// used. 0 means as many as tokens.
        vocab_size: usize = 0;
        /// Number of blocks.
        layers: usize = 4, in at_least_one;
        /// Attention heads in a block; divides `d_model` unless `head_dim` is set.
        heads: usize = 4, in at_least_one;
        /// Heads of keys and values, each shared by `heads / kv_heads` query heads; 0 means as many as `heads`.
        kv_heads: usize = 0;
        /// Features of a head; 0 means `d_model / heads`.
        head_dim: usize = 0;
        /// The longest window of tokens that the model accepts.
        context: usize = 64, in at_least_one;
        /// Width inside the feed-forward layer; with experts, inside each of them.
        hidden: usize = 192, in at_least_one, follows ModelConfig::scaled_hidden;
        /// Kind of the norms.
        norm: NormKind = NormKind::RmsNorm;
        /// Added to the variance or mean square under a norm's root.
        norm_eps: f64 = 1e-5, in above_zero;
        /// Whether every norm, also those of queries and keys, adds a bias after its gain.
        norm_bias: bool = false;
        /// Whether there is also a norm after the attention and after the feed-forward layer, before their outputs are added
        /// to the residual stream.
        post_norm: bool = false;
        /// Whether queries and keys are normalised.
        qk_norm: QkNormKind = QkNormKind::None;
        /// Kind of the positions.
        position: PositionKind = PositionKind::Rotary;
        /// Base of the rotary angles.
        rope_base: f64 = ROTARY_BASE, in above_zero;
        /// Base of the rotary angles in the layers with a sliding window; 0 means `rope_base`.
        rope_base_sliding: f64 = 0.0, in rope_base_or_zero;
        /// Kind of the attention projections.
        projection: ProjectionKind = ProjectionKind::Separate;
        /// Whether the attention projections have biases.
        attention_bias: bool = false;
        /// Whether every query head has a sink: a learned score that takes part in the softmax and has no value vector.
        sinks: bool = false;
        /// How many tokens a query sees in a layer with a sliding window, itself included.
        sliding_window: usize = 32, in at_least_one;
        /// Every n-th layer attends to the whole context, the others to a sliding window; with 1 all attend to the whole
        /// context.
        full_every: usize = 1, in at_least_one;
        /// Kind of the feed-forward layer or of the experts.
        feed_forward: FeedForwardKind = FeedForwardKind::SwiGlu;
        /// Whether the projections of a dense feed-forward layer have biases.
        feed_forward_bias: bool = false;
        /// Experts in a block; 0 means one dense feed-forward layer.
        experts: usize = 0;
        /// How many experts each token is sent to; 0 without experts.
        top_k: usize = 0;
        /// How the router weights the chosen experts.
        router: RouterKind = RouterKind::SoftmaxThenTopK;
        /// Whether router and experts have biases.
        expert_bias: bool = false;
        /// Weight of the load-balance loss `E Σ f_i P_i` in the training loss, see [`RouterMetrics`](crate::RouterMetrics).
        aux_load_balance: f64 = 0.0, in not_negative;
        /// Weight of the router's z-loss, the mean square of the logits' logsumexp, in the training loss.
        aux_z: f64 = 0.0, in not_negative;
        /// Whether embeddings are multiplied by `sqrt(d_model)`.
        scale_embedding: bool = false;
        /// Whether the embedding table is also the head.
        tied_head: bool = false;
        /// How initial weights, learning rates and factors depend on the width.
        parametrization: Parametrization = Parametrization::Standard;
        /// The width at which muP changes neither learning rates nor initial weights; ignored otherwise.
        base_width: usize = 64, in at_least_one;
    }
}

impl ModelConfig {
    /// The width of the feed-forward layer for another `d_model` and kind than the preset's: the usual one if the kind differs
    /// or the preset has the usual one, else in proportion to the preset's.
    fn scaled_hidden(&self, preset: &Self) -> usize {
        let kind = self.feed_forward;
        if kind != preset.feed_forward || preset.hidden == kind.usual_hidden(preset.d_model) {
            return kind.usual_hidden(self.d_model);
        }
        preset.hidden.saturating_mul(self.d_model).div_ceil(preset.d_model)
    }

    /// Features of one attention head: the field `head_dim`, or `d_model / heads` if that is 0.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        match self.head_dim {
            0 => self.d_model.checked_div(self.heads).unwrap_or(0),
            given => given,
        }
    }

    /// Heads of keys and values: the field `kv_heads`, or `heads` if that is 0.
    #[must_use]
    pub fn kv_heads(&self) -> usize {
        if self.kv_heads == 0 { self.heads } else { self.kv_heads }
    }

    /// Features of all query heads.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim())
    }

    /// Features of all key heads, and of all value heads.
    #[must_use]
    pub fn key_width(&self) -> usize {
        self.kv_heads().saturating_mul(self.head_dim())
    }

    /// How many tokens a query of this layer (from 0) sees, itself included; `None` if it sees the whole context.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        let full = (layer + 1).is_multiple_of(self.full_every.max(1));
        (!full).then_some(self.sliding_window)
    }

    /// Base of the rotary angles in the layers with a sliding window.
    pub(crate) fn sliding_base(&self) -> f64 {
        if self.rope_base_sliding == 0.0 { self.rope_base } else { self.rope_base_sliding }
    }

    /// Width over base width with muP, else 1.
    #[must_use]
    pub fn width_ratio(&self) -> f64 {
        match self.parametrization {
            Parametrization::Standard => 1.0,
            Parametrization::Mup => self.d_model as f64 / self.base_width as f64,
        }
    }

    /// The factor of an element-wise optimizer (AdamW) on the learning rate of a role: with
    /// [`Parametrization::Mup`] `base_width / d_model` for hidden matrices and routers, else 1. The head has 1, because
    /// the logits are divided instead.
    ///
    /// ```
    /// use polaron::Role;
    /// let mut config = polaron_models::ModelConfig::preset("llama-d64")?;
    /// config.parametrization = polaron_models::Parametrization::Mup;
    /// config.d_model = 256; // four times the preset's
    /// assert_eq!(config.adam_lr_factor(Role::Up), 0.25);
    /// assert_eq!(config.adam_lr_factor(Role::Embedding), 1.0);
    /// # Ok::<(), polaron_models::ModelError>(())
    /// ```
    #[must_use]
    pub fn adam_lr_factor(&self, role: Role) -> f64 {
        // The second factor of an adapter has as many inputs at every width.
        let follows = (Role::MATRICES.contains(&role) && role != Role::LoraB) || role == Role::Router;
        if follows { 1.0 / self.width_ratio() } else { 1.0 }
    }
}
