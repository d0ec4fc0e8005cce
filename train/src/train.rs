//! `polaron train`: from a configuration to a finished run, fresh or resumed.

use std::path::Path;

use burn::tensor::Device;
use polaron::{Layerwise, LayerwiseOptimizer, LayerwiseRecord, Roles};
use polaron_datasets::{TextData, Tokenizer};
use polaron_models::{LanguageModel, load_named};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, Store, TrainerState, hex};
use crate::config::Config;
use crate::error::{EXIT_DONE, EXIT_INTERRUPTED, Error, one_line};
use crate::generate::{Sampling, generate};
use crate::metrics::{self, Event, Metrics};
use crate::progress::{print, say};
use crate::run_folder::{FolderError, Lock, RunFolder};
use crate::trainer::{Ending, Session, Validations};
use crate::workers::Workers;
use crate::{device, interrupt, memory, summary};

/// Whether an existing run is gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Yes, if its configuration is the same.
    Auto,
    /// No: an existing folder is refused.
    Never,
}

/// Trains the run of `config` in the folder `out`: a new one, or one that is gone on with. Returns the exit code.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written.
pub fn train(config: &Config, out: &Path, resume: Resume) -> Result<u8, Error> {
    let folder = RunFolder::new(out);
    if check_folder(&folder, config, resume)? && announce_finished(&folder, config)? {
        return Ok(EXIT_DONE);
    }
    interrupt::install();
    let threads = device::set_threads(config.device.threads);
    let device = device::open(&config.device.name)?;
    let data = TextData::load(&config.data.source, config.data.tokenizer, config.data.valid_fraction)?;
    data.check_windows(config.model.context)?;
    let vocabulary = data.tokenizer.vocab_size();
    let model = config.model.init(vocabulary, config.train.seed, &device.clone().autodiff())?;
    let optimizer = build_optimizer(config, &model)?;
    let _lock = claim(&folder, config, resume, &data.tokenizer, &optimizer)?;
    let (model, mut session) = restore(config, &folder, &device, &data, model, optimizer)?;
    say(&summary::start(config, &data, session.optimizer.plan(), threads, out, session.state.step));
    let (model, ending) = session.run(model)?;
    let state = session.state.clone();
    match ending {
        Ending::Interrupted => {
            say(&format!(
                "saved at step {} of {}; the same command, or `polaron train --resume {}`, goes on from there",
                state.step,
                config.train.steps,
                out.display()
            ));
            Ok(EXIT_INTERRUPTED)
        }
        Ending::Finished => {
            print(&summary::end(&state, &session.validations, memory::peak_bytes(), out));
            print_sample(config, &model, &data.tokenizer, &device)?;
            Ok(EXIT_DONE)
        }
    }
}

/// Whether the folder holds this run already.
fn check_folder(folder: &RunFolder, config: &Config, resume: Resume) -> Result<bool, Error> {
    let held = folder.holds_run()?;
    if held && resume == Resume::Never {
        return Err(FolderError::Exists { path: folder.path().into() }.into());
    }
    if held {
        folder.check_config(config)?;
    }
    Ok(held)
}

/// Says so when there is nothing left to do.
fn announce_finished(folder: &RunFolder, config: &Config) -> Result<bool, Error> {
    let events = metrics::read(&folder.metrics_file())?;
    let Some(Event::End(end)) = events.last().filter(|event| event.step() == config.train.steps) else {
        return Ok(false);
    };
    let whole = Store::new(folder.checkpoints()).load(config.train.steps).is_ok();
    if end.status != "finished" || !whole {
        return Ok(false);
    }
    say(&format!("this run is finished already: nothing to do in `{}`", folder.path().display()));
    let state = TrainerState {
        step: end.step,
        tokens: end.tokens,
        seconds: end.seconds,
        optimizer_seconds: end.optimizer_seconds,
        ..TrainerState::default()
    };
    print(&summary::end(&state, &Validations::of(&events), end.peak_memory_bytes, folder.path()));
    Ok(true)
}

