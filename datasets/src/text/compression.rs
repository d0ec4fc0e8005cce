//! How a file is compressed, and the names of files.

use std::path::{Path, PathBuf};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// According to the first bytes.
    pub fn of_content(start: &[u8]) -> Self {
        let skippable = start.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && start.first().is_some_and(|b| b >> 4 == 5);
        if start.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if skippable || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// According to the name, in upper or lower case.
    pub fn of_name(path: &Path) -> Self {
        match ending(path).as_str() {
            "gz" | "gzip" => Self::Gzip,
            "zst" | "zstd" => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The program that decompresses it, which is also its name.
    pub fn program(self) -> &'static str {
        match self {
            Self::None => "cat",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The ending in lower case, without its dot.
pub(crate) fn ending(path: &Path) -> String {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// The ending of the content: that before `.gz` or `.zst`.
pub(crate) fn inner_ending(path: &Path) -> String {
    if Compression::of_name(path) == Compression::None { ending(path) } else { ending(&path.with_extension("")) }
}

/// A path with something after its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where the decompressed file may go.
pub(crate) fn bare(path: &Path) -> PathBuf {
    if path.extension().is_some() { path.with_extension("") } else { with_suffix(path, ".unpacked") }
}
