//! The runs of a comparison: which have ended, and which are needed now.

use std::collections::HashMap;

use super::folder::ComparisonFolder;
use super::outcome::Outcome;
use super::plan::{Plan, Purpose};
use super::trial::{Stop, Trial};
use super::tuning::{Run, Stage, stage};
use crate::error::Error;

/// Checks that the run of a trial, which has ended, is the one that the plan asks for.
pub type Check<'a> = &'a (dyn Fn(&Trial) -> Result<(), Error> + Sync);

/// The runs of one comparison.
pub struct Runs<'a> {
    /// Its plan.
    pub plan: &'a Plan,
    /// Its folder.
    pub folder: &'a ComparisonFolder,
    check: Check<'a>,
    stop: Stop,
    ended: HashMap<String, Outcome>,
}

impl<'a> Runs<'a> {
    /// Reads the runs that have ended already.
    ///
    /// # Errors
    ///
    /// What `check` refuses, files that cannot be read.
    pub fn read(plan: &'a Plan, folder: &'a ComparisonFolder, check: Check<'a>) -> Result<Self, Error> {
        let mut runs = Self { plan, folder, check, stop: Stop::default(), ended: HashMap::new() };
        runs.look()?;
        Ok(runs)
    }

    /// Reads every run that is needed now and has ended before. The runs that have ended determine which runs are next, and those may
    /// have ended too: so do verdict runs, where rates were added to the tuning.
    fn look(&mut self) -> Result<(), Error> {
        loop {
            let before = self.ended.len();
            for run in self.needed() {
                self.look_at(&run)?;
            }
            if self.ended.len() == before {
                return Ok(());
            }
        }
    }

    /// Reads a run that has just been made, and those that are needed after it.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn ended_now(&mut self, run: &Run) -> Result<(), Error> {
        self.look_at(run)?;
        self.look()
    }

    /// Every run that is needed now and has not ended, tuning first.
    pub fn needed(&self) -> Vec<Run> {
        let of = |index: usize| match self.stage(index) {
            Stage::Tuning(runs) | Stage::Verdict(_, runs) => runs,
        };
        let mut runs: Vec<Run> = (0..self.plan.contenders.len()).flat_map(of).collect();
        runs.sort_by_key(|run| run.purpose == Purpose::Verdict);
        runs
    }

    /// The progress of an optimizer.
    pub fn stage(&self, contender: usize) -> Stage {
        stage(self.plan, contender, |name| self.ended.get(name))
    }

    /// What is asked of a run.
    ///
    /// # Errors
    ///
    /// A swept key that cannot be set.
    pub fn trial(&self, run: Run) -> Result<Trial, Error> {
        let folder = self.folder.run(&run.name);
        Trial::new(self.plan, run, folder, self.stop.clone())
    }

    /// Asks the runs under way to end early.
    pub fn stop(&self) {
        self.stop.ask();
    }

    /// Whether they were asked to.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_asked()
    }

    /// Reads a run that may have ended.
    fn look_at(&mut self, run: &Run) -> Result<(), Error> {
        if let Some(outcome) = Outcome::read(&self.folder.run(&run.name))? {
            (self.check)(&self.trial(run.clone())?)?;
            self.ended.insert(run.name.clone(), outcome);
        }
        Ok(())
    }

    /// The runs that have ended, by name.
    pub fn ended(&self) -> &HashMap<String, Outcome> {
        &self.ended
    }

    /// The same, when nothing more is needed.
    pub fn into_ended(self) -> HashMap<String, Outcome> {
        self.ended
    }
}
