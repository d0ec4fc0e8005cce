//! The decoder: embedding, blocks, norm, head.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use polaron::{Role, RoleHint, Roles};

use crate::attention::{Attention, Windows};
use crate::cache::{Cache, KeyValues};
use crate::experts::{MixtureOfExperts, Routing};
use crate::feed_forward::FeedForward;
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::Initializer;
use crate::linear::{linear, matmul_transposed};
use crate::norm::Norm;
use crate::positions::Positions;
use crate::router::{RouterMetrics, auxiliary_losses};
use crate::{ModelConfig, ModelError, PositionKind, QkNormKind};

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

/// One block: attention and a feed-forward layer or experts, each behind a norm and beside the residual
/// stream.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before the attention.
    pub norm1: Norm,
    /// Attention.
    pub attn: Attention,
    /// Norm behind the attention.
    pub post_norm1: Option<Norm>,
    /// Norm before the feed-forward layer or the experts.
    pub norm2: Norm,
    /// Feed-forward layer; none with experts.
    pub mlp: Option<FeedForward>,
    /// Experts.
    pub moe: Option<MixtureOfExperts>,
    /// Norm behind the feed-forward layer or the experts.
    pub post_norm2: Option<Norm>,
}

/// What a model knows beside its parameters.
#[derive(Debug)]
struct Fixed {
    config: ModelConfig,
    vocab_size: usize,
    positions: Positions,
}

/// Standard deviations of first weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deviations {
    /// Matrices inside the blocks.
    pub hidden: f64,
    /// Of these, those that add to the residual stream.
    pub residual: f64,
    /// Routers.
    pub router: f64,
}

impl Deviations {
    fn new(config: &ModelConfig) -> Self {
        let hidden = STD / config.width_ratio().sqrt();
        // Two additions to the residual stream per block: its variance stays near one block's.
        Self { hidden, residual: hidden / (2.0 * config.layers as f64).sqrt(), router: STD / config.width_ratio() }
    }
}

/// The training loss and what of it is the model's prediction; both `[1]`.
#[derive(Clone, Debug)]
#[must_use = "a loss does nothing until it is differentiated"]
pub struct TrainingLoss {
    /// What is to be differentiated: the cross-entropy and the weighed losses of the routers.
    pub total: Tensor<1>,
    /// Mean cross-entropy in nats per token.
    pub cross_entropy: Tensor<1>,
}

impl Block {
    fn new(config: &ModelConfig, layer: usize, init: &Initializer) -> Self {
        let (std, norm) = (Deviations::new(config), || init.norm(config, config.d_model));
        Self {
            norm1: norm(),
            attn: Attention::new(config, layer, std, &init.enter("attn")),
            post_norm1: config.post_norm.then(norm),
            norm2: norm(),
            mlp: (config.experts == 0).then(|| FeedForward::new(config, std, &init.enter("mlp"))),
            moe: (config.experts > 0).then(|| MixtureOfExperts::new(config, std, &init.enter("moe"))),
            post_norm2: config.post_norm.then(norm),
        }
    }

    fn forward(
        &self,
        x: Tensor<2>,
        windows: Windows,
        positions: &Positions,
        cache: Option<&mut KeyValues>,
    ) -> (Tensor<2>, Option<Routing>) {
        let behind = |norm: &Option<Norm>, x| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let attended = self.attn.forward(self.norm1.forward(x.clone()), windows, positions, cache);
        let x = x + behind(&self.post_norm1, attended);
        let (fed, routing) = self.feed(self.norm2.forward(x.clone()));
        (x + behind(&self.post_norm2, fed), routing)
    }

    fn feed(&self, x: Tensor<2>) -> (Tensor<2>, Option<Routing>) {
        match (&self.mlp, &self.moe) {
            (Some(mlp), _) => (mlp.forward(x), None),
            (None, Some(moe)) => {
                let (x, routing) = moe.route(x);
                (x, Some(routing))
            }
            (None, None) => unreachable!("either a feed-forward layer or experts"),
        }
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
        let block = |index: usize| Block::new(config, index, &init.enter("blocks").enter(index));
        let head = (!config.tied_head).then(|| init.linear("head", d_model, vocab_size, STD));
        Self {
            embed: init.embedding("embed", vocab_size, d_model, STD),
            position,
            blocks: (0..config.layers).map(block).collect(),
            norm: init.norm(config, d_model),
            head,
            fixed: Arc::new(Fixed { config: config.clone(), vocab_size, positions: Positions::new(config) }),
        }
    }

