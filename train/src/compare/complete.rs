//! From an open comparison to its results.

use std::collections::HashMap;

use polaron_datasets::quoted_word;

use super::engine::{Ending, execute};
use super::folder::ComparisonFolder;
use super::judge::{StateBytes, results};
use super::measurement::Measurement;
use super::outcome::Outcome;
use super::plan::Plan;
use super::results::Results;
use super::runs::Runs;
use super::subject::Subject;
use super::tables;
use super::trial::Trial;
use crate::error::{Error, one_line};
use crate::host::{device, processor};
use crate::store::files::write_atomically;

/// Makes the runs that a comparison lacks, each by a call of `train`, and writes its results. None if a signal stopped it before.
///
/// # Errors
///
/// A run that fails other than by diverging, files that cannot be written.
pub fn complete<I: IntoIterator<Item = Measurement>>(
    mut runs: Runs<'_>,
    subject: &Subject,
    state_bytes: StateBytes<'_>,
    train: &(impl Fn(Trial) -> Result<I, Error> + Sync),
) -> Result<Option<Results>, Error> {
    let (plan, folder) = (runs.plan, runs.folder);
    folder.log_session(&session())?;
    if execute(&mut runs, train)? == Ending::Interrupted {
        return Ok(None);
    }
    let ended = runs.into_ended();
    let results = results(plan, subject, &ended, state_bytes);
    write_results(plan, folder, &results, &ended)?;
    Ok(Some(results))
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
pub fn session() -> String {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let program = program.rsplit(['/', '\\']).next().unwrap_or_default().trim_end_matches(".exe").to_owned();
    let words: Vec<String> = words.map(|word| quoted_word(&word)).collect();
    let (processor, threads) = (processor::model(), device::all_threads());
    let (version, system) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    format!("{program} {}\n  polaron {version}, {system}, {processor}, {threads} threads\n", words.join(" "))
}
