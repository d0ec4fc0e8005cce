//! `polaron launch`: several processes that train one run, started by MPI's own launcher.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::usage;
use crate::error::Error;
#[cfg(unix)]
use crate::error::RanksError;

/// Arguments of `polaron launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Number of processes.
    #[arg(long, value_name = "N", value_parser = usage::count)]
    pub ranks: usize,
    /// Machines, with the number of processes on each where it is not 1. All need this program, the data and the run folder at the
    /// same paths. [default: this machine]
    #[arg(long, value_name = "HOST[:N],…")]
    pub hosts: Option<String>,
    /// The launcher of the MPI library that this program was built with.
    #[arg(long, value_name = "PATH", default_value = "mpirun")]
    pub mpirun: PathBuf,
    /// The command to start: `train` with its arguments.
    #[arg(last = true, required = true, value_name = "train …")]
    pub command: Vec<OsString>,
}

/// Starts the processes and waits for them. Returns their exit code.
///
/// # Errors
///
/// A launcher that cannot be started, a program without MPI, another command than `train`.
pub fn run(args: &LaunchArgs) -> Result<u8, Error> {
    if args.ranks == 0 {
        return Err(Error::Usage("--ranks is 0: start at least 1 process".into()));
    }
    if args.command.first().is_none_or(|word| word != "train") {
        return Err(Error::Usage(
            "several processes can only train: write `polaron launch --ranks N -- train …`".into(),
        ));
    }
    #[cfg(unix)]
    return started::run(args);
    #[cfg(not(unix))]
    Err(Error::Usage("`polaron launch` needs a Unix system: use the launcher of your MPI library".into()))
}

#[cfg(unix)]
mod started {
    use std::ffi::OsString;
    use std::io::ErrorKind;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};
    use std::thread::JoinHandle;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, Uid};
    use polaron_datasets::quoted_word;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::iterator::{Handle, Signals};

    use super::{Error, LaunchArgs, RanksError};
    use crate::error::{EXIT_FAILED, FileError};
    use crate::host::progress::say;

    /// By these Open MPI refuses to be started by the super-user, as in most containers, unless both are 1.
    const AS_ROOT: [&str; 2] = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"];

    pub fn run(args: &LaunchArgs) -> Result<u8, Error> {
        if cfg!(not(feature = "mpi")) {
            return Err(RanksError::NotCompiled { count: args.ranks }.into());
        }
        let mut command = command(args)?;
        let signals =
            Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1]).map_err(Error::device_failed("handling signals"))?;
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => RanksError::NoMpirun { path: args.mpirun.clone() }.into(),
            _ => Error::from(FileError::at("start", &args.mpirun)(error)),
        })?;
        let (handle, passing) = pass_on(&child, signals);
        let status = child.wait().map_err(FileError::at("wait for", &args.mpirun));
        handle.close();
        // It only ends after the line above, and cannot fail.
        let _ = passing.join();
        let status = status?;
        // As shells do.
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(EXIT_FAILED))
    }

    /// The command, which is also printed.
    fn command(args: &LaunchArgs) -> Result<Command, Error> {
        let program = std::env::current_exe().map_err(Error::device_failed("finding this program"))?;
        let mut words: Vec<OsString> =
            ["--quiet", "-np", &args.ranks.to_string(), "--bind-to", "none"].map(Into::into).into();
        match &args.hosts {
            Some(hosts) => words.extend(["--host".into(), hosts.into()]),
            None => {
                let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                if args.ranks > processors {
                    let more = ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1"];
                    words.extend(more.map(OsString::from));
                }
            }
        }
        words.push(program.into());
        words.extend(args.command.iter().cloned());
        let mut shown: Vec<String> = Vec::new();
        let mut command = Command::new(&args.mpirun);
        if Uid::effective().is_root() {
            command.envs(AS_ROOT.map(|variable| (variable, "1")));
            shown.extend(AS_ROOT.map(|variable| format!("{variable}=1")));
        }
        shown.push(quoted_word(&args.mpirun.to_string_lossy()));
        shown.extend(words.iter().map(|word| quoted_word(&word.to_string_lossy())));
        say(&shown.join(" "));
        // A group of its own: an interrupt from the terminal reaches this process only, which turns it into a request that leaves
        // time to save. Open MPI would end its processes two seconds after it.
        command.args(words).process_group(0);
        Ok(command)
    }

    /// The first interrupt asks the run to save and end, as SIGUSR1 does; the second ends it.
    fn pass_on(child: &Child, mut signals: Signals) -> (Handle, JoinHandle<()>) {
        let mpirun = Pid::from_raw(child.id() as i32);
        let handle = signals.handle();
        let passing = std::thread::spawn(move || {
            let mut first = true;
            for signal in signals.forever() {
                let asks = signal == SIGUSR1 || std::mem::take(&mut first);
                let signal = if asks { Signal::SIGUSR1 } else { Signal::SIGTERM };
                // It may have ended just now.
                let _ = kill(mpirun, signal);
            }
        });
        (handle, passing)
    }
}
