//! The metrics of runs as comma-separated values, for spreadsheets and data frames.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polaron_common::csv as text_of;
use serde_json::Value;

use super::names::name_of;
use crate::compare::ComparisonFolder;
use crate::error::{Error, FolderError};
use crate::store::metrics::{self, Event};
use crate::store::run_folder::RunFolder;

/// The columns that every line fills.
const ALWAYS: [&str; 3] = ["run", "event", "step"];

/// The events of the runs in `dirs`, and of those in comparisons there, in their order: a line for each, under a head of `run,
/// event, step` and then everything that any of them says, in the order in which it comes first; what is nested comes last. A
/// cell is empty where an event does not say that. Names are those of [`Event::fields`].
///
/// # Errors
///
/// A folder that holds neither a run nor a comparison, files that cannot be read.
pub fn csv(dirs: &[PathBuf]) -> Result<String, Error> {
    let mut rows: Vec<HashMap<String, String>> = Vec::new();
    let mut head = ALWAYS.map(String::from).to_vec();
    for run in dirs.iter().map(|dir| runs_in(dir)).collect::<Result<Vec<_>, _>>()?.concat() {
        let name = name_of(&run);
        for event in metrics::read(&RunFolder::new(&run).metrics_file())? {
            let said = said(&name, &event);
            head.extend(
                said.iter()
                    .map(|(column, _)| column)
                    .filter(|column| !head.contains(column))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            rows.push(said.into_iter().collect());
        }
    }
    head.sort_by_key(|column| column.contains('/'));
    let cells = |row: HashMap<String, String>| -> Vec<String> {
        head.iter().map(|column| row.get(column).cloned().unwrap_or_default()).collect()
    };
    let lines: Vec<Vec<String>> = rows.into_iter().map(cells).collect();
    Ok(text_of([vec![head], lines].concat()))
}

/// The runs in a folder: itself, or those of the comparison in it.
fn runs_in(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let comparison = ComparisonFolder::new(dir);
    if comparison.holds_comparison() {
        return Ok(comparison.runs()?);
    }
    let run = RunFolder::new(dir).config_file().is_file().then(|| vec![dir.to_path_buf()]);
    run.ok_or_else(|| FolderError::Neither { path: dir.into() }.into())
}

/// What an event says, by column.
fn said(run: &str, event: &Event) -> Vec<(String, String)> {
    let always = [run.to_owned(), event.kind().into(), event.step().to_string()];
    let text = |value| if let Value::String(text) = value { text } else { value.to_string() };
    let fields = event.fields().into_iter().map(|(name, value)| (name, text(value)));
    ALWAYS.map(String::from).into_iter().zip(always).chain(fields).collect()
}
