//! Whether all runs of a comparison saw the same data: their fingerprints are in the checkpoints.

use std::collections::HashMap;

use crate::compare::{ComparisonFolder, Outcome, Plan};
use crate::error::{CompareError, Error};
use crate::run::prepare;
use crate::store::run_folder::RunFolder;

/// How many runs a message names.
const SHOWN: usize = 6;

/// What is known about the data of a comparison.
#[derive(Debug)]
pub struct DataCheck<'a> {
    plan: &'a Plan,
    folder: &'a ComparisonFolder,
    /// Fingerprint of the data, once they were checked.
    sha256: Option<String>,
}

impl<'a> DataCheck<'a> {
    /// Nothing is known yet.
    pub fn new(plan: &'a Plan, folder: &'a ComparisonFolder) -> Self {
        Self { plan, folder, sha256: None }
    }

    /// Fingerprint of the data of this session.
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// Checks that all runs that have ended saw the same data.
    ///
    /// # Errors
    ///
    /// [`CompareError::MixedData`].
    pub fn check_same(&self, ended: &HashMap<String, Outcome>) -> Result<(), CompareError> {
        let mut seen = self.seen();
        seen.retain(|(name, _)| ended.contains_key(name));
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
    pub fn expect(&mut self, sha256: String) -> Result<(), CompareError> {
        let seen = self.seen();
        if let Some((_, began_with)) = seen.iter().find(|(_, other)| *other != sha256) {
            return Err(self.other_data(names_of(&seen, began_with), began_with.clone(), sha256));
        }
        self.sha256 = Some(sha256);
        Ok(())
    }

    /// Checks that the data have not changed since this session began.
    ///
    /// # Errors
    ///
    /// [`CompareError::OtherData`], data that cannot be read.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        let Some(before) = &self.sha256 else { return Ok(()) };
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
}

/// Names of the first few runs that saw data with this fingerprint.
fn names_of(seen: &[(String, String)], sha256: &str) -> String {
    let names: Vec<String> =
        seen.iter().filter(|(_, other)| other == sha256).map(|(name, _)| format!("`{name}`")).collect();
    let shown = names.len().min(SHOWN);
    let more = if names.len() > shown { format!(" and {} more", names.len() - shown) } else { String::new() };
    format!("{}{more}", names[..shown].join(", "))
}
