//! What each model preset brings along: batch, schedule and learning rates of published recipes, so that other programs
//! can repeat the run.

use polaron::LayerwiseConfig;
use polaron_datasets::TokenizerKind;
use polaron_models::{FeedForwardKind, MlpConfig, ModelConfig};

use crate::config::{Config, ConfigError, DataConfig, DeviceConfig, TrainConfig};
use crate::device;
use crate::error::Error;
use crate::network::NetworkConfig;
use polaron::schedule::{Schedule, ScheduleKind, WarmupRule};

/// The preset of a run that names none: of the four it reaches the lowest loss within two minutes on two cores.
pub const DEFAULT_PRESET: &str = "llama-d64";
/// The stack of a run that names none.
pub const DEFAULT_STACK: &str = "muon";
const DEFAULT_SEED: u64 = 1;

/// The choices that other defaults depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// `model.preset`.
    pub preset: Option<String>,
    /// `model.d_model`: the hidden width follows it.
    pub d_model: Option<i64>,
    /// `model.feed_forward`: the hidden width follows it too.
    pub feed_forward: Option<String>,
    /// `optimizer.stack`.
    pub stack: Option<String>,
    /// `train.steps`: the warm-up of the Llama recipes follows it.
    pub steps: Option<u64>,
    /// `train.seed`: the data seed follows it.
    pub seed: Option<u64>,
}

/// The numbers in which the recipes differ.
struct Recipe {
    steps: u64,
    batch: usize,
    /// Steps between validations.
    valid_every: u64,
    checkpoint_every: u64,
    warmup: u64,
    warmup_rule: WarmupRule,
    /// Decoupled decay of Muon's matrices.
    muon_decay: f64,
    /// Learning rate and decay of the AdamW beside Muon.
    part_lr: f64,
    part_decay: f64,
}

/// Validations on the way for a curve worth looking at, and the windows of each: a few steps' work. Short runs make fewer.
const VALIDATIONS: u64 = 30;
const VALID_WINDOWS: u64 = 128;
const FEWEST_STEPS_BETWEEN: u64 = 25;

/// Steps between the validations of a run of `steps` steps.
fn valid_every(steps: u64) -> u64 {
    (steps / VALIDATIONS).max(FEWEST_STEPS_BETWEEN)
}

impl Recipe {
    fn of(preset: &str, steps: Option<u64>) -> Self {
        let llama = |default_steps: u64, batch, every, part_lr| {
            let steps = steps.unwrap_or(default_steps);
            let warmup = (steps / 10).clamp(10, 100);
            let warmup_rule = WarmupRule::Llama;
            Self {
                steps,
                batch,
                valid_every: valid_every(steps),
                checkpoint_every: every,
                warmup,
                warmup_rule,
                muon_decay: 0.1,
                part_lr,
                part_decay: 0.1,
            }
        };
        match preset {
            "nanogpt-char" => Self {
                steps: steps.unwrap_or(2000),
                batch: 12,
                valid_every: valid_every(steps.unwrap_or(2000)),
                checkpoint_every: 500,
                warmup: 100,
                warmup_rule: WarmupRule::Nanogpt,
                muon_decay: 0.01,
                part_lr: 1e-3,
                part_decay: 0.0,
            },
            MlpConfig::PRESET => Self {
                steps: steps.unwrap_or(600),
                batch: 64,
                valid_every: 200,
                checkpoint_every: 200,
                warmup: 0,
                warmup_rule: WarmupRule::Llama,
                muon_decay: 0.01,
                part_lr: 2e-3,
                part_decay: 0.01,
            },
            "llama-d64" => llama(1500, 32, 500, 6e-3),
            "llama-d256" => llama(100, 16, 50, 3e-3),
            "gemma3-tiny" => llama(300, 16, 100, 3e-3),
            // llama-d128, and any preset that has no published recipe of its own.
            _ => llama(300, 32, 100, 3e-3),
        }
    }
}

