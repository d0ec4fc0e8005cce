//! A file that is being read: what every format needs to know about it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::compression::Compression;
use super::encoding::{self, MARK};
use crate::errors::{DataError, PackError, Problem};

/// Bytes at the front of a file that tell what it is.
pub(super) const START: usize = 1 << 16;

/// What reading finds, in order.
pub(crate) enum Event<'a> {
    /// A part of the current document, never empty.
    Text(&'a str),
    /// The document has ended; it was not empty.
    End,
}

/// Whether to continue reading.
pub(super) type Flow = Result<ControlFlow<()>, DataError>;

/// Receives the events of the file at a path; `Break` ends the reading.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&Path, Event<'_>) -> Flow;

/// What a user should know about files, each note once.
#[derive(Default)]
pub(super) struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub fn add(&self, note: String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lines that are not documents and left out, because that was asked for.
#[derive(Default)]
pub(super) struct Skipped {
    count: u64,
    first: Vec<String>,
}

impl Skipped {
    /// A sentence about them; None if there are none.
    pub fn note(&self) -> Option<String> {
        let (lines, are) = if self.count == 1 { ("line", "is") } else { ("lines", "are") };
        let first = self.first.join(", ");
        (self.count > 0).then(|| format!("{} bad {lines} {are} left out, the first {are} {first}", self.count))
    }
}

/// How many of the lines that are left out are named.
const NAMED: usize = 5;

/// A file that is being read.
pub(super) struct Opened<'a> {
    pub path: &'a Path,
    pub compression: Compression,
    /// The front of the content, without a byte order mark.
    pub start: &'a [u8],
    /// Where in the content reading begins.
    pub offset: usize,
    /// The key of a document's text in a JSON record.
    pub key: &'a str,
    pub notes: &'a Notes,
    /// Where lines that are not documents are counted, if they are left out.
    pub skipped: Option<&'a Mutex<Skipped>>,
    /// Called with the share of the file that was read, by a reader that does not read it from front to end.
    pub progress: &'a dyn Fn(f64),
}

impl Opened<'_> {
    /// The first line that is not blank; None if it may extend beyond the known front.
    pub fn first_line(&self) -> Option<&str> {
        let front = self.start.trim_ascii_start();
        let line = match front.iter().position(|byte| *byte == b'\n') {
            Some(end) => front.get(..end)?,
            None if self.start.len() < START - MARK.len() => front,
            None => return None,
        };
        std::str::from_utf8(line).ok().map(str::trim)
    }

    /// Bytes that are not UTF-8 at `offset` of the content, after the bytes `before` and at the front of `around`.
    pub fn not_utf8(&self, offset: usize, before: &[u8], around: &[u8]) -> DataError {
        encoding::not_utf8(self.path, self.compression, offset, before, around)
    }

    /// A line, or a row of a table, is not a document: it is left out if that was asked for, otherwise this is the error.
    pub fn bad(
        &self,
        line: usize,
        problem: Problem,
        error: impl FnOnce(Problem) -> DataError,
    ) -> Result<(), DataError> {
        let Some(skipped) = self.skipped else { return Err(error(problem)) };
        let mut skipped = skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.count += 1;
        if skipped.first.len() < NAMED {
            skipped.first.push(format!("`{}:{line}` ({problem})", self.path.display()));
        }
        Ok(())
    }

    /// For `map_err` while reading.
    pub fn failed(&self) -> impl Fn(std::io::Error) -> DataError {
        failed(self.path, self.compression)
    }
}

/// A file whose compressed data cannot be read.
pub(super) fn damaged(path: &Path, compression: Compression, problem: impl Into<Problem>) -> DataError {
    PackError::Damaged { path: path.into(), program: compression.program(), problem: problem.into() }.into()
}

/// The error of a failed read: in a compressed file the content is damaged, unless the operating system failed.
pub(super) fn failed(path: &Path, compression: Compression) -> impl Fn(std::io::Error) -> DataError + use<> {
    let path = path.to_path_buf();
    move |source| match compression {
        Compression::Gzip | Compression::Zstd if source.raw_os_error().is_none() => damaged(&path, compression, source),
        _ => PackError::Unreadable { path: path.clone(), source }.into(),
    }
}
