//! The defaults of each model preset: batch, schedule and learning rates of published recipes, so that a run can be repeated
//! with other programs.

use polaron::LayerwiseConfig;
use polaron::layerwise::ProbeGroups;
use polaron::wrappers::WrapperConfig;
use polaron_datasets::TokenizerKind;
use polaron_models::LoraSettings;

use crate::error::{ConfigError, Error};
use crate::host::device;
use crate::networks::data::DataConfig;
use crate::networks::family::Recipe;
use crate::networks::registry::{Defaults, NetworkConfig};
use crate::settings::config::{Config, DeviceConfig, WRAPPER};
use crate::settings::train::{AverageConfig, PROBE_BATCHES, TrainConfig};
use polaron::schedule::{Schedule, ScheduleKind};

/// The default preset: of the four measured, it reaches the lowest loss within two minutes on two cores.
pub const DEFAULT_PRESET: &str = "llama-d64";
/// The default stack.
pub const DEFAULT_STACK: &str = "muon";
const DEFAULT_SEED: u64 = 1;

/// The choices that other defaults depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    /// `model.preset`.
    pub preset: Option<String>,
    /// Keys of the model on which the defaults of other keys depend, as they were given.
    pub model: toml::Table,
    /// `optimizer.stack`.
    pub stack: Option<String>,
    /// `train.batch`: how many micro-batches it is split into depends on it.
    pub batch: Option<usize>,
    /// `train.steps`: the warm-up of the Llama recipes depends on it.
    pub steps: Option<u64>,
    /// `train.seed`: the data seed depends on it.
    pub seed: Option<u64>,
    /// Whether the weights are those of another folder: a run that starts from trained ones validates them first.
    pub trained: bool,
    /// Whether a key of `train.lora` is given: the others then have defaults.
    pub lora: bool,
    /// The same of `train.average`.
    pub average: bool,
    /// The kind of `optimizer.wrapper`, if there is one: its other keys then have defaults.
    pub wrapper: Option<String>,
}

/// Windows of a validation during a run: as much work as a few steps.
const VALID_WINDOWS: u64 = 128;

/// The complete default configuration for `choices`, before files, flags and `--set`.
///
/// # Errors
///
/// For an unknown preset or stack, with the nearest one.
pub fn defaults(choices: &Choices) -> Result<Config, Error> {
    let preset = choices.preset.as_deref().unwrap_or(DEFAULT_PRESET);
    let stack = choices.stack.as_deref().unwrap_or(DEFAULT_STACK);
    ConfigError::check_choice("optimizer.stack", stack, LayerwiseConfig::STACKS)?;
    let mut given = choices.model.clone();
    given.insert("preset".into(), preset.into());
    let Defaults { model, recipe, data } = NetworkConfig::defaults(preset, choices.steps, given)?;
    let (source, valid_fraction) = data;
    let seed = choices.seed.unwrap_or(DEFAULT_SEED);
    Ok(Config {
        model,
        data: DataConfig { source: source.into(), tokenizer: TokenizerKind::Auto, valid_fraction },
        train: TrainConfig {
            steps: recipe.steps,
            batch: recipe.batch,
            accumulation: accumulation(&recipe, choices.batch),
            grains: 0,
            recompute: false,
            seed,
            // The largest integer in TOML is i64::MAX.
            data_seed: if seed < i64::MAX as u64 { seed + 1 } else { 0 },
            valid_every: recipe.valid_every,
            valid_windows: VALID_WINDOWS,
            valid_windows_end: 0,
            valid_at_start: choices.trained,
            spectra_every: 0,
            logits_every: 0,
            probe_every: 0,
            sharpness_every: 0,
            energy_every: 0,
            probe_batches: PROBE_BATCHES,
            probe_groups: ProbeGroups::default(),
            checkpoint_every: recipe.checkpoint_every,
            keep: 2,
            freeze: Vec::new(),
            log_every: (recipe.steps / 40).clamp(1, 50),
            log_to: Vec::new(),
            sample_tokens: 300,
            sample_prompt: String::new(),
            sample_temperature: 0.8,
            sample_top_k: 0,
            sample_seed: 1,
            init: String::new(),
            init_step: 0,
            init_sha256: String::new(),
            init_continues: false,
            schedule_steps: 0,
            lora: choices.lora.then(LoraSettings::default),
            average: choices.average.then(AverageConfig::default),
        },
        schedule: Schedule {
            kind: ScheduleKind::Cosine,
            warmup: recipe.warmup,
            warmup_rule: recipe.warmup_rule,
            min_factor: 0.1,
            decay_fraction: 0.2,
            power: None,
        }
        .into(),
        optimizer: LayerwiseConfig { wrapper: wrapper(choices)?, ..optimizer(stack, &recipe)? },
        device: DeviceConfig { name: device::default_name().into(), threads: 0 },
        ranks: None,
    })
}

