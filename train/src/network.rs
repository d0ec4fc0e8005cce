//! What is trained: a decoder on windows of tokens, or a perceptron on images.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron::Roles;
use polaron_common::thousands;
use polaron_datasets::{Batch, ImageBatch, ImageData, ImageSampler, TextData, Windows, image_batches};
use polaron_models::{LanguageModel, Mlp, MlpConfig, ModelConfig, ModelError, TrainingLoss};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::{Config, ConfigError};
use crate::error::{Error, one_line};
use crate::evaluate;
use crate::metrics::RouterReport;
use crate::workers::Workers;

/// `[model]`: an architecture and its sizes, told apart by `preset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Table")]
pub enum NetworkConfig {
    /// A decoder over tokens.
    Decoder(ModelConfig),
    /// A multi-layer perceptron over images.
    Mlp(MlpConfig),
}

impl TryFrom<Table> for NetworkConfig {
    type Error = ConfigError;

    fn try_from(table: Table) -> Result<Self, ConfigError> {
        let mlp = table.get("preset").and_then(Value::as_str) == Some(MlpConfig::PRESET);
        let parsed = if mlp { table.try_into().map(Self::Mlp) } else { table.try_into().map(Self::Decoder) };
        parsed.map_err(ConfigError::misfit)
    }
}

impl NetworkConfig {
    /// Names of all presets.
    pub fn presets() -> Vec<&'static str> {
        [ModelConfig::PRESETS, &[MlpConfig::PRESET]].concat()
    }

    /// One line about a preset; empty for a name that is none.
    pub fn describe_preset(name: &str) -> &'static str {
        if name == MlpConfig::PRESET { MlpConfig::DESCRIPTION } else { ModelConfig::describe_preset(name) }
    }

    /// The preset that the configuration started from.
    pub fn preset(&self) -> &str {
        match self {
            Self::Decoder(model) => &model.preset,
            Self::Mlp(model) => &model.preset,
        }
    }

    /// The decoder, where it is one.
    pub fn decoder(&self) -> Option<&ModelConfig> {
        match self {
            Self::Decoder(model) => Some(model),
            Self::Mlp(_) => None,
        }
    }

    /// What one row of a batch counts: the tokens of a window, or one image.
    pub fn tokens_per_row(&self) -> usize {
        self.decoder().map_or(1, |model| model.context)
    }

    /// What is counted: tokens or images.
    pub fn unit(&self) -> Unit {
        match self {
            Self::Decoder(_) => Unit { one: "token", many: "tokens" },
            Self::Mlp(_) => Unit { one: "image", many: "images" },
        }
    }

    /// Checks that a model of these sizes can exist.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    pub fn validate(&self) -> Result<(), ModelError> {
        match self {
            Self::Decoder(model) => model.validate(),
            Self::Mlp(model) => model.validate(),
        }
    }

    /// The sizes in a few words.
    pub fn sizes(&self) -> String {
        match self {
            Self::Decoder(model) => format!(
                "{} layers, dimension {}, {} heads, context {}",
                model.layers, model.d_model, model.heads, model.context
            ),
            Self::Mlp(model) => format!("{} hidden layers of {} units", model.depth, model.width),
        }
    }
}

/// Name of what a model reads one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Of one.
    pub one: &'static str,
    /// Of several.
    pub many: &'static str,
}

/// What a validation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// Mean cross-entropy in nats per token or image.
    pub loss: f64,
    /// Share of images whose class has the highest score; None for tokens.
    pub accuracy: Option<f64>,
    /// How many evenly spaced windows the loss is over; None for all of the split.
    pub windows: Option<u64>,
    /// What the routers did; None without experts.
    pub router: Option<RouterReport>,
}

/// What the training loop asks of a model.
pub trait Network: Module + Roles {
    /// What it trains and validates on.
    type Data: Sync;
    /// Rows of one step.
    type Batch<'a>: Sync;

