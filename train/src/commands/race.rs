//! `polaron race`: which optimizer reaches the loss of a tuned AdamW in the fewest steps.

use std::path::{Path, PathBuf};

use clap::Args;
use polaron_common::{markdown_table, table};
use serde::Serialize;

use super::usage;
use crate::children::{self, ADAMW_STEPS, Entry, Launch, Track};
use crate::compare::{Claim, LEAST_RUNS, Lead, MARGIN, Results, leads};
use crate::error::{EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Error, one_line};
use crate::host::progress::{print, say};
use crate::report::page::{FILE, page};
use crate::store::files::write_atomically;

/// Arguments of `polaron race`.
#[derive(Debug, Args)]
pub struct RaceArgs {
    /// Settings files of the entries: `steps`, [optimizer], and if needed [schedule] and [train.average].
    #[arg(value_name = "ENTRY.toml", required = true)]
    pub entries: Vec<PathBuf>,
    /// Path of Tiny Shakespeare, which is a track of its own; see docs/RACE.md. [default: the embedded text]
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Number of runs of every entry, with the seeds 1, 2, 3 …; a claim needs 8. [default: 8]
    #[arg(long, value_name = "N", value_parser = usage::count)]
    pub seeds: Option<usize>,
    /// Run every entry for N steps, not for those that it claims, and also test every pair of them.
    #[arg(long, value_name = "N", value_parser = usage::count)]
    pub steps: Option<usize>,
    /// Number of runs at a time, one thread each. [default: the number of CPU threads]
    #[arg(long, value_name = "N", value_parser = usage::count)]
    pub jobs: Option<usize>,
    /// Command to put before the program of every run, as for `polaron compare`.
    #[arg(long, value_name = "PREFIX")]
    pub launch: Option<String>,
    /// Folder of the runs, a comparison for every entry; the same command resumes.
    #[arg(long, value_name = "DIR", default_value = "runs/race")]
    pub out: PathBuf,
}

/// An entry with its runs.
#[derive(Debug, Serialize)]
struct Run {
    name: String,
    steps: u64,
    /// Final losses by seed.
    losses: Vec<Option<f64>>,
    #[serde(flatten)]
    claim: Claim,
}

/// Everything that a race found out: `race.json`.
#[derive(Debug, Serialize)]
struct Race {
    track: &'static str,
    target: f64,
    entries: Vec<Run>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<Lead>,
}

/// Runs the entries and prints their claims. Returns the exit code: 1 if a claim of a settings file does not stand.
///
/// # Errors
///
/// Those of the settings, of the text and of the runs.
pub fn run(args: &RaceArgs) -> Result<u8, Error> {
    let track = Track::of(args.data.as_deref())?;
    let entries = entries(args)?;
    let launch = args.launch.as_deref().map(Launch::new).transpose()?.unwrap_or_default();
    let (seeds, jobs) = (args.seeds.map_or(LEAST_RUNS, |seeds| seeds as u64), args.jobs.map(|jobs| jobs as u64));
    let plan = |entry: &Entry| entry.plan(&track, args.data.as_deref(), seeds, jobs);
    // All are checked before the first run begins.
    let plans = entries.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    let mut race = Race { track: track.name, target: track.target, entries: Vec::new(), pairs: Vec::new() };
    for (entry, plan) in entries.iter().zip(&plans) {
        let out = args.out.join(entry.folder(&track));
        say(&format!("{}, {} steps: {}", entry.name, entry.steps, out.display()));
        let Some(results) = children::make(plan, &out, &launch)? else {
            say("stopped; the same command resumes");
            return Ok(EXIT_INTERRUPTED);
        };
        write_atomically(&out.join(FILE), page(std::slice::from_ref(&out), None)?.as_bytes())?;
        race.entries.push(finished(entry, &results, track.target));
    }
    if args.steps.is_some() {
        let losses = race.entries.iter().map(|run| (run.name.clone(), run.losses.clone()));
        race.pairs = leads(&losses.collect::<Vec<_>>());
    }
    race.entries.sort_by_key(|run| (!run.claim.stands, run.steps));
    write(&race, &args.out)?;
    print(&said(&race));
    let claimed = args.steps.is_none();
    Ok(if claimed && race.entries.iter().any(|run| !run.claim.stands) { EXIT_FAILED } else { EXIT_DONE })
}

/// The entries, each with a name of its own.
fn entries(args: &RaceArgs) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::new();
    for path in &args.entries {
        let mut entry = Entry::read(path)?;
        entry.steps = args.steps.map_or(entry.steps, |steps| steps as u64);
        if entries.iter().any(|other| other.name.eq_ignore_ascii_case(&entry.name)) {
            return Err(Error::Usage(format!(
                "two entries are called `{}`: give one of them another `name`",
                entry.name
            )));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn finished(entry: &Entry, results: &Results, target: f64) -> Run {
    let runs = results.optimizers.iter().flat_map(|standing| &standing.runs);
    let losses: Vec<Option<f64>> = runs.map(|run| run.loss).collect();
    Run { name: entry.name.clone(), steps: entry.steps, claim: Claim::of(&losses, target), losses }
}

/// `race.json` and `race.md`.
fn write(race: &Race, out: &Path) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(race).map_err(|error| Error::Usage(one_line(&error.to_string())))?;
    write_atomically(&out.join("race.json"), format!("{json}\n").as_bytes())?;
    let rows = rows(race);
    write_atomically(&out.join("race.md"), markdown_table(rows[0].clone(), rows[1..].to_vec(), &[]).as_bytes())?;
    Ok(())
}

/// Header and rows of the table.
fn rows(race: &Race) -> Vec<Vec<String>> {
    let head = ["entry", "steps", "n", "mean loss", "σ", "(target - mean) √n / σ", "claim"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for Run { name, steps, claim, .. } in &race.entries {
        let number = |x: Option<f64>, digits: usize| x.map_or("–".into(), |x| format!("{x:.digits$}"));
        let verdict = match claim {
            Claim { stands: true, .. } => "stands".into(),
            Claim { diverged: 1.., .. } => format!("fails: {} of {} diverged", claim.diverged, claim.n),
            Claim { n, .. } if (*n as u64) < LEAST_RUNS => format!("open: {n} of {LEAST_RUNS} runs"),
            _ => "fails".into(),
        };
        let sizes = [number(claim.mean, 4), number(claim.sd, 4), number(claim.margin, 2)];
        rows.push([vec![name.clone(), steps.to_string(), claim.n.to_string()], sizes.to_vec(), vec![verdict]].concat());
    }
    rows
}

fn said(race: &Race) -> String {
    let pair = |lead: &Lead| {
        let p = lead.loss.p.map_or("without a p-value".into(), |p| format!("p = {p:.4}"));
        let word = if lead.decided { "is ahead of" } else { "is not separated from" };
        format!("{} {word} {}: {:.4} lower, {p} (Holm)\n", lead.ahead, lead.behind, lead.loss.mean)
    };
    format!(
        "\n{}: target {}, the loss of a tuned AdamW after {ADAMW_STEPS} steps\n\n{}\nA claim stands if none of at least {LEAST_RUNS} runs \
         diverged and (target - mean) √n ≥ {MARGIN} σ.\n{}",
        race.track,
        race.target,
        table(rows(race), &[]),
        race.pairs.iter().map(pair).collect::<String>()
    )
}
