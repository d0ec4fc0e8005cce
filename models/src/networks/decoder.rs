//! The decoder: embedding, blocks, norm, head.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor};
use polaron::layerwise::HeadLogits;

use super::block::Block;
use super::lora::Projections;
use crate::error::ModelError;
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::{Initializer, STD};
use crate::layers::cache::{Cache, KeyValues};
use crate::layers::linear::{Linear, linear, matmul_transposed};
use crate::layers::lora::Adapted;
use crate::layers::loss::mean_loss;
use crate::layers::norm::Norm;
use crate::layers::positions::Positions;
use crate::layers::router::{RouterMetrics, auxiliary_losses};
use crate::layers::routing::Routing;
use crate::settings::choices::PositionKind;
use crate::settings::model::ModelConfig;
use crate::shapes::{LargestLogits, Windows};

/// A decoder-only language model.
///
/// Created by [`ModelConfig::init`]. The crate's front page lists the names of its parameters.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Token embedding, `[vocab, d_model]`; with a tied head also the head.
    pub embed: Embedding,
    /// Learned positions, `[context, d_model]`; `None` with rotary positions.
    pub position: Option<Embedding>,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    /// Norm before the head.
    pub norm: Norm,
    /// Head, `[d_model, vocab]`; `None` if the embedding is the head.
    pub head: Option<Linear>,
    #[module(skip)]
    fixed: Arc<Fixed>,
}

/// The part of a model that is not trained.
#[derive(Debug)]
struct Fixed {
    config: ModelConfig,
    vocab_size: usize,
    positions: Positions,
}

/// The training loss, and the part of it that measures the predictions; both `[1]`.
#[derive(Clone, Debug)]
#[must_use = "a loss does nothing until it is differentiated"]
pub struct TrainingLoss {
    /// The loss to differentiate: the cross-entropy and the weighted losses of the routers.
    pub total: Tensor<1>,
    /// Mean cross-entropy in nats per token.
    pub cross_entropy: Tensor<1>,
}

impl ModelConfig {
    /// A model with initial weights fixed by `seed`: equal on every device, and drawn by a documented rule that other
    /// programs can repeat (see the crate's front page).
    ///
    /// `device`: where the parameters are; pass an autodiff device to train. Parameters have the device's default float
    /// type.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate), and [`ModelError::Zero`] for a vocabulary of 0.
    pub fn init(&self, vocab_size: usize, seed: u64, device: &Device) -> Result<LanguageModel, ModelError> {
        self.build(vocab_size, &Initializer::new(seed, device))
    }

    /// A model whose parameters have their shapes, but no values and, on a device that can repeat an element, no memory: enough
    /// for a plan of an optimizer, whatever its size.
    ///
    /// # Errors
    ///
    /// Those of [`init`](Self::init).
    pub fn outline(&self, vocab_size: usize, device: &Device) -> Result<LanguageModel, ModelError> {
        self.build(vocab_size, &Initializer::outline(device))
    }

    fn build(&self, vocab_size: usize, init: &Initializer) -> Result<LanguageModel, ModelError> {
        self.validate()?;
        if vocab_size == 0 {
            return Err(ModelError::Zero { key: "vocab_size" });
        }
        Ok(LanguageModel::new(self, vocab_size, init))
    }
}

impl Projections for LanguageModel {
    fn projections(&mut self) -> Vec<(String, &mut dyn Adapted)> {
        let blocks = self.blocks.iter_mut().enumerate().flat_map(|(index, block)| {
            block
                .projections()
                .into_iter()
                .map(move |(name, projection)| (format!("blocks.{index}.{name}"), projection))
        });
        blocks.chain(self.head.as_mut().map(|head| ("head".to_owned(), head as &mut dyn Adapted))).collect()
    }
}

