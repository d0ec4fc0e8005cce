//! Sizes and choices of a decoder.

use burn::tensor::Device;
use polaron::Role;
use serde::{Deserialize, Serialize};

use crate::init::Initializer;
use crate::{LanguageModel, ModelError, RopeBound, RopeLayers, rope_bounds};

/// How activations are normalised before attention, before the feed-forward layer and before the
/// head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation, multiply by a gain; no bias.
    LayerNorm,
    /// Divide by the root mean square, multiply by a gain.
    RmsNorm,
    /// Divide by the root mean square, multiply by one plus a gain that is zero at first (Gemma).
    RmsNormPlusOne,
}

/// Whether queries and keys are normalised, by the kind of norm that the model has, before they are turned by their
/// positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QkNormKind {
    /// They are not.
    None,
    /// Every head on its own; all heads share the gains, `[head_dim]` (Qwen3, Gemma 3).
    PerHead,
    /// All heads together, with a gain for every feature (OLMoE).
    FullWidth,
}

/// How the model knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PositionKind {
    /// A learned vector per position, added to the token's embedding.
    Learned,
    /// Queries and keys are rotated by angles that grow with the position (base `rope_base`; feature i
    /// of a head's first half pairs with feature i of its second half).
    Rotary,
}

/// How queries, keys and values are projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProjectionKind {
    /// One matrix `qkv`, `[d_model, (heads + 2 · kv_heads) · head_dim]`; output units in the order queries, keys, values,
    /// the heads contiguous inside each.
    Fused,
    /// Three matrices: `wq`, `[d_model, heads · head_dim]`, and `wk`, `wv`, `[d_model, kv_heads · head_dim]` each.
    Separate,
}

/// The layer between two attentions, or one expert of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FeedForwardKind {
    /// `down(gelu(up(x)))` with the exact GELU (error function).
    Gelu,
    /// `down(silu(gate(x)) · up(x))`.
    SwiGlu,
    /// `down(gelu(gate(x)) · up(x))` with the GELU by tanh (Gemma).
    GeGlu,
    /// `down(g · sigmoid(1.702 g) · (u + 1))` with `g = min(gate(x), 7)` and `u = up(x)` kept within -7 and 7 (gpt-oss).
    ClampedGlu,
}

/// How the logits of a router become the weights of the chosen experts; the experts with the `top_k` largest logits are
/// chosen either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RouterKind {
    /// Softmax over all experts, then the chosen ones as they are, so that the weights sum to less than one (OLMoE).
    SoftmaxThenTopK,
    /// Softmax over the chosen experts alone: the weights sum to one (gpt-oss).
    TopKThenSoftmax,
}

/// How first weights, learning rates and factors follow the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Parametrization {
    /// They do not: scores are divided by the root of the head dimension, nothing else depends on the width.
    Standard,
    /// By the width rules muP (arXiv 2203.03466, 2512.05620), so that the best learning rate stays where it is. With
    /// `m = d_model / base_width`: first weights of hidden matrices are `√m` times smaller, those of routers m times;
    /// scores are divided by the head dimension, logits by m; and an element-wise optimizer multiplies its learning rate of
    /// hidden matrices and routers by `1/m` ([`ModelConfig::adam_lr_factor`]). Muon needs no factor: its scales
    /// `original` and `spectral` do not depend on the width. `polaron::Layerwise::width` does this for every optimizer
    /// whose exponent is known, and refuses the others.
    Mup,
}

