//! Executes the runs: child processes of this same program, several at a time, each an ordinary `polaron train`.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::child::{RunChild, TICK, own_program, train_arguments};
use super::folder::ComparisonFolder;
use super::launch::Launch;
use super::outcome::Outcome;
use super::plan::{Plan, Purpose};
use super::tuning::{Run, Stage, stage};
use crate::error::{CompareError, EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Error, FolderError};
use crate::host::interrupt;
use crate::host::progress::{Live, duration, say};
use crate::run::prepare;
use crate::settings::config::Config;
use crate::store::run_folder::RunFolder;
use polaron_common::table;

/// How long to wait for a folder that a process of a killed comparison still uses.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many runs a message names.
const SHOWN: usize = 6;
/// How many bytes at the end of a metrics file are searched for the newest step.
const TAIL: u64 = 1 << 14;

/// How the runs ended, if not with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every run that the plan needs has ended.
    Finished,
    /// A signal asked the comparison to stop; every run is saved.
    Interrupted,
}

/// The runs of one comparison.
#[derive(Debug)]
pub struct Runner<'a> {
    plan: &'a Plan,
    folder: &'a ComparisonFolder,
    /// Runs that have ended, by name.
    ended: HashMap<String, Outcome>,
    running: Vec<Running>,
    /// Since when a run's folder has been in use by another process.
    waiting: Option<Instant>,
    began: Instant,
    /// Steps done before this session.
    steps_before: u64,
    /// Fingerprint of the data, once they were checked.
    data_sha256: Option<String>,
}

#[derive(Debug)]
struct Running {
    run: Run,
    child: RunChild,
    started: Instant,
}

impl<'a> Runner<'a> {
    /// Reads the runs that have ended already.
    ///
    /// # Errors
    ///
    /// A finished run of another configuration, or files that cannot be read.
    pub fn new(plan: &'a Plan, folder: &'a ComparisonFolder) -> Result<Self, Error> {
        let mut runner = Self {
            plan,
            folder,
            ended: HashMap::new(),
            running: Vec::new(),
            waiting: None,
            began: Instant::now(),
            steps_before: 0,
            data_sha256: None,
        };
        // The runs that have ended determine which runs are next, and those may have ended too.
        loop {
            let needed = runner.needed();
            let before = runner.ended.len();
            for run in needed {
                runner.look_at(&run)?;
            }
            if runner.ended.len() == before {
                break;
            }
        }
        runner.steps_before = runner.steps_done();
        runner.check_runs()?;
        Ok(runner)
    }

    /// Checks that all runs that have ended saw the same data.
    fn check_runs(&self) -> Result<(), CompareError> {
        let mut seen = self.seen();
        seen.retain(|(name, _)| self.ended.contains_key(name));
        let Some((_, first)) = seen.first() else { return Ok(()) };
        let Some((_, other)) = seen.iter().find(|(_, sha256)| sha256 != first) else { return Ok(()) };
        let [first, other] = [first, other].map(|sha256| (names_of(&seen, sha256), sha256.clone()));
        Err(CompareError::MixedData { first, other })
    }

    /// Checks that every run saw data with this fingerprint, and makes it the fingerprint of this session.
    ///
    /// # Errors
    ///
    /// [`CompareError::OtherData`] naming the runs that saw other data.
    pub fn expect_data(&mut self, sha256: String) -> Result<(), CompareError> {
        let seen = self.seen();
        if let Some((_, began_with)) = seen.iter().find(|(_, other)| *other != sha256) {
            return Err(self.other_data(names_of(&seen, began_with), began_with.clone(), sha256));
        }
        self.data_sha256 = Some(sha256);
        Ok(())
    }

    /// Checks that the data have not changed since this session began.
    fn check_data(&self) -> Result<(), Error> {
        let Some(before) = &self.data_sha256 else { return Ok(()) };
        let now = prepare::check(&self.plan.first_configs()?)?;
        if now == *before {
            return Ok(());
        }
        let seen = self.seen();
        let names = if seen.is_empty() { "the first runs".into() } else { names_of(&seen, before) };
        Err(self.other_data(names, before.clone(), now).into())
    }

    fn other_data(&self, runs: String, began_with: String, now: String) -> CompareError {
        CompareError::OtherData { source_name: self.plan.source().into(), runs, began_with, now }
    }

