//! A run as a child process.
//!
//! Its standard input is a pipe with one byte in it, which this process holds open. When the pipe closes, because this process stops
//! or was killed, the child finishes its step, saves and ends. A launcher between the two may not pass its input on: what has not ended
//! some time later also gets a signal that asks for the same, which launchers do pass on.

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::launch::Launch;
use crate::compare::TICK;
use crate::error::{CompareError, Error, FileError};

/// How long a run behind a launcher may take to end before it gets a signal.
const GRACE: Duration = Duration::from_secs(2);

/// This program.
///
/// # Errors
///
/// [`CompareError::CannotStart`].
pub fn own_program() -> Result<PathBuf, CompareError> {
    let lost =
        |error: std::io::Error| CompareError::CannotStart { program: "polaron".into(), message: error.to_string() };
    std::env::current_exe().map_err(lost)
}

/// The arguments with which a run of a comparison is trained.
pub fn train_arguments(config: &Path, out: &Path, data_sha256: Option<&str>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["train".into(), config.into(), "--out".into(), out.into()];
    if let Some(sha256) = data_sha256 {
        arguments.extend(["--data-sha256".into(), sha256.into()]);
    }
    arguments
}

/// A started run.
#[derive(Debug)]
pub struct RunChild {
    child: Child,
    /// The end of its input that this process holds; None once it was asked to stop.
    input: Option<PipeWriter>,
    /// Since when it is asked to stop.
    asked: Option<Instant>,
    /// Whether it shall get a signal if it does not end: there is a launcher, and it had none yet.
    signal: bool,
}

impl RunChild {
    /// Starts `program` with its output in the file `log`.
    ///
    /// # Errors
    ///
    /// A log that cannot be written, a program that cannot be started.
    pub fn start(launch: &Launch, program: &Path, arguments: &[OsString], log: &Path) -> Result<Self, Error> {
        let output = File::create(log).map_err(FileError::at("write", log))?;
        let both = output.try_clone().map_err(FileError::at("write", log))?;
        let cannot_start = |error: std::io::Error| launch.cannot_start(program, &error);
        let (theirs, mut input) = std::io::pipe().map_err(cannot_start)?;
        input.write_all(b"\n").map_err(cannot_start)?;
        let mut command = launch.command(program);
        let child = command.args(arguments).stdin(Stdio::from(theirs)).stdout(output).stderr(both).spawn();
        let child = child.map_err(cannot_start)?;
        Ok(Self { child, input: Some(input), asked: None, signal: launch.is_given() })
    }

    /// How it ended; None while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to save and end. To be called again until it has ended: it may not have begun to listen.
    pub fn ask_to_stop(&mut self) {
        drop(self.input.take());
        let since = *self.asked.get_or_insert_with(Instant::now);
        if self.signal && since.elapsed() > GRACE {
            self.signal = false;
            announce_end(&self.child);
        }
    }
}

impl Drop for RunChild {
    /// After an error: it saves and ends.
    fn drop(&mut self) {
        while self.ended().is_none() {
            self.ask_to_stop();
            std::thread::sleep(TICK);
        }
    }
}

/// SIGUSR1, which only asks.
#[cfg(unix)]
fn announce_end(child: &Child) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    if let Ok(id) = i32::try_from(child.id()) {
        // It may have ended just now.
        let _ = kill(Pid::from_raw(id), Signal::SIGUSR1);
    }
}

#[cfg(not(unix))]
fn announce_end(_child: &Child) {}
