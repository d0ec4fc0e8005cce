//! Sizes and choices of a decoder, and the presets.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::init::Initializer;
use crate::{LanguageModel, ModelError, ROTARY_BASE, RopeBound, rope_bounds};

/// How activations are normalised before attention, before the feed-forward layer and before the
/// head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation, multiply by a gain; no bias.
    LayerNorm,
    /// Divide by the root mean square, multiply by a gain.
    RmsNorm,
}

/// How the model knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionKind {
    /// A learned vector per position, added to the token's embedding.
    Learned,
    /// Queries and keys are rotated by angles that grow with the position (base 10,000; feature i
    /// of a head's first half pairs with feature i of its second half).
    Rotary,
}

/// How queries, keys and values are projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionKind {
    /// One matrix `qkv`, `[d_model, 3 · d_model]`; output units in the order queries, keys, values,
    /// the heads contiguous inside each.
    Fused,
    /// Three matrices `wq`, `wk`, `wv`, `[d_model, d_model]` each.
    Separate,
}

/// The layer between two attentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForwardKind {
    /// `down(gelu(up(x)))` with the exact GELU (error function).
    Gelu,
    /// `down(silu(gate(x)) · up(x))`.
    SwiGlu,
}

/// Sizes and choices of a decoder: everything about it but the vocabulary, which the text brings.
///
/// In a file, `preset` alone is enough; every other key overrides what the preset says, and
/// `hidden`, when it is not given, follows `d_model` by the preset's rule.
///
/// ```
/// let config: polaron_models::ModelConfig = toml::from_str("preset = \"llama-d64\"\nlayers = 2")?;
/// assert_eq!((config.layers, config.d_model, config.hidden), (2, 64, 192));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Overrides")]
pub struct ModelConfig {
    /// The preset that this configuration started from.
    pub preset: String,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads in a block; divides `d_model`.
    pub heads: usize,
    /// Tokens the model sees at once.
    pub context: usize,
    /// Width inside the feed-forward layer.
    pub hidden: usize,
    /// Kind of the norms.
    pub norm: NormKind,
    /// Kind of the positions.
    pub position: PositionKind,
    /// Kind of the attention projections.
    pub projection: ProjectionKind,
    /// Kind of the feed-forward layer.
    pub feed_forward: FeedForwardKind,
    /// Whether the embedding table is also the head.
    pub tied_head: bool,
}

/// What a file may say; what it leaves out comes from the preset.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overrides {
    preset: String,
    d_model: Option<usize>,
    layers: Option<usize>,
    heads: Option<usize>,
    context: Option<usize>,
    hidden: Option<usize>,
    norm: Option<NormKind>,
    position: Option<PositionKind>,
    projection: Option<ProjectionKind>,
    feed_forward: Option<FeedForwardKind>,
    tied_head: Option<bool>,
}

