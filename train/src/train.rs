//! `polaron train`: from a configuration to a finished run, fresh or resumed.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use polaron::{Layerwise, LayerwiseError, LayerwiseOptimizer, LayerwiseRecord, Roles};
use polaron_datasets::{ImageData, TextData, Tokenizer};
use polaron_models::{LanguageModel, Parametrization, load_named};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, TrainerState};
use crate::config::{Config, ConfigError};
use crate::data::load_text;
use crate::error::{EXIT_DONE, EXIT_INTERRUPTED, Error, one_line};
use crate::estimate::{Brought, Purpose};
use crate::generate::{Sampling, generate};
use crate::metrics::{self, Event, Metrics};
use crate::network::{Network, NetworkConfig};
use crate::progress::{print, say};
use crate::run_folder::{FolderError, Lock, RunFolder, write_atomically};
use crate::trainer::{Ending, Session, Validations};
use crate::workers::Workers;
use crate::{device, estimate, interrupt, memory, prompt, report, summary};
use polaron_datasets::quoted;

/// Whether an existing run is gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Yes, if its configuration is the same.
    Auto,
    /// No: an existing folder is refused.
    Never,
}

/// What a command asks beside the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whether an existing run is gone on with.
    pub resume: Resume,
    /// The fingerprint that the data must have.
    pub data_sha256: Option<&'a str>,
}

/// Trains the run of `config` in the folder `out`: a new one, or one that is gone on with. Returns the exit code.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written.
pub fn train(config: &Config, out: &Path, request: &Request<'_>) -> Result<u8, Error> {
    let folder = RunFolder::new(out);
    if check_folder(&folder, config, request.resume)? && config.lacks_data() {
        return finished_without_data(&folder, config);
    }
    interrupt::install();
    let threads = device::set_threads(config.device.threads);
    let device = device::open(&config.device.name)?;
    let training_device = device.clone().autodiff();
    let run = Run { config, folder, request, threads, device };
    match &config.model {
        NetworkConfig::Decoder(decoder) => {
            let data = load_text(&config.data)?;
            config.check_split()?;
            data.check_windows(decoder.context)?;
            let data_sha256 = fingerprint(&data)?;
            if run.is_done(&data_sha256)? {
                return Ok(EXIT_DONE);
            }
            prompt::check_sample(config, Some(&data.tokenizer))?;
            let vocabulary = data.tokenizer.vocab_size();
            estimate::check(config, &config.device.name, Brought::Vocabulary(vocabulary), Purpose::Train)?;
            let model = decoder.init(vocabulary, config.train.seed, &training_device)?;
            let Some(model) = run.run(&data, Some(&data.tokenizer), model, data_sha256)? else {
                return Ok(EXIT_INTERRUPTED);
            };
            print_sample(config, &model, &data.tokenizer, &run.device)?;
        }
        NetworkConfig::Mlp(mlp) => {
            prompt::check_sample(config, None)?;
            let data = ImageData::load(&config.data.source, config.data.valid_fraction)?;
            let data_sha256 = image_fingerprint(&data);
            if run.is_done(&data_sha256)? {
                return Ok(EXIT_DONE);
            }
            let brought = Brought::Images { features: data.train.features, classes: data.classes };
            estimate::check(config, &config.device.name, brought, Purpose::Train)?;
            let model = mlp.init(data.train.features, data.classes, config.train.seed, &training_device)?;
            if run.run(&data, None, model, data_sha256)?.is_none() {
                return Ok(EXIT_INTERRUPTED);
            }
        }
    }
    Ok(EXIT_DONE)
}

/// Checks what runs of these configurations would fail on: the data, the model, the rules of the optimizer. The
/// configurations may differ in their optimizers alone. Returns the fingerprint of the data.
///
/// # Errors
///
/// The first objection.
pub fn check(configs: &[Config]) -> Result<String, Error> {
    let Some(first @ Config { model, data, train, device, .. }) = configs.first() else { return Ok(String::new()) };
    let fits = |brought| estimate::check(first, &device.name, brought, Purpose::Train);
    let device = device::open(&device.name)?;
    match model {
        NetworkConfig::Decoder(decoder) => {
            let text = load_text(data)?;
            text.check_windows(decoder.context)?;
            configs.iter().try_for_each(|config| prompt::check_sample(config, Some(&text.tokenizer)))?;
            fits(Brought::Vocabulary(text.tokenizer.vocab_size()))?;
            check_rules(configs, &decoder.init(text.tokenizer.vocab_size(), train.seed, &device)?)?;
            fingerprint(&text)
        }
        NetworkConfig::Mlp(mlp) => {
            let images = ImageData::load(&data.source, data.valid_fraction)?;
            fits(Brought::Images { features: images.train.features, classes: images.classes })?;
            check_rules(configs, &mlp.init(images.train.features, images.classes, train.seed, &device)?)?;
            Ok(image_fingerprint(&images))
        }
    }
}

