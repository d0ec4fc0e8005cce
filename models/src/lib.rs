//! Small language models for Burn that name the role of every parameter.
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use polaron_models::ModelConfig;
//!
//! let device = Device::flex().autodiff();
//! let model = ModelConfig::preset("nanogpt-char")?.init(65, 1337, &device)?;
//! let tokens = Tensor::<2, Int>::from_ints([[1, 2, 3], [4, 5, 6]], &device);
//! assert_eq!(model.forward(tokens.clone()).dims(), [2, 3, 65]);
//! let loss = model.loss(tokens.clone(), tokens); // mean nats per token
//! let gradients = loss.backward();
//! # let _ = gradients;
//! # Ok::<(), polaron_models::ModelError>(())
//! ```
//!
//! # One decoder, eight presets
//!
//! [`LanguageModel`] is a pre-norm decoder put together from a few parts; a [`ModelConfig`] says
//! which, and every key of it can be changed. Nowhere is there dropout, and only `gpt-oss-tiny` has biases.
//!
//! | preset | width | layers | heads | context | hidden | norm | positions | projections | feed-forward | head | parameters at 65 tokens |
//! |---|---|---|---|---|---|---|---|---|---|---|---|
//! | `nanogpt-char` | 128 | 4 | 4 | 64 | 512 | LayerNorm | learned | `qkv` | exact GELU | tied | 804,096 |
//! | `llama-d64` | 64 | 4 | 4 | 64 | 192 | RMSNorm | rotary | `wq` `wk` `wv` | SwiGLU | own | 221,888 |
//! | `llama-d128` | 128 | 4 | 4 | 128 | 384 | RMSNorm | rotary | `wq` `wk` `wv` | SwiGLU | own | 869,760 |
//! | `llama-d256` | 256 | 6 | 4 | 256 | 704 | RMSNorm | rotary | `wq` `wk` `wv` | SwiGLU | own | 4,853,504 |
//!
//! Norms add 1e-5 to the variance or mean square. Scores are scaled by `1 / sqrt(head dimension)`.
//! Rotary positions have base 10,000 and pair feature i of a head's first half with feature i of
//! its second half.
//!
//! The other four have the architectures, in small, on which arXiv 2605.18106 compares optimizers; all have a context of
//! 128, RMSNorm, rotary positions, separate projections and a head of their own.
//!
//! | | `qwen3-tiny` | `gemma3-tiny` | `olmoe-tiny` | `gpt-oss-tiny` |
//! |---|---|---|---|---|
//! | layers x width | 4 x 128 | 6 x 144 | 4 x 128 | 4 x 128 |
//! | heads of queries / of keys x features | 4 / 2 x 64 | 2 / 1 x 64 | 4 / 4 x 32 | 8 / 1 x 32 |
//! | feed-forward | SwiGLU of 384 | GeGLU (tanh) of 864 | 16 SwiGLU experts of 64, 4 per token | 8 clamped experts of 128, 2 per token |
//! | weights of the experts | | | softmax over all, not renormalised | softmax over the chosen |
//! | norms | before, 1e-6 | before and behind, times (1 + gain), 1e-6 | before, 1e-5 | before, 1e-5 |
//! | norm of queries and keys | per head | per head | over the full width | none |
//! | rotary base | 1e6 | 1e6, sliding layers 1e4 | 1e4 | 1.5e5 |
//! | a query sees | all | the last 32 tokens in five layers, all in the sixth | all | the last 32 tokens and all in turn |
//! | besides | | embeddings times `sqrt(width)` | | sinks; biases in attention, router and experts |
//! | parameters at 65 tokens | 1,001,344 | 2,594,352 | 1,862,016 | 1,903,808 |
//! | of these used by one token | 1,001,344 | 2,594,352 | 682,368 | 714,944 |
//!
//! The clamped expert is `down(g · sigmoid(1.702 g) · (u + 1))` with `g = min(gate, 7)` and u = up within -7 and 7. A sink
//! is a learned score of a query head that takes part in its softmax and carries no value.
//!
//! # Mixtures of experts
//!
//! Only the chosen experts are computed: the router's logits go to the host, which sorts the tokens by expert; every
//! expert then multiplies its own rows. [`RouterMetrics`] say how evenly the router spreads its tokens
//! ([`LanguageModel::loss_and_routers`]); `aux_load_balance` and `aux_z` weigh losses for that in
//! [`LanguageModel::training_loss`], and in nothing else.
//!
//! # Width rules
//!
//! With `parametrization = "mup"` the best learning rate of AdamW stays in place while the width changes, see
//! [`Parametrization::Mup`]; the learning-rate factors of [`ModelConfig::adam_lr_factor`] go to
//! `polaron::Layerwise::adamw_lr_factors`.
//!
//! # One token at a time
//!
//! [`LanguageModel::extend`] keeps keys and values in a [`Cache`], so that the next token costs one token's work.
//!
//! # Speed on a CPU
//!
//! With the feature `flex` (turn it on where you turn on Burn's), norms, rotary positions, attention, GELU, SwiGLU and the
//! loss run on that backend as single passes with hand-written gradients, in vector code and on all threads; matrix
//! products run by the routine that Burn takes, but straight into fresh memory. The results are the same up to rounding and do
//! not depend on the number of threads. Programs call `tune_products` once where they start, which speeds up products of
//! small matrices. Attention keeps its weights for the backward pass, `[heads, keys, queries]` of every window.
//!
//! # Other devices
//!
//! Everywhere else, and with gradient checkpointing, the layers run in Burn's operations. No dense layer and no loss waits for
//! the device, and nothing but tokens is written to it: masks and tables of rotary positions are made once per device, type
//! and length, and serve every layer, every pass and every clone of the model. A mixture of experts waits once per layer, for
//! its router's logits.
//!
//! # Names
//!
//! [`to_exported`] gives weights as other programs expect them (a projection as
//! `[output, input]`), [`to_named`] and [`load_named`] as the model stores them (a projection as
//! `[input, output]`). N counts blocks from 0.
//!
//! | exported name | exported shape | path in the model | role |
//! |---|---|---|---|
//! | `embed.weight` | `[vocab, d_model]` | the same | embedding, or tied embedding |
//! | `position.weight` (learned positions) | `[context, d_model]` | the same | embedding |
//! | `blocks.N.norm1.weight`, `blocks.N.norm2.weight` | `[d_model]` | `blocks.N.norm1.gain`, … | gain |
//! | `blocks.N.post_norm1.weight`, `post_norm2` (`post_norm`) | `[d_model]` | `blocks.N.post_norm1.gain`, … | gain |
//! | `blocks.N.attn.qkv.weight` (fused) | `[q + 2 · k, d_model]` | the same | hidden |
//! | `blocks.N.attn.wq.weight` (separate) | `[q, d_model]` | the same | attention query |
//! | `blocks.N.attn.wk.weight`, `wv` | `[k, d_model]` | the same | attention key, value |
//! | `blocks.N.attn.wo.weight` | `[d_model, q]` | the same | attention output |
//! | `blocks.N.attn.q_norm.weight`, `k_norm` (`qk_norm`) | `[head_dim]`, or `[q]` and `[k]` | `blocks.N.attn.q_norm.gain`, … | gain |
//! | `blocks.N.attn.sinks` (`sinks`) | `[heads]` | the same | bias |
//! | `blocks.N.mlp.gate.weight` (gated) | `[hidden, d_model]` | the same | gate |
//! | `blocks.N.mlp.up.weight` | `[hidden, d_model]` | the same | up |
//! | `blocks.N.mlp.down.weight` | `[d_model, hidden]` | the same | down |
//! | `blocks.N.moe.router.weight` (experts, in place of `mlp`) | `[experts, d_model]` | the same | router |
//! | `blocks.N.moe.gate.weight`, `up` | `[experts, d_model, hidden]` | the same | expert gate, expert up |
//! | `blocks.N.moe.down.weight` | `[experts, hidden, d_model]` | the same | expert down |
//! | `….bias` (`attention_bias`, `expert_bias`) | `[d_out]`, of a stack `[experts, d_out]` | the same | bias |
//! | `norm.weight` | `[d_model]` | `norm.gain` | gain |
//! | `head.weight` (own head) | `[vocab, d_model]` | the same | head |
//!
//! q is `heads · head_dim`, k is `kv_heads · head_dim`. Stacks of experts are exported as they are stored, `[experts, d_in,
//! d_out]`; the file's metadata say so (`expert_layout`).
//! `polaron export --optimizer-state` calls a state `<exported name>.<state>`, for example
//! `blocks.0.attn.wq.weight.momentum` or `.second_moment`: shaped and laid out as the weight of that name. What a rule
//! remembers per unit is called `.memory`, `[matrices, d_out, 1]` or `[matrices, 1, d_in]`.
//! The output units of `qkv` are queries, keys, values in this order, and inside each the heads
//! follow one another. A tied head has no tensor of its own: it is `embed.weight`, used twice.
//!
//! # First weights
//!
//! Gains are one (zero where the norm multiplies by one plus the gain), biases and sinks zero. Everything else is normal
//! with standard deviation 0.02, but for what adds to the
//! residual stream, `wo` and `down`: `0.02 / sqrt(2 · layers)`; with muP see [`Parametrization::Mup`]. The numbers are drawn on the host
//! by a rule that other programs can repeat and that gives the same on every backend. With
//! `splitmix64(z)` = one output of the SplitMix64 generator whose state is z, in wrapping 64-bit
//! arithmetic:
//!
//! 1. `key = splitmix64(seed)`, then for every byte b of the parameter's path (UTF-8, for example
//!    `blocks.0.attn.wq.weight`): `key = splitmix64(key xor b)`.
//! 2. For pair p = 0, 1, …: `u = ((splitmix64(key + 2p) >> 11) + 1) / 2^53` in (0, 1] and
//!    `v = (splitmix64(key + 2p + 1) >> 11) / 2^53` in [0, 1).
//! 3. Elements 2p and 2p + 1 of the tensor as the model stores it, row-major, are
//!    `std · sqrt(-2 ln u) · cos(2πv)` and `std · sqrt(-2 ln u) · sin(2πv)`, in 64-bit floats,
//!    rounded to 32 bits once.
//!
//! A parameter's first value thus depends on the seed, its path and its standard deviation only:
//! another number of layers leaves the embedding as it was.

mod error;
#[cfg(feature = "flex")]
mod fused;
mod init;
mod layers;
mod networks;
mod settings;
mod shapes;
mod weights;

pub use error::ModelError;
#[cfg(feature = "flex")]
pub use fused::tune_products;
pub use layers::attention::Attention;
pub use layers::cache::Cache;
pub use layers::experts::{ExpertStack, MixtureOfExperts};
pub use layers::feed_forward::FeedForward;
pub use layers::loss::cross_entropy;
pub use layers::norm::Norm;
pub use layers::router::RouterMetrics;
pub use networks::block::Block;
pub use networks::decoder::{LanguageModel, TrainingLoss};
pub use networks::mlp::Mlp;
pub use settings::choices::{
    Activation, FeedForwardKind, NormKind, Parametrization, PositionKind, ProjectionKind, QkNormKind, RouterKind,
};
pub use settings::mlp::MlpConfig;
pub use settings::model::{ModelConfig, ROTARY_BASE};
pub use settings::rope_bounds::{RopeBound, RopeLayers, Severity, rope_bounds};
pub use weights::{NamedTensor, ParameterInfo, load_named, parameter_table, to_exported, to_named};