impl ModelConfig {
    /// Names of the presets.
    pub const PRESETS: &'static [&'static str] = &["nanogpt-char", "llama-d64", "llama-d128", "llama-d256"];

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
            _ => {
                let hint = match polaron::nearest(name, Self::PRESETS.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the presets are {}", Self::PRESETS.join(", ")),
                };
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
            _ => "",
        }
    }

    fn gpt2(preset: &str, d_model: usize, layers: usize, heads: usize, context: usize) -> Self {
        Self {
            preset: preset.into(),
            d_model,
            layers,
            heads,
            context,
            hidden: FeedForwardKind::Gelu.usual_hidden(d_model),
            norm: NormKind::LayerNorm,
            position: PositionKind::Learned,
            projection: ProjectionKind::Fused,
            feed_forward: FeedForwardKind::Gelu,
            tied_head: true,
        }
    }

    fn llama(preset: &str, d_model: usize, layers: usize, heads: usize, context: usize) -> Self {
        Self {
            preset: preset.into(),
            d_model,
            layers,
            heads,
            context,
            hidden: FeedForwardKind::SwiGlu.usual_hidden(d_model),
            norm: NormKind::RmsNorm,
            position: PositionKind::Rotary,
            projection: ProjectionKind::Separate,
            feed_forward: FeedForwardKind::SwiGlu,
            tied_head: false,
        }
    }

    /// Bounds on the base of the rotary positions; `None` with learned positions.
    pub fn rope_bounds(&self) -> Option<[RopeBound; 4]> {
        let rotary = self.position == PositionKind::Rotary;
        rotary.then(|| rope_bounds(ROTARY_BASE, self.context, self.layers, self.head_dim()))
    }

    /// Checks that a model of these sizes can exist.
    ///
    /// # Errors
    ///
    /// [`ModelError::Zero`], [`ModelError::HeadsDoNotDivide`], [`ModelError::OddHeadDimension`].
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [
            ("d_model", self.d_model),
            ("layers", self.layers),
            ("heads", self.heads),
            ("context", self.context),
            ("hidden", self.hidden),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(ModelError::Zero { key });
        }
        let (d_model, heads) = (self.d_model, self.heads);
        if !d_model.is_multiple_of(heads) {
            let suggestion = self.next_width();
            return Err(ModelError::HeadsDoNotDivide { d_model, heads, suggestion });
        }
        let head_dim = self.head_dim();
        if self.position == PositionKind::Rotary && !head_dim.is_multiple_of(2) {
            let suggestion = self.next_width();
            return Err(ModelError::OddHeadDimension { d_model, heads, head_dim, suggestion });
        }
        Ok(())
    }

    /// The nearest width from `d_model` up that the heads and the kind of positions allow.
    fn next_width(&self) -> usize {
        let step = match self.position {
            PositionKind::Learned => self.heads,
            PositionKind::Rotary => self.heads.saturating_mul(2),
        };
        self.d_model.div_ceil(step).saturating_mul(step)
    }

    /// Features of one attention head: `d_model / heads`.
    pub fn head_dim(&self) -> usize {
        self.d_model.checked_div(self.heads).unwrap_or(0)
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

    /// Number of parameters in the matrices inside the blocks.
    pub fn hidden_parameters(&self) -> usize {
        let attention = product(&[4, self.d_model, self.d_model]);
        let matrices = match self.feed_forward {
            FeedForwardKind::Gelu => 2,
            FeedForwardKind::SwiGlu => 3,
        };
        let feed_forward = product(&[matrices, self.d_model, self.hidden]);
        product(&[self.layers, attention.saturating_add(feed_forward)])
    }

    /// Number of all parameters with a vocabulary of `vocab_size` tokens.
    pub fn parameters(&self, vocab_size: usize) -> usize {
        let tables = if self.tied_head { 1 } else { 2 };
        let positions = match self.position {
            PositionKind::Learned => self.context,
            PositionKind::Rotary => 0,
        };
        let norms = self.layers.saturating_mul(2).saturating_add(1);
        [
            self.hidden_parameters(),
            product(&[tables, vocab_size, self.d_model]),
            product(&[positions, self.d_model]),
            product(&[norms, self.d_model]),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// Floating-point operations of one training step (forward and backward) on `batch` windows:
    /// `6 B T (hidden + vocab · d) + 6 L B T² d`, where `hidden` is
    /// [`hidden_parameters`](Self::hidden_parameters); a causal mask is counted as half.
    pub fn flops_per_step(&self, vocab_size: usize, batch: usize) -> f64 {
        let tokens = batch as f64 * self.context as f64;
        let weights = self.hidden_parameters() as f64 + vocab_size as f64 * self.d_model as f64;
        let attention = self.layers as f64 * self.context as f64 * self.d_model as f64;
        6.0 * tokens * (weights + attention)
    }
}

fn product(factors: &[usize]) -> usize {
    factors.iter().copied().fold(1, usize::saturating_mul)
}

impl FeedForwardKind {
    /// The presets' width: four times `d_model`, or for SwiGLU 8/3 of it rounded up to a multiple
    /// of 64.
    fn usual_hidden(self, d_model: usize) -> usize {
        match self {
            Self::Gelu => d_model.saturating_mul(4),
            Self::SwiGlu => d_model.saturating_mul(8).div_ceil(3).div_ceil(64).saturating_mul(64),
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
            layers: overrides.layers.unwrap_or(preset.layers),
            heads: overrides.heads.unwrap_or(preset.heads),
            context: overrides.context.unwrap_or(preset.context),
            hidden: overrides.hidden.unwrap_or_else(|| feed_forward.usual_hidden(d_model)),
            norm: overrides.norm.unwrap_or(preset.norm),
            position: overrides.position.unwrap_or(preset.position),
            projection: overrides.projection.unwrap_or(preset.projection),
            feed_forward,
            tied_head: overrides.tied_head.unwrap_or(preset.tied_head),
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
        assert!(matches!(error, ModelError::OddHeadDimension { head_dim: 3, suggestion: 16, .. }));
        config.position = PositionKind::Learned;
        config.validate().unwrap();
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
