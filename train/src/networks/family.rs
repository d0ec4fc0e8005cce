//! What a family of networks must provide. Each has one file in this folder, and one line in `registry.rs`.

use std::any::Any;
use std::fmt::Debug;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use polaron::Roles;
use polaron::layerwise::HeadLogits;
use polaron::schedule::WarmupRule;
use polaron_datasets::Tokenizer;
use polaron_models::{
    Activations, LargestLogits, ModelError, NamedTensor, ParameterInfo, Projections, RopeLayers, TrainingLoss,
    parameter_table, to_exported,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use super::data::{DataConfig, DataSizes};
use super::generate::Sampling;
use super::routers::RouterReport;
use crate::error::{ConfigError, Error};
use crate::host::ranks::Crew;

/// The settings `[model]` of a network: what is known from them without data or a model.
pub trait Settings {
    /// The preset that the settings started from.
    fn preset(&self) -> &str;

    /// What its rows are counted in.
    fn unit(&self) -> Unit;

    /// The name of such a network in messages.
    fn noun(&self) -> &'static str;

    /// Whether it reads and writes text, with a tokenizer that is stored in the run folder.
    fn is_text(&self) -> bool {
        false
    }

    /// Checks that a model of these sizes can exist.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    fn validate(&self) -> Result<(), ModelError>;

    /// A short description of the sizes.
    fn sizes(&self) -> String;

    /// Whether [`Family::recomputed_gradients`] exists.
    fn recomputes(&self) -> bool {
        false
    }

    /// Whether it has attention layers.
    fn attends(&self) -> bool {
        false
    }

    /// Whether the queries and keys of its attention layers are normalised, so that their logits do not follow the size of the
    /// projections.
    fn normalises_heads(&self) -> bool {
        false
    }

    /// How many units one row of a batch has.
    fn tokens_per_row(&self) -> usize {
        1
    }

    /// The width over the base width, for which learning rates are given; None without muP.
    fn width_ratio(&self) -> Option<f64> {
        None
    }

    /// The sizes of a model for data of these sizes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`] for settings that the data do not fit.
    fn sizes_for(&self, data: DataSizes) -> Result<DataSizes, ConfigError> {
        Ok(data)
    }

    /// The rotary positions of its layers.
    fn rope_layers(&self) -> Vec<RopeLayers> {
        Vec::new()
    }

    /// What other programs need to know about exported weights besides the settings.
    fn export_facts(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Layers one after another.
    fn layers(&self) -> usize;

    /// The key that sets them.
    fn layers_key(&self) -> &'static str;

    /// How many numbers are in memory, computed from the sizes; quick for any sizes, since it decides which are refused.
    fn memory(&self, sizes: DataSizes) -> Memory;

    /// The work of a model that fits into memory.
    fn work(&self, sizes: DataSizes) -> Work;

    /// The keys that decide how much memory the model needs, with their values; with `by_batch` also those that decide how
    /// much a row of a batch needs.
    fn size_keys(&self, by_batch: bool) -> Vec<(&'static str, usize)>;
}

/// Everything else that the program needs of a family of networks: presets, data, model and a step of training.
pub trait Family: Settings + Clone + Debug + PartialEq + Serialize + DeserializeOwned + Sync + 'static {
    /// The model.
    type Network: Module + Roles + Projections + Sync + 'static;
    /// What it trains and validates on.
    type Data: Sync + 'static;
    /// Rows of one step.
    type Batch<'a>: Sync;

    /// Names of its presets.
    const PRESETS: &'static [&'static str];
    /// Keys of the model on which the defaults of other keys depend.
    const FOLLOWED: &'static [&'static str] = &[];

    /// Keys whose values are names, with the possible names.
    fn choices() -> Vec<(&'static str, &'static [&'static str])> {
        Vec::new()
    }

    /// One line about a preset.
    fn describe_preset(name: &str) -> &'static str;

    /// How a preset is trained by default, in `steps` steps if that is given.
    fn recipe(preset: &str, steps: Option<u64>) -> Recipe;

    /// Embedded data to train a preset on, and the share of it that is kept for validation.
    fn embedded_data(preset: &str) -> (&'static str, f64);

    /// The settings of a preset, given `preset` and, as the user wrote them, the keys of [`Self::FOLLOWED`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a value that does not exist.
    fn from_given(given: Table) -> Result<Self, ConfigError> {
        given.try_into().map_err(ConfigError::misfit)
    }

    /// Reads the data, and prints what the user should know about them. A text is encoded with the given tokenizer, if there is
    /// one.
    ///
    /// # Errors
    ///
    /// When the data are missing or damaged, or do not fit the tokenizer.
    fn load(data: &DataConfig, tokenizer: Option<&Tokenizer>) -> Result<Self::Data, Error>;

    /// Checks that the data hold what a step needs.
    ///
    /// # Errors
    ///
    /// When there are too few data.
    fn check_data(&self, _data: &Self::Data) -> Result<(), Error> {
        Ok(())
    }

    /// A short description of the data.
    fn describe_data(data: &Self::Data) -> String;

    /// SHA-256 of everything that training reads: a resumed run must see the data that it started with.
    ///
    /// # Errors
    ///
    /// When the tokenizer cannot be written.
    fn fingerprint(data: &Self::Data) -> Result<String, Error>;

    /// The tokenizer of the data, if they are text.
    fn tokenizer(_data: &Self::Data) -> Option<&Tokenizer> {
        None
    }

    /// The sizes that follow from the data.
    fn data_sizes(data: &Self::Data) -> DataSizes;

    /// The same for a stored model, given its tensors and the tokenizer of its run.
    ///
    /// # Errors
    ///
    /// When the tensors are not those of this family.
    fn stored_sizes(&self, tensors: &[NamedTensor], tokenizer: Option<&Tokenizer>) -> Result<DataSizes, Error>;

    /// A description of these sizes.
    fn describe_sizes(sizes: DataSizes) -> String;

    /// A model with initial weights, determined by `seed`.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    fn init(&self, sizes: DataSizes, seed: u64, device: &Device) -> Result<Self::Network, ModelError>;

    /// A model of the same shapes without values, whatever its size.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    fn outline(&self, sizes: DataSizes, device: &Device) -> Result<Self::Network, ModelError>;

    /// The batch of the step with index `step` (from 0): `rows` rows, determined by `data_seed`.
    ///
    /// # Errors
    ///
    /// When the data are too short for such rows.
    fn batch<'a>(&self, data: &'a Self::Data, data_seed: u64, rows: usize, step: u64)
    -> Result<Self::Batch<'a>, Error>;

    /// Number of rows.
    fn rows(batch: &Self::Batch<'_>) -> usize;

    /// Mean loss of `rows` (first, number) of a batch. The largest attention logits are added to `logits`.
    fn loss(
        model: &Self::Network,
        batch: &Self::Batch<'_>,
        rows: (usize, usize),
        device: &Device,
        logits: Option<&mut LargestLogits>,
    ) -> TrainingLoss;

    /// The gradient of `weight` times the mean loss of `rows` (first, number) of a batch, and the mean cross-entropy, with as few
    /// activations in memory as possible; None for a family that keeps them all. The largest attention logits are added to
    /// `logits`.
    fn recomputed_gradients(
        _model: &Self::Network,
        _batch: &Self::Batch<'_>,
        _rows: (usize, usize),
        _weight: f64,
        _device: &Device,
        _logits: Option<&mut LargestLogits>,
    ) -> Option<(GradientsParams, Tensor<1>)> {
        None
    }

    /// For QK-clip: every attention layer, with the largest logit of each of its heads and the paths of the projections that made
    /// it; none without attention.
    fn head_logits(_model: &Self::Network, _largest: &[Vec<f32>]) -> Vec<HeadLogits> {
        Vec::new()
    }

    /// The loss over `windows` evenly spaced windows of the validation split, where it has windows; 0 means the whole split. It
    /// does not depend on who shares the work. The model must be free of automatic differentiation (`model.valid()`) and
    /// live on `device`. None when `stop` asks to stop.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`].
    fn validation(
        model: &Self::Network,
        data: &Self::Data,
        windows: u64,
        device: &Device,
        crew: Crew<'_>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Validation>, Error>;

    /// Text that continues `prompt`, for a family that writes text. The model must be free of automatic differentiation and
    /// live on `device`.
    ///
    /// # Errors
    ///
    /// Those of [`super::generate::generate`].
    fn sample(
        _model: &Self::Network,
        _data: &Self::Data,
        _prompt: &str,
        _sampling: &Sampling,
        _device: &Device,
    ) -> Result<String, Error> {
        Ok(String::new())
    }
}

/// A model of any family.
pub trait AnyModel: Debug {
    /// The weights as other programs expect them.
    fn exported(&self) -> Vec<NamedTensor>;

    /// Path, shape and exported name of every parameter.
    fn parameters(&self) -> Vec<ParameterInfo>;

    /// The model as `Any`, to be downcast to its own type.
    fn as_any(&self) -> &dyn Any;
}

impl<M: Module + Debug + 'static> AnyModel for M {
    fn exported(&self) -> Vec<NamedTensor> {
        to_exported(self)
    }

    fn parameters(&self) -> Vec<ParameterInfo> {
        parameter_table(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The name of the items that a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Singular.
    pub one: &'static str,
    /// Plural.
    pub many: &'static str,
}

/// The memory of a model of some size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Numbers that are trained.
    pub parameters: usize,
    /// Numbers of the head, or of the embedding, whose gradients exist beside all activations or all gradients.
    pub table: f64,
    /// What the backward pass needs of a row of a batch.
    pub row: Activations,
}

/// The work of a model of some size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Parameters used for one token, where they are fewer than all.
    pub active: Option<usize>,
    /// Floating-point operations of a forward and backward pass of one row.
    pub flops_per_row: f64,
}

/// The numbers in which the recipes of presets differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Optimizer steps.
    pub steps: u64,
    /// Rows of a batch.
    pub batch: usize,
    /// Rows of a micro-batch, where a batch is too large for most machines.
    pub micro_batch: Option<usize>,
    /// Steps between validations.
    pub valid_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// How the learning rate rises during the warm-up.
    pub warmup_rule: WarmupRule,
    /// Decoupled weight decay of Muon's matrices.
    pub muon_decay: f64,
    /// Learning rate of AdamW, for the parameters that Muon does not update.
    pub part_lr: f64,
    /// Weight decay of AdamW, for the same parameters.
    pub part_decay: f64,
}

/// Validations during a run, enough for a useful curve. Short runs have fewer.
const VALIDATIONS: u64 = 30;
const FEWEST_STEPS_BETWEEN: u64 = 25;

/// Steps between the validations of a run of `steps` steps.
pub fn valid_every(steps: u64) -> u64 {
    (steps / VALIDATIONS).max(FEWEST_STEPS_BETWEEN)
}

/// The result of a validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// Mean cross-entropy in nats per token or image.
    pub loss: f64,
    /// The same in bits per byte of text; None for images, and where the tokenizer does not know its bytes.
    pub bits_per_byte: Option<f64>,
    /// Share of images whose class has the highest score; None for tokens.
    pub accuracy: Option<f64>,
    /// How many evenly spaced windows the loss is over; None for all of the split.
    pub windows: Option<u64>,
    /// The metrics of the routers; None without experts.
    pub router: Option<RouterReport>,
}