impl LanguageModel {
    /// `config` must be valid.
    fn new(config: &ModelConfig, vocab_size: usize, init: &Initializer) -> Self {
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
            norm: Norm::new(config, d_model, init),
            head,
            fixed: Arc::new(Fixed { config: config.clone(), vocab_size, positions: Positions::new(config) }),
        }
    }

    /// Logits of the next token after every token: `[batch, context, vocab]` for `tokens`,
    /// `[batch, context]`. Windows may be shorter than [`context`](Self::context).
    ///
    /// # Panics
    ///
    /// If windows are longer than [`context`](Self::context). Tokens are not checked: check those of unknown origin with
    /// [`check_tokens`](Self::check_tokens).
    #[must_use]
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, context] = tokens.dims();
        let (x, _) = self.stream(tokens, None, None, |_| ());
        self.logits(x).reshape([batch, context, self.vocab_size()])
    }

    /// Logits of the next token, `[batch, vocab]`, after `tokens`, `[batch, new]`, which follow those in `cache` and are added
    /// to it. Up to rounding, the numbers are those of [`forward`](Self::forward) on all tokens together.
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
    /// If there are more tokens in total than [`context`](Self::context), if there are no tokens, and if the batch size is not
    /// the cache's.
    pub fn extend(&self, cache: &mut Cache, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [batch, new] = tokens.dims();
        cache.layers.resize_with(self.blocks.len(), KeyValues::default);
        let (x, _) = self.stream(tokens, Some(cache), None, |_| ());
        let last = x.reshape([batch, new, self.fixed.config.d_model]).narrow(1, new - 1, 1);
        self.logits(last.squeeze_dim(1))
    }

    /// Mean cross-entropy in nats per token, `[1]`, of predicting `targets` from `tokens`, both `[batch, context]`.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and if the two shapes differ.
    #[must_use]
    pub fn loss(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> Tensor<1> {
        self.loss_and_routings(tokens, targets, None).0
    }

    /// [`loss`](Self::loss), and the metrics of each router, first to last; none without experts.
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    #[must_use]
    pub fn loss_and_routers(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> (Tensor<1>, Vec<RouterMetrics>) {
        let (loss, routings) = self.loss_and_routings(tokens, targets, None);
        (loss, routings.iter().map(|routing| RouterMetrics::of(&routing.choice)).collect())
    }

    /// The loss to train with: [`loss`](Self::loss), plus `aux_load_balance` times the routers' load-balance loss and
    /// `aux_z` times their z-loss, both averaged over the routers.
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    pub fn training_loss(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> TrainingLoss {
        self.training_loss_with(tokens, targets, None)
    }

    /// [`training_loss`](Self::training_loss); the largest attention logits are added to `logits`. The loss is the same to the bit
    /// with and without.
    ///
    /// ```
    /// use burn::tensor::{Device, Int, Tensor};
    /// use polaron_models::{LargestLogits, ModelConfig};
    ///
    /// let device = Device::flex();
    /// let model = ModelConfig::preset("llama-d64")?.init(65, 1, &device)?;
    /// let tokens = Tensor::<2, Int>::from_ints([[1, 2, 3, 4]], &device);
    /// let mut logits = LargestLogits::default();
    /// let _ = model.training_loss_with(tokens.clone(), tokens, Some(&mut logits));
    /// let layers = logits.layers();
    /// assert_eq!((layers.len(), layers[0].dims()), (model.blocks.len(), [model.config().heads]));
    /// # Ok::<(), polaron_models::ModelError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    pub fn training_loss_with(
        &self,
        tokens: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        logits: Option<&mut LargestLogits>,
    ) -> TrainingLoss {
        let (cross_entropy, routings) = self.loss_and_routings(tokens, targets, logits);
        let mut total = cross_entropy.clone();
        for [balance, z] in routings.iter().filter_map(|routing| self.router_losses(routing)) {
            total = total + balance + z;
        }
        TrainingLoss { total, cross_entropy }
    }

    /// The weighted load-balance loss and z-loss of one router; none if both have the weight 0.
    pub(super) fn router_losses(&self, routing: &Routing) -> Option<[Tensor<1>; 2]> {
        let ModelConfig { aux_load_balance, aux_z, layers, .. } = *self.config();
        if aux_load_balance == 0.0 && aux_z == 0.0 {
            return None;
        }
        let (balance, z) = auxiliary_losses(routing);
        let share = 1.0 / layers as f64;
        Some([balance * (aux_load_balance * share), z * (aux_z * share)])
    }

    fn loss_and_routings(
        &self,
        tokens: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        logits: Option<&mut LargestLogits>,
    ) -> (Tensor<1>, Vec<Routing>) {
        let (x, routings) = self.stream(tokens, None, logits, |_| ());
        (self.loss_of(x, targets), routings)
    }

    /// For QK-clip: what [`LargestLogits`] found in every attention layer, first to last, one number per head, with the paths of the
    /// projections that made it.
    #[must_use]
    pub fn head_logits(&self, largest: &[Vec<f32>]) -> Vec<HeadLogits> {
        let layer = |(index, (block, largest)): (usize, (&Block, &Vec<f32>))| {
            let path = |name: &str| format!("blocks.{index}.attn.{name}");
            let [query, key] = if block.attn.qkv.is_some() { ["qkv", "qkv"] } else { ["wq", "wk"] };
            HeadLogits {
                query: path(query),
                key: path(key),
                key_heads: self.config().kv_heads(),
                largest: largest.iter().map(|logit| f64::from(*logit)).collect(),
            }
        };
        self.blocks.iter().zip(largest).enumerate().map(layer).collect()
    }

    /// The residual stream after every block, `[batch · context, d_model]` each, then the logits, `[batch · context, vocab]`:
    /// width rules keep constant how much these change in a step.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[must_use]
    pub fn layer_outputs(&self, tokens: Tensor<2, Int>) -> Vec<Tensor<2>> {
        let mut outputs = Vec::new();
        let (x, _) = self.stream(tokens, None, None, |x| outputs.push(x.clone()));
        outputs.push(self.logits(x));
        outputs
    }

    /// The input of the head, `[batch · context, d_model]`; `after_block` is called with the stream after every block.
    /// Activations are two-dimensional throughout, so that every projection is one matrix product.
    fn stream(
        &self,
        tokens: Tensor<2, Int>,
        mut cache: Option<&mut Cache>,
        mut logits: Option<&mut LargestLogits>,
        mut after_block: impl FnMut(&Tensor<2>),
    ) -> (Tensor<2>, Vec<Routing>) {
        let [batch, context] = tokens.dims();
        let start = cache.as_ref().map_or(0, |cache| cache.length);
        let windows = Windows { batch, context, start };
        let mut x = self.enter(tokens, windows);
        let mut routings = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let routing;
            let layer = cache.as_mut().map(|cache| &mut cache.layers[index]);
            (x, routing) = block.forward(x, windows, self.positions(), layer, logits.as_deref_mut());
            routings.extend(routing);
            after_block(&x);
        }
        if let Some(cache) = cache {
            cache.length += context;
        }
        (self.norm.forward(x), routings)
    }

    /// The input of the first block, `[batch · context, d_model]`, for `tokens`, `[batch, context]`.
    pub(super) fn enter(&self, tokens: Tensor<2, Int>, windows: Windows) -> Tensor<2> {
        let Windows { batch, context, start } = windows;
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
        x.reshape([batch * context, config.d_model])
    }

    /// Mean cross-entropy of `targets`, `[batch, context]`, given the output of the last norm, `[batch · context, d_model]`.
    pub(super) fn loss_of(&self, x: Tensor<2>, targets: Tensor<2, Int>) -> Tensor<1> {
        let targets = targets.flatten(0, 1);
        #[cfg(feature = "flex")]
        if let Some((weight, transposed)) = self.plain_head()
            && fused::serve(&[&x, &weight])
        {
            return fused::head_loss(x, weight, transposed, 1.0 / self.config().width_ratio(), &targets);
        }
        mean_loss(self.logits(x), targets)
    }

    /// The weight of a head that is one product, and whether it is `[vocab, d_model]`.
    #[cfg(feature = "flex")]
    fn plain_head(&self) -> Option<(Tensor<2>, bool)> {
        match &self.head {
            None => Some((self.embed.weight.val(), true)),
            Some(head) => (head.bias.is_none() && head.lora.is_none()).then(|| (head.weight.val(), false)),
        }
    }

    /// Rotary tables and masks of the blocks.
    pub(super) fn positions(&self) -> &Positions {
        &self.fixed.positions
    }

    /// Logits, `[tokens, vocab]`, from the output of the last norm, `[tokens, d_model]`.
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

    /// Checks that every token is in the vocabulary. Devices do not: some silently return wrong rows, others end the program.
    ///
    /// # Errors
    ///
    /// [`ModelError::TokenOutOfRange`] names the first token that is not in it, and its position.
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

    /// The configuration of the model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.fixed.config
    }

    /// The longest window of tokens that the model accepts.
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
