//! `polaron report`: one page about runs and comparisons, or their metrics as a table.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::usage;
use crate::compare::ComparisonFolder;
use crate::error::{ConfigError, EXIT_DONE, Error};
use crate::host::interrupt;
use crate::host::progress::{print, say};
use crate::report::csv::csv;
use crate::report::page::{FILE, page};
use crate::store::files::write_atomically;
use crate::store::run_folder::RunFolder;

/// How soon a signal ends the pause between two pages.
const TICK: Duration = Duration::from_millis(100);

/// Arguments of `polaron report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of comparisons and runs, in any combination.
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// File to write. [default: report.html in the folder, or in the current folder for several]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the metrics of the runs to this file instead of a page: comma-separated values, a line for every event, with
    /// columns `run,event,step` and then everything that events say.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "watch"])]
    pub csv: Option<PathBuf>,
    /// Write the page again every so many seconds, until training there ends; the page loads itself again meanwhile.
    /// [default: 10]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10")]
    #[arg(allow_negative_numbers = true, value_parser = usage::whole)]
    pub watch: Option<u64>,
}

/// Writes the page or the table, and prints its path.
///
/// # Errors
///
/// A folder that holds neither a run nor a comparison, files that cannot be read or written.
pub fn run(args: &ReportArgs) -> Result<u8, Error> {
    if let Some(path) = &args.csv {
        write_atomically(path, csv(&args.dirs)?.as_bytes())?;
        print(&format!("wrote {}\n", path.display()));
        return Ok(EXIT_DONE);
    }
    let path = match (&args.out, args.dirs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [dir]) => dir.join(FILE),
        (None, _) => PathBuf::from(FILE),
    };
    if let Some(seconds) = args.watch {
        ConfigError::ensure(seconds >= 1, "--watch", seconds, "it must be at least 1 second")?;
        watch(&args.dirs, &path, seconds)?;
    }
    write_atomically(&path, page(&args.dirs, None)?.as_bytes())?;
    print(&format!("wrote {}\n", path.display()));
    Ok(EXIT_DONE)
}

/// Writes the page every so many seconds, until no process works in any of the folders or a signal ends it.
fn watch(dirs: &[PathBuf], path: &Path, seconds: u64) -> Result<(), Error> {
    interrupt::install("interrupted: writing the page for the last time");
    if !dirs.iter().any(|dir| is_going(dir)) {
        say("note: nothing is being trained there now: the page is written once");
    }
    while dirs.iter().any(|dir| is_going(dir)) && !interrupt::requested() {
        write_atomically(path, page(dirs, Some(seconds))?.as_bytes())?;
        let written = Instant::now();
        while written.elapsed() < Duration::from_secs(seconds) && !interrupt::requested() {
            std::thread::sleep(TICK);
        }
    }
    Ok(())
}

/// Whether a process trains or compares in a folder.
fn is_going(dir: &Path) -> bool {
    RunFolder::new(dir).is_locked() || ComparisonFolder::new(dir).is_locked()
}
