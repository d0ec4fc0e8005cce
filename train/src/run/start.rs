//! What a new run starts from when it does not start from a seed: trained weights and, where it continues their run, its
//! optimizer states, its counters and its events.

use burn::module::Module;
use burn::tensor::Device;
use polaron_datasets::Tokenizer;
use polaron_models::{Projections, load_named, merged};

use crate::error::{ConfigError, Error, FolderError, WeightsError};
use crate::host::progress::say;
use crate::run::prepare::with_adapters;
use crate::settings::config::{Config, LORA};
use crate::store::checkpoint::TrainerState;
use crate::store::metrics;
use crate::store::run_folder::RunFolder;
use crate::store::weights::{Purpose, Weights};

/// The state in which a run begins.
#[derive(Debug, Default)]
pub struct Start {
    /// Its counters.
    pub state: TrainerState,
    /// The optimizer record as safetensors bytes; None without states.
    pub optimizer: Option<Vec<u8>>,
    /// The first lines of `metrics.jsonl`.
    pub events: Vec<u8>,
}

impl Start {
    /// The same on data with this fingerprint.
    pub fn on(mut self, data_sha256: String) -> Self {
        self.state.data_sha256 = data_sha256;
        self
    }
}

/// The weights that a run starts from; None if it starts from a seed, or has a checkpoint of its own.
///
/// # Errors
///
/// When they cannot be read, or are not the ones that the configuration names.
pub fn weights(config: &Config, folder: &RunFolder) -> Result<Option<Weights>, Error> {
    if config.train.init.is_empty() || !folder.store().steps().is_empty() {
        return Ok(None);
    }
    let purpose = Purpose::of(config.train.init_continues);
    let weights = Weights::read(config.train.init.as_ref(), Some(config.train.init_step), purpose)?;
    weights.check(config)?;
    Ok(Some(weights))
}

/// The tokenizer that a text must be encoded with: that of the weights that the run starts or has started from; None where it
/// is made for the text.
///
/// # Errors
///
/// When the weights have none and the data are not packed, or that of the run cannot be read.
pub fn tokenizer(config: &Config, folder: &RunFolder, weights: Option<&Weights>) -> Result<Option<Tokenizer>, Error> {
    if config.train.init.is_empty() || !config.model.is_text() {
        return Ok(None);
    }
    match weights {
        None => folder.tokenizer().map(Some),
        Some(weights) if weights.tokenizer.is_none() && !config.is_packed() => {
            let what = format!("the text `{}` cannot be made into its tokens", config.data.source);
            Err(WeightsError::NoTokenizer { path: weights.path.clone(), what }.into())
        }
        Some(weights) => {
            if weights.tokenizer.is_none() {
                let (path, data) = (weights.path.display(), &config.data.source);
                say(&format!("note: `{path}` has no tokenizer.json, so that of `{data}` cannot be compared with it"));
            }
            Ok(weights.tokenizer.clone())
        }
    }
}

/// Puts the weights into the model. Returns it with the state in which its run begins; `data_sha256` is that of its data.
///
/// # Errors
///
/// Weights that do not fit; data that a continued run was not trained on, unless other data were asked for.
pub fn apply<M: Module + Projections>(
    config: &Config,
    weights: Weights,
    model: M,
    data_sha256: &str,
    device: &Device,
) -> Result<(M, Start), Error> {
    let Weights { path, config: theirs, tensors, optimizer, trainer, step, .. } = weights;
    let model = load_named(with_adapters(&theirs, model)?, tensors, device)?;
    if !config.train.init_continues {
        // Adapters of another run have become a part of its weights.
        return Ok((with_adapters(config, merged(model))?, Start::default()));
    }
    if config.train.lora != theirs.train.lora {
        let rule = "a run is continued with the adapters that it has: start from its weights with --init instead";
        ConfigError::ensure(false, LORA, format!("not that of `{}`", path.display()), rule)?;
    }
    if trainer.data_sha256 != data_sha256 && config.data == theirs.data {
        return Err(FolderError::OtherData {
            path,
            source_name: config.data.source.clone(),
            began_with: trainer.data_sha256,
            now: data_sha256.into(),
        }
        .into());
    }
    note_jump(config, &theirs, step);
    note_own_jumps(config, &theirs, step)?;
    let events = metrics::until(&RunFolder::new(path).metrics_file(), step)?;
    Ok((model, Start { state: trainer, optimizer: Some(optimizer), events }))
}

/// Says which of the schedules for part of the parameters jump, where both runs have the same ones.
fn note_own_jumps(config: &Config, theirs: &Config, step: u64) -> Result<(), Error> {
    let (rules, before) = (config.schedule.rules()?, theirs.schedule.rules()?);
    for (rule, old) in rules.iter().zip(&before).filter(|(rule, old)| rule.name() == old.name()) {
        let [was, is] = [(old, theirs, step.saturating_sub(1)), (rule, config, step)]
            .map(|(rule, config, step)| rule.schedule().factor(step, config.schedule_steps()));
        if (was - is).abs() > JUMP {
            let steps = config.schedule_steps();
            say(&format!(
                "note: the learning rate of {} goes from {was:.3} of its peak to {is:.3}, since its schedule is computed for \
                 {steps} steps now: {}",
                rule.name(),
                rule.schedule()
            ));
        }
    }
    Ok(())
}

/// A change of the learning rate that is worth a line, as a share of its peak.
const JUMP: f64 = 0.05;

/// Says if the learning rate jumps from the last step of the run that is continued to the next one.
fn note_jump(config: &Config, theirs: &Config, step: u64) {
    let [before, after] = [(theirs, step.saturating_sub(1)), (config, step)]
        .map(|(config, step)| config.lr_factor(step) * config.optimizer.lr);
    if (before - after).abs() > JUMP * theirs.optimizer.lr {
        say(&format!(
            "note: the learning rate goes from {before:.3e} in step {step} of `{}` to {after:.3e} in the next, since the schedule \
             is computed for {} steps now: {}",
            config.train.init,
            config.schedule_steps(),
            config.schedule.main
        ));
    }
}
