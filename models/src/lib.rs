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
//! # One decoder, four presets
//!
//! [`LanguageModel`] is a pre-norm decoder put together from a few parts; a [`ModelConfig`] says
//! which. Nowhere is there a bias or dropout.
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
//! # Speed on a CPU
//!
//! With the feature `flex` (turn it on where you turn on Burn's), norms, rotary positions, attention weights, GELU,
//! SwiGLU and the loss run on that backend as single passes with hand-written gradients, in vector code and on all
//! threads; matrix products remain Burn's. The results are the same up to rounding and do not depend on the number of
//! threads. Everywhere else, and with gradient checkpointing, the layers run in Burn's operations.
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
//! | `blocks.N.attn.qkv.weight` (fused) | `[3 · d_model, d_model]` | the same | hidden |
//! | `blocks.N.attn.wq.weight`, `wk`, `wv` (separate) | `[d_model, d_model]` | the same | attention query, key, value |
//! | `blocks.N.attn.wo.weight` | `[d_model, d_model]` | the same | attention output |
//! | `blocks.N.mlp.gate.weight` (SwiGLU) | `[hidden, d_model]` | the same | gate |
//! | `blocks.N.mlp.up.weight` | `[hidden, d_model]` | the same | up |
//! | `blocks.N.mlp.down.weight` | `[d_model, hidden]` | the same | down |
//! | `norm.weight` | `[d_model]` | `norm.gain` | gain |
//! | `head.weight` (own head) | `[vocab, d_model]` | the same | head |
//!
//! The output units of `qkv` are queries, keys, values in this order, and inside each the heads
//! follow one another. A tied head has no tensor of its own: it is `embed.weight`, used twice.
//!
//! # First weights
//!
//! Gains are one. Everything else is normal with standard deviation 0.02, but for what adds to the
//! residual stream, `wo` and `down`: `0.02 / sqrt(2 · layers)`. The numbers are drawn on the host
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

mod attention;
mod config;
mod decoder;
mod error;
mod feed_forward;
#[cfg_attr(not(feature = "flex"), path = "unfused.rs")]
#[allow(clippy::result_large_err, reason = "an `Err` gives the inputs back, it is no failure")]
mod fused;
mod init;
mod mlp;
mod norm;
mod rope;
mod rotary;
mod weights;

pub use attention::Attention;
pub use config::{FeedForwardKind, ModelConfig, NormKind, PositionKind, ProjectionKind};
pub use decoder::{Block, LanguageModel, cross_entropy};
pub use error::ModelError;
pub use feed_forward::FeedForward;
pub use mlp::{Activation, Mlp, MlpConfig};
pub use norm::Norm;
pub use rope::{RopeBound, Severity, rope_bounds};
pub use rotary::ROTARY_BASE;
pub use weights::{NamedTensor, ParameterInfo, load_named, parameter_table, to_exported, to_named};