/// Sizes and choices of a decoder: everything about it but the vocabulary, which the text brings.
///
/// In a file, `preset` alone is enough; every other key overrides what the preset says, and
/// `hidden`, when it is not given, follows `d_model` by the preset's rule. In Rust, start from
/// [`ModelConfig::preset`] and set fields.
///
/// ```
/// let config: polaron_models::ModelConfig = toml::from_str("preset = \"llama-d64\"\nlayers = 2")?;
/// assert_eq!((config.layers, config.d_model, config.hidden), (2, 64, 192));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Overrides")]
#[non_exhaustive]
pub struct ModelConfig {
    /// The preset that this configuration started from.
    pub preset: String,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads in a block; divides `d_model` unless `head_dim` is given.
    pub heads: usize,
    /// Heads of keys and values, each shared by `heads / kv_heads` query heads; 0 means as many as `heads`.
    pub kv_heads: usize,
    /// Features of a head; 0 means `d_model / heads`.
    pub head_dim: usize,
    /// Tokens the model sees at once.
    pub context: usize,
    /// Width inside the feed-forward layer; with experts, inside one of them.
    pub hidden: usize,
    /// Kind of the norms.
    pub norm: NormKind,
    /// Added to the variance or mean square under a norm's root.
    pub norm_eps: f64,
    /// Whether attention and feed-forward layer have a norm behind them too, before they are added to the stream.
    pub post_norm: bool,
    /// Whether queries and keys are normalised.
    pub qk_norm: QkNormKind,
    /// Kind of the positions.
    pub position: PositionKind,
    /// Base of the rotary angles.
    pub rope_base: f64,
    /// Base of the rotary angles in the layers with a sliding window; 0 means `rope_base`.
    pub rope_base_sliding: f64,
    /// Kind of the attention projections.
    pub projection: ProjectionKind,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Whether every query head has a sink: a learned score that takes part in the softmax and carries no value.
    pub sinks: bool,
    /// How many tokens a query sees in a layer with a sliding window, itself included.
    pub sliding_window: usize,
    /// Every n-th layer attends to the whole context, the others to a sliding window; with 1 all attend to the whole context.
    pub full_every: usize,
    /// Kind of the feed-forward layer or of the experts.
    pub feed_forward: FeedForwardKind,
    /// Experts in a block; 0 is one dense feed-forward layer.
    pub experts: usize,
    /// How many experts a token is sent to; 0 without experts.
    pub top_k: usize,
    /// How the router weighs the chosen experts.
    pub router: RouterKind,
    /// Whether router and experts have biases.
    pub expert_bias: bool,
    /// Weight of the load-balance loss `E Σ f_i P_i` in the training loss, see [`RouterMetrics`](crate::RouterMetrics).
    pub aux_load_balance: f64,
    /// Weight of the router's z-loss, the mean square of the logits' logsumexp, in the training loss.
    pub aux_z: f64,
    /// Whether embeddings are multiplied by `sqrt(d_model)`.
    pub scale_embedding: bool,
    /// Whether the embedding table is also the head.
    pub tied_head: bool,
    /// How first weights, learning rates and factors follow the width.
    pub parametrization: Parametrization,
    /// The width at which muP leaves learning rates and first weights as they are; without meaning otherwise.
    pub base_width: usize,
}

/// What a file may say; what it leaves out comes from the preset.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overrides {
    preset: String,
    d_model: Option<usize>,
    layers: Option<usize>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    context: Option<usize>,
    hidden: Option<usize>,
    norm: Option<NormKind>,
    norm_eps: Option<f64>,
    post_norm: Option<bool>,
    qk_norm: Option<QkNormKind>,
    position: Option<PositionKind>,
    rope_base: Option<f64>,
    rope_base_sliding: Option<f64>,
    projection: Option<ProjectionKind>,
    attention_bias: Option<bool>,
    sinks: Option<bool>,
    sliding_window: Option<usize>,
    full_every: Option<usize>,
    feed_forward: Option<FeedForwardKind>,
    experts: Option<usize>,
    top_k: Option<usize>,
    router: Option<RouterKind>,
    expert_bias: Option<bool>,
    aux_load_balance: Option<f64>,
    aux_z: Option<f64>,
    scale_embedding: Option<bool>,
    tied_head: Option<bool>,
    parametrization: Option<Parametrization>,
    base_width: Option<usize>,
}

impl ModelConfig {
    /// Bounds on the base of the rotary positions, in the layers that see the whole context; `None` with learned
    /// positions.
    #[must_use]
    pub fn rope_bounds(&self) -> Option<[RopeBound; 4]> {
        let rotary = self.position == PositionKind::Rotary;
        rotary.then(|| rope_bounds(self.rope_base, self.context, self.layers, self.head_dim()))
    }