    /// The fingerprint of the data of every run that has a checkpoint, by the run's name.
    fn seen(&self) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(self.folder.run("")).into_iter().flatten().filter_map(Result::ok);
        let of = |entry: std::fs::DirEntry| {
            let state = RunFolder::new(entry.path()).store().newest_state()?;
            Some((entry.file_name().into_string().ok()?, state.data_sha256))
        };
        let mut seen: Vec<(String, String)> = entries.filter_map(of).collect();
        seen.sort();
        seen
    }

    /// The fingerprint of the data that the runs saw; None before the first run.
    pub fn fingerprint(&self) -> Option<String> {
        self.seen().into_iter().next().map(|(_, sha256)| sha256)
    }

    /// The fingerprint that the data of this session have, once they were checked.
    pub fn data_sha256(&self) -> Option<&str> {
        self.data_sha256.as_deref()
    }

    /// The runs that have ended, by name.
    pub fn into_ended(mut self) -> HashMap<String, Outcome> {
        std::mem::take(&mut self.ended)
    }

    /// Every run that is needed now and has not ended, tuning first.
    pub fn needed(&self) -> Vec<Run> {
        let of = |index: usize| match stage(self.plan, index, |name| self.ended.get(name)) {
            Stage::Tuning(runs) | Stage::Verdict(_, runs) => runs,
        };
        let mut runs: Vec<Run> = (0..self.plan.contenders.len()).flat_map(of).collect();
        runs.sort_by_key(|run| run.purpose == Purpose::Verdict);
        runs
    }

    /// Reads a run that may have ended.
    fn look_at(&mut self, run: &Run) -> Result<(), Error> {
        let path = self.folder.run(&run.name);
        if let Some(outcome) = Outcome::read(&path)? {
            RunFolder::new(path).check_config(&self.config(run)?)?;
            self.ended.insert(run.name.clone(), outcome);
        }
        Ok(())
    }

    /// The configuration of a run.
    ///
    /// # Errors
    ///
    /// Invalid values.
    pub fn config(&self, run: &Run) -> Result<Config, Error> {
        self.plan.config(run.contender, &run.candidate, run.purpose, run.seed)
    }

    /// Executes every run that is still needed, each started by `launch`.
    ///
    /// # Errors
    ///
    /// [`CompareError::RunFailed`] if a run fails other than by diverging; the others are saved.
    pub fn run(&mut self, launch: &Launch) -> Result<Ending, Error> {
        let program = own_program()?;
        let live = Live::start();
        loop {
            if interrupt::requested() {
                return self.stop();
            }
            self.collect(launch)?;
            let needed = self.needed();
            let idle = |run: &Run| !self.running.iter().any(|running| running.run.name == run.name);
            let next: Vec<Run> = needed.into_iter().filter(idle).collect();
            if next.is_empty() && self.running.is_empty() {
                return Ok(Ending::Finished);
            }
            let free = (self.plan.settings.jobs as usize).saturating_sub(self.running.len());
            for run in next.into_iter().take(free) {
                self.start(run, &program, launch)?;
            }
            if live.is_visible() {
                self.show(&live);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Starts a run, unless a child of a comparison that was killed is still saving into its folder.
    fn start(&mut self, run: Run, program: &Path, launch: &Launch) -> Result<(), Error> {
        let out = self.folder.run(&run.name);
        match RunFolder::new(&out).lock() {
            Ok(_lock) => self.waiting = None,
            Err(Error::Folder(FolderError::Locked { .. })) => {
                let since = *self.waiting.get_or_insert_with(|| {
                    say(&format!("waiting for another process to release `{}`", out.display()));
                    Instant::now()
                });
                return if since.elapsed() < PATIENCE { Ok(()) } else { Err(FolderError::Locked { path: out }.into()) };
            }
            Err(error) => return Err(error),
        }
        let config = self.folder.write_config(&run.name, &self.config(&run)?)?;
        let mut arguments = train_arguments(&config, &out, self.data_sha256.as_deref());
        arguments.push("--stop-with-stdin".into());
        let child = RunChild::start(launch, program, &arguments, &self.folder.log(&run.name))?;
        self.running.push(Running { run, child, started: Instant::now() });
        Ok(())
    }

    /// Collects the children that have ended.
    fn collect(&mut self, launch: &Launch) -> Result<(), Error> {
        let mut index = 0;
        while index < self.running.len() {
            let Some(status) = self.running[index].child.ended() else {
                index += 1;
                continue;
            };
            let running = self.running.remove(index);
            let code = exit_code(status);
            self.look_at(&running.run)?;
            match (code, self.ended.get(&running.run.name)) {
                (Some(EXIT_DONE | EXIT_FAILED), Some(outcome)) => {
                    let said = describe(self.plan, &running.run, outcome);
                    say(&format!("{said}  ({})", duration(running.started.elapsed().as_secs_f64())));
                }
                // Only the child was interrupted: that means that the comparison should stop.
                (Some(EXIT_INTERRUPTED), _) => interrupt::request(),
                // What it was launched with may have an exit code of its own.
                (_, Some(outcome)) if launch.is_given() => {
                    let said = describe(self.plan, &running.run, outcome);
                    say(&format!("{said}; the run has ended, but `{}` ended with {status}", launch.text()));
                }
                _ => {
                    if code == Some(EXIT_BAD_INPUT) {
                        self.check_data()?;
                    }
                    return Err(self.failure(&running.run, status, launch));
                }
            }
        }
        Ok(())
    }

    fn failure(&self, run: &Run, status: ExitStatus, launch: &Launch) -> Error {
        let log = self.folder.log(&run.name);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let said = last_error(&text).map(String::from);
        if said.is_none() && launch.is_given() {
            return launch.failure(&run.name, &log, status).into();
        }
        let code = exit_code(status);
        let ended = || match code {
            Some(code) => format!("it ended with exit code {code}"),
            None => "it was killed".into(),
        };
        let message = said.unwrap_or_else(ended);
        let code = code.filter(|code| *code == EXIT_BAD_INPUT).unwrap_or(EXIT_FAILED);
        CompareError::RunFailed { run: run.name.clone(), message, log, code }.into()
    }

    /// Asks every child to save and end, and waits for them.
    fn stop(&mut self) -> Result<Ending, Error> {
        while !self.running.is_empty() {
            self.running.iter_mut().for_each(|running| running.child.ask_to_stop());
            std::thread::sleep(TICK);
            let ended: Vec<Running> = self.running.extract_if(.., |running| running.child.ended().is_some()).collect();
            ended.iter().try_for_each(|running| self.look_at(&running.run))?;
        }
        Ok(Ending::Interrupted)
    }

    /// Steps of the runs that have ended.
    fn steps_done(&self) -> u64 {
        self.ended.values().map(|outcome| outcome.end.step).sum()
    }

    fn show(&self, live: &Live) {
        let inside: Vec<u64> =
            self.running.iter().map(|running| newest_step(&self.folder.run(&running.run.name))).collect();
        let done = self.steps_done() + inside.iter().sum::<u64>();
        let settings = &self.plan.settings;
        let open = |index: usize| match stage(self.plan, index, |name| self.ended.get(name)) {
            Stage::Tuning(runs) => runs.len() as u64 * settings.tune_steps + settings.seeds * settings.steps,
            Stage::Verdict(_, runs) => runs.len() as u64 * settings.steps,
        };
        let total = self.steps_done() + (0..self.plan.contenders.len()).map(open).sum::<u64>();
        let here = done.saturating_sub(self.steps_before).max(1) as f64;
        let left = total.saturating_sub(done) as f64 * self.began.elapsed().as_secs_f64() / here;
        let rows = (0..self.plan.contenders.len()).map(|index| self.row(index));
        live.show(done, total, &format!("{} left\n{}", duration(left), table(rows, &[]).trim_end()));
    }

    fn row(&self, index: usize) -> [String; 2] {
        let name = self.plan.contenders[index].name.clone();
        let running = self.running.iter().filter(|running| running.run.contender == index).count();
        let state = match stage(self.plan, index, |name| self.ended.get(name)) {
            Stage::Tuning(runs) => format!("tuning, {} runs to go", runs.len()),
            Stage::Verdict(tuning, runs) => {
                let lr =
                    tuning.chosen().map_or("every tuning run diverged".into(), |chosen| format!("lr {}", chosen.lr));
                let done = self.plan.settings.seeds - (runs.len() as u64).min(self.plan.settings.seeds);
                format!("{lr}, {done} of {} verdict runs", self.plan.settings.seeds)
            }
        };
        [name, if running > 0 { format!("{state}, {running} running") } else { state }]
    }
}

/// What a process says by its end; None if it was killed.
fn exit_code(status: ExitStatus) -> Option<u8> {
    status.code().and_then(|code| u8::try_from(code).ok())
}

/// Names of the first few runs that saw data with this fingerprint.
fn names_of(seen: &[(String, String)], sha256: &str) -> String {
    let names: Vec<String> =
        seen.iter().filter(|(_, other)| other == sha256).map(|(name, _)| format!("`{name}`")).collect();
    let shown = names.len().min(SHOWN);
    let more = if names.len() > shown { format!(" and {} more", names.len() - shown) } else { String::new() };
    format!("{}{more}", names[..shown].join(", "))
}

/// The error with which a run ended, from its output.
pub fn last_error(said: &str) -> Option<&str> {
    said.lines().rev().find_map(|line| line.strip_prefix("error: "))
}

/// One line about a run that has ended.
fn describe(plan: &Plan, run: &Run, outcome: &Outcome) -> String {
    let name = &plan.contenders[run.contender].name;
    let what = run.purpose.name();
    let swept = run.candidate.swept.iter().map(|(key, value)| format!("  {key} {value}")).collect::<String>();
    let said = match outcome.loss {
        Some(loss) => format!("loss {loss:.4}"),
        None => format!("diverged at step {}", outcome.end.step + 1),
    };
    format!("{what:7}  {name}  lr {}{swept}  seed {}  {said}", run.candidate.lr, run.seed)
}

/// The newest step in a run's metrics; 0 if there is none.
fn newest_step(run: &Path) -> u64 {
    use std::io::{Read, Seek, SeekFrom};
    let tail = || {
        let mut file = File::open(RunFolder::new(run).metrics_file()).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let after = text.rsplit("\"step\":").next().filter(|rest| rest.len() < text.len())?;
        after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    tail().unwrap_or(0)
}