/// Builds the optimizer that the configuration describes, with the model's own hints on its roles.
///
/// # Errors
///
/// [`polaron::LayerwiseError`].
pub fn build_optimizer(config: &Config, model: &LanguageModel) -> Result<LayerwiseOptimizer, Error> {
    Ok(Layerwise::from_config(&config.optimizer)?.hints(model.roles()).build(model)?)
}

/// Takes the folder's lock and writes what a new run begins with.
fn claim(
    folder: &RunFolder,
    config: &Config,
    resume: Resume,
    tokenizer: &Tokenizer,
    optimizer: &LayerwiseOptimizer,
) -> Result<Lock, Error> {
    let held_before = folder.holds_run()?;
    let lock = folder.lock()?;
    // Another process may have begun a run here since the first look.
    let held = if held_before { true } else { check_folder(folder, config, resume)? };
    if !held {
        folder.begin(config, tokenizer, &format!("{}\n", optimizer.plan()))?;
    }
    Ok(lock)
}

/// The session of a fresh run, or of one that goes on from its newest good checkpoint.
fn restore<'a>(
    config: &'a Config,
    folder: &RunFolder,
    device: &Device,
    data: &'a TextData,
    mut model: LanguageModel,
    mut optimizer: LayerwiseOptimizer,
) -> Result<(LanguageModel, Session<'a>), Error> {
    let store = Store::new(folder.checkpoints());
    store.remove_unfinished();
    let data_sha256 = fingerprint(data)?;
    let tokenizer_sha256 = tokenizer_sha256(&data.tokenizer)?;
    let mut state = TrainerState { data_sha256: data_sha256.clone(), tokenizer_sha256, ..TrainerState::default() };
    let found = store.newest_good(|damage| say(&format!("warning: {damage}")))?;
    if let Some(Checkpoint { model: tensors, optimizer: record, trainer }) = found {
        if trainer.data_sha256 != data_sha256 {
            let source_name = config.data.source.clone();
            return Err(FolderError::OtherText { path: folder.path().into(), source_name }.into());
        }
        model = load_named(model, tensors, &device.clone().autodiff())?;
        optimizer.load_record(LayerwiseRecord::from_safetensors(&record)?, device)?;
        say(&format!("resuming `{}` from its checkpoint of step {}", folder.path().display(), trainer.step));
        state = trainer;
    }
    let (metrics, events) = Metrics::resume(&folder.metrics_file(), state.step)?;
    let validations = Validations::of(&events);
    let device = device.clone();
    let workers = Workers::new(device::workers(&config.device)?)?;
    Ok((model, Session { config, data, device, workers, optimizer, state, store, metrics, validations }))
}

/// SHA-256 over tokenizer and tokens: a resumed run must see the text it began with. For packed tokens their checksums
/// stand in, so that a large data set need not be read.
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
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of a tokenizer as it is stored.
pub(crate) fn tokenizer_sha256(tokenizer: &Tokenizer) -> Result<String, Error> {
    Ok(hex(&Sha256::digest(stored(tokenizer)?)))
}

fn stored(tokenizer: &Tokenizer) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(tokenizer).map_err(|error| Error::Usage(one_line(&error.to_string())))
}

fn print_sample(config: &Config, model: &LanguageModel, tokenizer: &Tokenizer, device: &Device) -> Result<(), Error> {
    let train = &config.train;
    if train.sample_tokens == 0 {
        return Ok(());
    }
    let sampling = Sampling {
        tokens: train.sample_tokens,
        temperature: train.sample_temperature,
        top_k: train.sample_top_k,
        seed: train.sample_seed,
    };
    let text = generate(&burn::module::Module::valid(model), tokenizer, &train.sample_prompt, &sampling, device)?;
    print(&format!("\nsample (temperature {}):\n{}{text}\n", sampling.temperature, train.sample_prompt));
    Ok(())
}
