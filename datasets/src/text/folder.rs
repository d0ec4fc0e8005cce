//! The files of a folder: those that are read, and why the others are not.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::formats::{self, IN_FOLDERS};
use crate::errors::PackError;

/// Why a file with another ending is not read.
static OTHER_ENDING: LazyLock<String> =
    LazyLock::new(|| format!("its ending is not {}; give the file itself to read it", *IN_FOLDERS));

/// What is in a folder, at any depth.
#[derive(Default)]
pub(super) struct Found {
    pub files: Vec<PathBuf>,
    /// What is not read, and why.
    pub others: Vec<(PathBuf, &'static str)>,
}

/// Adds what is in `folder`. Links to folders are not followed: they may form a circle.
pub(super) fn search(folder: &Path, found: &mut Found) -> Result<(), PackError> {
    let unreadable = |source| PackError::Unreadable { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let is_folder = entry.file_type().map_err(unreadable)?.is_dir();
        let reason = if entry.file_name().to_string_lossy().starts_with('.') {
            "it is hidden (its name begins with a dot)"
        } else if is_folder {
            search(&path, found)?;
            continue;
        } else if path.is_dir() {
            "it is a link to a folder; give that folder itself"
        } else if !path.exists() {
            "it is a link to a file that does not exist"
        } else if !path.is_file() {
            "it is not a regular file"
        } else if formats::is_in_folders(&path) {
            found.files.push(path);
            continue;
        } else {
            OTHER_ENDING.as_str()
        };
        found.others.push((path, reason));
    }
    Ok(())
}
