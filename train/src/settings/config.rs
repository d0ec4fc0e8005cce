//! The resolved configuration of a run: preset defaults, then a file, then named flags, then `--set`.

use std::path::{Path, PathBuf};

use polaron::LayerwiseConfig;
use polaron_datasets::{DATASETS, IMAGE_DATASETS, Manifest, Packed, TokenizerKind};
use polaron_models::LoraSettings;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{ConfigError, Error};
use crate::host::device;
use crate::networks::data::DataConfig;
use crate::networks::registry::NetworkConfig;
use crate::settings::given_model::{GivenModel, INIT_CONTINUES, INIT_SHA256, INIT_STEP};
use crate::settings::merge;
use polaron::schedule::Schedule;

/// The largest number of tokens in one micro-batch; a run with more is refused as a typing error.
const MAX_MICRO_BATCH_TOKENS: usize = 1 << 24;

/// More layers than any network has: every one needs entries in tables, whatever its size.
const MAX_LAYERS: usize = 100_000;

/// More threads than any machine has.
const MAX_THREADS: usize = 1024;

/// Everything that a run depends on; `config.toml` of a run folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Architecture.
    pub model: NetworkConfig,
    /// Text and tokens, or images.
    pub data: DataConfig,
    /// Length, batches, seeds, validations, checkpoints and samples.
    pub train: TrainConfig,
    /// Learning-rate factor of every step.
    pub schedule: Schedule,
    /// Rules, learning rates, clipping.
    pub optimizer: LayerwiseConfig,
    /// The device and its threads.
    pub device: DeviceConfig,
}

/// `[train]`: length, batches, seeds, validations, checkpoints and samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Windows (or images) per step, over all micro-batches.
    pub batch: usize,
    /// Micro-batches per step; must divide `batch`.
    pub accumulation: usize,
    /// Whether the activations of a block are computed again in the backward pass, instead of being kept: the same numbers, in
    /// less memory and more time.
    pub recompute: bool,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Seed of the batches; by default `seed + 1`.
    pub data_seed: u64,
    /// Steps between validations; 0 validates at the end only.
    pub valid_every: u64,
    /// Windows of the validations before the last step, evenly spaced over the split; 0 means all. A comparison takes its curves
    /// from them. Images are always all validated.
    pub valid_windows: u64,
    /// Windows of the validation after the last step, and of the one before the first step of a run that starts from trained
    /// weights; 0 means all.
    pub valid_windows_end: u64,
    /// Whether to validate before the first step too. By default only a run that starts from trained weights does: it delays the
    /// first step by a whole validation.
    pub valid_at_start: bool,
    /// Steps between two records of the weights' spectra, which `polaron report` draws; 0 records none. Does not affect the
    /// weights.
    pub spectra_every: u64,
    /// Steps between checkpoints; 0 writes only the first and the last.
    pub checkpoint_every: u64,
    /// How many of the newest good checkpoints are kept, besides the one of step 0.
    pub keep: usize,
    /// Globs or `/regex/` on the paths of parameters that are not trained.
    pub freeze: Vec<String>,
    /// Steps between two lines of progress when stderr is not a terminal.
    pub log_every: u64,
    /// Where events are written besides `metrics.jsonl`: `tensorboard` writes an event file into the run folder.
    pub log_to: Vec<LogTarget>,
    /// Tokens of sample text at the end; 0 means no sample.
    pub sample_tokens: usize,
    /// Prompt of the sample text; may be empty.
    pub sample_prompt: String,
    /// Randomness of the sample text; 0 always takes the likeliest token.
    pub sample_temperature: f64,
    /// The sample text draws from this many likeliest tokens; 0 draws from all.
    pub sample_top_k: usize,
    /// Seed of the sample text.
    pub sample_seed: u64,
    /// Where the first weights come from: the folder of another run, or one of Hugging Face; empty means from `seed`. Their model decides all of `[model]`.
    pub init: String,
    /// The checkpoint of `init`; 0 means its newest and is replaced by its step in a resolved configuration.
    pub init_step: u64,
    /// SHA-256 of the weights of `init`: others are refused. Empty means any, and is replaced in a resolved configuration.
    pub init_sha256: String,
    /// Whether the run goes on where `init` was, with its optimizer states and at its step, and not at step 0.
    pub init_continues: bool,
    /// Steps for which the schedule is computed; at a later step it stays as at its end. 0 means `steps`.
    pub schedule_steps: u64,
    /// Adapters of low rank, which are then the only thing that is trained; absent without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSettings>,
}