    /// Logits of the next token after every token: `[batch, context, vocab]` for `tokens`,
    /// `[batch, context]`. Windows may be shorter than [`context`](Self::context).
    ///
    /// # Panics
    ///
    /// With windows longer than [`context`](Self::context). Tokens are not looked at: check those
    /// that come from outside with [`check_tokens`](Self::check_tokens).
    #[must_use]
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, context] = tokens.dims();
        let (x, _) = self.stream(tokens, None, |_| ());
        self.logits(x).reshape([batch, context, self.vocab_size()])
    }

    /// Logits of the next token, `[batch, vocab]`, after `tokens`, `[batch, new]`, that follow those in `cache`; they are
    /// added to it. The numbers are those of [`forward`](Self::forward) on all tokens together, up to rounding.
    ///
    /// ```
    /// use burn::tensor::{Device, Int, Tensor};
    /// use polaron_models::{Cache, ModelConfig};
    ///
    /// let device = Device::flex();
    /// let model = ModelConfig::preset("llama-d64")?.init(65, 1, &device)?;
    /// let mut cache = Cache::new();
    /// model.extend(&mut cache, Tensor::<2, Int>::from_ints([[1, 2, 3]], &device));
    /// let logits = model.extend(&mut cache, Tensor::<2, Int>::from_ints([[4]], &device));
    /// assert_eq!((logits.dims(), cache.len()), ([1, 65], 4));
    /// # Ok::<(), polaron_models::ModelError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// With more tokens in all than [`context`](Self::context), with no tokens, and with another batch than the cache's.
    pub fn extend(&self, cache: &mut Cache, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [batch, new] = tokens.dims();
        cache.layers.resize_with(self.blocks.len(), KeyValues::default);
        let (x, _) = self.stream(tokens, Some(cache), |_| ());
        let last = x.reshape([batch, new, self.fixed.config.d_model]).narrow(1, new - 1, 1);
        self.logits(last.squeeze_dim(1))
    }

    /// Mean cross-entropy in nats per token, `[1]`, of predicting `targets` after `tokens`, both
    /// `[batch, context]`.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and when the two shapes differ.
    #[must_use]
    pub fn loss(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> Tensor<1> {
        self.loss_and_routings(tokens, targets).0
    }

    /// [`loss`](Self::loss), and what each router did, first to last; none without experts.
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    #[must_use]
    pub fn loss_and_routers(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> (Tensor<1>, Vec<RouterMetrics>) {
        let (loss, routings) = self.loss_and_routings(tokens, targets);
        (loss, routings.iter().map(|routing| RouterMetrics::of(&routing.choice)).collect())
    }

    /// The loss to train by: [`loss`](Self::loss), plus `aux_load_balance` times the routers' load-balance loss and
    /// `aux_z` times their z-loss, each the mean over the routers of its value on these tokens.
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    pub fn training_loss(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> TrainingLoss {
        let ModelConfig { aux_load_balance, aux_z, .. } = *self.config();
        let (cross_entropy, routings) = self.loss_and_routings(tokens, targets);
        let mut total = cross_entropy.clone();
        if aux_load_balance > 0.0 || aux_z > 0.0 {
            for routing in &routings {
                let (balance, z) = auxiliary_losses(routing);
                let share = 1.0 / routings.len() as f64;
                total = total + balance * (aux_load_balance * share) + z * (aux_z * share);
            }
        }
        TrainingLoss { total, cross_entropy }
    }

    fn loss_and_routings(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> (Tensor<1>, Vec<Routing>) {
        let (x, routings) = self.stream(tokens, None, |_| ());
        (mean_loss(self.logits(x), targets.flatten(0, 1)), routings)
    }

    /// The residual stream behind every block, `[batch · context, d_model]` each, then the logits, `[batch · context,
    /// vocab]`: how much they change in a step is what width rules keep constant.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[must_use]
    pub fn layer_outputs(&self, tokens: Tensor<2, Int>) -> Vec<Tensor<2>> {
        let mut outputs = Vec::new();
        let (x, _) = self.stream(tokens, None, |x| outputs.push(x.clone()));
        outputs.push(self.logits(x));
        outputs
    }

    /// What the head reads, `[batch · context, d_model]`; `behind` sees the stream behind every block. Activations stay
    /// two-dimensional throughout, so that every projection is one matrix product.
    fn stream(
        &self,
        tokens: Tensor<2, Int>,
        mut cache: Option<&mut Cache>,
        mut behind: impl FnMut(&Tensor<2>),
    ) -> (Tensor<2>, Vec<Routing>) {
        let [batch, context] = tokens.dims();
        let start = cache.as_ref().map_or(0, |cache| cache.length);
        assert!(
            start + context <= self.context(),
            "a window of {} tokens is longer than the model's context of {}",
            start + context,
            self.context()
        );
        let config = self.config();
        let mut x = self.embed.forward(tokens);
        if config.scale_embedding {
            x = x * (config.d_model as f64).sqrt();
        }
        if let Some(position) = &self.position {
            x = x + position.weight.val().narrow(0, start, context).unsqueeze();
        }
        let mut x = x.reshape([batch * context, config.d_model]);
        let (windows, positions) = (Windows { batch, context, start }, &self.fixed.positions);
        let mut routings = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let routing;
            let layer = cache.as_mut().map(|cache| &mut cache.layers[index]);
            (x, routing) = block.forward(x, windows, positions, layer);
            routings.extend(routing);
            behind(&x);
        }
        if let Some(cache) = cache {
            cache.length += context;
        }
        (self.norm.forward(x), routings)
    }

    /// Logits, `[tokens, vocab]`, of what the last norm gave, `[tokens, d_model]`.
    fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        let logits = match &self.head {
            Some(head) => linear(head, x),
            None => matmul_transposed(x, self.embed.weight.val()),
        };
        match self.config().width_ratio() {
            1.0 => logits,
            ratio => logits / ratio,
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
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.fixed.config
    }

    /// Tokens the model sees at once.
    #[must_use]
    pub fn context(&self) -> usize {
        self.fixed.config.context
    }

    /// Number of different tokens.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.fixed.vocab_size
    }
}

/// [`cross_entropy`], as a fused layer where one serves.
fn mean_loss(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    // The fused layer reads the targets, which on another device would wait for it.
    #[cfg(feature = "flex")]
    if fused::serve(&[&logits]) {
        return fused::cross_entropy(logits, &targets);
    }
    cross_entropy(logits, targets)
}

/// Mean cross-entropy in nats, `[1]`, of `logits`, `[rows, classes]`, against `targets`, `[rows]`, in Burn's operations.
#[must_use]
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let chosen = log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1));
    chosen.mean().neg()
}

