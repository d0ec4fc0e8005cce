//! From a configuration to a finished run, new or resumed.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use polaron::wrappers::WeightAverageConfig;
use polaron::{LayerwiseOptimizer, LayerwiseRecord};
use polaron_datasets::{Tokenizer, quoted};
use polaron_models::load_named;

use crate::error::{EXIT_DONE, EXIT_INTERRUPTED, Error, FolderError};
use crate::host::progress::{print, say};
use crate::host::workers::Workers;
use crate::host::{device, interrupt, memory};
use crate::networks::decoder::tokenizer_sha256;
use crate::networks::family::Family;
use crate::networks::generate::Sampling;
use crate::networks::registry::ForFamily;
use crate::report::page as report;
use crate::run::averaging::Averaging;
use crate::run::energy::{self, EnergyRecords};
use crate::run::prepare::{build_optimizer, check_memory, with_adapters};
use crate::run::refactoring::refactor_if_due;
use crate::run::spectra::{self, Spectra};
use crate::run::start::{self, Start};
use crate::run::trainer::{Ending, Session, Validations};
use crate::run::{prompt, summary};
use crate::settings::config::Config;
use crate::store::checkpoint::{Checkpoint, TrainerState};
use crate::store::files::{Lock, write_atomically};
use crate::store::log::Log;
use crate::store::metrics::{self, Event};
use crate::store::run_folder::RunFolder;

/// Whether to resume an existing run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Yes, if its configuration is the same.
    Auto,
    /// No: an existing folder is refused.
    Never,
}

/// What a command asks for besides the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whether to resume an existing run.
    pub resume: Resume,
    /// The fingerprint that the data must have.
    pub data_sha256: Option<&'a str>,
    /// Whether to train although the memory may not suffice.
    pub force: bool,
}

/// Trains the run of `config` in the folder `out`, new or resumed. Returns the exit code.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written.
pub fn train(config: &Config, out: &Path, request: &Request<'_>) -> Result<u8, Error> {
    let folder = RunFolder::new(out);
    if check_folder(&folder, config, request.resume)? && config.lacks_data() {
        return finished_without_data(&folder, config);
    }
    interrupt::install(interrupt::SAVING);
    let threads = device::set_threads(config.device.threads);
    let device = device::open(&config.device.name)?;
    config.model.with(Run { config, folder, request, threads, device })
}

/// What a run keeps between steps besides its weights.
struct States {
    optimizer: LayerwiseOptimizer,
    averaging: Option<Averaging>,
    /// What the next record of the spectra is compared with; None if there is none.
    spectra: Option<Spectra>,
}

impl States {
    /// Resumes from the record of a checkpoint. An average begins anew if the record has none.
    fn load(&mut self, record: &[u8], device: &Device) -> Result<(), Error> {
        let mut record = LayerwiseRecord::from_safetensors(record)?;
        let averaged = record.take_wrapper(WeightAverageConfig::KIND);
        let recorded = record.take_wrapper(spectra::KIND);
        self.optimizer.load_record(record, device)?;
        if let (Some(spectra), Some(record)) = (&mut self.spectra, recorded) {
            spectra.load_record(record);
        }
        match (&mut self.averaging, averaged) {
            (Some(averaging), Some(record)) => averaging.load_record(record, device),
            _ => Ok(()),
        }
    }
}

/// A run, as its command asks for it.
struct Run<'a> {
    config: &'a Config,
    folder: RunFolder,
    request: &'a Request<'a>,
    threads: usize,
    device: Device,
}

impl ForFamily for Run<'_> {
    type Output = Result<u8, Error>;

    /// Loads the data and trains, unless the run is already finished. Returns the exit code.
    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let config = self.config;
        let weights = start::weights(config, &self.folder)?;
        let tokenizer = start::tokenizer(config, &self.folder, weights.as_ref())?;
        let data = F::load(&config.data, tokenizer.as_ref())?;
        config.check_split()?;
        settings.check_data(&data)?;
        let data_sha256 = F::fingerprint(&data)?;
        if self.is_done(&data_sha256)? {
            return Ok(EXIT_DONE);
        }
        prompt::check_sample(config, F::tokenizer(&data))?;
        let sizes = settings.sizes_for(F::data_sizes(&data))?;
        if !self.request.force {
            check_memory(config, settings, sizes)?;
        }
        let training_device = self.device.clone().autodiff();
        let model = settings.init(sizes, config.train.seed, &training_device)?;
        let (model, start) = match weights {
            Some(weights) => start::apply(config, weights, model, &data_sha256, &training_device)?,
            None => (with_adapters(config, model)?, Start::default()),
        };
        let Some(model) = self.train(settings, &data, model, start.on(data_sha256))? else {
            return Ok(EXIT_INTERRUPTED);
        };
        self.print_sample::<F>(&model, &data)?;
        Ok(EXIT_DONE)
    }
}