fn check_rules<M: Module + Roles>(configs: &[Config], model: &M) -> Result<(), Error> {
    configs.iter().try_for_each(|config| build_optimizer(config, model).map(drop))
}

/// What a run is told by its command.
struct Run<'a> {
    config: &'a Config,
    folder: RunFolder,
    request: &'a Request<'a>,
    threads: usize,
    device: Device,
}

impl Run<'_> {
    /// Checks the data against what the command and the run in the folder expect. Returns whether that run has ended, and says
    /// so.
    fn is_done(&self, data_sha256: &str) -> Result<bool, Error> {
        let source_name = || self.config.data.source.clone();
        if let Some(expected) = self.request.data_sha256.filter(|expected| *expected != data_sha256) {
            let (expected, now) = (expected.to_owned(), data_sha256.to_owned());
            return Err(FolderError::UnexpectedData { source_name: source_name(), expected, now }.into());
        }
        let Some(state) = self.folder.store().newest_state() else { return Ok(false) };
        self.check_data(&state, data_sha256)?;
        Ok(self.folder.holds_run()? && announce_finished(&self.folder, self.config)?)
    }

    /// Checks that the data are those that a checkpoint was trained on.
    fn check_data(&self, trained: &TrainerState, data_sha256: &str) -> Result<(), FolderError> {
        if trained.data_sha256 == data_sha256 {
            return Ok(());
        }
        Err(FolderError::OtherData {
            path: self.folder.path().into(),
            source_name: self.config.data.source.clone(),
            began_with: trained.data_sha256.clone(),
            now: data_sha256.into(),
        })
    }

    /// Trains to the end and says so; None when a signal ended it before. `data_sha256` is the fingerprint of `data`.
    fn run<N: Network>(
        &self,
        data: &N::Data,
        tokenizer: Option<&Tokenizer>,
        model: N,
        data_sha256: String,
    ) -> Result<Option<N>, Error> {
        let (config, out) = (self.config, self.folder.path());
        let optimizer = build_optimizer(config, &model)?;
        let _lock = claim(&self.folder, config, self.request.resume, tokenizer, &optimizer)?;
        let tokenizer_sha256 = tokenizer.map(tokenizer_sha256).transpose()?.unwrap_or_default();
        let fresh = TrainerState { data_sha256, tokenizer_sha256, ..TrainerState::default() };
        let (model, mut session) = self.restore(data, fresh, model, optimizer)?;
        let (plan, step) = (session.optimizer.plan(), session.state.step);
        say(&summary::start(config, &N::describe(data), plan, self.threads, out, step));
        let ended = session.run(model);
        if matches!(ended, Ok(_) | Err(Error::Diverged(_))) {
            draw_report(out);
        }
        let (model, ending) = ended?;
        let state = session.state.clone();
        if ending == Ending::Interrupted {
            say(&format!(
                "saved at step {} of {}; the same command, or `polaron train --resume {}`, goes on from there",
                state.step,
                config.train.steps,
                quoted(out)
            ));
            return Ok(None);
        }
        let end = summary::end(config, &state, &session.validations, memory::peak_bytes());
        print(&format!("{end}{}", summary::commands(config, tokenizer, out)));
        Ok(Some(model))
    }

    /// The session of a run that begins in `state`, or of one that goes on from its newest good checkpoint.
    fn restore<'a, N: Network>(
        &'a self,
        data: &'a N::Data,
        mut state: TrainerState,
        mut model: N,
        mut optimizer: LayerwiseOptimizer,
    ) -> Result<(N, Session<'a, N>), Error> {
        let Self { config, folder, device, .. } = self;
        let store = folder.store();
        store.remove_unfinished();
        let found = store.newest_good(|damage| say(&format!("warning: {damage}")))?;
        if let Some(Checkpoint { model: tensors, optimizer: record, trainer }) = found {
            self.check_data(&trainer, &state.data_sha256)?;
            match trainer.config.is_empty() {
                true => folder.check_earlier(config)?,
                false => folder.check_copy(&store.trainer_file(trainer.step), &trainer.config)?,
            }
            folder.note_source(&config.data.source)?;
            model = load_named(model, tensors, &device.clone().autodiff())?;
            optimizer.load_record(LayerwiseRecord::from_safetensors(&record)?, device)?;
            say(&format!("resuming `{}` from its checkpoint of step {}", folder.path().display(), trainer.step));
            state = trainer;
        }
        let (metrics, events) = Metrics::resume(&folder.metrics_file(), state.step)?;
        let logged = events.iter().filter(|event| matches!(event, Event::Train { .. })).count() as u64;
        if logged != state.step {
            let (file, step) = (folder.metrics_file(), state.step);
            say(&format!("warning: `{}` holds {logged} of {step} steps: curves will have gaps", file.display()));
        }
        let validations = Validations::of(&events);
        let spectra_at = events.iter().rev().find_map(|event| match event {
            Event::Spectra { step, .. } => Some(*step),
            _ => None,
        });
        let device = device.clone();
        let workers = Workers::new(device::workers(&config.device)?)?;
        Ok((
            model,
            Session { config, data, device, workers, optimizer, state, store, metrics, validations, spectra_at },
        ))
    }
}