impl Roles for LanguageModel {
    fn roles(&self) -> Vec<RoleHint> {
        let config = self.config();
        let embed = if self.head.is_some() { Role::Embedding } else { Role::TiedEmbedding };
        let mut hints = vec![RoleHint::new("embed.weight", embed), RoleHint::new("norm.gain", Role::Gain)];
        let mut hint = |present: bool, pattern: &str, role: Role| {
            if present {
                hints.push(RoleHint::new(pattern, role));
            }
        };
        let Some(block) = self.blocks.first() else { return hints };
        hint(self.position.is_some(), "position.weight", Role::Embedding);
        hint(self.head.is_some(), "head.weight", Role::Head);
        hint(true, "blocks.*.norm1.gain", Role::Gain);
        hint(true, "blocks.*.norm2.gain", Role::Gain);
        hint(config.post_norm, "blocks.*.post_norm1.gain", Role::Gain);
        hint(config.post_norm, "blocks.*.post_norm2.gain", Role::Gain);
        hint(config.qk_norm != QkNormKind::None, "blocks.*.attn.q_norm.gain", Role::Gain);
        hint(config.qk_norm != QkNormKind::None, "blocks.*.attn.k_norm.gain", Role::Gain);
        hint(config.sinks, "blocks.*.attn.sinks", Role::Bias);
        hint(block.attn.qkv.is_some(), "blocks.*.attn.qkv.weight", Role::Hidden);
        let gate = block.mlp.as_ref().is_some_and(|mlp| mlp.gate.is_some());
        hint(gate, "blocks.*.mlp.gate.weight", Role::Gate);
        hint(block.mlp.is_some(), "blocks.*.mlp.up.weight", Role::Up);
        hint(block.mlp.is_some(), "blocks.*.mlp.down.weight", Role::Down);
        hint(block.moe.is_some(), "blocks.*.moe.router.weight", Role::Router);
        hint(block.moe.is_some(), "blocks.*.moe.gate.weight", Role::ExpertGate);
        hint(block.moe.is_some(), "blocks.*.moe.up.weight", Role::ExpertUp);
        hint(block.moe.is_some(), "blocks.*.moe.down.weight", Role::ExpertDown);
        hint(config.attention_bias || config.expert_bias, "blocks.*.*.*.bias", Role::Bias);
        let (heads, kv_heads) = (config.heads, config.kv_heads());
        if block.attn.qkv.is_none() {
            let attention =
                |name, role, heads| RoleHint::new(format!("blocks.*.attn.{name}.weight"), role).with_heads(heads);
            hints.push(attention("wq", Role::AttentionQuery, heads));
            hints.push(attention("wk", Role::AttentionKey, kv_heads));
            hints.push(attention("wv", Role::AttentionValue, kv_heads));
        }
        hints.push(RoleHint::new("blocks.*.attn.wo.weight", Role::AttentionOutput).with_heads(heads));
        hints
    }
}
