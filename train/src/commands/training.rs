//! From a configuration to a finished run, new or resumed.

use std::path::Path;
use std::time::Duration;

use burn::module::Module;
use burn::tensor::Device;
use polaron_datasets::{Tokenizer, quoted};
use polaron_models::load_named;

use crate::error::{EXIT_DONE, EXIT_INTERRUPTED, Error, FileError, FolderError};
use crate::host::progress::{self, print, say};
use crate::host::ranks::Ranks;
use crate::host::workers::Workers;
use crate::host::{device, interrupt, memory, watchdog};
use crate::networks::decoder::tokenizer_sha256;
use crate::networks::family::Family;
use crate::networks::generate::Sampling;
use crate::networks::registry::ForFamily;
use crate::report::page as report;
use crate::run::energy::EnergyRecords;
use crate::run::prepare::check_memory;
use crate::run::prepared::{Prepared, States, digest};
use crate::run::refactoring::refactor_if_due;
use crate::run::start::{self, Start};
use crate::run::team::{Team, agree, agree_on_start};
use crate::run::trainer::{Ending, Session};
use crate::run::validations::Validations;
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
    /// The processes that train the run together; None for a single one.
    pub ranks: Option<&'a dyn Ranks>,
}

/// Trains the run of `config` in the folder `out`, new or resumed. Returns the exit code.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written.
pub fn train(config: &Config, out: &Path, request: &Request<'_>) -> Result<u8, Error> {
    let folder = RunFolder::new(out);
    let opened = together(request.ranks, open(config, &folder, request.resume))?;
    let Some((threads, device)) = opened else { return Ok(EXIT_DONE) };
    config.model.with(Run { config, folder, request, threads, device })
}

/// The threads and the device of a run; None if it is already finished, and its data are gone.
fn open(config: &Config, folder: &RunFolder, resume: Resume) -> Result<Option<(usize, Device)>, Error> {
    if check_folder(folder, config, resume)? && config.lacks_data() {
        finished_without_data(folder, config)?;
        return Ok(None);
    }
    interrupt::install(interrupt::SAVING);
    let threads = device::set_threads(config.device.threads);
    Ok(Some((threads, device::open(&config.device.name)?)))
}

/// The same result, if all processes of the run have one.
///
/// # Errors
///
/// Its error, or those of [`agree`].
pub fn together<T>(ranks: Option<&dyn Ranks>, result: Result<T, Error>) -> Result<T, Error> {
    match ranks {
        None => result,
        Some(ranks) => Ok(agree(ranks, result, |_| ())?.0),
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

/// What the process that writes the files has found in the run folder.
struct Begun {
    /// Held as long as the run trains; None in the other processes.
    _lock: Option<Lock>,
    /// The newest undamaged checkpoint; None in the other processes, and if there is none.
    found: Option<Checkpoint>,
    /// Its step.
    step: Option<u64>,
    /// Whether there is any, damaged or not.
    is_saved: bool,
}

/// A run that is not finished, and its data.
type WithData<'a, F> = (<F as Family>::Data, Prepared<'a, F>);

/// The session of a run.
struct Restored<'a, F: Family> {
    model: F::Network,
    session: Session<'a, F>,
    /// The events so far besides those of single steps, in the process that writes the files.
    events: Vec<Event>,
}

impl ForFamily for Run<'_> {
    type Output = Result<u8, Error>;

    /// Loads the data and trains, unless the run is already finished. Returns the exit code.
    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let prepared = self.prepare(settings);
        let prepared = match self.request.ranks {
            None => prepared,
            Some(ranks) => agree_on_start(ranks, prepared, |prepared| {
                digest(self.config, prepared.as_ref().map(|(_, parts)| parts))
            }),
        };
        let Some((data, prepared)) = prepared? else { return Ok(EXIT_DONE) };
        let Some(model) = self.train(settings, &data, prepared)? else { return Ok(EXIT_INTERRUPTED) };
        if self.request.ranks.is_none_or(|ranks| ranks.leads()) {
            self.print_sample::<F>(&model, &data)?;
        }
        Ok(EXIT_DONE)
    }
}

