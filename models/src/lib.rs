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
//! # One decoder, many presets
//!
//! [`LanguageModel`] is a pre-norm decoder built from a few parts. A [`ModelConfig`] says which parts and how large they are;
//! every key of it can be changed. [`ModelConfig::preset`] lists named configurations, from GPT-2 and Llama style to mixtures of
//! experts. There is no dropout. [`Mlp`], configured by [`MlpConfig`], is a perceptron for images and tables.
//!
//! # Mixtures of experts
//!
//! Only the chosen experts are computed: the router's logits are copied to the host, which sorts the tokens by expert; every
//! expert then multiplies its own rows. [`RouterMetrics`] say how evenly the router spreads its tokens
//! ([`LanguageModel::loss_and_routers`]). `aux_load_balance` and `aux_z` are the weights of two losses that improve this; they are
//! part of [`LanguageModel::training_loss`] only.
//!
//! # Attention logits
//!
//! [`LanguageModel::training_loss_with`] also measures the largest attention logit of every head ([`LargestLogits`]), for logs and
//! for QK-clip ([`LanguageModel::head_logits`]).
//!
//! # Width rules
//!
//! With `parametrization = "mup"` the best learning rate of AdamW stays the same when the width changes, see
//! [`Parametrization::Mup`]; pass the learning-rate factors of [`ModelConfig::adam_lr_factor`] to
//! `polaron::Layerwise::adamw_lr_factors`.
//!
//! # One token at a time
//!
//! [`LanguageModel::extend`] keeps keys and values in a [`Cache`], so that the next token costs the work of one token.
//!
//! # Speed on a CPU
//!
//! With the feature `flex` (enable it where you enable Burn's), norms, rotary positions, attention, GELU, gated nonlinearities
//! and the loss run on that backend as single passes with hand-written gradients, in vector code and on all threads. Matrix
//! products use the same routine as Burn, but write directly to their destination. The results are equal up to rounding and do
//! not depend on the number of threads. Programs call `tune_products` once when they start, which speeds up products of small
//! matrices. Attention keeps its weights for the backward pass, `[heads, keys, queries]` of every window.
//!
//! # Other devices
//!
//! On other devices, and with gradient checkpointing, the layers use Burn's operations. No dense layer and no loss waits for the
//! device, and only tokens are copied to it: masks and tables of rotary positions are made once per device, type and length, and
//! are used by every layer, every pass and every clone of the model. A mixture of experts waits once per layer, for its router's
//! logits.
//!
//! # Names
//!
//! [`to_exported`] returns weights as other programs expect them (a projection as `[output, input]`); [`to_named`] and
//! [`load_named`] use the layout in which the model stores them (a projection as `[input, output]`). N counts blocks from 0.
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
//! | `blocks.N.moe.router.weight` (experts, instead of `mlp`) | `[experts, d_model]` | the same | router |
//! | `blocks.N.moe.gate.weight`, `up` | `[experts, d_model, hidden]` | the same | expert gate, expert up |
//! | `blocks.N.moe.down.weight` | `[experts, hidden, d_model]` | the same | expert down |
//! | `….bias` (`attention_bias`, `feed_forward_bias`, `expert_bias`) | `[d_out]`, of a stack `[experts, d_out]` | the same | bias |
//! | `….norm1.bias`, … of every norm (`norm_bias`) | that of its weight | the same | bias |
//! | `norm.weight` | `[d_model]` | `norm.gain` | gain |
//! | `head.weight` (not tied) | `[vocab, d_model]` | the same | head |
//! | none: merged into its projection | | `….lora.a`, `….lora.b` (adapters), `[d_in, r]` and `[r, d_out]`; of stacks `[experts, d_in, r]` and `[experts, r, d_out]` | first, second factor of an adapter |
//!
//! q is `heads · head_dim`, k is `kv_heads · head_dim`. Stacks of experts are exported as they are stored, `[experts, d_in,
//! d_out]`, which the file's metadata state (`expert_layout`).
//! `polaron export --optimizer-state` names a state `<exported name>.<state>`, for example
//! `blocks.0.attn.wq.weight.momentum` or `.second_moment`; it has the shape and layout of the weight of that name. The state that a
//! rule keeps per unit is named `.memory`, `[matrices, d_out, 1]` or `[matrices, 1, d_in]`.
//! The output units of `qkv` are queries, keys, values in this order, and within each of them head after head. A tied head has no
//! separate tensor: it is `embed.weight`, used twice.
//!
//! # Models of other programs
//!
//! [`huggingface`] turns these weights and their configuration into those of `transformers`, and back.
//!
//! # Initial weights
//!
//! Gains are one (zero if the norm multiplies by one plus the gain), biases and sinks zero. All other parameters are normal with
//! standard deviation 0.02, or `0.02 / sqrt(2 · layers)` for the projections that add to the residual stream, `wo` and `down`; for
//! muP see [`Parametrization::Mup`]. The numbers are drawn on the host by a rule that other programs can repeat and that gives the
//! same numbers on every backend. With `splitmix64(z)` = one output of the SplitMix64 generator whose state is z, in wrapping 64-bit
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
//! The first factor of an adapter ([`with_lora`]) is drawn by the same rule for its path, for example `blocks.0.attn.wq.lora.a`,
//! with standard deviation `1 / sqrt(3 d_in)`; the second is zero.
//!
//! The initial value of a parameter thus depends only on the seed, its path and its standard deviation: a change of the number of
//! layers leaves the embedding unchanged.

mod error;
#[cfg(feature = "flex")]
mod fused;
pub mod huggingface;
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
pub use layers::linear::Linear;
pub use layers::lora::{Adapted, Lora};
pub use layers::loss::cross_entropy;
pub use layers::norm::Norm;
pub use layers::router::RouterMetrics;
pub use networks::block::Block;
pub use networks::decoder::{LanguageModel, TrainingLoss};
#[cfg(feature = "exact")]
pub use networks::lora::refactored;
pub use networks::lora::{Projections, merged, with_lora};
pub use networks::mlp::Mlp;
pub use settings::choices::{
    Activation, FeedForwardKind, NormKind, Parametrization, PositionKind, ProjectionKind, QkNormKind, RouterKind,
};
pub use settings::lora::LoraSettings;
pub use settings::memory::Activations;
pub use settings::mlp::MlpConfig;
pub use settings::model::{ModelConfig, ROTARY_BASE};
pub use settings::rope_bounds::{RopeBound, RopeLayers, Severity, rope_bounds};
pub use shapes::LargestLogits;
pub use weights::{NamedTensor, ParameterInfo, load_named, parameter_table, to_exported, to_named};
