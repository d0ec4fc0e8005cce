//! The decoder: embedding, blocks, norm, head.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use polaron::{Role, RoleHint, Roles};

use crate::attention::{Attention, Windows};
use crate::feed_forward::FeedForward;
use crate::init::Initializer;
use crate::norm::Norm;
use crate::rotary::Rotary;
use crate::{FeedForwardKind, ModelConfig, ModelError, PositionKind, ProjectionKind, fused};

/// Standard deviation of the first weights.
const STD: f64 = 0.02;

/// A decoder-only language model.
///
/// Made by [`ModelConfig::init`]. The crate's front page lists the names of its parameters.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Token embedding, `[vocab, d_model]`; with a tied head also the head.
    pub embed: Embedding,
    /// Learned positions, `[context, d_model]`; none with rotary positions.
    pub position: Option<Embedding>,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    /// Norm before the head.
    pub norm: Norm,
    /// Head, `[d_model, vocab]`; none when the embedding is the head.
    pub head: Option<Linear>,
    #[module(skip)]
    fixed: Arc<Fixed>,
}

/// One block: attention and a feed-forward layer, each behind a norm and beside the residual
/// stream.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before the attention.
    pub norm1: Norm,
    /// Attention.
    pub attn: Attention,
    /// Norm before the feed-forward layer.
    pub norm2: Norm,
    /// Feed-forward layer.
    pub mlp: FeedForward,
}

/// What a model knows beside its parameters.
#[derive(Debug)]
struct Fixed {
    config: ModelConfig,
    vocab_size: usize,
    rotary: Option<Rotary>,
}

impl Block {
    fn new(config: &ModelConfig, init: &Initializer) -> Self {
        // Two additions to the residual stream per block: its variance stays near one block's.
        let residual_std = STD / (2.0 * config.layers as f64).sqrt();
        Self {
            norm1: init.norm(config.norm, config.d_model),
            attn: Attention::new(config, STD, residual_std, &init.enter("attn")),
            norm2: init.norm(config.norm, config.d_model),
            mlp: FeedForward::new(config, STD, residual_std, &init.enter("mlp")),
        }
    }

    fn forward(&self, x: Tensor<2>, windows: Windows, rotary: Option<&Rotary>) -> Tensor<2> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x), windows, rotary);
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

impl LanguageModel {
    /// `config` has been validated.
    pub(crate) fn new(config: &ModelConfig, vocab_size: usize, init: &Initializer) -> Self {
        let d_model = config.d_model;
        let position = match config.position {
            PositionKind::Learned => Some(init.embedding("position", config.context, d_model, STD)),
            PositionKind::Rotary => None,
        };
        let block = |index: usize| Block::new(config, &init.enter("blocks").enter(index));
        let head = (!config.tied_head).then(|| init.linear("head", d_model, vocab_size, STD));
        Self {
            embed: init.embedding("embed", vocab_size, d_model, STD),
            position,
            blocks: (0..config.layers).map(block).collect(),
            norm: init.norm(config.norm, d_model),
            head,
            fixed: Arc::new(Fixed { config: config.clone(), vocab_size, rotary: Rotary::new(config) }),
        }
    }

