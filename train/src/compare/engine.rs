//! Makes the runs, each by one call of the training that a comparison was given, and several at a time.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::Instant;

use super::folder::TICK;
use super::journal::record;
use super::measurement::Measurement;
use super::outcome::Outcome;
use super::plan::Plan;
use super::runs::Runs;
use super::trial::Trial;
use super::tuning::{Run, Stage};
use crate::error::{CompareError, Error};
use crate::host::progress::{Live, duration, say};
use crate::host::{interrupt, panics};
use crate::store::run_folder::RunFolder;
use polaron_common::table;

/// How many bytes at the end of a metrics file are searched for the newest step.
const TAIL: u64 = 1 << 14;

/// How the runs ended, if not with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every run that the plan needs has ended.
    Finished,
    /// A signal asked the comparison to stop.
    Interrupted,
}

/// A run that has begun.
struct Running {
    run: Run,
    started: Instant,
}

/// What a thread says when its run has ended, or was left.
type Left = (String, Result<(), Error>);

/// Makes every run that is still needed: `train` is called with each trial, and what it tells is written down.
///
/// # Errors
///
/// The first run that fails other than by diverging; the others are asked to end.
pub fn execute<I: IntoIterator<Item = Measurement>>(
    runs: &mut Runs<'_>,
    train: &(impl Fn(Trial) -> Result<I, Error> + Sync),
) -> Result<Ending, Error> {
    let (sender, receiver) = channel();
    std::thread::scope(|scope| Engine::new(runs, receiver).work(scope, &sender, train))
}

struct Engine<'r, 'a> {
    runs: &'r mut Runs<'a>,
    running: Vec<Running>,
    receiver: Receiver<Left>,
    failed: Option<Error>,
    began: Instant,
    /// Steps done before this session.
    steps_before: u64,
}

impl<'r, 'a> Engine<'r, 'a> {
    fn new(runs: &'r mut Runs<'a>, receiver: Receiver<Left>) -> Self {
        let steps_before = runs.ended().values().map(|outcome| outcome.end.step).sum();
        Self { runs, running: Vec::new(), receiver, failed: None, began: Instant::now(), steps_before }
    }

    fn work<'s, I: IntoIterator<Item = Measurement>>(
        mut self,
        scope: &'s Scope<'s, '_>,
        sender: &Sender<Left>,
        train: &'s (impl Fn(Trial) -> Result<I, Error> + Sync),
    ) -> Result<Ending, Error> {
        let live = Live::start();
        loop {
            let interrupted = interrupt::requested();
            let stopping = interrupted || self.failed.is_some();
            if stopping {
                self.runs.stop();
            } else {
                self.begin(scope, sender, train);
            }
            if self.running.is_empty() {
                return match self.failed {
                    Some(error) => Err(error),
                    None if interrupted => Ok(Ending::Interrupted),
                    None => Ok(Ending::Finished),
                };
            }
            match self.receiver.recv_timeout(TICK) {
                Ok((name, result)) => self.collect(&name, result),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if live.is_visible() {
                self.show(&live);
            }
        }
    }

    /// Begins as many of the runs that are needed as there is room for.
    fn begin<'s, I: IntoIterator<Item = Measurement>>(
        &mut self,
        scope: &'s Scope<'s, '_>,
        sender: &Sender<Left>,
        train: &'s (impl Fn(Trial) -> Result<I, Error> + Sync),
    ) {
        let free = (self.runs.plan.settings.jobs as usize).saturating_sub(self.running.len());
        let idle = |run: &Run| !self.running.iter().any(|running| running.run.name == run.name);
        let next: Vec<Run> = self.runs.needed().into_iter().filter(idle).take(free).collect();
        for run in next {
            let trial = match self.runs.trial(run.clone()) {
                Ok(trial) => trial,
                Err(error) => {
                    self.failed = Some(error);
                    return;
                }
            };
            let sender = sender.clone();
            self.running.push(Running { run, started: Instant::now() });
            scope.spawn(move || {
                let name = trial.name().to_owned();
                let made = panics::catch(|| train(trial.clone()).and_then(|told| record(&trial, told)));
                let made = made.unwrap_or_else(|message| {
                    let message = format!("it panicked: {message}");
                    Err(CompareError::TrialFailed { run: name.clone(), message }.into())
                });
                // The receiver lives until every run has said this.
                let _ = sender.send((name, made));
            });
        }
    }

    /// Reads a run that its thread has left.
    fn collect(&mut self, name: &str, result: Result<(), Error>) {
        let Some(place) = self.running.iter().position(|running| running.run.name == name) else { return };
        let Running { run, started } = self.running.remove(place);
        let read = result.and_then(|()| self.runs.ended_now(&run));
        match (read, self.runs.ended().get(name)) {
            (Err(error), _) => drop(self.failed.get_or_insert(error)),
            (Ok(()), Some(outcome)) => {
                let said = describe(self.runs.plan, &run, outcome);
                say(&format!("{said}  ({})", duration(started.elapsed().as_secs_f64())));
            }
            (Ok(()), None) if self.runs.is_stopped() || interrupt::requested() => {}
            (Ok(()), None) => {
                let message = "it ended without a measurement".into();
                self.failed.get_or_insert(CompareError::TrialFailed { run: name.into(), message }.into());
            }
        }
    }

    /// Steps of the runs that have ended.
    fn steps_done(&self) -> u64 {
        self.runs.ended().values().map(|outcome| outcome.end.step).sum()
    }

    fn show(&self, live: &Live) {
        let newest = |running: &Running| newest_step(&self.runs.folder.run(&running.run.name));
        let done = self.steps_done() + self.running.iter().map(newest).sum::<u64>();
        let settings = &self.runs.plan.settings;
        let contenders = 0..self.runs.plan.contenders.len();
        let steps = |runs: &[Run]| runs.iter().map(|run| run.steps).sum::<u64>();
        let open = |index: usize| match self.runs.stage(index) {
            Stage::Tuning(runs) => steps(&runs) + settings.seeds * settings.steps,
            Stage::Verdict(_, runs) => steps(&runs),
        };
        let total = self.steps_done() + contenders.clone().map(open).sum::<u64>();
        let here = done.saturating_sub(self.steps_before).max(1) as f64;
        let left = total.saturating_sub(done) as f64 * self.began.elapsed().as_secs_f64() / here;
        let rows = contenders.map(|index| self.row(index));
        live.show(done, total, &format!("{} left\n{}", duration(left), table(rows, &[]).trim_end()));
    }

    fn row(&self, index: usize) -> [String; 2] {
        let plan = self.runs.plan;
        let running = self.running.iter().filter(|running| running.run.contender == index).count();
        let state = match self.runs.stage(index) {
            Stage::Tuning(runs) => format!("tuning, {} runs to go", runs.len()),
            Stage::Verdict(tuning, runs) => {
                let lr =
                    tuning.chosen().map_or("every tuning run diverged".into(), |chosen| format!("lr {}", chosen.lr));
                let done = plan.settings.seeds - (runs.len() as u64).min(plan.settings.seeds);
                format!("{lr}, {done} of {} verdict runs", plan.settings.seeds)
            }
        };
        let state = if running > 0 { format!("{state}, {running} running") } else { state };
        [plan.contenders[index].name.clone(), state]
    }
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