    /// The rows of the step with index `step` (from 0).
    ///
    /// # Errors
    ///
    /// Data that hold no such rows.
    fn batch<'a>(data: &'a Self::Data, config: &Config, step: u64) -> Result<Self::Batch<'a>, Error>;

    /// Number of rows.
    fn rows(batch: &Self::Batch<'_>) -> usize;

    /// Mean loss of `rows` (first, number) of a batch.
    fn loss(&self, batch: &Self::Batch<'_>, rows: (usize, usize), device: &Device) -> TrainingLoss;

    /// The loss over `windows` evenly spaced windows of the validation split, where it has windows; 0 is all of the split. It
    /// does not depend on the number of workers. The model must be free of
    /// automatic differentiation (`model.valid()`) and live on `device`. None when `stop` asked to leave off.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`].
    fn validate(
        &self,
        data: &Self::Data,
        windows: u64,
        device: &Device,
        workers: &Workers,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Validation>, Error>;

    /// The data in a few words.
    fn describe(data: &Self::Data) -> String;
}

impl Network for LanguageModel {
    type Data = TextData;
    type Batch<'a> = Batch<'a>;

    fn batch<'a>(data: &'a TextData, config: &Config, step: u64) -> Result<Batch<'a>, Error> {
        let context = config.model.tokens_per_row();
        Ok(Windows::new(&data.train, config.train.data_seed, config.train.batch, context)?.batch(step))
    }

    fn rows(batch: &Batch<'_>) -> usize {
        batch.rows()
    }

    fn loss(&self, batch: &Batch<'_>, rows: (usize, usize), device: &Device) -> TrainingLoss {
        let (inputs, targets) = evaluate::tensors(batch, rows, device);
        self.training_loss(inputs, targets)
    }

    fn validate(
        &self,
        data: &TextData,
        windows: u64,
        device: &Device,
        workers: &Workers,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Validation>, Error> {
        evaluate::validation(self, &data.valid, windows, device, workers, stop)
    }

    fn describe(data: &TextData) -> String {
        format!(
            "{}: {} training and {} validation tokens, vocabulary {}",
            data.name,
            thousands(data.train.len() as u64),
            thousands(data.valid.len() as u64),
            data.tokenizer.vocab_size()
        )
    }
}

/// Images scored at once in a validation.
const IMAGES_PER_BATCH: usize = 256;

impl Network for Mlp {
    type Data = ImageData;
    type Batch<'a> = ImageBatch<'a>;

    fn batch<'a>(data: &'a ImageData, config: &Config, step: u64) -> Result<ImageBatch<'a>, Error> {
        Ok(ImageSampler::new(&data.train, config.train.data_seed, config.train.batch)?.batch(step))
    }

    fn rows(batch: &ImageBatch<'_>) -> usize {
        batch.rows()
    }

    fn loss(&self, batch: &ImageBatch<'_>, rows: (usize, usize), device: &Device) -> TrainingLoss {
        let (pixels, labels) = image_tensors(batch, rows, device);
        let cross_entropy = self.cross_entropy(pixels, labels);
        TrainingLoss { total: cross_entropy.clone(), cross_entropy }
    }

    fn validate(
        &self,
        data: &ImageData,
        _windows: u64,
        device: &Device,
        _workers: &Workers,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Validation>, Error> {
        let (mut loss, mut hits, images) = (0.0, 0_u64, data.valid.len());
        for batch in image_batches(&data.valid, IMAGES_PER_BATCH) {
            if stop() {
                return Ok(None);
            }
            let (pixels, labels) = image_tensors(&batch, (0, batch.rows()), device);
            let scores = self.forward(pixels);
            let right = scores.clone().argmax(1).squeeze_dim::<1>(1).equal(labels.clone()).int().sum();
            loss +=
                evaluate::to_host(polaron_models::cross_entropy(scores, labels), "validating")? * batch.rows() as f64;
            hits += count(right)?;
        }
        let accuracy = Some(hits as f64 / images as f64);
        Ok(Some(Validation { loss: loss / images as f64, accuracy, windows: None, router: None }))
    }

    fn describe(data: &ImageData) -> String {
        let [height, width] = data.shape;
        format!(
            "{}: {} training and {} validation images of {height} x {width}, {} classes",
            data.name,
            thousands(data.train.len() as u64),
            thousands(data.valid.len() as u64),
            data.classes
        )
    }
}

/// Some rows (first, number) of a batch as `[rows, features]` and `[rows]`.
fn image_tensors(
    batch: &ImageBatch<'_>,
    (first, rows): (usize, usize),
    device: &Device,
) -> (Tensor<2>, Tensor<1, Int>) {
    let part = first..first + rows;
    (
        Tensor::from_data(TensorData::new(batch.pixels(part.clone()), [rows, batch.features()]), device),
        Tensor::from_data(TensorData::new(batch.labels(part), [rows]), device),
    )
}

fn count(number: Tensor<1, Int>) -> Result<u64, Error> {
    let failed = |message: String| Error::DeviceFailed { doing: "validating", message: one_line(&message) };
    let number = number.try_into_scalar::<i64>().map_err(|error| failed(error.to_string()))?;
    u64::try_from(number).map_err(|error| failed(error.to_string()))
}
