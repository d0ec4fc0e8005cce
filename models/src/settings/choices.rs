//! The choices that settings have, each with its name in a file.

use super::keys::choices;

choices! {
    /// How activations are normalised before attention, before the feed-forward layer and before the head.
    pub enum NormKind {
        /// Subtract the mean, divide by the standard deviation, multiply by a gain.
        LayerNorm = "layer_norm",
        /// Divide by the root mean square, multiply by a gain.
        RmsNorm = "rms_norm",
        /// Divide by the root mean square, multiply by one plus a gain that starts at zero (Gemma).
        RmsNormPlusOne = "rms_norm_plus_one",
    }

    /// Whether queries and keys are normalised before their positions are applied; the kind of norm is the model's.
    pub enum QkNormKind {
        /// No norm.
        None = "none",
        /// Each head separately; all heads share the gains, `[head_dim]` (Qwen3, Gemma 3).
        PerHead = "per_head",
        /// All heads together, with a gain for every feature (OLMoE).
        FullWidth = "full_width",
    }

    /// How the model represents positions.
    pub enum PositionKind {
        /// A learned vector per position, added to the token's embedding.
        Learned = "learned",
        /// Queries and keys are rotated by angles that grow with the position (base `rope_base`; feature i of a head's
        /// first half pairs with feature i of its second half).
        Rotary = "rotary",
    }

    /// How queries, keys and values are projected.
    pub enum ProjectionKind {
        /// One matrix `qkv`, `[d_model, (heads + 2 · kv_heads) · head_dim]`; the output units are queries, keys, values in
        /// this order, and within each of them head after head.
        Fused = "fused",
        /// Three matrices: `wq`, `[d_model, heads · head_dim]`, and `wk`, `wv`, `[d_model, kv_heads · head_dim]` each.
        Separate = "separate",
    }

    /// The feed-forward layer of a block, or one of its experts.
    pub enum FeedForwardKind {
        /// `down(gelu(up(x)))` with the exact GELU (error function).
        Gelu = "gelu",
        /// The same with the tanh approximation of GELU (GPT-2 as published, where it is called `gelu_new`).
        GeluTanh = "gelu_tanh",
        /// `down(silu(gate(x)) · up(x))`.
        SwiGlu = "swi_glu",
        /// `down(gelu(gate(x)) · up(x))` with the tanh approximation of GELU (Gemma).
        GeGlu = "ge_glu",
        /// `down(g · sigmoid(1.702 g) · (u + 1))` with `g = min(gate(x), 7)` and `u = up(x)` clamped to [-7, 7] (gpt-oss).
        ClampedGlu = "clamped_glu",
    }

    /// How the logits of a router become the weights of the chosen experts. In both cases the experts with the `top_k`
    /// largest logits are chosen.
    pub enum RouterKind {
        /// Softmax over all experts, not renormalised over the chosen ones: the weights sum to less than one (OLMoE).
        SoftmaxThenTopK = "softmax_then_top_k",
        /// Softmax over the chosen experts only: the weights sum to one (gpt-oss).
        TopKThenSoftmax = "top_k_then_softmax",
    }

    /// How initial weights, learning rates and factors depend on the width.
    pub enum Parametrization {
        /// Scores are divided by the square root of the head dimension; nothing else depends on the width.
        Standard = "standard",
        /// The width rules muP (arXiv 2203.03466, 2512.05620), which keep the best learning rate the same at every width.
        /// With `m = d_model / base_width`: initial weights of hidden matrices are `√m` times smaller, those of routers m
        /// times; scores are divided by the head dimension, logits by m; and an element-wise optimizer multiplies its
        /// learning rate of hidden matrices and routers by `1/m` ([`ModelConfig::adam_lr_factor`](crate::ModelConfig::adam_lr_factor)).
        /// Muon needs no factor: its scales `original` and `spectral` do not depend on the width. `polaron::Layerwise::width`
        /// applies this to every optimizer whose exponent is known, and refuses the others.
        Mup = "mup",
    }

    /// The nonlinearity after every hidden layer of a perceptron.
    pub enum Activation {
        /// `max(0, x)`.
        Relu = "relu",
        /// `x Φ(x)` with the exact normal distribution function.
        Gelu = "gelu",
        /// `x / (1 + exp(-x))`.
        Silu = "silu",
        /// The hyperbolic tangent.
        Tanh = "tanh",
    }
}

impl FeedForwardKind {
    /// The largest gate, and the largest absolute value of `up`, of [`Self::ClampedGlu`].
    pub(crate) const CLAMP: f32 = 7.0;
    /// The factor inside the sigmoid of [`Self::ClampedGlu`].
    pub(crate) const CLAMPED_SLOPE: f32 = 1.702;

    /// Whether there is a gate projection.
    pub(crate) fn is_gated(self) -> bool {
        !matches!(self, Self::Gelu | Self::GeluTanh)
    }

    /// The usual width: four times `d_model`, or with a gate 8/3 of it, rounded up to a multiple of 64.
    pub(super) fn usual_hidden(self, d_model: usize) -> usize {
        match self.is_gated() {
            false => d_model.saturating_mul(4),
            true => d_model.saturating_mul(8).div_ceil(3).div_ceil(64).saturating_mul(64),
        }
    }
}
