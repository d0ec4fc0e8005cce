//! `--next`: the runs that can begin now, as commands for any machine that sees the folder.

use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use polaron_datasets::{quoted, quoted_word};

use super::child::{own_program, train_arguments};
use super::make::{Open, open, session};
use super::plan::Plan;
use super::runner::Runner;
use super::tuning::Run;
use crate::error::{CompareError, Error, FileError};
use crate::store::run_folder::RunFolder;

/// How long to wait for another process that lists the runs at the same time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is left of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// A line for a shell for every run that can begin now.
    pub commands: Vec<String>,
    /// How many runs other processes are making at the moment.
    pub under_way: usize,
}

impl Next {
    /// Whether nothing is left.
    pub fn is_complete(&self) -> bool {
        self.commands.is_empty() && self.under_way == 0
    }
}

/// What is left of the comparison of a plan in the folder `out`. Writes what a run needs before it begins: the plan and the
/// configurations of these runs.
///
/// # Errors
///
/// Everything that can be checked is checked before anything is written.
pub fn next(plan: &Plan, out: &Path) -> Result<Next, Error> {
    let program = own_program()?;
    let here = std::env::current_dir().map_err(FileError::at("find", Path::new(".")))?;
    [&program, &here, &full(out)?].into_iter().try_for_each(|path| check_line(path))?;
    open(plan, out, PATIENCE, |Open { folder, runner, .. }| {
        let in_use = |run: &Run| RunFolder::new(folder.run(&run.name)).is_locked();
        let (under_way, free): (Vec<Run>, Vec<Run>) = runner.needed().into_iter().partition(in_use);
        let line = |run: &Run| {
            let config = full(&folder.write_config(&run.name, &runner.config(run)?)?)?;
            Ok(command(&runner, &here, &program, &config, &full(&folder.run(&run.name))?))
        };
        let commands = free.iter().map(line).collect::<Result<Vec<_>, Error>>()?;
        if !commands.is_empty() {
            folder.log_session(&session())?;
        }
        Ok(Next { commands, under_way: under_way.len() })
    })
}

/// The command of a run. It changes to this folder, since paths of data may be relative to it.
fn command(runner: &Runner<'_>, here: &Path, program: &Path, config: &Path, out: &Path) -> String {
    let arguments = train_arguments(config, out, runner.data_sha256());
    let words: Vec<String> = arguments.iter().map(|word| quoted_word(&word.to_string_lossy())).collect();
    format!("cd {} && {} {}", quoted(here), quoted(program), words.join(" "))
}

fn full(path: &Path) -> Result<PathBuf, FileError> {
    absolute(path).map_err(FileError::at("find", path))
}

fn check_line(path: &Path) -> Result<(), CompareError> {
    let text = path.to_string_lossy();
    if text.contains(['\n', '\r']) {
        Err(CompareError::LineBreak { path: text.escape_debug().to_string() })
    } else {
        Ok(())
    }
}