/// Writes the page of a run that has ended. A page that cannot be written is no reason for a trained run to fail.
fn draw_report(out: &Path) {
    let written = report::page(&[out.to_path_buf()])
        .and_then(|page| Ok(write_atomically(&out.join(report::FILE), page.as_bytes())?));
    if let Err(error) = written {
        say(&format!("warning: no {} was written: {error}", report::FILE));
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

/// A run that has ended needs its data no more.
fn finished_without_data(folder: &RunFolder, config: &Config) -> Result<u8, Error> {
    if announce_finished(folder, config)? {
        return Ok(EXIT_DONE);
    }
    let source_name = config.data.source.clone();
    Err(FolderError::DataGone { path: folder.path().into(), source_name }.into())
}

/// Says so when there is nothing left to do.
fn announce_finished(folder: &RunFolder, config: &Config) -> Result<bool, Error> {
    let events = metrics::read(&folder.metrics_file())?;
    let Some(Event::End(end)) = events.last().filter(|event| event.step() == config.train.steps) else {
        return Ok(false);
    };
    let whole = folder.store().load(config.train.steps).is_ok();
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
    let end = summary::end(config, &state, &Validations::of(&events), end.peak_memory_bytes);
    let tokenizer = config.model.decoder().and_then(|_| folder.tokenizer().ok());
    print(&format!("{end}{}", summary::commands(config, tokenizer.as_ref(), folder.path())));
    Ok(true)
}

/// Builds the optimizer that the configuration describes, with the model's own hints on its roles and width rules.
///
/// # Errors
///
/// [`polaron::LayerwiseError`].
pub fn build_optimizer<M: Module + Roles>(config: &Config, model: &M) -> Result<LayerwiseOptimizer, Error> {
    let builder = Layerwise::from_config(&config.optimizer)?.hints(model.roles());
    let decoder = config.model.decoder().filter(|decoder| decoder.parametrization == Parametrization::Mup);
    let builder = match decoder {
        Some(decoder) => builder.width(decoder.width_ratio()),
        None => builder,
    };
    match builder.build(model) {
        Err(LayerwiseError::Width { path, optimizer, reason }) => {
            let rule = format!("`{path}` is updated by {optimizer}, for which no width rule is known: {reason}");
            Err(ConfigError::BadValue { key: "model.parametrization".into(), value: "mup".into(), rule }.into())
        }
        built => Ok(built?),
    }
}

/// Takes the folder's lock and writes what a new run begins with.
fn claim(
    folder: &RunFolder,
    config: &Config,
    resume: Resume,
    tokenizer: Option<&Tokenizer>,
    optimizer: &LayerwiseOptimizer,
) -> Result<Lock, Error> {
    let held_before = folder.holds_run()?;
    let lock = folder.lock()?;
    // Another process may have begun a run here since the first look.
    let held = if held_before { true } else { check_folder(folder, config, resume)? };
    // Where there is no checkpoint, nothing was trained yet: what the start of before wrote may be of another text.
    if !held || folder.store().steps().is_empty() {
        folder.begin(config, tokenizer, &format!("{}\n", optimizer.plan()))?;
    }
    Ok(lock)
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
    Ok(hex::encode(hasher.finalize()))
}

/// SHA-256 of a tokenizer as it is stored.
pub(crate) fn tokenizer_sha256(tokenizer: &Tokenizer) -> Result<String, Error> {
    Ok(hex::encode(Sha256::digest(stored(tokenizer)?)))
}

fn stored(tokenizer: &Tokenizer) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(tokenizer).map_err(|error| Error::Usage(one_line(&error.to_string())))
}

/// SHA-256 over pixels and labels.
fn image_fingerprint(data: &ImageData) -> String {
    let mut hasher = Sha256::new();
    for part in [&data.train, &data.valid] {
        hasher.update((part.len() as u64).to_le_bytes());
        for chunk in part.pixels.chunks(1 << 14) {
            hasher.update(chunk.iter().flat_map(|pixel| pixel.to_le_bytes()).collect::<Vec<u8>>());
        }
        hasher.update(&part.labels);
    }
    hex::encode(hasher.finalize())
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
    let worker = Workers::new(device::workers(&config.device)?.min(1))?;
    let text = worker.alone(|| generate(&model.valid(), tokenizer, &train.sample_prompt, &sampling, device))?;
    print(&format!("\nsample (temperature {}):\n{}{text}\n", sampling.temperature, train.sample_prompt));
    Ok(())
}
