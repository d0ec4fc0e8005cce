//! Names of folders.

use std::path::Path;

/// The name of a folder on a page.
pub fn name_of(dir: &Path) -> String {
    let name =
        std::path::absolute(dir).ok().and_then(|dir| dir.file_name().map(|name| name.to_string_lossy().into_owned()));
    name.unwrap_or_else(|| dir.display().to_string())
}
