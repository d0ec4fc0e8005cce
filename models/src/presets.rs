//! The presets: each a short configuration of the same decoder.

use crate::{
    FeedForwardKind, ModelConfig, ModelError, NormKind, Parametrization, PositionKind, ProjectionKind, QkNormKind,
    RouterKind,
};
use polaron_common::did_you_mean_or_list;

/// Base of the rotary angles unless a preset or a configuration says otherwise: pair i of a head of dimension h turns by
/// `base^(-2i / h)` per position.
pub const ROTARY_BASE: f64 = 10_000.0;

impl ModelConfig {
    /// Names of the presets.
    pub const PRESETS: &'static [&'static str] = &[
        "nanogpt-char",
        "llama-d64",
        "llama-d128",
        "llama-d256",
        "qwen3-tiny",
        "gemma3-tiny",
        "olmoe-tiny",
        "gpt-oss-tiny",
    ];

    /// The preset of that name.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnknownPreset`] names the nearest valid name.
    pub fn preset(name: &str) -> Result<Self, ModelError> {
        match name {
            "nanogpt-char" => Ok(Self::gpt2(name, 128, 4, 4, 64)),
            "llama-d64" => Ok(Self::llama(name, 64, 4, 4, 64)),
            "llama-d128" => Ok(Self::llama(name, 128, 4, 4, 128)),
            "llama-d256" => Ok(Self::llama(name, 256, 6, 4, 256)),
            "qwen3-tiny" => Ok(Self::qwen3(name)),
            "gemma3-tiny" => Ok(Self::gemma3(name)),
            "olmoe-tiny" => Ok(Self::olmoe(name)),
            "gpt-oss-tiny" => Ok(Self::gpt_oss(name)),
            _ => {
                let hint = did_you_mean_or_list(name, Self::PRESETS.iter().copied());
                Err(ModelError::UnknownPreset { name: name.into(), hint })
            }
        }
    }

    /// One line about a preset; empty for a name that is none.
    pub fn describe_preset(name: &str) -> &'static str {
        match name {
            "nanogpt-char" => {
                "GPT-2 style, 4 layers of 128, context 64: LayerNorm without bias, learned \
                 positions, exact GELU, tied head"
            }
            "llama-d64" => "Llama style, 4 layers of 64, context 64: RMSNorm, rotary positions, SwiGLU",
            "llama-d128" => "Llama style, 4 layers of 128, context 128: RMSNorm, rotary positions, SwiGLU",
            "llama-d256" => "Llama style, 6 layers of 256, context 256: RMSNorm, rotary positions, SwiGLU",
            "qwen3-tiny" => {
                "Qwen3 style, 4 layers of 128, context 128: two query heads per key head, QK-norm per head, SwiGLU"
            }
            "gemma3-tiny" => {
                "Gemma 3 style, 6 layers of 144, context 128: norms before and after, five layers that see 32 tokens \
                 and one that sees all, GeGLU"
            }
            "olmoe-tiny" => {
                "OLMoE style, 4 layers of 128, context 128: 16 experts of 64, 4 of them per token, QK-norm over the \
                 full width"
            }
            "gpt-oss-tiny" => {
                "gpt-oss style, 4 layers of 128, context 128: 8 experts of 128, 2 of them per token, attention sinks, \
                 biases, every other layer sees 32 tokens"
            }
            _ => "",
        }
    }

    fn llama(preset: &str, d_model: usize, layers: usize, heads: usize, context: usize) -> Self {
        Self {
            preset: preset.into(),
            d_model,
            layers,
            heads,
            kv_heads: 0,
            head_dim: 0,
            context,
            hidden: FeedForwardKind::SwiGlu.usual_hidden(d_model),
            norm: NormKind::RmsNorm,
            norm_eps: 1e-5,
            post_norm: false,
            qk_norm: QkNormKind::None,
            position: PositionKind::Rotary,
            rope_base: ROTARY_BASE,
            rope_base_sliding: 0.0,
            projection: ProjectionKind::Separate,
            attention_bias: false,
            sinks: false,
            sliding_window: 32,
            full_every: 1,
            feed_forward: FeedForwardKind::SwiGlu,
            experts: 0,
            top_k: 0,
            router: RouterKind::SoftmaxThenTopK,
            expert_bias: false,
            aux_load_balance: 0.0,
            aux_z: 0.0,
            scale_embedding: false,
            tied_head: false,
            parametrization: Parametrization::Standard,
            base_width: d_model,
        }
    }

    fn gpt2(preset: &str, d_model: usize, layers: usize, heads: usize, context: usize) -> Self {
        Self {
            hidden: FeedForwardKind::Gelu.usual_hidden(d_model),
            norm: NormKind::LayerNorm,
            position: PositionKind::Learned,
            projection: ProjectionKind::Fused,
            feed_forward: FeedForwardKind::Gelu,
            tied_head: true,
            ..Self::llama(preset, d_model, layers, heads, context)
        }
    }

    fn qwen3(preset: &str) -> Self {
        Self {
            kv_heads: 2,
            head_dim: 64,
            hidden: 384,
            norm_eps: 1e-6,
            qk_norm: QkNormKind::PerHead,
            rope_base: 1e6,
            ..Self::llama(preset, 128, 4, 4, 128)
        }
    }

    fn gemma3(preset: &str) -> Self {
        Self {
            kv_heads: 1,
            head_dim: 64,
            hidden: 864,
            norm: NormKind::RmsNormPlusOne,
            norm_eps: 1e-6,
            post_norm: true,
            qk_norm: QkNormKind::PerHead,
            rope_base: 1e6,
            rope_base_sliding: 1e4,
            full_every: 6,
            feed_forward: FeedForwardKind::GeGlu,
            scale_embedding: true,
            ..Self::llama(preset, 144, 6, 2, 128)
        }
    }

    fn olmoe(preset: &str) -> Self {
        Self {
            hidden: 64,
            qk_norm: QkNormKind::FullWidth,
            experts: 16,
            top_k: 4,
            ..Self::llama(preset, 128, 4, 4, 128)
        }
    }

    fn gpt_oss(preset: &str) -> Self {
        Self {
            kv_heads: 1,
            head_dim: 32,
            hidden: 128,
            rope_base: 1.5e5,
            attention_bias: true,
            sinks: true,
            full_every: 2,
            feed_forward: FeedForwardKind::ClampedGlu,
            experts: 8,
            top_k: 2,
            router: RouterKind::TopKThenSoftmax,
            expert_bias: true,
            ..Self::llama(preset, 128, 4, 8, 128)
        }
    }
}
