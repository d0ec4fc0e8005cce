//! Small presets: an experiment takes minutes on a CPU, a test less.

use super::choices::{FeedForwardKind, NormKind, PositionKind, ProjectionKind, QkNormKind, RouterKind};
use super::model::ModelConfig;
use super::table::{Preset, llama};

/// The rows.
pub(super) static SMALL: &[Preset] = &[
    Preset {
        name: "nanogpt-char",
        about: "GPT-2 style, 4 layers of 128, context 64: LayerNorm without bias, learned positions, exact GELU, tied head",
        settings: || ModelConfig {
            hidden: FeedForwardKind::Gelu.usual_hidden(128),
            norm: NormKind::LayerNorm,
            position: PositionKind::Learned,
            projection: ProjectionKind::Fused,
            feed_forward: FeedForwardKind::Gelu,
            tied_head: true,
            ..llama(128, 4, 4, 64)
        },
    },
    Preset {
        name: "llama-d64",
        about: "Llama style, 4 layers of 64, context 64: RMSNorm, rotary positions, SwiGLU",
        settings: || llama(64, 4, 4, 64),
    },
    Preset {
        name: "llama-d128",
        about: "Llama style, 4 layers of 128, context 128: RMSNorm, rotary positions, SwiGLU",
        settings: || llama(128, 4, 4, 128),
    },
    Preset {
        name: "llama-d256",
        about: "Llama style, 6 layers of 256, context 256: RMSNorm, rotary positions, SwiGLU",
        settings: || llama(256, 6, 4, 256),
    },
    Preset {
        name: "qwen3-tiny",
        about: "Qwen3 style, 4 layers of 128, context 128: two query heads per key head, QK-norm per head, SwiGLU",
        settings: || ModelConfig {
            kv_heads: 2,
            head_dim: 64,
            norm_eps: 1e-6,
            qk_norm: QkNormKind::PerHead,
            rope_base: 1e6,
            ..llama(128, 4, 4, 128)
        },
    },
    Preset {
        name: "gemma3-tiny",
        about: "Gemma 3 style, 6 layers of 144, context 128: norms before and after, five layers that see 32 tokens and one \
                that sees all, GeGLU",
        settings: || ModelConfig {
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
            ..llama(144, 6, 2, 128)
        },
    },
    Preset {
        name: "olmoe-tiny",
        about: "OLMoE style, 4 layers of 128, context 128: 16 experts of 64, 4 of them per token, QK-norm over the full width",
        settings: || ModelConfig {
            hidden: 64,
            qk_norm: QkNormKind::FullWidth,
            experts: 16,
            top_k: 4,
            ..llama(128, 4, 4, 128)
        },
    },
    Preset {
        name: "gpt-oss-tiny",
        about: "gpt-oss style, 4 layers of 128, context 128: 8 experts of 128, 2 of them per token, attention sinks, biases, \
                every other layer sees 32 tokens",
        settings: || ModelConfig {
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
            ..llama(128, 4, 8, 128)
        },
    },
];
