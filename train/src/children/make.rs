//! A comparison from its plan to its results, each run a child process.

use std::path::Path;
use std::time::Duration;

use super::data::DataCheck;
use super::launch::Launch;
use super::resolve::plan_at;
use super::state_bytes::state_bytes_per_parameter;
use super::training::Children;
use crate::compare::{ComparisonFolder, Plan, Results, Runs, Trial, complete};
use crate::error::{CompareError, Error};
use crate::host::interrupt;
use crate::run::prepare;
use crate::settings::config::Config;
use crate::store::run_folder::RunFolder;

/// A comparison that is open: its folder is locked and holds its plan, and its data were checked.
pub(super) struct Open<'a> {
    pub runs: Runs<'a>,
    pub data: DataCheck<'a>,
}

/// Makes the comparison of a plan in the folder `out`, or resumes it, and writes its results there; `launch` starts its runs. None
/// if a signal stopped it before.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written; a run that fails other than by diverging.
pub fn make(plan: &Plan, out: &Path, launch: &Launch) -> Result<Option<Results>, Error> {
    open(plan, out, Duration::ZERO, |Open { runs, data }| {
        interrupt::install(interrupt::SAVING);
        let (plan, folder) = (runs.plan, runs.folder);
        let children = Children::new(plan, folder, launch, data)?;
        let state_bytes = |run: &str| state_bytes_per_parameter(&folder.run(run));
        // The child writes the files of its run itself, so there is nothing to tell.
        complete(runs, &plan.subject(), &state_bytes, &|trial| children.train(&trial).map(|()| None))
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
    let folder = ComparisonFolder::new(out).reading(plan_at);
    folder.check(plan)?;
    // A finished comparison no longer needs its data.
    let begun = folder.holds_comparison();
    let check = |trial: &Trial| check_config(plan, trial);
    let needs_data = !begun || !read(plan, &folder, &check)?.needed().is_empty();
    let data_sha256 = if needs_data { Some(check_data(plan, out, begun)?) } else { None };
    let (_lock, plan) = folder.claim(plan, patience)?;
    let check = |trial: &Trial| check_config(&plan, trial);
    let runs = read(&plan, &folder, &check)?;
    let mut data = DataCheck::new(&plan, &folder);
    if let Some(sha256) = data_sha256 {
        data.expect(sha256)?;
        folder.write_plan(&plan)?;
    }
    work(Open { runs, data })
}

/// Reads the runs of a comparison, and checks that all that have ended saw the same data.
pub(super) fn read<'a>(
    plan: &'a Plan,
    folder: &'a ComparisonFolder,
    check: &'a (impl Fn(&Trial) -> Result<(), Error> + Sync),
) -> Result<Runs<'a>, Error> {
    let runs = Runs::read(plan, folder, check)?;
    DataCheck::new(plan, folder).check_same(runs.ended())?;
    Ok(runs)
}

/// Checks that the run of a trial has the configuration that the plan says.
pub(super) fn check_config(plan: &Plan, trial: &Trial) -> Result<(), Error> {
    RunFolder::new(trial.folder()).check_config(&plan.config_of(trial.run())?)
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