impl Run<'_> {
    /// Checks the data against what the command and the run in the folder expect. Returns whether that run is already
    /// finished, and if so prints its summary.
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

    /// Trains to the end and prints a summary. Returns the weights that were validated last; None if a signal stopped it before.
    fn train<F: Family>(
        &self,
        settings: &F,
        data: &F::Data,
        model: F::Network,
        mut start: Start,
    ) -> Result<Option<F::Network>, Error> {
        let (config, out, tokenizer) = (self.config, self.folder.path(), F::tokenizer(data));
        let optimizer = build_optimizer::<F>(config, &model)?;
        energy::check(config, &optimizer)?;
        let model = optimizer.without_frozen_gradients(model);
        let averaging = Averaging::of(config, &optimizer, &model)?;
        let spectra = (config.train.spectra_every > 0).then(|| Spectra::new(optimizer.plan()));
        let mut states = States { optimizer, averaging, spectra };
        if let Some(record) = &start.optimizer {
            states.load(record, &self.device)?;
        }
        let _lock = claim(&self.folder, config, self.request.resume, tokenizer, &states.optimizer)?;
        start.state.tokenizer_sha256 = tokenizer.map(tokenizer_sha256).transpose()?.unwrap_or_default();
        let (model, mut session) = self.restore(settings, data, start, model, states)?;
        let (plan, step) = (session.optimizer.plan(), session.state.step);
        say(&summary::start(config, &F::describe_data(data), plan, self.threads, out, step));
        let ended = session.run(model);
        if matches!(ended, Ok(_) | Err(Error::Diverged(_))) {
            draw_report(out);
        }
        let (model, ending) = ended?;
        let state = session.state.clone();
        if ending == Ending::Interrupted {
            say(&format!(
                "saved at step {} of {}; the same command, or `polaron train --resume {}`, resumes from there",
                state.step,
                config.train.steps,
                quoted(out)
            ));
            return Ok(None);
        }
        let end = summary::end(config, &state, &session.validations, memory::peak_bytes());
        print(&format!("{end}{}", summary::commands(config, tokenizer, out)));
        let evaluated = session.evaluation_weights(&model)?;
        Ok(Some(evaluated.unwrap_or(model)))
    }

    /// The session of a run: resumed from its newest undamaged checkpoint, or begun in `start` if there is none.
    fn restore<'a, F: Family>(
        &'a self,
        settings: &'a F,
        data: &'a F::Data,
        start: Start,
        mut model: F::Network,
        mut states: States,
    ) -> Result<(F::Network, Session<'a, F>), Error> {
        let Self { config, folder, device, .. } = self;
        let store = folder.store();
        let Start { mut state, events, .. } = start;
        store.remove_unfinished();
        let found = store.newest_good(|damage| say(&format!("warning: {damage}")))?;
        if let Some(Checkpoint { model: tensors, optimizer: record, trainer, .. }) = found {
            self.check_data(&trainer, &state.data_sha256)?;
            match trainer.config.is_empty() {
                true => folder.check_earlier(config)?,
                false => folder.check_copy(&store.trainer_file(trainer.step), &trainer.config)?,
            }
            folder.note_source(&config.data.source)?;
            model = load_named(model, tensors, &device.clone().autodiff())?;
            states.load(&record, device)?;
            say(&format!("resuming `{}` from its checkpoint of step {}", folder.path().display(), trainer.step));
            state = trainer;
        } else if config.train.init_continues {
            write_atomically(&folder.metrics_file(), &events)?;
        } else {
            if config.optimizer.onto_balls {
                model = states.optimizer.onto_balls(model)?;
            }
            model = refactor_if_due(config, 0, model, &mut states.optimizer, None, device)?;
        }
        let (log, events) = Log::resume(folder, state.step, &config.train.log_to)?;
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
        let energy = EnergyRecords::of(&events);
        let device = device.clone();
        let workers = Workers::new(device::workers(&config.device.name, config.device.threads)?)?;
        let States { optimizer, averaging, spectra } = states;
        let mut spectra = spectra.unwrap_or_default();
        spectra.at = spectra_at;
        let session = Session {
            config,
            settings,
            data,
            device,
            workers,
            optimizer,
            averaging,
            state,
            store,
            log,
            validations,
            spectra,
            energy,
        };
        Ok((model, session))
    }

    /// Prints the sample text of a finished run, if its model writes text.
    fn print_sample<F: Family>(&self, model: &F::Network, data: &F::Data) -> Result<(), Error> {
        let train = &self.config.train;
        if train.sample_tokens == 0 || !F::tokenizer(data).is_some_and(Tokenizer::has_text) {
            return Ok(());
        }
        let sampling = Sampling {
            tokens: train.sample_tokens,
            temperature: train.sample_temperature,
            top_k: train.sample_top_k,
            seed: train.sample_seed,
            ..Sampling::default()
        };
        let worker = Workers::new(device::workers(&self.config.device.name, self.config.device.threads)?.min(1))?;
        let model = model.valid();
        let text = worker.alone(|| F::sample(&model, data, &train.sample_prompt, &sampling, &self.device))?;
        print(&format!("\nsample (temperature {}):\n{}{text}\n", sampling.temperature, train.sample_prompt));
        Ok(())
    }
}

