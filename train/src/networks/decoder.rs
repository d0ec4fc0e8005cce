//! Decoders over windows of tokens.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use polaron::layerwise::HeadLogits;
use polaron_common::thousands;
use polaron_datasets::{Batch, TextData, Tokenizer, Windows};
use polaron_models::{
    FeedForwardKind, LanguageModel, LargestLogits, ModelConfig, ModelError, NamedTensor, Parametrization, QkNormKind,
    RopeLayers, TrainingLoss,
};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::data::{DataConfig, DataSizes};
use super::evaluate;
use super::family::{Family, Memory, Recipe, Settings, Unit, Validation, Work};
use super::generate::{Sampling, generate};
use super::recipes;
use crate::error::{ConfigError, Error, one_line};
use crate::host::progress::say;
use crate::host::ranks::Crew;

impl Settings for ModelConfig {
    fn preset(&self) -> &str {
        &self.preset
    }

    fn unit(&self) -> Unit {
        Unit { one: "token", many: "tokens" }
    }

    fn noun(&self) -> &'static str {
        "decoder"
    }

    fn is_text(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<(), ModelError> {
        self.validate()
    }

    fn sizes(&self) -> String {
        format!("{} layers, dimension {}, {} heads, context {}", self.layers, self.d_model, self.heads, self.context)
    }

    fn tokens_per_row(&self) -> usize {
        self.context
    }

    fn width_ratio(&self) -> Option<f64> {
        (self.parametrization == Parametrization::Mup).then(|| self.width_ratio())
    }

    fn rope_layers(&self) -> Vec<RopeLayers> {
        self.rope_layers()
    }

    fn recomputes(&self) -> bool {
        true
    }

    fn attends(&self) -> bool {
        true
    }

    fn normalises_heads(&self) -> bool {
        self.qk_norm != QkNormKind::None
    }

    fn sizes_for(&self, data: DataSizes) -> Result<DataSizes, ConfigError> {
        let (rows, tokens) = (self.vocab_size, data.inputs);
        let rule = format!("the tokenizer has {tokens} tokens: set it to at least {tokens}, or to 0");
        ConfigError::ensure(rows == 0 || rows >= tokens, "model.vocab_size", rows, &rule)?;
        Ok(vocabulary(rows.max(tokens)))
    }

    fn export_facts(&self) -> Vec<(&'static str, &'static str)> {
        if self.experts > 0 { vec![("expert_layout", "expert_in_out")] } else { Vec::new() }
    }

    fn layers(&self) -> usize {
        self.layers
    }

    fn layers_key(&self) -> &'static str {
        "model.layers"
    }

    fn memory(&self, sizes: DataSizes) -> Memory {
        Memory {
            parameters: self.parameters(sizes.inputs),
            table: sizes.inputs as f64 * self.d_model as f64,
            row: self.activations(sizes.inputs),
        }
    }

    fn work(&self, sizes: DataSizes) -> Work {
        Work {
            active: (self.experts > 0).then(|| self.active_parameters(sizes.inputs)),
            flops_per_row: self.flops_per_step(sizes.inputs, 1),
        }
    }

    fn size_keys(&self, by_batch: bool) -> Vec<(&'static str, usize)> {
        let mut keys = Vec::new();
        if by_batch {
            keys.push(("model.context", self.context));
        }
        keys.extend([("model.d_model", self.d_model), ("model.layers", self.layers), ("model.hidden", self.hidden)]);
        if self.head_dim > 0 {
            keys.extend([("model.heads", self.heads), ("model.head_dim", self.head_dim)]);
        }
        if self.experts > 0 {
            keys.push(("model.experts", self.experts));
        }
        keys
    }
}

impl Family for ModelConfig {
    type Network = LanguageModel;
    type Data = TextData;
    type Batch<'a> = Batch<'a>;

