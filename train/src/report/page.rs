//! The page as a whole.

use std::path::PathBuf;

use super::names::name_of;
use super::runs::{self, ReportedRun};
use super::{comparison, html, profile};
use crate::children::LoadedComparison;
use crate::compare::ComparisonFolder;
use crate::error::{Error, FolderError};
use crate::host::progress::say;
use crate::store::run_folder::RunFolder;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// File name of the page of a folder.
pub const FILE: &str = "report.html";

/// The page about the folders `dirs`. With `reload`, it loads itself again every so many seconds, while it is written again.
///
/// # Errors
///
/// A folder that holds neither a run nor a comparison, files that cannot be read.
pub fn page(dirs: &[PathBuf], reload: Option<u64>) -> Result<String, Error> {
    let (mut comparisons, mut runs, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for dir in dirs {
        if ComparisonFolder::new(dir).holds_comparison() {
            let comparison = LoadedComparison::open(dir)?;
            seen.push((name_of(dir), comparison.plan.source().to_owned(), comparison.data_sha256.clone()));
            comparisons.push((dir, comparison));
        } else if RunFolder::new(dir).config_file().is_file() {
            let run = ReportedRun::open(dir)?;
            seen.push((run.name.clone(), run.source().to_owned(), run.data_sha256.clone()));
            runs.push(run);
        } else {
            return Err(FolderError::Neither { path: dir.clone() }.into());
        }
    }
    let warning = other_data(&seen);
    if let Some(warning) = &warning {
        say(&format!("warning: {warning}"));
    }
    let mut body = warning.map(|text| format!("<p><strong>{}</strong></p>\n", html::escape(&text))).unwrap_or_default();
    let tasks = comparisons.iter().map(|(dir, comparison)| (dir.as_path(), &comparison.results));
    body.push_str(&profile::section(&tasks.collect::<Vec<_>>()));
    body.extend(comparisons.iter().map(|(dir, comparison)| comparison::sections(dir, comparison)));
    if !runs.is_empty() {
        body.push_str(&runs::sections(&runs));
    }
    let title = match (comparisons.as_slice(), runs.as_slice()) {
        ([(dir, _)], []) => format!("Comparison {}", name_of(dir)),
        ([], [run]) => format!("Run {}", run.name),
        _ => "polaron report".into(),
    };
    let (refresh, note) = reload.map(reloading).unwrap_or_default();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n{refresh}<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <p class=\"note\">Made by polaron {}.{note}</p>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        html::escape(&title),
        env!("CARGO_PKG_VERSION"),
    ))
}

/// What makes a page load itself again every so many seconds, and the words that say so.
fn reloading(seconds: u64) -> (String, String) {
    let note = format!(" Training is still running: this page is written and loaded again every {seconds} s.");
    (format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">\n"), note)
}

/// The warning that the folders of a page, given with the source and the fingerprint of their data, have different data.
fn other_data(seen: &[(String, String, Option<String>)]) -> Option<String> {
    let known = || seen.iter().filter_map(|(name, source, sha256)| Some((name, source, sha256.as_ref()?)));
    let (_, _, first) = known().next()?;
    if known().all(|(_, _, sha256)| sha256 == first) {
        return None;
    }
    let word =
        |(name, source, sha256): (&String, &String, &String)| format!("{name}: {source}, fingerprint {sha256:.12}");
    let each: Vec<String> = known().map(word).collect();
    Some(format!("Losses on different data or tokenizers cannot be compared ({})", each.join("; ")))
}