    /// The same for every kind of layer that the model has: those that see the whole context, and those with a sliding
    /// window, by their own base and window. Empty with learned positions.
    #[must_use]
    pub fn rope_layers(&self) -> Vec<RopeLayers> {
        if self.position != PositionKind::Rotary {
            return Vec::new();
        }
        let sliding_base = if self.rope_base_sliding == 0.0 { self.rope_base } else { self.rope_base_sliding };
        let (any_full, any_sliding) = (self.layers >= self.full_every, self.full_every > 1);
        let kinds = [
            (any_full, false, self.rope_base, self.context),
            (any_sliding, true, sliding_base, self.sliding_window.min(self.context)),
        ];
        let there = kinds.into_iter().filter(|(there, ..)| *there);
        there
            .map(|(_, sliding, base, context)| RopeLayers::new(sliding, base, context, self.layers, self.head_dim()))
            .collect()
    }

    /// Checks that a model of these sizes can exist.
    ///
    /// # Errors
    ///
    /// [`ModelError::Zero`], [`ModelError::HeadsDoNotDivide`], [`ModelError::KeyHeadsDoNotDivide`],
    /// [`ModelError::OddHeadDimension`], [`ModelError::OutOfRange`], [`ModelError::TopK`], [`ModelError::ExpertsWithoutGate`],
    /// [`ModelError::WithoutExperts`].
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [
            ("d_model", self.d_model),
            ("layers", self.layers),
            ("heads", self.heads),
            ("context", self.context),
            ("hidden", self.hidden),
            ("sliding_window", self.sliding_window),
            ("full_every", self.full_every),
            ("base_width", self.base_width),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(ModelError::Zero { key });
        }
        self.validate_heads()?;
        self.validate_numbers()?;
        self.validate_experts()
    }

    fn validate_heads(&self) -> Result<(), ModelError> {
        let (d_model, heads) = (self.d_model, self.heads);
        if self.head_dim == 0 && !d_model.is_multiple_of(heads) {
            let suggestion = self.next_width();
            return Err(ModelError::HeadsDoNotDivide { d_model, heads, suggestion });
        }
        let kv_heads = self.kv_heads();
        if !heads.is_multiple_of(kv_heads) {
            return Err(ModelError::KeyHeadsDoNotDivide { heads, kv_heads });
        }
        let head_dim = self.head_dim();
        if self.position == PositionKind::Rotary && !head_dim.is_multiple_of(2) {
            let remedy = match self.head_dim {
                0 => format!("change `d_model` or `heads`, for example `d_model` = {}", self.next_width()),
                _ => format!("choose for example `head_dim` = {}", head_dim.saturating_add(1)),
            };
            return Err(ModelError::OddHeadDimension { d_model, heads, head_dim, remedy });
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), ModelError> {
        let above_zero: fn(f64) -> bool = |x| x > 0.0;
        let not_negative: fn(f64) -> bool = |x| x >= 0.0;
        for (key, value, holds, rule) in [
            ("norm_eps", self.norm_eps, above_zero, "above 0"),
            ("rope_base", self.rope_base, above_zero, "above 0"),
            ("rope_base_sliding", self.rope_base_sliding, not_negative, "at least 0 (0 means `rope_base`)"),
            ("aux_load_balance", self.aux_load_balance, not_negative, "at least 0"),
            ("aux_z", self.aux_z, not_negative, "at least 0"),
        ] {
            if !(value.is_finite() && holds(value)) {
                return Err(ModelError::OutOfRange { key, value, rule });
            }
        }
        Ok(())
    }

    fn validate_experts(&self) -> Result<(), ModelError> {
        let (experts, top_k) = (self.experts, self.top_k);
        if experts == 0 {
            let set = [
                ("top_k", top_k > 0, "0"),
                ("expert_bias", self.expert_bias, "false"),
                ("aux_load_balance", self.aux_load_balance > 0.0, "0"),
                ("aux_z", self.aux_z > 0.0, "0"),
            ];
            let stray = set.into_iter().find(|(_, set, _)| *set);
            return stray.map_or(Ok(()), |(key, _, off)| Err(ModelError::WithoutExperts { key, off }));
        }
        if !(1..=experts).contains(&top_k) {
            return Err(ModelError::TopK { top_k, experts });
        }
        match self.feed_forward {
            FeedForwardKind::Gelu => Err(ModelError::ExpertsWithoutGate),
            _ => Ok(()),
        }
    }

    /// The nearest width from `d_model` up that the heads and the kind of positions allow.
    fn next_width(&self) -> usize {
        let step = match self.position {
            PositionKind::Learned => self.heads,
            PositionKind::Rotary => self.heads.saturating_mul(2),
        };
        self.d_model.div_ceil(step).saturating_mul(step)
    }

    /// Features of one attention head: the field `head_dim`, or `d_model / heads` where that is 0.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        match self.head_dim {
            0 => self.d_model.checked_div(self.heads).unwrap_or(0),
            given => given,
        }
    }

    /// Heads of keys and values: the field `kv_heads`, or `heads` where that is 0.
    #[must_use]
    pub fn kv_heads(&self) -> usize {
        if self.kv_heads == 0 { self.heads } else { self.kv_heads }
    }

    /// Features of all query heads.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim())
    }

    /// Features of all key heads, and of all value heads.
    #[must_use]
    pub fn key_width(&self) -> usize {
        self.kv_heads().saturating_mul(self.head_dim())
    }

    /// How many tokens a query of this layer (from 0) sees, itself included; `None` where it sees the whole context.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        let full = (layer + 1).is_multiple_of(self.full_every.max(1));
        (!full).then_some(self.sliding_window)
    }

    /// Width over base width with muP, else 1.
    #[must_use]
    pub fn width_ratio(&self) -> f64 {
        match self.parametrization {
            Parametrization::Standard => 1.0,
            Parametrization::Mup => self.d_model as f64 / self.base_width as f64,
        }
    }

    /// What an element-wise optimizer (AdamW) multiplies the learning rate of a role by: with
    /// [`Parametrization::Mup`] `base_width / d_model` for hidden matrices and routers, else 1. The head has 1, because
    /// the logits are divided instead.
    ///
    /// ```
    /// use polaron::Role;
    /// let mut config = polaron_models::ModelConfig::preset("llama-d64")?;
    /// config.parametrization = polaron_models::Parametrization::Mup;
    /// config.d_model = 256; // four times the preset's
    /// assert_eq!(config.adam_lr_factor(Role::Up), 0.25);
    /// assert_eq!(config.adam_lr_factor(Role::Embedding), 1.0);
    /// # Ok::<(), polaron_models::ModelError>(())
    /// ```
    #[must_use]
    pub fn adam_lr_factor(&self, role: Role) -> f64 {
        let follows = Role::MATRICES.contains(&role) || role == Role::Router;
        if follows { 1.0 / self.width_ratio() } else { 1.0 }
    }

    /// A model with first weights fixed by `seed`; equal on every device, and drawn by a documented
    /// rule that other programs can repeat (see the crate's front page).
    ///
    /// `device`: where the parameters live; pass an autodiff device to train. Parameters take the
    /// device's default float type.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate), and [`ModelError::Zero`] for a vocabulary of 0.
    pub fn init(&self, vocab_size: usize, seed: u64, device: &Device) -> Result<LanguageModel, ModelError> {
        self.validate()?;
        if vocab_size == 0 {
            return Err(ModelError::Zero { key: "vocab_size" });
        }
        let init = Initializer::new(seed, device);
        Ok(LanguageModel::new(self, vocab_size, &init))
    }

    /// The width of the feed-forward layer that this preset gives to another `d_model` and kind: that of the kind where
    /// the preset follows it, else in proportion.
    fn hidden_for(&self, kind: FeedForwardKind, d_model: usize) -> usize {
        if kind != self.feed_forward || self.hidden == kind.usual_hidden(self.d_model) {
            return kind.usual_hidden(d_model);
        }
        self.hidden.saturating_mul(d_model).div_ceil(self.d_model)
    }
}