    const PRESETS: &'static [&'static str] = ModelConfig::PRESETS;

    const FOLLOWED: &'static [&'static str] = &["d_model", "feed_forward"];

    fn choices() -> Vec<(&'static str, &'static [&'static str])> {
        ModelConfig::choices().collect()
    }

    fn describe_preset(name: &str) -> &'static str {
        ModelConfig::describe_preset(name)
    }

    fn recipe(preset: &str, steps: Option<u64>) -> Recipe {
        recipes::of(preset, steps)
    }

    fn embedded_data(_preset: &str) -> (&'static str, f64) {
        ("shakespeare", 0.1)
    }

    fn from_given(mut given: Table) -> Result<Self, ConfigError> {
        // A value of the wrong type is refused later, with the place where it was given.
        if given.get("d_model").is_some_and(|value| value.as_integer().is_none_or(|number| number < 0)) {
            given.remove("d_model");
        }
        match given.get("feed_forward").map(Value::as_str) {
            Some(Some(kind)) => ConfigError::check_choice("model.feed_forward", kind, FeedForwardKind::NAMES)?,
            Some(None) => drop(given.remove("feed_forward")),
            None => {}
        }
        given.try_into().map_err(ConfigError::misfit)
    }

    fn load(data: &DataConfig, tokenizer: Option<&Tokenizer>) -> Result<TextData, Error> {
        let data = match tokenizer {
            Some(tokenizer) => TextData::load_with(&data.source, tokenizer, data.valid_fraction)?,
            None => TextData::load(&data.source, data.tokenizer, data.valid_fraction)?,
        };
        data.notes.iter().for_each(|note| say(&format!("note: {note}")));
        Ok(data)
    }

    fn check_data(&self, data: &TextData) -> Result<(), Error> {
        Ok(data.check_windows(self.context)?)
    }

    fn describe_data(data: &TextData) -> String {
        format!(
            "{}: {} training and {} validation tokens, vocabulary {}",
            data.name,
            thousands(data.train.len() as u64),
            thousands(data.valid.len() as u64),
            data.tokenizer.vocab_size()
        )
    }

    /// Computed over tokenizer and tokens. For packed tokens, their checksums are used instead, so that a large data set need
    /// not be read.
    fn fingerprint(data: &TextData) -> Result<String, Error> {
        let mut hasher = Sha256::new();
        hasher.update(stored(&data.tokenizer)?);
        for part in [&data.train, &data.valid] {
            hasher.update((part.len() as u64).to_le_bytes());
            if let Some(checksums) = part.checksums() {
                checksums.iter().for_each(|checksum| hasher.update(checksum));
                continue;
            }
            for start in (0..part.len()).step_by(1 << 14) {
                let tokens = part.to_vec(start..start + (1 << 14));
                hasher.update(tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
            }
        }
        Ok(hex::encode(hasher.finalize()))
    }

    fn tokenizer(data: &TextData) -> Option<&Tokenizer> {
        Some(&data.tokenizer)
    }

    fn data_sizes(data: &TextData) -> DataSizes {
        vocabulary(data.tokenizer.vocab_size())
    }

    fn stored_sizes(&self, _tensors: &[NamedTensor], tokenizer: Option<&Tokenizer>) -> Result<DataSizes, Error> {
        Ok(self.sizes_for(vocabulary(tokenizer.map_or(0, Tokenizer::vocab_size)))?)
    }

    fn describe_sizes(sizes: DataSizes) -> String {
        format!("vocabulary {}", sizes.inputs)
    }

    fn init(&self, sizes: DataSizes, seed: u64, device: &Device) -> Result<LanguageModel, ModelError> {
        self.init(sizes.inputs, seed, device)
    }

    fn outline(&self, sizes: DataSizes, device: &Device) -> Result<LanguageModel, ModelError> {
        self.outline(sizes.inputs, device)
    }

    fn batch<'a>(&self, data: &'a TextData, data_seed: u64, rows: usize, step: u64) -> Result<Batch<'a>, Error> {
        Ok(Windows::new(&data.train, data_seed, rows, self.context)?.batch(step))
    }

    fn rows(batch: &Batch<'_>) -> usize {
        batch.rows()
    }

    fn loss(
        model: &LanguageModel,
        batch: &Batch<'_>,
        rows: (usize, usize),
        device: &Device,
        logits: Option<&mut LargestLogits>,
    ) -> TrainingLoss {
        let (inputs, targets) = evaluate::tensors(batch, rows, device);
        model.training_loss_with(inputs, targets, logits)
    }

    fn recomputed_gradients(
        model: &LanguageModel,
        batch: &Batch<'_>,
        rows: (usize, usize),
        weight: f64,
        device: &Device,
        logits: Option<&mut LargestLogits>,
    ) -> Option<(GradientsParams, Tensor<1>)> {
        let (inputs, targets) = evaluate::tensors(batch, rows, device);
        Some(model.recomputed_gradients_with(inputs, targets, weight, logits))
    }

    fn head_logits(model: &LanguageModel, largest: &[Vec<f32>]) -> Vec<HeadLogits> {
        model.head_logits(largest)
    }

    fn validation(
        model: &LanguageModel,
        data: &TextData,
        windows: u64,
        device: &Device,
        crew: Crew<'_>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Validation>, Error> {
        evaluate::validation(model, data, windows, device, crew, stop)
    }

    fn sample(
        model: &LanguageModel,
        data: &TextData,
        prompt: &str,
        sampling: &Sampling,
        device: &Device,
    ) -> Result<String, Error> {
        Ok(generate(model, &data.tokenizer, prompt, sampling, device, |_| {})?.text)
    }
}

/// The sizes for a vocabulary of `tokens` tokens.
pub fn vocabulary(tokens: usize) -> DataSizes {
    DataSizes { inputs: tokens, outputs: tokens }
}

/// SHA-256 of a tokenizer as it is stored.
pub fn tokenizer_sha256(tokenizer: &Tokenizer) -> Result<String, Error> {
    Ok(hex::encode(Sha256::digest(stored(tokenizer)?)))
}

fn stored(tokenizer: &Tokenizer) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(tokenizer).map_err(|error| Error::Usage(one_line(&error.to_string())))
}