/// A program whose logs a run can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// TensorBoard, and what else reads its event files.
    Tensorboard,
}

impl LogTarget {
    /// Their names.
    pub const NAMES: &'static [&'static str] = &["tensorboard"];
}

/// `[device]`: the device and its threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// One of the names that `polaron list devices` shows.
    pub name: String,
    /// CPU threads; 0 means all and is replaced by their number in a resolved configuration.
    pub threads: usize,
}

/// Keys that change only what is printed, not what is computed or stored.
pub const REPORTING_KEYS: &[&str] = &[
    "train.log_every",
    "train.log_to",
    "train.sample_tokens",
    "train.sample_prompt",
    "train.sample_temperature",
    "train.sample_top_k",
    "train.sample_seed",
];

/// The section of adapters of low rank, which exists only in runs that have them.
pub const LORA: &str = "train.lora";

/// The key of the path of the data.
pub const SOURCE: &str = "data.source";

/// The key of how activations are kept.
pub const RECOMPUTE: &str = "train.recompute";

/// Keys in which a resumed command may differ from its run: reporting keys, the path of the data, since their fingerprint
/// decides whether they are the same, and how activations are kept, which changes no number.
pub fn resumable_keys() -> Vec<&'static str> {
    [&[SOURCE, RECOMPUTE], REPORTING_KEYS].concat()
}

