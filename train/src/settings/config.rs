//! The resolved configuration of a run: preset defaults, then a file, then named flags, then `--set`.

use std::path::{Path, PathBuf};

use polaron::LayerwiseConfig;
use polaron::layerwise::ScheduleConfig;
use polaron::schedule::{ScheduleKind, WarmupRule};
use polaron::wrappers::WrapperConfig;
use polaron_datasets::{DATASETS, IMAGE_DATASETS, Manifest, Packed, TokenizerKind};
use polaron_models::LoraSettings;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{ConfigError, Error};
use crate::host::device;
use crate::networks::data::DataConfig;
use crate::networks::registry::NetworkConfig;
use crate::settings::given_model::GivenModel;
use crate::settings::merge;
use crate::settings::train::{GRAINS, LogTarget, REPORTING_KEYS, TrainConfig};

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
    /// Learning-rate factors of every step, and the momentum.
    pub schedule: ScheduleConfig,
    /// Rules, learning rates, clipping.
    pub optimizer: LayerwiseConfig,
    /// The device and its threads.
    pub device: DeviceConfig,
    /// The processes that train the run together, however many; absent with the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RanksConfig>,
}

/// `[ranks]`: the processes that train the run together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RanksConfig {
    /// Seconds without a step, or a batch of a validation, after which the run is ended: a process hangs.
    pub timeout: f64,
}

/// `[device]`: the device and its threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// One of the names that `polaron list devices` shows; of several GPUs, `cuda:1` is the second one.
    pub name: String,
    /// CPU threads; 0 means all and is replaced by their number in a resolved configuration.
    pub threads: usize,
}

/// The section of adapters of low rank, which exists only in runs that have them.
pub const LORA: &str = "train.lora";

/// The key of how often adapters are re-factorised.
pub const REFACTOR_EVERY: &str = "train.lora.refactor_every";

/// The section of the average of the weights, which exists only in runs that have it.
pub const AVERAGE: &str = "train.average";

/// The section of what goes around the steps of the optimizer, which exists only in runs that have it.
pub const WRAPPER: &str = "optimizer.wrapper";

/// The key of the number of threads.
const THREADS: &str = "device.threads";

/// The key of how long processes wait for each other.
const RANKS_TIMEOUT: &str = "ranks.timeout";

/// The same in seconds, if nothing else is said.
const DEFAULT_TIMEOUT: f64 = 600.0;

/// The key of the path of the data.
pub const SOURCE: &str = "data.source";

/// The key of the threshold of QK-clip.
pub const QK_CLIP: &str = "optimizer.qk_clip";

/// The key of how activations are kept.
pub const RECOMPUTE: &str = "train.recompute";

