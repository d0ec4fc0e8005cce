//! The training that `polaron compare` gives to a comparison: a child process of this same program, an ordinary `polaron train`.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::child::{RunChild, own_program, train_arguments};
use super::data::DataCheck;
use super::launch::Launch;
use crate::compare::{ComparisonFolder, Outcome, Plan, TICK, Trial};
use crate::error::{CompareError, EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Error, FolderError};
use crate::host::interrupt;
use crate::host::progress::say;
use crate::settings::config::Config;
use crate::store::files::write_atomically;
use crate::store::run_folder::RunFolder;

/// How long to wait for a folder that a process of a killed comparison still uses.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the children of a comparison have in common.
#[derive(Debug)]
pub struct Children<'a> {
    plan: &'a Plan,
    folder: &'a ComparisonFolder,
    launch: &'a Launch,
    data: DataCheck<'a>,
    program: PathBuf,
}

impl<'a> Children<'a> {
    /// The children of a comparison, each started by `launch`.
    ///
    /// # Errors
    ///
    /// [`CompareError::CannotStart`].
    pub fn new(
        plan: &'a Plan,
        folder: &'a ComparisonFolder,
        launch: &'a Launch,
        data: DataCheck<'a>,
    ) -> Result<Self, Error> {
        Ok(Self { plan, folder, launch, data, program: own_program()? })
    }

    /// Makes the run of a trial, from where it is, until it ends or the comparison is stopped.
    ///
    /// # Errors
    ///
    /// [`CompareError::RunFailed`] if it fails other than by diverging.
    pub fn train(&self, trial: &Trial) -> Result<(), Error> {
        if !wait_for(trial)? {
            return Ok(());
        }
        let config = write_config(self.folder, trial.name(), &self.plan.config_of(trial.run())?)?;
        let mut arguments = train_arguments(&config, trial.folder(), self.data.sha256());
        arguments.push("--stop-with-stdin".into());
        let mut child = RunChild::start(self.launch, &self.program, &arguments, &self.folder.log(trial.name()))?;
        let status = loop {
            match child.ended() {
                Some(status) => break status,
                None if trial.is_stopped() => child.ask_to_stop(),
                None => {}
            }
            std::thread::sleep(TICK);
        };
        if trial.is_stopped() { Ok(()) } else { self.judge(trial, status) }
    }

    /// Whether a child ended as a run does.
    fn judge(&self, trial: &Trial, status: ExitStatus) -> Result<(), Error> {
        let ended = Outcome::read(trial.folder())?.is_some();
        match (exit_code(status), ended) {
            (Some(EXIT_DONE | EXIT_FAILED), true) => Ok(()),
            // Only the child was interrupted: that means that the comparison should stop.
            (Some(EXIT_INTERRUPTED), _) => {
                interrupt::request();
                Ok(())
            }
            // What it was launched with may have an exit code of its own.
            (_, true) if self.launch.is_given() => {
                let (name, prefix) = (trial.name(), self.launch.text());
                say(&format!("{name}: the run has ended, but `{prefix}` ended with {status}"));
                Ok(())
            }
            (code, _) => {
                if code == Some(EXIT_BAD_INPUT) {
                    self.data.check_unchanged()?;
                }
                Err(self.failure(trial.name(), status))
            }
        }
    }

    fn failure(&self, run: &str, status: ExitStatus) -> Error {
        let log = self.folder.log(run);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let said = last_error(&text).map(String::from);
        if said.is_none() && self.launch.is_given() {
            return self.launch.failure(run, &log, status).into();
        }
        let code = exit_code(status);
        let ended = || match code {
            Some(code) => format!("it ended with exit code {code}"),
            None => "it was killed".into(),
        };
        let message = said.unwrap_or_else(ended);
        let code = code.filter(|code| *code == EXIT_BAD_INPUT).unwrap_or(EXIT_FAILED);
        CompareError::RunFailed { run: run.into(), message, log, code }.into()
    }
}

/// Waits until no child of a comparison that was killed is saving into the folder of a run any more; false if the comparison was
/// stopped before.
fn wait_for(trial: &Trial) -> Result<bool, Error> {
    let mut since: Option<Instant> = None;
    while !trial.is_stopped() {
        match RunFolder::new(trial.folder()).lock() {
            Ok(_lock) => return Ok(true),
            Err(Error::Folder(FolderError::Locked { .. })) => {}
            Err(error) => return Err(error),
        }
        let since = since.get_or_insert_with(|| {
            say(&format!("waiting for another process to release `{}`", trial.folder().display()));
            Instant::now()
        });
        if since.elapsed() >= PATIENCE {
            return Err(FolderError::Locked { path: trial.folder().into() }.into());
        }
        std::thread::sleep(TICK);
    }
    Ok(false)
}

/// Writes the configuration that a run is started with.
///
/// # Errors
///
/// A file that cannot be written.
pub fn write_config(folder: &ComparisonFolder, name: &str, config: &Config) -> Result<PathBuf, Error> {
    let path = folder.config(name);
    write_atomically(&path, config.to_toml()?.as_bytes())?;
    Ok(path)
}

/// What a process says by its end; None if it was killed.
fn exit_code(status: ExitStatus) -> Option<u8> {
    status.code().and_then(|code| u8::try_from(code).ok())
}

/// The error with which a run ended, from its output.
pub fn last_error(said: &str) -> Option<&str> {
    said.lines().rev().find_map(|line| line.strip_prefix("error: "))
}
