//! A comparison loaded from its folder.

use std::collections::HashMap;
use std::path::Path;

use super::data::DataCheck;
use super::make::{check_config, read};
use super::resolve::plan_at;
use super::state_bytes::state_bytes_per_parameter;
use crate::compare::{ComparisonFolder, Outcome, Plan, Results, Runs, Subject, Trial, results};
use crate::error::Error;

/// A comparison loaded from its folder, finished or not.
#[derive(Debug)]
pub struct LoadedComparison {
    /// Its plan.
    pub plan: Plan,
    /// What its runs train.
    pub subject: Subject,
    /// The runs that have ended, by name.
    pub ended: HashMap<String, Outcome>,
    /// The results so far.
    pub results: Results,
    /// Number of runs that are still needed, without extensions of grids.
    pub missing: usize,
    /// Fingerprint of the data that the runs saw; None before the first run, and for a loop of one's own.
    pub data_sha256: Option<String>,
}

impl LoadedComparison {
    /// Reads the comparison in the folder `path`.
    ///
    /// # Errors
    ///
    /// A damaged plan, runs of other configurations, files that cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = ComparisonFolder::new(path).reading(plan_at);
        let plan = folder.plan()?;
        let check = |trial: &Trial| check_config(&plan, trial);
        let (runs, subject) = match plan.own_subject() {
            Some(subject) => (Runs::read(&plan, &folder, &Trial::check)?, subject),
            None => (read(&plan, &folder, &check)?, plan.subject()),
        };
        let missing = runs.needed().len();
        let ended = runs.into_ended();
        let results = results(&plan, &subject, &ended, &|run| state_bytes_per_parameter(&folder.run(run)));
        let data_sha256 = DataCheck::new(&plan, &folder).fingerprint();
        Ok(Self { plan, subject, ended, results, missing, data_sha256 })
    }
}