/// Writes the page of a run that has ended. A page that cannot be written is no reason for a trained run to fail.
fn draw_report(out: &Path) {
    let written = report::page(&[out.to_path_buf()], None)
        .and_then(|page| Ok(write_atomically(&out.join(report::FILE), page.as_bytes())?));
    if let Err(error) = written {
        say(&format!("warning: no {} was written: {error}", report::FILE));
    }
}

/// Whether the folder already holds this run.
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

/// A finished run no longer needs its data.
fn finished_without_data(folder: &RunFolder, config: &Config) -> Result<u8, Error> {
    if announce_finished(folder, config)? {
        return Ok(EXIT_DONE);
    }
    let source_name = config.data.source.clone();
    Err(FolderError::DataGone { path: folder.path().into(), source_name }.into())
}

/// Whether the run is already finished; if so, prints its summary.
fn announce_finished(folder: &RunFolder, config: &Config) -> Result<bool, Error> {
    let events = metrics::read(&folder.metrics_file())?;
    let Some(Event::End(end)) = events.last().filter(|event| event.step() == config.train.steps) else {
        return Ok(false);
    };
    let whole = folder.store().load(config.train.steps).is_ok();
    if end.status != "finished" || !whole {
        return Ok(false);
    }
    say(&format!("this run is already finished: nothing to do in `{}`", folder.path().display()));
    let state = TrainerState {
        step: end.step,
        tokens: end.tokens,
        seconds: end.seconds,
        optimizer_seconds: end.optimizer_seconds,
        ..TrainerState::default()
    };
    let end = summary::end(config, &state, &Validations::of(&events), end.peak_memory_bytes);
    let tokenizer = config.model.is_text().then(|| folder.tokenizer().ok()).flatten();
    print(&format!("{end}{}", summary::commands(config, tokenizer.as_ref(), folder.path())));
    Ok(true)
}

/// Takes the folder's lock, and writes the first files of a new run.
fn claim(
    folder: &RunFolder,
    config: &Config,
    resume: Resume,
    tokenizer: Option<&Tokenizer>,
    optimizer: &LayerwiseOptimizer,
) -> Result<Lock, Error> {
    let held_before = folder.holds_run()?;
    let lock = folder.lock()?;
    // Another process may have begun a run here since the first check.
    let held = if held_before { true } else { check_folder(folder, config, resume)? };
    // Without a checkpoint nothing has been trained yet, and the files of an earlier start may be about another text.
    if !held || folder.store().steps().is_empty() {
        folder.begin(config, tokenizer, &format!("{}\n", optimizer.plan()))?;
    }
    Ok(lock)
}