/// The complete configuration that `choices` lead to, before files, flags and `--set`.
///
/// # Errors
///
/// An unknown preset or stack, with the nearest one.
pub fn defaults(choices: &Choices) -> Result<Config, Error> {
    let preset = choices.preset.as_deref().unwrap_or(DEFAULT_PRESET);
    let stack = choices.stack.as_deref().unwrap_or(DEFAULT_STACK);
    ConfigError::check_choice("model.preset", preset, &NetworkConfig::presets())?;
    ConfigError::check_choice("optimizer.stack", stack, LayerwiseConfig::STACKS)?;
    let recipe = Recipe::of(preset, choices.steps);
    let seed = choices.seed.unwrap_or(DEFAULT_SEED);
    Ok(Config {
        model: model(preset, choices)?,
        data: data(preset),
        train: TrainConfig {
            steps: recipe.steps,
            batch: recipe.batch,
            accumulation: 1,
            seed,
            // TOML holds no larger number than i64::MAX.
            data_seed: if seed < i64::MAX as u64 { seed + 1 } else { 0 },
            valid_every: recipe.valid_every,
            valid_windows: VALID_WINDOWS,
            valid_windows_end: 0,
            valid_at_start: false,
            spectra_every: 0,
            checkpoint_every: recipe.checkpoint_every,
            keep: 2,
            log_every: (recipe.steps / 40).clamp(1, 50),
            sample_tokens: 300,
            sample_prompt: String::new(),
            sample_temperature: 0.8,
            sample_top_k: 0,
            sample_seed: 1,
        },
        schedule: Schedule {
            kind: ScheduleKind::Cosine,
            warmup: recipe.warmup,
            warmup_rule: recipe.warmup_rule,
            min_factor: 0.1,
            decay_fraction: 0.2,
        },
        optimizer: optimizer(stack, &recipe)?,
        device: DeviceConfig { name: device::default_name().into(), threads: 0 },
    })
}

/// Embedded data that suit the preset.
fn data(preset: &str) -> DataConfig {
    let (source, valid_fraction) = if preset == MlpConfig::PRESET { ("digits", 0.2) } else { ("shakespeare", 0.1) };
    DataConfig { source: source.into(), tokenizer: TokenizerKind::Auto, valid_fraction }
}

/// The preset, with the hidden width that it gives to the chosen model dimension and kind of feed-forward layer.
fn model(preset: &str, choices: &Choices) -> Result<NetworkConfig, Error> {
    if preset == MlpConfig::PRESET {
        return Ok(NetworkConfig::Mlp(MlpConfig::default()));
    }
    let mut table = toml::Table::new();
    table.insert("preset".into(), preset.into());
    if let Some(d_model) = choices.d_model {
        table.insert("d_model".into(), d_model.into());
    }
    if let Some(kind) = &choices.feed_forward {
        ConfigError::check_choice("model.feed_forward", kind, FeedForwardKind::NAMES)?;
        table.insert("feed_forward".into(), kind.as_str().into());
    }
    Ok(NetworkConfig::Decoder(table.try_into::<ModelConfig>().map_err(ConfigError::misfit)?))
}

/// The stack with the recipe's values. The decay of adamw, sgd and scion is their own.
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

    fn of(preset: &str, stack: &str, steps: Option<u64>) -> Config {
        let choices = Choices { preset: Some(preset.into()), stack: Some(stack.into()), steps, ..Choices::default() };
        defaults(&choices).unwrap()
    }

    #[test]
    fn the_small_gpt_follows_its_published_recipe() {
        let config = of("nanogpt-char", "muon", None);
        assert_eq!((config.train.steps, config.train.batch, config.schedule.warmup), (2000, 12, 100));
        assert_eq!((config.schedule.kind, config.schedule.warmup_rule), (ScheduleKind::Cosine, WarmupRule::Nanogpt));
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
            assert_eq!((config.train.batch, config.schedule.warmup), (batch, 50), "{preset}");
            assert_eq!(config.schedule.warmup_rule, WarmupRule::Llama, "{preset}");
            let part = &config.optimizer.adamw;
            assert_eq!((config.optimizer.weight_decay, part.lr, part.weight_decay), (0.1, part_lr, 0.1), "{preset}");
        }
        assert_eq!(of("llama-d64", "adamw", Some(20)).schedule.warmup, 10);
        assert_eq!(of("llama-d64", "adamw", Some(20_000)).schedule.warmup, 100);
    }

    #[test]
    fn the_hidden_width_follows_another_model_dimension() {
        let hidden = |preset: &str, d_model| {
            let choices = Choices { d_model: Some(d_model), ..Choices::default() };
            model(preset, &choices).unwrap().decoder().unwrap().hidden
        };
        assert_eq!(hidden("nanogpt-char", 16), 64);
        assert_eq!(hidden("llama-d64", 128), 384);
        assert_eq!(hidden("llama-d64", 256), 704);
        assert_eq!(hidden("llama-d64", 64), 192);
        assert_eq!(hidden("olmoe-tiny", 64), 32);
    }
}
