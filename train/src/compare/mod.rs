//! `polaron compare`: a verdict on optimizers, from paired runs.
//!
//! For one seed every optimizer starts from the same weights and sees the same batches. Each is tuned with the same number of
//! learning rates on seeds that the verdict does not use (`tuning`); then each runs with every verdict seed
//! (`runner`), and the differences are tested seed by seed (`statistics`, `results`, `verdict`).

mod error;
mod estimate;
mod folder;
mod outcome;
mod plan;
mod results;
mod runner;
mod statistics;
mod tables;
mod tuning;
mod verdict;

use std::collections::HashMap;
use std::path::Path;

pub use error::CompareError;
pub use folder::ComparisonFolder;
pub use outcome::{Outcome, Point, Snapshot, first_reach, snapshots, train_losses, validations};
pub use plan::{Candidate, Contender, DEFAULT_OPTIMIZERS, Plan, Purpose, Request, Settings};
pub use results::{Pair, PairReach, Reach, Results, Standing, VerdictRun, results};
pub use statistics::{Paired, half_width, mean};
pub use tables::{columns as table_columns, markdown, pairs as pair_table, rates as rate_table, rates_note};
pub use tuning::{AtFactor, Edge, Known, Trial, Tuning};

use crate::config::Config;
use crate::device;
use crate::error::{EXIT_DONE, EXIT_INTERRUPTED, Error, FileError, one_line};
use crate::interrupt;
use crate::progress::{print, say};
use crate::report;
use crate::run_folder::{RunFolder, write_atomically};
use crate::train;
use polaron_datasets::{quoted, quoted_word};
use runner::{Ending, Runner};

/// Makes the comparison of a plan in the folder `out`, or goes on with it. Returns the exit code.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written; a run that fails otherwise than by diverging.
pub fn compare(plan: &Plan, out: &Path) -> Result<u8, Error> {
    let folder = ComparisonFolder::new(out);
    folder.check(plan)?;
    // A comparison that has ended needs its data no more.
    let begun = folder.holds_comparison();
    let needs_data = !begun || !Runner::new(plan, &folder)?.needed().is_empty();
    let data_sha256 = if needs_data { Some(check_data(plan, out, begun)?) } else { None };
    interrupt::install();
    let _lock = folder.claim(plan)?;
    let mut runner = Runner::new(plan, &folder)?;
    if let Some(sha256) = data_sha256 {
        runner.expect_data(sha256)?;
        folder.write_plan(plan)?;
    }
    folder.log_session(&session())?;
    let ending = runner.run()?;
    let ended = runner.into_ended();
    if ending == Ending::Interrupted {
        let out = quoted(out);
        say(&format!("stopped; the same command, or `polaron compare {out}`, goes on from here"));
        return Ok(EXIT_INTERRUPTED);
    }
    let results = results(plan, &ended, &|run| state_bytes_per_parameter(&folder.run(run)));
    write_results(plan, &folder, &results, &ended)?;
    write_atomically(&out.join(report::FILE), report::page(&[out.to_path_buf()])?.as_bytes())?;
    print(&summary(&results, out));
    if results.optimizers.iter().all(|standing| standing.runs.is_empty()) {
        return Err(CompareError::AllDiverged.into());
    }
    if results.optimizers.iter().all(|standing| standing.loss.is_none()) {
        return Err(CompareError::NoneFinished.into());
    }
    Ok(EXIT_DONE)
}

/// Checks what the runs of a plan would fail on. Returns the fingerprint of the data.
fn check_data(plan: &Plan, out: &Path, begun: bool) -> Result<String, Error> {
    let configs = plan.first_configs()?;
    if begun && configs.iter().any(Config::lacks_data) {
        return Err(CompareError::DataGone { path: out.into(), source_name: plan.source().into() }.into());
    }
    train::check(&configs)
}

/// What would be done, and how long it would take.
///
/// # Errors
///
/// Everything that can be checked before it; a timed run that fails.
pub fn dry_run(plan: &Plan) -> Result<u8, Error> {
    train::check(&plan.first_configs()?)?;
    print(&estimate::describe(plan)?);
    Ok(EXIT_DONE)
}

/// A comparison read back from its folder, finished or not.
#[derive(Debug)]
pub struct LoadedComparison {
    /// Its plan.
    pub plan: Plan,
    /// The runs that have ended, by name.
    pub ended: HashMap<String, Outcome>,
    /// What they say so far.
    pub results: Results,
    /// Runs that are still to come, without extensions of grids.
    pub missing: usize,
    /// Fingerprint of the data that the runs saw; None before the first.
    pub data_sha256: Option<String>,
}

impl LoadedComparison {
    /// Reads the comparison in the folder `path`.
    ///
    /// # Errors
    ///
    /// A damaged plan, runs of other configurations, files that cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = ComparisonFolder::new(path);
        let plan = folder.plan()?;
        let runner = Runner::new(&plan, &folder)?;
        let (missing, data_sha256) = (runner.needed().len(), runner.fingerprint());
        let ended = runner.into_ended();
        let results = results(&plan, &ended, &|run| state_bytes_per_parameter(&folder.run(run)));
        Ok(Self { plan, ended, results, missing, data_sha256 })
    }
}

fn write_results(
    plan: &Plan,
    folder: &ComparisonFolder,
    results: &Results,
    ended: &HashMap<String, Outcome>,
) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(results).map_err(|error| Error::Usage(one_line(&error.to_string())))?;
    let files = [
        ("results.json", format!("{json}\n")),
        ("results.csv", tables::csv(plan, results, ended)),
        ("results.md", tables::markdown(results, plan.settings.tune_steps)),
    ];
    for (name, text) in files {
        write_atomically(&folder.path().join(name), text.as_bytes())?;
    }
    Ok(())
}

/// The command of this process, with program and machine.
fn session() -> String {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| quoted_word(&word.to_string_lossy())).collect();
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let processor = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let threads = device::all_threads();
    let (version, system) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    format!("polaron {}\n  polaron {version}, {system}, {processor}, {threads} threads\n", words.join(" "))
}

fn summary(results: &Results, out: &Path) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("* {item}\n")).collect::<String>();
    format!(
        "\n{}\nranking: {}\n\n{}\n{}\nresults in {}\n",
        list(&results.verdict),
        results.ranking,
        tables::text(results),
        list(&results.notes),
        out.display()
    )
}

/// Bytes of optimizer state for every parameter, from the sizes in the run's newest checkpoint; None without one.
fn state_bytes_per_parameter(run: &Path) -> Option<f64> {
    let store = RunFolder::new(run).store();
    let checkpoint = store.folder(*store.steps().last()?);
    let [model, optimizer] =
        ["model.safetensors", "optimizer.safetensors"].map(|name| tensor_bytes(&checkpoint.join(name)));
    // Weights are stored in four bytes.
    Some(optimizer.ok()? as f64 / (model.ok()? as f64 / 4.0))
}

/// Bytes of tensors in a safetensors file: what follows the header and the eight bytes of its length.
fn tensor_bytes(path: &Path) -> Result<u64, FileError> {
    use std::io::Read;
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let mut header = [0; 8];
        file.read_exact(&mut header)?;
        Ok(file.metadata()?.len().saturating_sub(8).saturating_sub(u64::from_le_bytes(header)))
    };
    read().map_err(FileError::at("read", path))
}