impl Config {
    /// The configuration as TOML text, complete.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Misfit`] for a value that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(&self.to_table()?).map_err(ConfigError::misfit)
    }

    /// The configuration as a table that holds every key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Misfit`] for a value that TOML cannot hold.
    pub fn to_table(&self) -> Result<Table, ConfigError> {
        let mut table = Table::try_from(self).map_err(ConfigError::misfit)?;
        // Serialization omits what is off or empty, but these keys must exist.
        if let Some(Value::Table(optimizer)) = table.get_mut("optimizer") {
            optimizer.entry("clip").or_insert(Value::Float(0.0));
            optimizer.entry("matrix").or_insert_with(|| Value::Table(Table::new()));
            optimizer.entry("rule").or_insert_with(|| Value::Array(Vec::new()));
        }
        Ok(table)
    }

    pub(crate) fn from_table(table: Table) -> Result<Self, ConfigError> {
        check_choices(&table)?;
        table.try_into().map_err(ConfigError::misfit)
    }

    /// Replaces what depends on the machine and the working directory by actual values: device, threads, path, tokenizer.
    pub(crate) fn settle(&mut self, model: Option<&GivenModel>) -> Result<(), Error> {
        self.device.name = device::find(&self.device.name)?.name.into();
        if self.device.threads == 0 {
            self.device.threads = device::all_threads();
        }
        let embedded = DATASETS.iter().chain(IMAGE_DATASETS).any(|info| info.name == self.data.source);
        if !embedded && Path::new(&self.data.source).exists() {
            self.data.source = absolute(&self.data.source);
        }
        self.train.init = absolute(&self.train.init);
        self.settle_tokenizer(model)
    }

    /// The tokenizer of packed data is their own, that of a text the one of the given weights, if there are any.
    fn settle_tokenizer(&mut self, model: Option<&GivenModel>) -> Result<(), Error> {
        let asked = self.data.tokenizer;
        let packed = self.packed().map(|manifest| manifest.tokenizer);
        let given = model.filter(|_| packed.is_none() && self.model.is_text());
        self.data.tokenizer = match given.map_or(Ok(None), |model| model.tokenizer_for(asked))? {
            Some(theirs) => theirs,
            None if asked == TokenizerKind::Auto => packed.unwrap_or(TokenizerKind::Char),
            None => asked,
        };
        Ok(())
    }

    /// Whether the weights to start from are named, but not yet found.
    pub fn init_is_open(&self) -> bool {
        !self.train.init.is_empty() && self.train.init_sha256.is_empty()
    }

    /// Whether the data are missing: not embedded, and nothing is at their path.
    pub fn lacks_data(&self) -> bool {
        let embedded = DATASETS.iter().chain(IMAGE_DATASETS).any(|info| info.name == self.data.source);
        !embedded && !Path::new(&self.data.source).exists()
    }

    /// The manifest of the data, if they are packed.
    fn packed(&self) -> Option<Manifest> {
        let embedded = DATASETS.iter().any(|info| info.name == self.data.source);
        if embedded { None } else { Packed::manifest_at(Path::new(&self.data.source)) }
    }

    /// Whether the data are packed tokens.
    pub fn is_packed(&self) -> bool {
        self.packed().is_some()
    }

    /// Takes the share of the validation split from packed data, which are stored already split.
    pub(crate) fn adopt_split(&mut self) {
        self.data.valid_fraction = self.packed().map_or(self.data.valid_fraction, |manifest| manifest.valid_fraction);
    }

    /// Checks that packed data have the requested split.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`].
    pub fn check_split(&self) -> Result<(), ConfigError> {
        let asked = self.data.valid_fraction;
        let Some(manifest) = self.packed().filter(|manifest| manifest.valid_fraction != asked) else { return Ok(()) };
        let rule = format!(
            "`{}` was packed with {}: leave the key out, or pack the text again with `--valid-fraction {asked}`",
            self.data.source, manifest.valid_fraction
        );
        Err(ConfigError::BadValue { key: "data.valid_fraction".into(), value: asked.to_string(), rule })
    }

    /// Checks every value that has a range.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`] for the first value outside its range, or the model's own error.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_train()?;
        let rule = format!("a {} keeps its activations: leave the key out", self.model.noun());
        ConfigError::ensure(!self.train.recompute || self.model.recomputes(), RECOMPUTE, true, &rule)?;
        let (schedule, optimizer) = (&self.schedule, &self.optimizer);
        within(
            "data.valid_fraction",
            self.data.valid_fraction,
            |x| x > 0.0 && x < 1.0,
            "lie strictly between 0 and 1",
        )?;
        within("schedule.min_factor", schedule.min_factor, |x| (0.0..=1.0).contains(&x), "lie between 0 and 1")?;
        within(
            "schedule.decay_fraction",
            schedule.decay_fraction,
            |x| (0.0..=1.0).contains(&x),
            "lie between 0 and 1",
        )?;
        let sizes = [
            ("optimizer.lr", optimizer.lr),
            ("optimizer.weight_decay", optimizer.weight_decay),
            ("optimizer.clip", optimizer.clip.unwrap_or(0.0)),
            ("optimizer.adamw.lr", optimizer.adamw.lr),
            ("optimizer.adamw.weight_decay", optimizer.adamw.weight_decay),
            ("train.sample_temperature", self.train.sample_temperature),
        ];
        for (key, value) in sizes {
            within(key, value, |x| x.is_finite() && x >= 0.0, "be a finite number and not negative")?;
        }
        let threads = self.device.threads;
        ConfigError::ensure(
            threads <= MAX_THREADS,
            "device.threads",
            threads,
            &format!("it must not exceed {MAX_THREADS}"),
        )?;
        self.model.validate()?;
        self.train.lora.as_ref().map_or(Ok(()), LoraSettings::validate)?;
        let (key, layers) = (self.model.layers_key(), self.model.layers());
        ConfigError::ensure(layers <= MAX_LAYERS, key, layers, &format!("it must not exceed {MAX_LAYERS}"))?;
        let tokens = (self.train.batch / self.train.accumulation).saturating_mul(self.model.tokens_per_row());
        let rule = format!(
            "batch / accumulation * context is {tokens} tokens and must not exceed {MAX_MICRO_BATCH_TOKENS}: \
             raise train.accumulation or lower the batch"
        );
        ConfigError::ensure(tokens <= MAX_MICRO_BATCH_TOKENS, "train.batch", self.train.batch, &rule)?;
        Ok(())
    }

    fn validate_train(&self) -> Result<(), ConfigError> {
        let train = &self.train;
        ConfigError::ensure(train.steps >= 1, "train.steps", train.steps, "it must be at least 1")?;
        let named = !train.init.is_empty();
        let rule = "no weights to start from are named: set `train.init` to their folder";
        ConfigError::ensure(named || train.init_step == 0, INIT_STEP, train.init_step, rule)?;
        ConfigError::ensure(named || train.init_sha256.is_empty(), INIT_SHA256, &train.init_sha256, rule)?;
        ConfigError::ensure(named || !train.init_continues, INIT_CONTINUES, true, rule)?;
        if train.init_continues {
            let (run, done) = (&train.init, train.init_step);
            let rule = format!("`{run}` is already at step {done}: choose more steps, or an earlier checkpoint");
            ConfigError::ensure(train.steps > done, "train.steps", train.steps, &rule)?;
        }
        ConfigError::ensure(train.batch >= 1, "train.batch", train.batch, "it must be at least 1")?;
        ConfigError::ensure(
            train.accumulation >= 1,
            "train.accumulation",
            train.accumulation,
            "it must be at least 1",
        )?;
        let rule = format!("it must divide train.batch, which is {}", train.batch);
        ConfigError::ensure(
            train.batch.is_multiple_of(train.accumulation),
            "train.accumulation",
            train.accumulation,
            &rule,
        )?;
        ConfigError::ensure(train.keep >= 1, "train.keep", train.keep, "it must be at least 1")?;
        ConfigError::ensure(train.log_every >= 1, "train.log_every", train.log_every, "it must be at least 1")
    }

    /// Tokens of one step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.train.batch as u64).saturating_mul(self.model.tokens_per_row() as u64)
    }

    /// The factor of the learning rate in the step with index `step` (from 0).
    pub fn lr_factor(&self, step: u64) -> f64 {
        self.schedule.factor(step, self.schedule_steps())
    }

    /// Steps for which the schedule is computed.
    pub fn schedule_steps(&self) -> u64 {
        if self.train.schedule_steps == 0 { self.train.steps } else { self.train.schedule_steps }
    }

    /// The default run folder: `runs/<model>-<optimizer>-s<seed>`, with the name of the folder that the weights come from;
    /// of a run that continues another one, beside it.
    pub fn default_folder(&self) -> PathBuf {
        let name = format!("{}-{}-s{}", self.model.preset(), self.optimizer.stack, self.train.seed);
        let init = Path::new(&self.train.init);
        match init.file_name().map(|name| name.to_string_lossy()) {
            Some(source) if self.train.init_continues => {
                init.with_file_name(format!("{source}-to{}", self.train.steps))
            }
            Some(source) => PathBuf::from(format!("runs/{name}-from-{source}")),
            None => PathBuf::from(format!("runs/{name}")),
        }
    }
}

