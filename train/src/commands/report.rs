//! `polaron report`: one page about runs and comparisons.

use std::path::PathBuf;

use clap::Args;

use crate::error::{EXIT_DONE, Error};
use crate::host::progress::print;
use crate::report::page::{FILE, page};
use crate::store::files::write_atomically;

/// Arguments of `polaron report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of comparisons and runs, in any combination.
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// File to write. [default: report.html in the folder, or in the current folder for several]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Writes the page, and prints its path.
///
/// # Errors
///
/// A folder that holds neither a run nor a comparison, files that cannot be read or written.
pub fn run(args: &ReportArgs) -> Result<u8, Error> {
    let path = match (&args.out, args.dirs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [dir]) => dir.join(FILE),
        (None, _) => PathBuf::from(FILE),
    };
    write_atomically(&path, page(&args.dirs)?.as_bytes())?;
    print(&format!("wrote {}\n", path.display()));
    Ok(EXIT_DONE)
}