/// Keys in which a resumed command may differ from its run, given its configuration: reporting keys, the path of the data, since
/// their fingerprint decides whether they are the same, how activations are kept, which changes no number, and with grains the
/// number of threads, which changes none either.
pub fn resumable_keys(there: &Table) -> Vec<&'static str> {
    let grains = merge::lookup(there, GRAINS).and_then(Value::as_integer).is_some_and(|grains| grains > 0);
    let threads: &[&str] = if grains { &[THREADS] } else { &[] };
    [&[SOURCE, RECOMPUTE, RANKS_TIMEOUT], threads, REPORTING_KEYS].concat()
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
        self.device.name = device::plain_name(&self.device.name)?;
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
        self.train.validate()?;
        let own = self.optimizer.wrapper.as_ref().filter(|wrapper| wrapper.replaces_schedule());
        if let (Some(wrapper), Some(_)) = (own, &self.train.average) {
            let rule = format!("it evaluates an average of its own: leave out the section {AVERAGE}");
            ConfigError::ensure(false, WRAPPER, wrapper.kind(), &rule)?;
        }
        let rule = format!("a {} keeps its activations: leave the key out", self.model.noun());
        ConfigError::ensure(!self.train.recompute || self.model.recomputes(), RECOMPUTE, true, &rule)?;
        let (schedule, optimizer) = (&self.schedule.main, &self.optimizer);
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
        self.schedule.rules()?;
        let sizes = [
            ("optimizer.lr", optimizer.lr),
            ("optimizer.weight_decay", optimizer.weight_decay),
            ("optimizer.clip", optimizer.clip.unwrap_or(0.0)),
            (QK_CLIP, optimizer.qk_clip.unwrap_or(0.0)),
            ("optimizer.adamw.lr", optimizer.adamw.lr),
            ("optimizer.adamw.lr_ratio", optimizer.adamw.lr_ratio.unwrap_or_default()),
            ("optimizer.adamw.weight_decay", optimizer.adamw.weight_decay),
            ("train.sample_temperature", self.train.sample_temperature),
        ];
        for (key, value) in sizes {
            within(key, value, |x| x.is_finite() && x >= 0.0, "be a finite number and not negative")?;
        }
        within(RANKS_TIMEOUT, self.ranks_timeout(), |x| (1.0..=1e6).contains(&x), "lie between 1 and 1000000 seconds")?;
        self.check_logits()?;
        let threads = self.device.threads;
        ConfigError::ensure(
            threads <= MAX_THREADS,
            "device.threads",
            threads,
            &format!("it must not exceed {MAX_THREADS}"),
        )?;
        self.model.validate()?;
        self.train.lora.as_ref().map_or(Ok(()), LoraSettings::validate)?;
        let rule = format!(
            "it would record the changes of the adapters' basis as changes of weights: leave it or {REFACTOR_EVERY} out"
        );
        let every = self.train.spectra_every;
        ConfigError::ensure(every == 0 || !self.refactors(0), "train.spectra_every", every, &rule)?;
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

    /// Refuses what needs attention logits where there are none, and QK-clip where it has no effect.
    fn check_logits(&self) -> Result<(), ConfigError> {
        let (threshold, every) = (self.optimizer.qk_clip, self.train.logits_every);
        let rule = format!("a {} has no attention: leave the key out", self.model.noun());
        let clip = |holds: bool, rule: &str| {
            ConfigError::ensure(holds || threshold.is_none(), QK_CLIP, threshold.unwrap_or_default(), rule)
        };
        clip(self.model.attends(), &rule)?;
        ConfigError::ensure(self.model.attends() || every == 0, "train.logits_every", every, &rule)?;
        let rule = "it has no effect, since queries and keys are normalised after their projections (`model.qk_norm`): leave the \
                    key out";
        clip(!self.model.normalises_heads(), rule)?;
        let wrapper = self.optimizer.wrapper.as_ref().filter(|wrapper| wrapper.replaces_schedule());
        let kind = wrapper.map(WrapperConfig::kind).unwrap_or_default();
        let rule = format!(
            "the logits are those of a mean of weights, of which it would scale a part: leave it or {WRAPPER} ({kind}) out"
        );
        clip(wrapper.is_none(), &rule)
    }

    /// Whether the largest attention logits are recorded in the step after which `step` steps are done.
    pub fn records_logits(&self, step: u64) -> bool {
        match self.train.logits_every {
            0 => self.optimizer.qk_clip.is_some(),
            every => self.is_due(every, step),
        }
    }

    /// Whether the step after which `step` steps are done is probed.
    pub fn probes(&self, step: u64) -> bool {
        self.is_due(self.train.probe_every, step)
    }

    /// Whether the curvature is measured before the step after which `step` steps are done.
    pub fn measures_sharpness(&self, step: u64) -> bool {
        self.is_due(self.train.sharpness_every, step)
    }

    /// Whether the energy is recorded when `step` steps are done.
    pub fn records_energy(&self, step: u64) -> bool {
        self.is_due(self.train.energy_every, step)
    }

    /// Whether adapters get other factors after `step` steps: before the first one too, but not in a run without adapters.
    pub fn refactors(&self, step: u64) -> bool {
        let every = self.train.lora.as_ref().map_or(0, |lora| lora.refactor_every);
        every > 0 && step.is_multiple_of(every)
    }

    /// Every so many steps, and at the end; never if that is 0.
    fn is_due(&self, every: u64, step: u64) -> bool {
        every > 0 && (step.is_multiple_of(every) || step == self.train.steps)
    }

    /// Seconds for which the processes of the run wait for each other.
    pub fn ranks_timeout(&self) -> f64 {
        self.ranks.as_ref().map_or(DEFAULT_TIMEOUT, |ranks| ranks.timeout)
    }

    /// Tokens of one step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.train.batch as u64).saturating_mul(self.model.tokens_per_row() as u64)
    }

    /// The factor of the main learning rate in the step with index `step` (from 0).
    pub fn lr_factor(&self, step: u64) -> f64 {
        self.schedule.main.factor(step, self.schedule_steps())
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
    let schedule = [("kind", ScheduleKind::NAMES), ("warmup_rule", WarmupRule::NAMES)];
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
