//! Files that cannot be read or written.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file or folder that could not be read or written.
#[derive(Debug)]
pub struct FileError {
    /// What failed: "read", "write", "create", ...
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: std::io::Error,
}

impl FileError {
    /// Builds the error in `map_err`: `.map_err(FileError::at("write", &path))`.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { action, path, source }
    }

    fn advice(&self) -> &'static str {
        match self.source.kind() {
            ErrorKind::NotFound => "check the spelling of the path",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                "free some space or choose a folder on another disk with --out"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "check the permissions or choose another folder with --out"
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                "a file is where a folder is needed, choose another path"
            }
            ErrorKind::IsADirectory => "a folder is where a file is needed, choose another path",
            _ => "check the path and the disk",
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}` ({}): {}", self.action, self.path.display(), self.source, self.advice())
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What is wrong, inside a longer message: the error of another library, or a few words.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// `text` in one line: error messages of other libraries often have several.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