impl FeedForwardKind {
    /// The usual width: four times `d_model`, or with a gate 8/3 of it rounded up to a multiple of 64.
    pub(crate) fn usual_hidden(self, d_model: usize) -> usize {
        match self {
            Self::Gelu => d_model.saturating_mul(4),
            _ => d_model.saturating_mul(8).div_ceil(3).div_ceil(64).saturating_mul(64),
        }
    }
}

impl TryFrom<Overrides> for ModelConfig {
    type Error = ModelError;

    fn try_from(overrides: Overrides) -> Result<Self, ModelError> {
        let preset = Self::preset(&overrides.preset)?;
        let d_model = overrides.d_model.unwrap_or(preset.d_model);
        let feed_forward = overrides.feed_forward.unwrap_or(preset.feed_forward);
        Ok(Self {
            d_model,
            feed_forward,
            hidden: overrides.hidden.unwrap_or_else(|| preset.hidden_for(feed_forward, d_model)),
            layers: overrides.layers.unwrap_or(preset.layers),
            heads: overrides.heads.unwrap_or(preset.heads),
            kv_heads: overrides.kv_heads.unwrap_or(preset.kv_heads),
            head_dim: overrides.head_dim.unwrap_or(preset.head_dim),
            context: overrides.context.unwrap_or(preset.context),
            norm: overrides.norm.unwrap_or(preset.norm),
            norm_eps: overrides.norm_eps.unwrap_or(preset.norm_eps),
            post_norm: overrides.post_norm.unwrap_or(preset.post_norm),
            qk_norm: overrides.qk_norm.unwrap_or(preset.qk_norm),
            position: overrides.position.unwrap_or(preset.position),
            rope_base: overrides.rope_base.unwrap_or(preset.rope_base),
            rope_base_sliding: overrides.rope_base_sliding.unwrap_or(preset.rope_base_sliding),
            projection: overrides.projection.unwrap_or(preset.projection),
            attention_bias: overrides.attention_bias.unwrap_or(preset.attention_bias),
            sinks: overrides.sinks.unwrap_or(preset.sinks),
            sliding_window: overrides.sliding_window.unwrap_or(preset.sliding_window),
            full_every: overrides.full_every.unwrap_or(preset.full_every),
            experts: overrides.experts.unwrap_or(preset.experts),
            top_k: overrides.top_k.unwrap_or(preset.top_k),
            router: overrides.router.unwrap_or(preset.router),
            expert_bias: overrides.expert_bias.unwrap_or(preset.expert_bias),
            aux_load_balance: overrides.aux_load_balance.unwrap_or(preset.aux_load_balance),
            aux_z: overrides.aux_z.unwrap_or(preset.aux_z),
            scale_embedding: overrides.scale_embedding.unwrap_or(preset.scale_embedding),
            tied_head: overrides.tied_head.unwrap_or(preset.tied_head),
            parametrization: overrides.parametrization.unwrap_or(preset.parametrization),
            base_width: overrides.base_width.unwrap_or(preset.base_width),
            preset: preset.preset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_sizes() {
        // preset, parameters with 65 tokens, of these in the blocks' matrices, batch, GFLOP a step
        for (name, all, hidden, batch, gflop) in [
            ("nanogpt-char", 804_096, 786_432, 12, 3.81),
            ("llama-d64", 221_888, 212_992, 32, 2.87),
            ("llama-d128", 869_760, 851_968, 32, 22.75),
            ("llama-d256", 4_853_504, 4_816_896, 16, 128.45),
        ] {
            let config = ModelConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.parameters(65), all, "{name}");
            assert_eq!(config.hidden_parameters(), hidden, "{name}");
            // The published figures have two decimals.
            let found = config.flops_per_step(65, batch) * 1e-9;
            assert!((found - gflop).abs() <= 0.005, "{name}: {found}");
        }
    }

    #[test]
    fn every_preset_is_described() {
        for name in ModelConfig::PRESETS {
            assert_eq!(ModelConfig::preset(name).unwrap().preset, *name);
            assert!(!ModelConfig::describe_preset(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn an_unknown_preset_names_the_nearest_one() {
        let error = ModelConfig::preset("llama-d65").unwrap_err().to_string();
        assert!(error.contains("`llama-d65`") && error.contains("did you mean `llama-d6"), "{error}");
        let error = ModelConfig::preset("zzz").unwrap_err().to_string();
        assert!(error.contains("nanogpt-char, llama-d64"), "{error}");
    }

    #[test]
    fn a_size_of_zero_is_refused_by_name() {
        for key in ["d_model", "layers", "heads", "context", "hidden"] {
            let text = format!("preset = \"llama-d64\"\n{key} = 0");
            let config: ModelConfig = toml::from_str(&text).unwrap();
            assert_eq!(config.validate(), Err(ModelError::Zero { key }));
        }
    }

    #[test]
    fn a_width_that_the_heads_do_not_divide_is_refused() {
        let mut config = ModelConfig::preset("nanogpt-char").unwrap();
        config.heads = 5;
        let error = config.validate().unwrap_err();
        let expected = ModelError::HeadsDoNotDivide { d_model: 128, heads: 5, suggestion: 130 };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("`d_model` = 128 is not divisible by `heads` = 5"));
    }

    #[test]
    fn rotary_positions_refuse_an_odd_head_dimension() {
        let mut config = ModelConfig::preset("llama-d64").unwrap();
        (config.d_model, config.heads) = (12, 4);
        let error = config.validate().unwrap_err();
        assert!(matches!(error, ModelError::OddHeadDimension { head_dim: 3, .. }), "{error}");
        assert!(error.to_string().contains("`d_model` = 16"), "{error}");
        config.position = PositionKind::Learned;
        config.validate().unwrap();
    }

    /// What `validate` says about a preset with these keys changed.
    fn refusal(preset: &str, keys: &str) -> String {
        let config: ModelConfig = toml::from_str(&format!("preset = \"{preset}\"\n{keys}")).unwrap();
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_remedy() {
        for (preset, keys, said) in [
            ("olmoe-tiny", "top_k = 17", "`top_k` = 17 experts per token with `experts` = 16"),
            ("olmoe-tiny", "top_k = 0", "choose `top_k` between 1 and 16"),
            ("llama-d64", "experts = 4", "choose `top_k` between 1 and 4"),
            ("llama-d64", "top_k = 2", "set `experts` too"),
            ("llama-d64", "expert_bias = true", "set `experts` too"),
            ("llama-d64", "aux_z = 0.1", "set `experts` too"),
            ("nanogpt-char", "experts = 4\ntop_k = 1", "choose \"swi_glu\""),
            ("qwen3-tiny", "head_dim = 33", "`head_dim` = 34"),
            ("qwen3-tiny", "kv_heads = 3", "`heads` = 4 is not divisible by `kv_heads` = 3"),
            ("gemma3-tiny", "sliding_window = 0", "`sliding_window` is 0"),
            ("gemma3-tiny", "full_every = 0", "`full_every` is 0"),
            ("gemma3-tiny", "base_width = 0", "`base_width` is 0"),
            ("gemma3-tiny", "rope_base = -1.0", "`rope_base` is -1"),
            ("gemma3-tiny", "rope_base_sliding = inf", "`rope_base_sliding` is inf"),
            ("gemma3-tiny", "norm_eps = 0.0", "`norm_eps` is 0"),
            ("olmoe-tiny", "aux_load_balance = nan", "`aux_load_balance` is NaN"),
        ] {
            let found = refusal(preset, keys);
            assert!(found.contains(said), "{preset}, {keys}: {found}");
        }
    }

    #[test]
    fn new_presets_have_the_sizes_of_their_families() {
        for (name, heads, head_dim, windows) in [
            ("qwen3-tiny", [4, 2], 64, [None, None]),
            ("gemma3-tiny", [2, 1], 64, [Some(32), None]),
            ("olmoe-tiny", [4, 4], 32, [None, None]),
            ("gpt-oss-tiny", [8, 1], 32, [Some(32), None]),
        ] {
            let config = ModelConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(([config.heads, config.kv_heads()], config.head_dim()), (heads, head_dim), "{name}");
            assert_eq!([0, config.layers - 1].map(|layer| config.window(layer)), windows, "{name}");
        }
    }

    #[test]
    fn active_parameters_leave_out_the_experts_that_a_token_is_not_sent_to() {
        for name in ["nanogpt-char", "llama-d64", "qwen3-tiny", "gemma3-tiny"] {
            let config = ModelConfig::preset(name).unwrap();
            assert_eq!(config.active_parameters(65), config.parameters(65), "{name}");
        }
        // One expert: gate, up and down; for gpt-oss with a bias each.
        for (name, one, idle) in [("olmoe-tiny", 3 * 128 * 64, 12), ("gpt-oss-tiny", 3 * 128 * 128 + 3 * 128, 6)] {
            let config = ModelConfig::preset(name).unwrap();
            assert_eq!(config.parameters(65) - config.active_parameters(65), config.layers * idle * one, "{name}");
        }
    }

    #[test]
    fn operations_count_the_chosen_experts_and_the_keys_that_are_seen() {
        let mut config = ModelConfig::preset("gpt-oss-tiny").unwrap();
        let per_token = |config: &ModelConfig| config.flops_per_step(65, 1) / config.context as f64;
        let before = per_token(&config);
        config.top_k = 3;
        // One more expert in each of 4 layers, at 6 operations a weight.
        assert_eq!(per_token(&config) - before, 6.0 * 4.0 * 3.0 * 128.0 * 128.0);
        config.top_k = 2;
        config.full_every = 1;
        // Two layers see 64 keys in the mean instead of 32 - 32² / 256 = 28; 12 operations per key and feature.
        assert_eq!(per_token(&config) - before, 12.0 * 2.0 * (64.0 - 28.0) * 256.0);
    }

    #[test]
    fn the_width_of_the_experts_follows_the_model_in_proportion() {
        for (name, d_model, hidden) in
            [("olmoe-tiny", 256, 128), ("gpt-oss-tiny", 64, 64), ("gemma3-tiny", 72, 432), ("qwen3-tiny", 64, 192)]
        {
            let config: ModelConfig = toml::from_str(&format!("preset = \"{name}\"\nd_model = {d_model}")).unwrap();
            assert_eq!(config.hidden, hidden, "{name}");
        }
    }

    #[test]
    fn a_file_of_before_these_keys_gives_the_same_model() {
        let old = "preset = \"llama-d64\"\nd_model = 64\nlayers = 4\nheads = 4\ncontext = 64\nhidden = 192\n\
                   norm = \"rms_norm\"\nposition = \"rotary\"\nprojection = \"separate\"\n\
                   feed_forward = \"swi_glu\"\ntied_head = false\n";
        assert_eq!(toml::from_str::<ModelConfig>(old).unwrap(), ModelConfig::preset("llama-d64").unwrap());
    }

    #[test]
    fn a_configuration_comes_back_equal_from_a_file() {
        for name in ModelConfig::PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<ModelConfig>(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn unknown_keys_and_presets_in_a_file_are_errors() {
        let error = toml::from_str::<ModelConfig>("preset = \"llama-d64\"\nlayer = 3").unwrap_err();
        assert!(error.to_string().contains("layer"), "{error}");
        let error = toml::from_str::<ModelConfig>("preset = \"lama-d64\"").unwrap_err();
        assert!(error.to_string().contains("did you mean `llama-d64`"), "{error}");
    }

    #[test]
    fn huge_sizes_saturate_instead_of_overflowing() {
        let mut config = ModelConfig::preset("llama-d64").unwrap();
        config.d_model = usize::MAX;
        assert_eq!(config.parameters(65), usize::MAX);
        assert!(config.validate().is_err());
    }
}
