//! `--dry-run`: the runs of a plan, and how long they will take, from a few timed steps of every optimizer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use polaron_common::table;

use super::training::last_error;
use crate::compare::{Contender, FACTORS, Outcome, Plan, Purpose};
use crate::error::{CompareError, EXIT_BAD_INPUT, EXIT_FAILED, Error, FileError};
use crate::host::progress::duration;
use crate::settings::config::Config;
use crate::store::files::write_atomically;

/// Steps of a timed run.
const STEPS: u64 = 12;
/// Windows of the validation that ends a timed run: as few as possible.
const WINDOWS: u64 = 1;
/// Time of a forward pass relative to that of forward and backward.
const FORWARD: f64 = 1.0 / 3.0;

/// What the runs of an optimizer cost, in seconds.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Starting the program, loading the data, building the model, saving.
    start: f64,
    /// One step.
    step: f64,
    /// One step without the optimizer.
    gradient: f64,
}

/// A folder that is removed when it is no longer needed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it cannot be removed, it stays among the system's temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The runs of `plan`, their number and the time they will take.
///
/// # Errors
///
/// A timed run that fails, with its message.
pub fn describe(plan: &Plan) -> Result<String, Error> {
    let (costs, validation) = measure(plan)?;
    let settings = &plan.settings;
    let head = ["optimizer", "tried", "tuning runs", "for sensitivity", "verdict runs", "ms per step"];
    let mut lines = vec![head.map(String::from).to_vec()];
    let (mut least, mut most) = (0.0, 0.0);
    for (index, (contender, cost)) in plan.contenders.iter().zip(&costs).enumerate() {
        let candidates = plan.candidates(index).len() as u64;
        let tuning: u64 = tuning_rounds(plan, candidates).iter().map(|[runs, _]| runs).sum();
        let extends = contender.lrs.len() > 1 || plan.searches() && candidates > 1;
        let extensions = if extends { settings.extensions * settings.tune_seeds } else { 0 };
        let probes = probes(plan, candidates);
        let tune = run_seconds(plan, index, Purpose::Tuning, *cost, validation)?;
        let verdict = run_seconds(plan, index, Purpose::Verdict, *cost, validation)?;
        let shorter = |[runs, steps]: &[u64; 2]| {
            *runs as f64 * (tune - settings.tune_steps.saturating_sub(*steps) as f64 * cost.step)
        };
        let rounds: f64 = tuning_rounds(plan, candidates).iter().map(shorter).sum();
        let fixed = rounds + probes as f64 * tune + settings.seeds as f64 * verdict;
        least += fixed;
        most += fixed + extensions as f64 * tune;
        let tried = if plan.searches() { format!("{candidates} candidates") } else { grid(contender, candidates) };
        lines.push(vec![
            contender.name.clone(),
            tried,
            if extensions > 0 { format!("{tuning} to {}", tuning + extensions) } else { tuning.to_string() },
            probes.to_string(),
            settings.seeds.to_string(),
            format!("{:.1}", cost.step * 1e3),
        ]);
    }
    let jobs = settings.jobs as f64;
    Ok(format!(
        "{}: tuning runs of {} steps, verdict runs of {}\n{}{} runs in about {} with {} at a time; up to {} if every grid has to be extended\n",
        plan.preset(),
        settings.tune_steps,
        settings.steps,
        table(lines, &[]),
        runs(plan),
        duration(least / jobs),
        settings.jobs,
        duration(most / jobs),
    ))
}

/// The learning rates of a grid, and how many combinations of other values each is tried with.
fn grid(contender: &Contender, candidates: u64) -> String {
    let rates: Vec<String> = contender.lrs.iter().map(f64::to_string).collect();
    let values = candidates / contender.lrs.len() as u64;
    let times = if values > 1 { format!(" x {values} combinations") } else { String::new() };
    format!("{}{times}", rates.join(", "))
}

/// Runs and their steps in every round of the tuning of an optimizer; a single candidate is not run.
fn tuning_rounds(plan: &Plan, candidates: u64) -> Vec<[u64; 2]> {
    let rounds = if candidates > 1 { plan.rounds(candidates as usize) } else { Vec::new() };
    rounds.into_iter().map(|[runs, steps]| [runs * plan.settings.tune_seeds, steps]).collect()
}

/// Runs without extensions.
fn runs(plan: &Plan) -> u64 {
    let candidates = (0..plan.contenders.len()).map(|index| plan.candidates(index).len() as u64);
    let tuning = |count: u64| tuning_rounds(plan, count).iter().map(|[runs, _]| runs).sum::<u64>();
    candidates.map(|count| tuning(count) + probes(plan, count)).sum::<u64>()
        + plan.contenders.len() as u64 * plan.settings.seeds
}

