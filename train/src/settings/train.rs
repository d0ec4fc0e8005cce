//! `[train]`: length, batches, seeds, validations, checkpoints, logs, samples, and the weights to start from.

use polaron::layerwise::ProbeGroups;
use polaron::wrappers::WeightAverageConfig;
use polaron_models::LoraSettings;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::settings::given_model::{INIT_CONTINUES, INIT_SHA256, INIT_STEP};

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
    /// Parts of a micro-batch, each computed on one thread, whose gradients are added in an order of their own: results then depend
    /// neither on the number of threads nor on that of processes. Absent, a part for every thread.
    #[serde(default, skip_serializing_if = "is_none")]
    pub grains: usize,
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
    /// Steps between two records of the weights' spectra and of how they change, which `polaron report` draws; 0 records none.
    /// Keeps two copies of the trained matrices, in memory and in checkpoints. Does not affect the weights.
    pub spectra_every: u64,
    /// Steps between two records of the largest attention logits, which `polaron report` draws; absent without them. With
    /// `optimizer.qk_clip` they are recorded in every step if this is absent. Does not affect the weights.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub logits_every: u64,
    /// Steps between two probes of the next step, which `polaron report` draws; absent without them. Does not affect the weights.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub probe_every: u64,
    /// Steps between two measurements of the largest curvature of the loss, which `polaron report` draws; absent without them. Does
    /// not affect the weights.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sharpness_every: u64,
    /// Steps between two records of the energy of Muon or smoothed Muon, which `polaron report` draws; absent without them. Does not
    /// affect the weights.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub energy_every: u64,
    /// Batches of the training split on which probes, curvature and energy measure the loss, the same every time, of `batch` windows
    /// each.
    #[serde(default = "probe_batches", skip_serializing_if = "is_probe_batches")]
    pub probe_batches: u64,
    /// Which parameters are probed together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probe_groups: ProbeGroups,
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
    /// Whether the run continues where `init` was, with its optimizer states and at its step, and not at step 0.
    pub init_continues: bool,
    /// Steps for which the schedule is computed; at a later step it stays as at its end. 0 means `steps`.
    pub schedule_steps: u64,
    /// Adapters of low rank, which are then the only thing that is trained; absent without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSettings>,
    /// The moving average of the weights that is evaluated; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<AverageConfig>,
}

/// `[train.average]`: a moving average of the weights for evaluation; see
/// [`WeightAverage`](polaron::wrappers::WeightAverage).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AverageConfig {
    /// The step after which it begins; below 1 a share of the steps.
    pub from: f64,
    /// Steps over which it decays to 1/e of its weight.
    pub horizon: f64,
    /// Share of the average in the weights that are evaluated; the rest is that of the trained weights.
    pub mix: f64,
}

impl Default for AverageConfig {
    /// From the middle of the run; otherwise the defaults of [`WeightAverageConfig`].
    fn default() -> Self {
        let WeightAverageConfig { horizon, mix, .. } = WeightAverageConfig::default();
        Self { from: 0.5, horizon, mix }
    }
}

impl AverageConfig {
    /// The number of finished steps from which on the weights are averaged, in a run of `steps` steps.
    pub fn first(&self, steps: u64) -> u64 {
        if self.from < 1.0 { (self.from * steps as f64).round() as u64 } else { self.from as u64 }
    }

    /// What the library needs to know.
    pub fn settings(&self) -> WeightAverageConfig {
        WeightAverageConfig::new().with_horizon(self.horizon).with_mix(self.mix)
    }

    fn validate(&self, steps: u64) -> Result<(), ConfigError> {
        let Self { from, horizon, mix } = *self;
        let rule = format!("it must be a share of the steps below 1, or a whole step of the {steps} that the run has");
        let holds = (0.0..1.0).contains(&from) || (from.fract() == 0.0 && from >= 1.0 && from <= steps as f64);
        ConfigError::ensure(holds, "train.average.from", from, &rule)?;
        let holds = (1.0..=1e12).contains(&horizon);
        ConfigError::ensure(holds, "train.average.horizon", horizon, "it must be a number of steps, at least 1")?;
        ConfigError::ensure((0.0..=1.0).contains(&mix), "train.average.mix", mix, "it must lie between 0 and 1")
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none(number: &usize) -> bool {
    *number == 0
}

/// Batches of a probe, if nothing else is said.
pub const PROBE_BATCHES: u64 = 16;

fn probe_batches() -> u64 {
    PROBE_BATCHES
}

fn is_probe_batches(number: &u64) -> bool {
    *number == PROBE_BATCHES
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The key of how many parts of a micro-batch are added in an order of their own.
pub const GRAINS: &str = "train.grains";

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

impl TrainConfig {
    /// Checks every value that has a range of its own.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`].
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::ensure(self.steps >= 1, "train.steps", self.steps, "it must be at least 1")?;
        let named = !self.init.is_empty();
        let rule = "no weights to start from are named: set `train.init` to their folder";
        ConfigError::ensure(named || self.init_step == 0, INIT_STEP, self.init_step, rule)?;
        ConfigError::ensure(named || self.init_sha256.is_empty(), INIT_SHA256, &self.init_sha256, rule)?;
        ConfigError::ensure(named || !self.init_continues, INIT_CONTINUES, true, rule)?;
        if self.init_continues {
            let (run, done) = (&self.init, self.init_step);
            let rule = format!("`{run}` is already at step {done}: choose more steps, or an earlier checkpoint");
            ConfigError::ensure(self.steps > done, "train.steps", self.steps, &rule)?;
        }
        ConfigError::ensure(self.batch >= 1, "train.batch", self.batch, "it must be at least 1")?;
        ConfigError::ensure(self.accumulation >= 1, "train.accumulation", self.accumulation, "it must be at least 1")?;
        let rule = format!("it must divide train.batch, which is {}", self.batch);
        ConfigError::ensure(
            self.batch.is_multiple_of(self.accumulation),
            "train.accumulation",
            self.accumulation,
            &rule,
        )?;
        let rows = self.batch / self.accumulation;
        let rule =
            format!("a micro-batch has {rows} rows (train.batch / train.accumulation), at least one for each grain");
        ConfigError::ensure(self.grains <= rows, GRAINS, self.grains, &rule)?;
        self.average.as_ref().map_or(Ok(()), |average| average.validate(self.steps))?;
        self.check_probes()?;
        ConfigError::ensure(self.keep >= 1, "train.keep", self.keep, "it must be at least 1")?;
        ConfigError::ensure(self.log_every >= 1, "train.log_every", self.log_every, "it must be at least 1")
    }

    fn check_probes(&self) -> Result<(), ConfigError> {
        let (batches, groups) = (self.probe_batches, self.probe_groups);
        ConfigError::ensure(batches >= 1, "train.probe_batches", batches, "it must be at least 1")?;
        let rule =
            "nothing is measured on them: set `train.probe_every`, `train.sharpness_every` or `train.energy_every` too";
        let measured = self.probe_every > 0 || self.sharpness_every > 0 || self.energy_every > 0;
        ConfigError::ensure(measured || is_probe_batches(&batches), "train.probe_batches", batches, rule)?;
        let rule = "nothing is probed: set `train.probe_every` too";
        let probed = self.probe_every > 0;
        ConfigError::ensure(probed || is_default(&groups), "train.probe_groups", groups.name(), rule)
    }
}