/// A path in its absolute form, where it has one as text; an empty one has none.
fn absolute(path: &str) -> String {
    let absolute = std::path::absolute(path).ok().and_then(|path| path.to_str().map(String::from));
    absolute.unwrap_or_else(|| path.into())
}

/// Checks the names here, since the errors of the TOML library do not name the nearest choice.
fn check_choices(table: &Table) -> Result<(), ConfigError> {
    let schedule: [(&str, &[&str]); 2] =
        [("kind", &["constant", "cosine", "wsd"]), ("warmup_rule", &["nanogpt", "llama"])];
    let choices = NetworkConfig::choices()
        .into_iter()
        .map(|choice| ("model", choice))
        .chain(schedule.map(|choice| ("schedule", choice)));
    for (section, (key, names)) in choices {
        let key = format!("{section}.{key}");
        if let Some(Value::String(value)) = merge::lookup(table, &key) {
            ConfigError::check_choice(&key, value, names)?;
        }
    }
    let targets = merge::lookup(table, "train.log_to").and_then(Value::as_array).into_iter().flatten();
    for target in targets.filter_map(Value::as_str) {
        ConfigError::check_choice("train.log_to", target, LogTarget::NAMES)?;
    }
    if let Some(Value::String(value)) = merge::lookup(table, "data.tokenizer") {
        let known = value.parse::<TokenizerKind>().is_ok();
        let rule = "the N of bpe:N must be a whole number from 257 to 1048576";
        ConfigError::ensure(known || !value.starts_with("bpe:"), "data.tokenizer", value, rule)?;
        if !known {
            ConfigError::check_choice("data.tokenizer", value, &["auto", "char", "byte", "bpe:N"])?;
        }
    }
    Ok(())
}

fn within(key: &str, value: f64, holds: impl Fn(f64) -> bool, rule: &str) -> Result<(), ConfigError> {
    ConfigError::ensure(holds(value), key, value, &format!("it must {rule}"))
}
