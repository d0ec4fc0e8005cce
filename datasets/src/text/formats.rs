//! The formats of texts, by the ending of a file: one row each. Everything that names endings is made from these rows.

use std::io::BufRead;
use std::path::Path;
use std::sync::LazyLock;

use super::compression::inner_ending;
use super::opened::{Flow, Opened, Sink};
use super::{plain, records, table};

/// Reads the documents of a file.
pub(super) type Read = fn(&Opened<'_>, &mut dyn BufRead, Sink<'_>) -> Flow;

/// A format of texts.
struct Format {
    /// Endings in lower case; texts may also be compressed, with `.gz` or `.zst` after their ending.
    endings: &'static [&'static str],
    /// Whether files with such an ending are read when their folder is given.
    in_folders: bool,
    /// Whether the content of such files is text.
    is_text: bool,
    read: Read,
}

const FORMATS: &[Format] = &[
    Format { endings: &["txt", "text", "md", "markdown"], in_folders: true, is_text: true, read: plain::read },
    Format { endings: &["jsonl", "ndjson", "jsonlines"], in_folders: true, is_text: true, read: records::read },
    Format { endings: &["parquet", "pq"], in_folders: true, is_text: false, read: table::read },
    Format { endings: &["jl"], in_folders: false, is_text: true, read: records::read },
    Format { endings: &["json"], in_folders: false, is_text: true, read: records::read_json },
];

fn find(path: &Path) -> Option<&'static Format> {
    let ending = inner_ending(path);
    FORMATS.iter().find(|format| format.endings.contains(&ending.as_str()))
}

/// How a file is read: as plain text if its ending says nothing else.
pub(super) fn reader(path: &Path) -> Read {
    find(path).map_or(plain::read, |format| format.read)
}

/// Whether the content of a file is expected to be text.
pub(super) fn is_text(path: &Path) -> bool {
    find(path).is_none_or(|format| format.is_text)
}

/// Whether a file is read when its folder is given.
pub(super) fn is_in_folders(path: &Path) -> bool {
    find(path).is_some_and(|format| format.in_folders)
}

/// The endings of the files that are read from a folder, for a sentence.
pub(super) static IN_FOLDERS: LazyLock<String> = LazyLock::new(|| {
    let formats = FORMATS.iter().filter(|format| format.in_folders);
    let mut endings: Vec<String> = formats.flat_map(|format| format.endings).map(|name| format!(".{name}")).collect();
    let last = endings.pop().unwrap_or_default();
    format!("{} or {last} (texts also with .gz or .zst)", endings.join(", "))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_the_endings_of_a_folder() {
        let said = IN_FOLDERS.as_str();
        assert!(said.starts_with(".txt, .text, ") && said.ends_with(" (texts also with .gz or .zst)"), "{said}");
        assert_eq!(said.matches(" or .").count(), 2, "{said}");
        assert!(!said.contains(".json,") && !said.contains(".jl"), "{said}");
    }

    #[test]
    fn the_readme_names_every_ending() {
        let readme = include_str!("../../README.md");
        for name in FORMATS.iter().flat_map(|format| format.endings) {
            assert!(readme.contains(&format!("`.{name}`")), ".{name}");
        }
    }
}