    /// Logits of the next token after every token: `[batch, context, vocab]` for `tokens`,
    /// `[batch, context]`. Windows may be shorter than [`context`](Self::context).
    ///
    /// # Panics
    ///
    /// With windows longer than [`context`](Self::context). Tokens are not looked at: check those
    /// that come from outside with [`check_tokens`](Self::check_tokens).
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, context] = tokens.dims();
        self.logits(tokens).reshape([batch, context, self.vocab_size()])
    }

    /// Mean cross-entropy in nats per token, `[1]`, of predicting `targets` after `tokens`, both
    /// `[batch, context]`.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and when the two shapes differ.
    pub fn loss(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> Tensor<1> {
        let logits = self.logits(tokens);
        let targets = targets.flatten(0, 1);
        fused::cross_entropy(logits, &targets).unwrap_or_else(|logits| cross_entropy(logits, targets))
    }

    /// `[batch · context, vocab]`. Activations stay two-dimensional throughout, so that every
    /// projection is one matrix product.
    fn logits(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [batch, context] = tokens.dims();
        assert!(
            context <= self.context(),
            "a window of {context} tokens is longer than the model's context of {}",
            self.context()
        );
        let mut x = self.embed.forward(tokens);
        if let Some(position) = &self.position {
            x = x + position.weight.val().narrow(0, 0, context).unsqueeze();
        }
        let mut x = x.reshape([batch * context, self.fixed.config.d_model]);
        let (windows, rotary) = (Windows { batch, context }, self.fixed.rotary.as_ref());
        for block in &self.blocks {
            x = block.forward(x, windows, rotary);
        }
        let x = self.norm.forward(x);
        match &self.head {
            Some(head) => head.forward(x),
            None => x.matmul(self.embed.weight.val().transpose()),
        }
    }

    /// Checks that every token is in the vocabulary. Devices do not check: some give wrong rows
    /// without a word, others end the program.
    ///
    /// # Errors
    ///
    /// [`ModelError::TokenOutOfRange`] names the first token that is not, and its position.
    pub fn check_tokens(&self, tokens: &[i32]) -> Result<(), ModelError> {
        let vocab_size = self.vocab_size();
        let known = |token: i32| usize::try_from(token).is_ok_and(|token| token < vocab_size);
        match tokens.iter().position(|token| !known(*token)) {
            None => Ok(()),
            Some(position) => Err(ModelError::TokenOutOfRange {
                token: tokens.get(position).copied().map_or(0, i64::from),
                position,
                vocab_size,
            }),
        }
    }

    /// The configuration the model was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.fixed.config
    }

    /// Tokens the model sees at once.
    pub fn context(&self) -> usize {
        self.fixed.config.context
    }

    /// Number of different tokens.
    pub fn vocab_size(&self) -> usize {
        self.fixed.vocab_size
    }
}

/// Mean cross-entropy in nats, `[1]`, of `logits`, `[rows, classes]`, against `targets`, `[rows]`, in Burn's operations.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let chosen = log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1));
    chosen.mean().neg()
}

impl Roles for LanguageModel {
    fn roles(&self) -> Vec<RoleHint> {
        let heads = self.fixed.config.heads;
        let embed = if self.head.is_some() { Role::Embedding } else { Role::TiedEmbedding };
        let mut hints = vec![RoleHint::new("embed.weight", embed)];
        let mut hint = |present: bool, pattern: &str, role: Role, heads: Option<usize>| {
            if present {
                hints.push(RoleHint { heads, ..RoleHint::new(pattern, role) });
            }
        };
        let config = self.config();
        let fused = config.projection == ProjectionKind::Fused;
        let gated = config.feed_forward == FeedForwardKind::SwiGlu;
        hint(self.position.is_some(), "position.weight", Role::Embedding, None);
        hint(fused, "blocks.*.attn.qkv.weight", Role::Hidden, None);
        hint(!fused, "blocks.*.attn.wq.weight", Role::AttentionQuery, Some(heads));
        hint(!fused, "blocks.*.attn.wk.weight", Role::AttentionKey, Some(heads));
        hint(!fused, "blocks.*.attn.wv.weight", Role::AttentionValue, Some(heads));
        hint(true, "blocks.*.attn.wo.weight", Role::AttentionOutput, Some(heads));
        hint(gated, "blocks.*.mlp.gate.weight", Role::Gate, None);
        hint(true, "blocks.*.mlp.up.weight", Role::Up, None);
        hint(true, "blocks.*.mlp.down.weight", Role::Down, None);
        hint(true, "blocks.*.norm1.gain", Role::Gain, None);
        hint(true, "blocks.*.norm2.gain", Role::Gain, None);
        hint(true, "norm.gain", Role::Gain, None);
        hint(self.head.is_some(), "head.weight", Role::Head, None);
        hints
    }
}
