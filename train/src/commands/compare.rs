//! `polaron compare`: its arguments, and a comparison from plan to page.

use std::path::{Path, PathBuf};

use clap::Args;
use polaron_datasets::quoted;
use toml::Value;

use super::usage::{self, split_set};
use crate::children::{self, Launch, Request};
use crate::compare::{ComparisonFolder, Plan, summary};
use crate::error::{CompareError, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Error};
use crate::host::progress::{print, say};
use crate::report::page::{FILE, page};
use crate::settings::layers;
use crate::store::files::write_atomically;

/// Arguments of `polaron compare`.
#[derive(Debug, Default, Args)]
pub struct CompareArgs {
    /// TOML plan, in which every key is optional; or the folder of a comparison to resume.
    #[arg(value_name = "PLAN.toml|DIR")]
    pub plan: Option<PathBuf>,
    /// Optimizers: stacks (see `polaron list stacks`) or names from the plan, comma separated; with the folder of a comparison,
    /// optimizers to add to it.
    /// [default: adamw,muon,muon_eq,symmetric]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub optimizers: Option<Vec<String>>,
    /// Learning rates to try for every optimizer, comma separated; with the folder of a comparison, rates to add to those that it has.
    /// [default: three around each optimizer's default, a factor of 3 apart]
    #[arg(long, value_name = "X,Y,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = usage::real)]
    pub lrs: Option<Vec<f64>>,
    /// Number of paired seeds for the verdict; with the folder of a comparison, how many it shall have, which adds the missing ones.
    /// [default: 3]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub seeds: Option<i64>,
    /// Number of seeds for the tuning, none of them used for the verdict. [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub tune_seeds: Option<i64>,
    /// Tune over rates, decay and momentum at once: this many candidates for every optimizer, drawn evenly from the ranges in
    /// `[search]` of the plan, or from around its defaults. [default: a grid of learning rates]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub trials: Option<i64>,
    /// Halve these candidates N times: the better half runs for twice as many steps. [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub halvings: Option<i64>,
    /// Validation losses to reach, comma separated. [default: the lowest that every run reached]
    #[arg(long, value_name = "LOSS,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = usage::real)]
    pub target: Option<Vec<f64>>,
    /// Steps of a verdict run. [default: 400]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub steps: Option<i64>,
    /// Steps of a tuning run. [default: 3/5 of --steps]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub tune_steps: Option<i64>,
    /// Also run every best learning rate divided and multiplied by 2 and by 4, for a table without interpolation.
    #[arg(long)]
    pub sensitivity: bool,
    /// Model preset; see `polaron list models`. [default: llama-d64]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Embedded data or path of a UTF-8 text file. [default: shakespeare]
    #[arg(long, value_name = "NAME|PATH")]
    pub data: Option<String>,
    /// Device; see `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Set any key of the runs' configuration, e.g. `--set model.d_model=32`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Number of runs at a time. [default: the number of CPU threads]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub jobs: Option<i64>,
    /// CPU threads in total, shared among the jobs; 0 means all. [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::count)]
    pub threads: Option<usize>,
    /// Command to put before the program of every run, e.g. `--launch "srun -n1 -c2 --exact --quiet"`. Not part of the plan: it may
    /// differ when a comparison is resumed.
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["dry_run", "next"])]
    pub launch: Option<String>,
    /// Print the runs that can begin now, one shell command a line, for other machines; train nothing. Exit code 1 while something
    /// is left, 0 when the comparison is complete.
    #[arg(long, conflicts_with = "dry_run")]
    pub next: bool,
    /// Folder of the comparison. [default: runs/compare-<model>-<optimizers>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show the runs and an estimate of the time, from a few timed steps; train nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Makes the comparison that the arguments describe. Returns the exit code.
///
/// # Errors
///
/// Those of the plan and of the runs.
pub fn run(args: &CompareArgs) -> Result<u8, Error> {
    // The folder of a comparison means its plan, to be resumed.
    let folder = args.plan.clone().filter(|path| ComparisonFolder::new(path).holds_comparison());
    let plan = folder.as_ref().map(|folder| ComparisonFolder::new(folder).plan_file()).or_else(|| args.plan.clone());
    let file = match plan {
        Some(path) => Some((path.clone(), layers::read_file(&path)?)),
        None => None,
    };
    let number = |value: Option<i64>| value.map(Value::Integer);
    let numbers = |values: &Option<Vec<f64>>| values.clone().map(Value::from);
    let settings = [
        ("--seeds", "seeds", number(args.seeds)),
        ("--tune-seeds", "tune_seeds", number(args.tune_seeds)),
        ("--trials", "trials", number(args.trials)),
        ("--halvings", "halvings", number(args.halvings)),
        ("--steps", "steps", number(args.steps)),
        ("--tune-steps", "tune_steps", number(args.tune_steps)),
        ("--jobs", "jobs", number(args.jobs)),
        ("--lrs", "lrs", numbers(&args.lrs)),
        ("--target", "targets", numbers(&args.target)),
        ("--sensitivity", "sensitivity", args.sensitivity.then_some(Value::Boolean(true))),
    ];
    let text = |value: &Option<String>| value.clone().map(Value::String);
    let flags = [
        ("--model", "model.preset", text(&args.model)),
        ("--data", "data.source", text(&args.data)),
        ("--device", "device.name", text(&args.device)),
    ];
    let request = Request {
        file,
        adds: folder.is_some(),
        optimizers: args.optimizers.clone(),
        settings: settings.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect(),
        flags: flags.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect(),
        threads: args.threads,
        sets: args.sets.iter().map(|text| split_set(text)).collect::<Result<_, _>>()?,
    };
    let launch = args.launch.as_deref().map(Launch::new).transpose()?.unwrap_or_default();
    let plan = Plan::resolve(&request)?;
    if args.dry_run {
        children::check(&plan)?;
        print(&children::estimate(&plan)?);
        return Ok(EXIT_DONE);
    }
    let out = args.out.clone().or(folder).unwrap_or_else(|| plan.default_folder());
    if args.next { next(&plan, &out) } else { compare(&plan, &out, &launch) }
}

/// Prints the runs that can begin now. Returns the exit code.
fn next(plan: &Plan, out: &Path) -> Result<u8, Error> {
    let next = children::next(plan, out)?;
    print(&next.commands.iter().map(|command| format!("{command}\n")).collect::<String>());
    let (ready, under_way, out) = (next.commands.len(), next.under_way, quoted(out));
    if next.is_complete() {
        say(&format!("no run is left: `polaron compare {out}` writes the results"));
        return Ok(EXIT_DONE);
    }
    say(&format!("runs that can begin now: {ready}, under way: {under_way}; others may follow from their results"));
    Ok(EXIT_FAILED)
}

/// Makes the comparison of a plan in the folder `out`, or resumes it; then writes its page and prints its verdict.
fn compare(plan: &Plan, out: &Path, launch: &Launch) -> Result<u8, Error> {
    let Some(results) = children::make(plan, out, launch)? else {
        let out = quoted(out);
        say(&format!("stopped; the same command, or `polaron compare {out}`, resumes it"));
        return Ok(EXIT_INTERRUPTED);
    };
    write_atomically(&out.join(FILE), page(&[out.to_path_buf()], None)?.as_bytes())?;
    print(&summary(&results, out));
    if results.optimizers.iter().all(|standing| standing.runs.is_empty()) {
        return Err(CompareError::AllDiverged.into());
    }
    if results.optimizers.iter().all(|standing| standing.loss.is_none()) {
        return Err(CompareError::NoneFinished.into());
    }
    Ok(EXIT_DONE)
}
