//! Presets of the sizes on which papers compare optimizers. Sizes are those of each model's published configuration; the context is
//! the one of the experiments that are named, since rotary positions leave it open.

use super::choices::{FeedForwardKind, NormKind, PositionKind, ProjectionKind, QkNormKind, RouterKind};
use super::model::ModelConfig;
use super::table::{Preset, llama};

/// The rows.
pub(super) static PAPERS: &[Preset] = &[
    Preset {
        name: "gpt2-124m",
        about: "GPT-2 as published, 12 layers of 768, context 1024: 124,439,808 parameters at 50,257 tokens; biases, learned \
                positions, GELU by tanh, tied head",
        settings: || ModelConfig {
            hidden: FeedForwardKind::GeluTanh.usual_hidden(768),
            norm: NormKind::LayerNorm,
            norm_bias: true,
            position: PositionKind::Learned,
            projection: ProjectionKind::Fused,
            attention_bias: true,
            feed_forward: FeedForwardKind::GeluTanh,
            feed_forward_bias: true,
            tied_head: true,
            ..llama(768, 12, 12, 1024)
        },
    },
    Preset {
        name: "llama2-130m",
        about: "Llama 2 style, 12 layers of 768, context 256: 134,105,856 parameters at 32,000 tokens; GaLore and its successors",
        settings: || ModelConfig { hidden: 2048, norm_eps: 1e-6, ..llama(768, 12, 12, 256) },
    },
    Preset {
        name: "llama2-350m",
        about: "Llama 2 style, 24 layers of 1024, context 256: 367,969,280 parameters at 32,000 tokens; GaLore and its successors",
        settings: || ModelConfig { hidden: 2736, norm_eps: 1e-6, ..llama(1024, 24, 16, 256) },
    },
    Preset {
        name: "qwen3-0.6b",
        about: "Qwen3 0.6B, 28 layers of 1024, context 1024: 596,049,920 parameters at 151,936 tokens, tied head",
        settings: || ModelConfig {
            kv_heads: 8,
            head_dim: 128,
            hidden: 3072,
            norm_eps: 1e-6,
            qk_norm: QkNormKind::PerHead,
            rope_base: 1e6,
            tied_head: true,
            ..llama(1024, 28, 16, 1024)
        },
    },
    Preset {
        name: "gemma3-1b",
        about: "Gemma 3 1B, 26 layers of 1152, context 1024: 999,885,952 parameters at 262,144 tokens, tied head; five layers that \
                see 512 tokens and one that sees all",
        settings: || ModelConfig {
            kv_heads: 1,
            head_dim: 256,
            hidden: 6912,
            norm: NormKind::RmsNormPlusOne,
            norm_eps: 1e-6,
            post_norm: true,
            qk_norm: QkNormKind::PerHead,
            rope_base: 1e6,
            rope_base_sliding: 1e4,
            sliding_window: 512,
            full_every: 6,
            feed_forward: FeedForwardKind::GeGlu,
            scale_embedding: true,
            tied_head: true,
            ..llama(1152, 26, 4, 1024)
        },
    },
    Preset {
        name: "olmoe-1b-7b",
        about: "OLMoE 1B-7B, 16 layers of 2048, context 1024: 64 experts of 1024, 8 of them per token; 6,919,161,856 parameters at \
                50,304 tokens, 1,282,017,280 of them used by one",
        settings: || ModelConfig {
            hidden: 1024,
            qk_norm: QkNormKind::FullWidth,
            experts: 64,
            top_k: 8,
            ..llama(2048, 16, 16, 1024)
        },
    },
    Preset {
        name: "gpt-oss-small",
        about: "gpt-oss made smaller, 12 layers of 2048, context 1024: 16 experts of 2048, 4 of them per token, 64 heads of 64; \
                3,467,779,008 parameters at 201,088 tokens",
        settings: || ModelConfig {
            kv_heads: 8,
            head_dim: 64,
            hidden: 2048,
            rope_base: 1.5e5,
            attention_bias: true,
            sinks: true,
            sliding_window: 128,
            full_every: 2,
            feed_forward: FeedForwardKind::ClampedGlu,
            experts: 16,
            top_k: 4,
            router: RouterKind::TopKThenSoftmax,
            expert_bias: true,
            ..llama(2048, 12, 64, 1024)
        },
    },
];
