//! A comparison from its plan to its results.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use polaron_datasets::quoted_word;

use super::folder::ComparisonFolder;
use super::judge::results;
use super::launch::Launch;
use super::loaded::state_bytes_per_parameter;
use super::outcome::Outcome;
use super::plan::Plan;
use super::results::Results;
use super::runner::{Ending, Runner};
use super::tables;
use crate::error::{CompareError, Error, one_line};
use crate::host::{device, interrupt, processor};
use crate::run::prepare;
use crate::settings::config::Config;
use crate::store::files::write_atomically;

/// A comparison that is open: its folder is locked and holds its plan, and its data were checked.
pub(super) struct Open<'a> {
    pub plan: &'a Plan,
    pub folder: &'a ComparisonFolder,
    pub runner: Runner<'a>,
}

/// Makes the comparison of a plan in the folder `out`, or resumes it, and writes its results there; `launch` starts its runs. None
/// if a signal stopped it before.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written; a run that fails other than by diverging.
pub fn make(plan: &Plan, out: &Path, launch: &Launch) -> Result<Option<Results>, Error> {
    open(plan, out, Duration::ZERO, |Open { plan, folder, mut runner }| {
        interrupt::install(interrupt::SAVING);
        folder.log_session(&session())?;
        let ending = runner.run(launch)?;
        let ended = runner.into_ended();
        if ending == Ending::Interrupted {
            return Ok(None);
        }
        let results = results(plan, &ended, &|run| state_bytes_per_parameter(&folder.run(run)));
        write_results(plan, folder, &results, &ended)?;
        Ok(Some(results))
    })
}

/// Opens the comparison of a plan in the folder `out`, which is new or holds it, does `work`, and closes it. Waits at most so long
/// for another process to close it.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written.
pub(super) fn open<T>(
    plan: &Plan,
    out: &Path,
    patience: Duration,
    work: impl FnOnce(Open<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let folder = ComparisonFolder::new(out);
    folder.check(plan)?;
    // A finished comparison no longer needs its data.
    let begun = folder.holds_comparison();
    let needs_data = !begun || !Runner::new(plan, &folder)?.needed().is_empty();
    let data_sha256 = if needs_data { Some(check_data(plan, out, begun)?) } else { None };
    let (_lock, plan) = folder.claim(plan, patience)?;
    let mut runner = Runner::new(&plan, &folder)?;
    if let Some(sha256) = data_sha256 {
        runner.expect_data(sha256)?;
        folder.write_plan(&plan)?;
    }
    work(Open { plan: &plan, folder: &folder, runner })
}

/// Checks everything that would make the runs of a plan fail. Returns the fingerprint of the data.
fn check_data(plan: &Plan, out: &Path, begun: bool) -> Result<String, Error> {
    let configs = plan.first_configs()?;
    if begun && configs.iter().any(Config::lacks_data) {
        return Err(CompareError::DataGone { path: out.into(), source_name: plan.source().into() }.into());
    }
    prepare::check(&configs)
}

/// Checks everything that would make the runs of a plan fail.
///
/// # Errors
///
/// The first problem found.
pub fn check(plan: &Plan) -> Result<(), Error> {
    prepare::check(&plan.first_configs()?).map(drop)
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
pub(super) fn session() -> String {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| quoted_word(&word.to_string_lossy())).collect();
    let (processor, threads) = (processor::model(), device::all_threads());
    let (version, system) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    format!("polaron {}\n  polaron {version}, {system}, {processor}, {threads} threads\n", words.join(" "))
}
