//! Multi-layer perceptrons over images.

use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron::schedule::WarmupRule;
use polaron_common::thousands;
use polaron_datasets::{ImageBatch, ImageData, ImageSampler, Tokenizer, image_batches};
use polaron_models::{LargestLogits, Mlp, MlpConfig, ModelError, NamedTensor, TrainingLoss};
use sha2::{Digest, Sha256};
use toml::Table;

use super::data::{DataConfig, DataSizes};
use super::evaluate;
use super::family::{Family, Memory, Recipe, Settings, Unit, Validation, Work};
use crate::error::{ConfigError, Error};
use crate::host::ranks::Crew;

/// Images scored at once in a validation.
const IMAGES_PER_BATCH: usize = 256;

impl Settings for MlpConfig {
    fn preset(&self) -> &str {
        &self.preset
    }

    fn unit(&self) -> Unit {
        Unit { one: "image", many: "images" }
    }

    fn noun(&self) -> &'static str {
        "perceptron"
    }

    fn validate(&self) -> Result<(), ModelError> {
        self.validate()
    }

    fn sizes(&self) -> String {
        format!("{} hidden layers of {} units", self.depth, self.width)
    }

    fn layers(&self) -> usize {
        self.depth
    }

    fn layers_key(&self) -> &'static str {
        "model.depth"
    }

    fn memory(&self, DataSizes { inputs, outputs }: DataSizes) -> Memory {
        Memory {
            parameters: self.parameters(inputs, outputs),
            table: self.width as f64 * outputs as f64,
            row: self.activations(inputs, outputs),
        }
    }

    fn work(&self, DataSizes { inputs, outputs }: DataSizes) -> Work {
        Work { active: None, flops_per_row: self.flops_per_step(inputs, outputs, 1) }
    }

    fn size_keys(&self, _by_batch: bool) -> Vec<(&'static str, usize)> {
        vec![("model.width", self.width), ("model.depth", self.depth)]
    }
}

impl Family for MlpConfig {
    type Network = Mlp;
    type Data = ImageData;
    type Batch<'a> = ImageBatch<'a>;

    const PRESETS: &'static [&'static str] = &[MlpConfig::PRESET];

    fn choices() -> Vec<(&'static str, &'static [&'static str])> {
        MlpConfig::choices().collect()
    }

    fn describe_preset(_name: &str) -> &'static str {
        MlpConfig::DESCRIPTION
    }

    fn recipe(_preset: &str, steps: Option<u64>) -> Recipe {
        Recipe {
            steps: steps.unwrap_or(600),
            batch: 64,
            micro_batch: None,
            valid_every: 200,
            checkpoint_every: 200,
            warmup: 0,
            warmup_rule: WarmupRule::Llama,
            muon_decay: 0.01,
            part_lr: 2e-3,
            part_decay: 0.01,
        }
    }

    fn embedded_data(_preset: &str) -> (&'static str, f64) {
        ("digits", 0.2)
    }

    /// No default depends on a key.
    fn from_given(_given: Table) -> Result<Self, ConfigError> {
        Ok(Self::default())
    }

    fn load(data: &DataConfig, _tokenizer: Option<&Tokenizer>) -> Result<ImageData, Error> {
        Ok(ImageData::load(&data.source, data.valid_fraction)?)
    }

    fn describe_data(data: &ImageData) -> String {
        let [height, width] = data.shape;
        format!(
            "{}: {} training and {} validation images of {height} x {width}, {} classes",
            data.name,
            thousands(data.train.len() as u64),
            thousands(data.valid.len() as u64),
            data.classes
        )
    }

    /// Computed over pixels and labels.
    fn fingerprint(data: &ImageData) -> Result<String, Error> {
        let mut hasher = Sha256::new();
        for part in [&data.train, &data.valid] {
            hasher.update((part.len() as u64).to_le_bytes());
            for chunk in part.pixels.chunks(1 << 14) {
                hasher.update(chunk.iter().flat_map(|pixel| pixel.to_le_bytes()).collect::<Vec<u8>>());
            }
            hasher.update(&part.labels);
        }
        Ok(hex::encode(hasher.finalize()))
    }

    fn data_sizes(data: &ImageData) -> DataSizes {
        DataSizes { inputs: data.train.features, outputs: data.classes }
    }

    fn stored_sizes(&self, tensors: &[NamedTensor], _tokenizer: Option<&Tokenizer>) -> Result<DataSizes, Error> {
        let size = |name: &str, axis: usize| {
            let found = tensors.iter().find(|tensor| tensor.name == name);
            let size = found.and_then(|tensor| tensor.data.shape().to_vec().get(axis).copied());
            let (name, expected, hint) = (name.into(), Vec::new(), String::new());
            size.ok_or(ModelError::MissingTensor { name, expected, hint })
        };
        Ok(DataSizes { inputs: size("layers.0.weight", 0)?, outputs: size("head.weight", 1)? })
    }

    fn describe_sizes(sizes: DataSizes) -> String {
        format!("{} inputs, {} classes", sizes.inputs, sizes.outputs)
    }

    fn init(&self, sizes: DataSizes, seed: u64, device: &Device) -> Result<Mlp, ModelError> {
        self.init(sizes.inputs, sizes.outputs, seed, device)
    }

    fn outline(&self, sizes: DataSizes, device: &Device) -> Result<Mlp, ModelError> {
        self.outline(sizes.inputs, sizes.outputs, device)
    }

    fn batch<'a>(&self, data: &'a ImageData, data_seed: u64, rows: usize, step: u64) -> Result<ImageBatch<'a>, Error> {
        Ok(ImageSampler::new(&data.train, data_seed, rows)?.batch(step))
    }

    fn rows(batch: &ImageBatch<'_>) -> usize {
        batch.rows()
    }

    fn loss(
        model: &Mlp,
        batch: &ImageBatch<'_>,
        rows: (usize, usize),
        device: &Device,
        _logits: Option<&mut LargestLogits>,
    ) -> TrainingLoss {
        let (pixels, labels) = image_tensors(batch, rows, device);
        let cross_entropy = model.cross_entropy(pixels, labels);
        TrainingLoss { total: cross_entropy.clone(), cross_entropy }
    }

    fn validation(
        model: &Mlp,
        data: &ImageData,
        _windows: u64,
        device: &Device,
        crew: Crew<'_>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Validation>, Error> {
        let mut mine = Vec::new();
        for batch in crew.mine(image_batches(&data.valid, IMAGES_PER_BATCH)) {
            if stop() {
                return Ok(None);
            }
            let (pixels, labels) = image_tensors(&batch, (0, batch.rows()), device);
            let scores = model.forward(pixels);
            let right = scores.clone().argmax(1).squeeze_dim::<1>(1).equal(labels.clone()).int().sum();
            let loss = evaluate::to_host(polaron_models::cross_entropy(scores, labels), "validating")?;
            mine.push((loss * batch.rows() as f64, count(right)?));
        }
        let (mut loss, mut hits, images) = (0.0, 0_u64, data.valid.len());
        for (losses, right) in crew.all(mine)? {
            loss += losses;
            hits += right;
        }
        let accuracy = Some(hits as f64 / images as f64);
        let loss = loss / images as f64;
        Ok(Some(Validation { loss, bits_per_byte: None, accuracy, windows: None, router: None }))
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
    let number = number.try_into_scalar::<i64>().map_err(Error::device_failed("validating"))?;
    u64::try_from(number).map_err(Error::device_failed("validating"))
}
