//! `--next`: the runs that can begin now, as commands for any machine that sees the folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use polaron_datasets::{quoted, quoted_word};

use super::child::{own_program, train_arguments};
use super::make::{Open, open};
use super::training::write_config;
use crate::compare::{Plan, Run, session};
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
    open(plan, out, PATIENCE, |Open { runs, data }| {
        let folder = runs.folder;
        let in_use = |run: &Run| RunFolder::new(folder.run(&run.name)).is_locked();
        let (under_way, free): (Vec<Run>, Vec<Run>) = runs.needed().into_iter().partition(in_use);
        let line = |run: &Run| {
            let config = full(&write_config(folder, &run.name, &runs.plan.config_of(run)?)?)?;
            let arguments = train_arguments(&config, &full(&folder.run(&run.name))?, data.sha256());
            Ok(command(&here, &program, &arguments))
        };
        let commands = free.iter().map(line).collect::<Result<Vec<_>, Error>>()?;
        if !commands.is_empty() {
            folder.log_session(&session())?;
        }
        Ok(Next { commands, under_way: under_way.len() })
    })
}

/// The command of a run. It changes to this folder, since paths of data may be relative to it.
fn command(here: &Path, program: &Path, arguments: &[OsString]) -> String {
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