fn wrapper(choices: &Choices) -> Result<Option<WrapperConfig>, ConfigError> {
    let Some(kind) = &choices.wrapper else { return Ok(None) };
    ConfigError::check_choice(&format!("{WRAPPER}.kind"), kind, &WrapperConfig::KINDS)?;
    WrapperConfig::of_kind(kind).map(Some).map_err(ConfigError::misfit)
}

/// How many micro-batches of the recipe's size a batch has; one if they do not divide it.
fn accumulation(recipe: &Recipe, batch: Option<usize>) -> usize {
    let batch = batch.unwrap_or(recipe.batch);
    recipe.micro_batch.filter(|rows| batch > 0 && batch.is_multiple_of(*rows)).map_or(1, |rows| batch / rows)
}

/// The stack with the recipe's values. The stacks adamw, sgd and scion keep their own weight decay.
fn optimizer(stack: &str, recipe: &Recipe) -> Result<LayerwiseConfig, Error> {
    let mut config = LayerwiseConfig::stack(stack)?;
    config.clip = Some(1.0);
    config.adamw.beta1 = 0.9;
    config.adamw.beta2 = 0.99;
    config.adamw.eps = 1e-8;
    config.adamw.lr = recipe.part_lr;
    config.adamw.weight_decay = recipe.part_decay;
    if !matches!(stack, "adamw" | "sgd" | "scion") {
        config.weight_decay = recipe.muon_decay;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polaron::schedule::WarmupRule;

    fn of(preset: &str, stack: &str, steps: Option<u64>) -> Config {
        let choices = Choices { preset: Some(preset.into()), stack: Some(stack.into()), steps, ..Choices::default() };
        defaults(&choices).unwrap()
    }

    #[test]
    fn the_small_gpt_follows_its_published_recipe() {
        let config = of("nanogpt-char", "muon", None);
        assert_eq!((config.train.steps, config.train.batch, config.schedule.main.warmup), (2000, 12, 100));
        assert_eq!(
            (config.schedule.main.kind, config.schedule.main.warmup_rule),
            (ScheduleKind::Cosine, WarmupRule::Nanogpt)
        );
        assert_eq!(
            (config.optimizer.lr, config.optimizer.weight_decay, config.optimizer.clip),
            (0.02, 0.01, Some(1.0))
        );
        let part = &config.optimizer.adamw;
        assert_eq!((part.lr, part.beta1, part.beta2, part.eps, part.weight_decay), (1e-3, 0.9, 0.99, 1e-8, 0.0));
        let adamw = of("nanogpt-char", "adamw", None).optimizer;
        assert_eq!((adamw.lr, adamw.weight_decay), (1e-3, 0.1));
    }

    #[test]
    fn the_llama_recipes_follow_their_table() {
        for (preset, batch, part_lr) in [("llama-d64", 32, 6e-3), ("llama-d128", 32, 3e-3), ("llama-d256", 16, 3e-3)] {
            let config = of(preset, "muon", Some(500));
            assert_eq!((config.train.batch, config.schedule.main.warmup), (batch, 50), "{preset}");
            assert_eq!(config.schedule.main.warmup_rule, WarmupRule::Llama, "{preset}");
            let part = &config.optimizer.adamw;
            assert_eq!((config.optimizer.weight_decay, part.lr, part.weight_decay), (0.1, part_lr, 0.1), "{preset}");
        }
        assert_eq!(of("llama-d64", "adamw", Some(20)).schedule.main.warmup, 10);
        assert_eq!(of("llama-d64", "adamw", Some(20_000)).schedule.main.warmup, 100);
    }

    #[test]
    fn batches_of_papers_are_split_into_micro_batches_that_divide_them() {
        for (batch, expected) in [(None, 64), (Some(16), 2), (Some(1), 1), (Some(0), 1)] {
            let choices = Choices { preset: Some("gpt2-124m".into()), batch, ..Choices::default() };
            assert_eq!(defaults(&choices).unwrap().train.accumulation, expected, "{batch:?}");
        }
        let sets =
            ["qwen3-0.6b", "gemma3-1b", "olmoe-1b-7b", "gpt-oss-small"].map(|preset| of(preset, "muon", None).train);
        assert_eq!(sets.map(|train| (train.batch, train.accumulation)), [(224, 56), (144, 72), (160, 40), (64, 16)]);
    }

    #[test]
    fn the_hidden_width_follows_the_model_dimension() {
        let hidden = |preset: &str, d_model: i64| {
            let model = [("d_model".to_owned(), d_model.into())].into_iter().collect();
            let choices = Choices { model, ..Choices::default() };
            let choices = Choices { preset: Some(preset.into()), ..choices };
            match defaults(&choices).unwrap().model {
                NetworkConfig::Decoder(decoder) => decoder.hidden,
                other => panic!("{preset} is {other:?}"),
            }
        };
        assert_eq!(hidden("nanogpt-char", 16), 64);
        assert_eq!(hidden("llama-d64", 128), 384);
        assert_eq!(hidden("llama-d64", 256), 704);
        assert_eq!(hidden("llama-d64", 64), 192);
        assert_eq!(hidden("olmoe-tiny", 64), 32);
    }
}