impl<'a> Run<'a> {
    /// Reads the data and makes the model and its optimizer; None if the run is already finished.
    fn prepare<F: Family>(&self, settings: &F) -> Result<Option<WithData<'a, F>>, Error> {
        let config = self.config;
        let weights = start::weights(config, &self.folder)?;
        let tokenizer = start::tokenizer(config, &self.folder, weights.as_ref())?;
        let data = F::load(&config.data, tokenizer.as_ref())?;
        config.check_split()?;
        settings.check_data(&data)?;
        let data_sha256 = F::fingerprint(&data)?;
        if self.is_done(&data_sha256)? {
            return Ok(None);
        }
        prompt::check_sample(config, F::tokenizer(&data))?;
        let Request { force, ranks, .. } = *self.request;
        let sizes = settings.sizes_for(F::data_sizes(&data))?;
        if !force {
            check_memory(config, settings, sizes, ranks.map_or(1, |ranks| ranks.count()))?;
        }
        let mut prepared = Prepared::of(config, settings, sizes, weights, data_sha256, ranks, &self.device)?;
        let tokenizer = F::tokenizer(&data).map(tokenizer_sha256).transpose()?;
        prepared.start.state.tokenizer_sha256 = tokenizer.unwrap_or_default();
        Ok(Some((data, prepared)))
    }

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
        prepared: Prepared<'_, F>,
    ) -> Result<Option<F::Network>, Error> {
        let (config, out, tokenizer) = (self.config, self.folder.path(), F::tokenizer(data));
        let mut begun = self.begin(tokenizer, &prepared)?;
        let (model, mut session) = self.restored(settings, data, prepared, &mut begun)?;
        let (plan, step) = (session.optimizer.plan(), session.state.step);
        let ranks = self.request.ranks.map_or(1, |ranks| ranks.count());
        say(&summary::start(config, &F::describe_data(data), plan, [self.threads, ranks], out, step));
        let leads = session.leads();
        // Not while data are read, nor while one process writes the sample.
        let limit = Duration::from_secs_f64(config.ranks_timeout());
        let watch = self.request.ranks.map(|ranks| watchdog::watch(limit, ranks.rank()));
        let ended = session.run(model);
        drop(watch);
        if leads && matches!(ended, Ok(_) | Err(Error::Diverged(_))) {
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

    /// Takes the folder, writes the first files of a new run, and reads its newest undamaged checkpoint. Of several processes one
    /// does that, and tells the others which one they shall read.
    fn begin<F: Family>(&self, tokenizer: Option<&Tokenizer>, prepared: &Prepared<'_, F>) -> Result<Begun, Error> {
        let store = self.folder.store();
        let claimed = || -> Result<Begun, Error> {
            let plan = prepared.plan_text();
            let lock = claim(&self.folder, self.config, self.request.resume, tokenizer, &plan)?;
            store.remove_unfinished();
            let found = store.newest_good(|damage| say(&format!("warning: {damage}")))?;
            let step = found.as_ref().map(|found| found.trainer.step);
            Ok(Begun { _lock: Some(lock), found, step, is_saved: !store.steps().is_empty() })
        };
        let Some(ranks) = self.request.ranks else { return claimed() };
        let begun = if ranks.leads() { claimed().map(Some) } else { Ok(None) };
        let (begun, told) = agree(ranks, begun, |begun| begun.as_ref().map(|begun| (begun.step, begun.is_saved)))?;
        let (step, is_saved) = told.into_iter().flatten().next().unwrap_or_default();
        Ok(begun.unwrap_or(Begun { _lock: None, found: None, step, is_saved }))
    }

    /// The session of a run. Of several processes one reads the events so far, and tells the others what they need of them.
    fn restored<'s, F: Family>(
        &'s self,
        settings: &'s F,
        data: &'s F::Data,
        prepared: Prepared<'s, F>,
        begun: &mut Begun,
    ) -> Result<(F::Network, Session<'s, F>), Error> {
        let restored = self.restore(settings, data, prepared, begun);
        let Restored { model, mut session, events } = match self.request.ranks {
            None => restored?,
            Some(ranks) => {
                let (restored, told) = agree(ranks, restored, |restored| restored.events.clone())?;
                Restored { events: told.into_iter().next().unwrap_or_default(), ..restored }
            }
        };
        session.remember(&events);
        Ok((model, session))
    }

    /// The session of a run, resumed from a checkpoint, or begun if there is none.
    fn restore<'s, F: Family>(
        &'s self,
        settings: &'s F,
        data: &'s F::Data,
        prepared: Prepared<'s, F>,
        begun: &mut Begun,
    ) -> Result<Restored<'s, F>, Error> {
        let Self { config, folder, device, .. } = self;
        let store = folder.store();
        let Prepared { mut model, start, mut states, team } = prepared;
        let Start { mut state, events, .. } = start;
        let leads = team.as_ref().is_none_or(Team::leads);
        if let Some(ranks) = self.request.ranks.filter(|_| !leads) {
            log_aside(folder, ranks.rank())?;
            begun.found = begun.step.map(|step| store.load(step)).transpose()?;
        }
        if let Some(Checkpoint { model: tensors, optimizer: record, trainer, .. }) = begun.found.take() {
            self.check_data(&trainer, &state.data_sha256)?;
            match trainer.config.is_empty() {
                true => folder.check_earlier(config)?,
                false => folder.check_copy(&store.trainer_file(trainer.step), &trainer.config)?,
            }
            if leads {
                folder.note_source(&config.data.source)?;
            }
            model = load_named(model, tensors, &device.clone().autodiff())?;
            states.load(&record, team.as_ref(), device)?;
            say(&format!("resuming `{}` from its checkpoint of step {}", folder.path().display(), trainer.step));
            state = trainer;
        } else if config.train.init_continues {
            if leads {
                write_atomically(&folder.metrics_file(), &events)?;
            }
        } else {
            if config.optimizer.onto_balls {
                model = states.optimizer.onto_balls(model)?;
            }
            model = refactor_if_due(config, 0, model, &mut states.optimizer, None, device)?;
        }
        let (log, mut events) = match leads {
            true => Log::resume(folder, state.step, &config.train.log_to)?,
            false => (Log::silent(), Vec::new()),
        };
        let before = events.len();
        events.retain(|event| !matches!(event, Event::Train { .. }));
        let logged = (before - events.len()) as u64;
        if leads && logged != state.step {
            let (file, step) = (folder.metrics_file(), state.step);
            say(&format!("warning: `{}` holds {logged} of {step} steps: curves will have gaps", file.display()));
        }
        let States { optimizer, averaging, spectra } = states;
        let session = Session {
            config,
            settings,
            data,
            device: device.clone(),
            workers: Workers::new(device::workers(&config.device.name, config.device.threads)?)?,
            team,
            optimizer,
            averaging,
            state,
            store,
            is_saved: begun.is_saved,
            log,
            validations: Validations::default(),
            spectra: spectra.unwrap_or_default(),
            energy: EnergyRecords::of(&[]),
        };
        Ok(Restored { model, session, events })
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
        let device = &self.device;
        let text = worker.alone(|| F::sample(&model, data, &train.sample_prompt, &sampling, device))?;
        print(&format!("\nsample (temperature {}):\n{}{text}\n", sampling.temperature, train.sample_prompt));
        Ok(())
    }
}

/// From now on the lines of this process go into a file of the run folder.
fn log_aside(folder: &RunFolder, rank: usize) -> Result<(), FileError> {
    let path = folder.log_file(rank);
    let open = || {
        std::fs::create_dir_all(folder.logs())?;
        std::fs::OpenOptions::new().create(true).append(true).open(&path)
    };
    progress::log_aside(open().map_err(FileError::at("write", &path))?);
    Ok(())
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
    plan: &str,
) -> Result<Lock, Error> {
    let held_before = folder.holds_run()?;
    let lock = folder.lock()?;
    // Another process may have begun a run here since the first check.
    let held = if held_before { true } else { check_folder(folder, config, resume)? };
    // Without a checkpoint nothing has been trained yet, and the files of an earlier start may be about another text.
    if !held || folder.store().steps().is_empty() {
        folder.begin(config, tokenizer, plan)?;
    }
    Ok(lock)
}
