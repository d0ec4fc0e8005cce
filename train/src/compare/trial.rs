//! What a comparison asks of one training.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use polaron::{Layerwise, LayerwiseConfig, LayerwiseError, LayerwiseOptimizer, Schedule};
use serde::Deserialize;
use toml::{Table, Value};

use super::plan::{Plan, Purpose, section};
use super::read::LOOP;
use super::subject::Subject;
use super::tuning::Run;
use crate::error::{ConfigError, Error, FolderError};
use crate::settings::layers::read_file;
use crate::settings::merge;
use crate::store::run_folder::RunFolder;

/// Whether the runs of a comparison shall end early.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks them to.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether they were asked to.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// One training that a comparison asks for: with this optimizer, this learning rate and this seed, for so many steps.
#[derive(Clone, Debug)]
pub struct Trial {
    run: Run,
    optimizer: String,
    folder: PathBuf,
    steps: u64,
    /// Steps between two validations; 0 means only after the last step.
    valid_every: u64,
    sections: Table,
    stop: Stop,
}

impl Trial {
    pub(crate) fn new(plan: &Plan, run: Run, folder: PathBuf, stop: Stop) -> Result<Self, Error> {
        let valid_every = match run.purpose {
            Purpose::Tuning | Purpose::Sensitivity => 0,
            Purpose::Verdict => plan.settings.valid_every,
        };
        let mut sections = plan.sections(run.contender, &run.candidate.swept)?;
        let mut optimizer = section(&sections, "optimizer");
        optimizer.insert("lr".into(), run.candidate.lr.into());
        sections.insert("optimizer".into(), optimizer.into());
        let name = plan.contenders[run.contender].name.clone();
        Ok(Self { steps: run.steps, run, optimizer: name, folder, valid_every, sections, stop })
    }

    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    /// Whether the comparison has to end early: the run may be left as it is.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_asked()
    }

    /// Its name, which is that of its folder.
    pub fn name(&self) -> &str {
        &self.run.name
    }

    /// Name of the optimizer in the comparison.
    pub fn optimizer_name(&self) -> &str {
        &self.optimizer
    }

    /// Tuning, sensitivity or verdict.
    pub fn purpose(&self) -> Purpose {
        self.run.purpose
    }

    /// Learning rate of the optimizer's main rule.
    pub fn lr(&self) -> f64 {
        self.run.candidate.lr
    }

    /// The seed. It has to determine the first weights and the batches, and nothing else may: that pairs the optimizers.
    pub fn seed(&self) -> u64 {
        self.run.seed
    }

    /// The steps to make, counted from 1.
    pub fn steps(&self) -> RangeInclusive<u64> {
        1..=self.steps
    }

    /// The number of steps.
    pub fn last_step(&self) -> u64 {
        self.steps
    }

    /// Tokens, images or whatever is counted, in a step; 0 if the comparison was not told.
    pub fn per_step(&self) -> u64 {
        self.sections.get(LOOP).and_then(Value::as_table).map_or(0, |about| Subject::of_loop(about).per_step)
    }

    /// Whether to validate after this step.
    pub fn validates(&self, step: u64) -> bool {
        step == self.steps || (self.valid_every > 0 && step.is_multiple_of(self.valid_every))
    }

    /// The folder of its files. Anything else may be kept there too.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The schedule's factor of the learning rates in a step, counted from 1; 1 if the comparison has no schedule.
    pub fn factor(&self, step: u64) -> f64 {
        // The schedule was checked when the comparison began.
        let schedule = self.sections.get("schedule").and_then(|value| Schedule::deserialize(value.clone()).ok());
        schedule.map_or(1.0, |schedule| schedule.factor(step.saturating_sub(1), self.steps))
    }

    /// The complete settings of the optimizer.
    ///
    /// # Errors
    /// If a value is not valid.
    pub fn config(&self) -> Result<LayerwiseConfig, LayerwiseError> {
        LayerwiseConfig::from_toml(&section(&self.sections, "optimizer").to_string())
    }

    /// The builder of the optimizer, for a model whose roles have to be assigned.
    ///
    /// # Errors
    /// If a value is not valid.
    pub fn layerwise(&self) -> Result<Layerwise, LayerwiseError> {
        Layerwise::from_config(&self.config()?)
    }

    /// The optimizer for a model whose roles are inferred.
    ///
    /// # Errors
    /// If a value is not valid, or a parameter has no rule.
    pub fn optimizer<M: Module>(&self, model: &M) -> Result<LayerwiseOptimizer, LayerwiseError> {
        self.layerwise()?.build(model)
    }

    /// Checks that the run in the folder, which has ended, is the one that is asked for.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let there = read_file(&RunFolder::new(&self.folder).config_file())?;
        let differences = merge::differences(&there, &self.to_table(), &[]);
        let other = || FolderError::OtherConfig { path: self.folder.clone(), differences: differences.clone() };
        if differences.is_empty() { Ok(()) } else { Err(other().into()) }
    }

    /// Everything that determines the run, as a file.
    pub(crate) fn to_toml(&self) -> Result<String, Error> {
        Ok(toml::to_string(&self.to_table()).map_err(ConfigError::misfit)?)
    }

    fn to_table(&self) -> Table {
        let number = |number: u64| Value::Integer(number.min(i64::MAX as u64) as i64);
        let mut trial = Table::new();
        trial.insert("optimizer".into(), self.optimizer.clone().into());
        trial.insert("purpose".into(), self.run.purpose.name().into());
        trial.insert("seed".into(), number(self.run.seed));
        trial.insert("steps".into(), number(self.steps));
        trial.insert("valid_every".into(), number(self.valid_every));
        let mut table = Table::new();
        table.insert("trial".into(), trial.into());
        table.extend(self.sections.clone());
        table
    }
}