/// The most runs that the sensitivity of an optimizer with this many candidates needs: a tuned one has run its best rate.
fn probes(plan: &Plan, candidates: u64) -> u64 {
    let rates = if candidates > 1 { FACTORS.len() - 1 } else { FACTORS.len() } as u64;
    if plan.settings.sensitivity { rates * plan.settings.tune_seeds } else { 0 }
}

fn run_seconds(plan: &Plan, index: usize, purpose: Purpose, cost: Cost, validation: f64) -> Result<f64, Error> {
    let candidate = &plan.candidates(index)[0];
    let train = plan.config(index, candidate, purpose, plan.settings.first_seed)?.train;
    let part = |windows: u64| match windows {
        0 => validation,
        windows => (windows as f64 / train.batch as f64 * cost.gradient * FORWARD).min(validation),
    };
    let on_the_way = (train.steps - 1).checked_div(train.valid_every).unwrap_or(0) as f64;
    let validating = on_the_way * part(train.valid_windows) + part(train.valid_windows_end);
    Ok(cost.start + train.steps as f64 * cost.step + validating)
}

/// Times every optimizer, as many at a time as the comparison will run. Returns their costs and the seconds of a validation
/// over all windows.
fn measure(plan: &Plan) -> Result<(Vec<Cost>, f64), Error> {
    let scratch = Scratch(std::env::temp_dir().join(format!("polaron-dry-run-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).map_err(FileError::at("create", &scratch.0))?;
    let config =
        |index: usize| plan.config(index, &plan.candidates(index)[0], Purpose::Tuning, plan.settings.first_tune_seed);
    let mut timings: Vec<Config> = (0..plan.contenders.len()).map(config).collect::<Result<_, _>>()?;
    for config in &mut timings {
        config.train.steps = STEPS;
        config.train.valid_windows_end = WINDOWS;
        config.train.checkpoint_every = 0;
    }
    // One more, for the validation.
    let mut last = timings[0].clone();
    last.train.valid_windows_end = 0;
    timings.push(last);
    let mut timed = Vec::new();
    let jobs = plan.settings.jobs as usize;
    for (round, configs) in timings.chunks(jobs).enumerate() {
        let run =
            |place: usize, config: &Config| timed_run(config, &scratch.0.join(format!("{}", round * jobs + place)));
        let results: Vec<Result<(f64, Outcome), Error>> = std::thread::scope(|scope| {
            let start = |(place, config)| scope.spawn(move || run(place, config));
            let threads: Vec<_> = configs.iter().enumerate().map(start).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for result in results {
            timed.push(result?);
        }
    }
    let cost = |(wall, outcome): &(f64, Outcome)| Cost {
        start: wall - outcome.end.seconds,
        step: pace(outcome),
        gradient: pace(outcome) * (1.0 - outcome.optimizer_share().unwrap_or(0.0)),
    };
    let costs: Vec<Cost> = timed.iter().take(plan.contenders.len()).map(cost).collect();
    let (wall, outcome) = &timed[timed.len() - 1];
    Ok((costs.clone(), (wall - outcome.end.seconds - costs[0].start).max(0.0)))
}

/// Seconds per step, without the first two steps, which warm up.
fn pace(outcome: &Outcome) -> f64 {
    match outcome.train.as_slice() {
        [_, second, .., last] => (last.seconds - second.seconds) / (last.step - second.step),
        // It diverged at once.
        _ => outcome.end.seconds / outcome.end.step.max(1) as f64,
    }
}

/// Runs one configuration. Returns the seconds of the whole process and the outcome of the run.
fn timed_run(config: &Config, folder: &Path) -> Result<(f64, Outcome), Error> {
    let file = folder.with_extension("toml");
    write_atomically(&file, config.to_toml()?.as_bytes())?;
    let program = std::env::current_exe().unwrap_or_else(|_| "polaron".into());
    let start = Instant::now();
    let mut command = Command::new(&program);
    command.arg("train").arg(&file).arg("--out").arg(folder).stdin(Stdio::null());
    let output = command.output().map_err(|error| CompareError::CannotStart { program, message: error.to_string() })?;
    let wall = start.elapsed().as_secs_f64();
    match Outcome::read(folder)? {
        Some(outcome) => Ok((wall, outcome)),
        None => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let message = last_error(&said).unwrap_or("it was stopped");
            let bad_input = output.status.code() == Some(i32::from(EXIT_BAD_INPUT));
            let code = if bad_input { EXIT_BAD_INPUT } else { EXIT_FAILED };
            Err(CompareError::TimingFailed { message: message.into(), code }.into())
        }
    }
}
