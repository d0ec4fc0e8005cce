//! Documents from many files, read as a stream: only one block, or one record, is in memory at a time.
//!
//! The ending of a file tells its [format](super::formats), its content tells whether it is compressed by gzip or zstd. Empty
//! documents are ignored. What is neither UTF-8 text nor a table with a column of it is refused and named.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use super::compression::Compression;
use super::decompress::{BLOCK, counted, decompressed, peek};
use super::encoding::MARK;
use super::formats::{self, IN_FOLDERS};
use super::opened::{Event, Flow, Notes, Opened, START, Sink, Skipped, damaged, failed};
use super::{folder, foreign};
use crate::errors::{DataError, PackError};

/// Files in the order in which they are read.
pub(crate) struct Sources {
    files: Vec<PathBuf>,
    /// The key of a document's text in a JSON record.
    key: String,
    notes: Notes,
    /// What the last reading left out, if lines that are not documents are left out.
    skipped: Option<Mutex<Skipped>>,
}

impl Sources {
    /// The files in `inputs` in the order given, each once; those of a folder, at any depth, sorted by path.
    pub fn find(inputs: &[PathBuf], key: &str) -> Result<Self, PackError> {
        let mut sources = Self { files: Vec::new(), key: key.into(), notes: Notes::default(), skipped: None };
        let mut seen = HashSet::new();
        for input in inputs {
            for file in sources.files_of(input)? {
                // A pipe has no canonical path.
                let real = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
                if seen.insert(real) {
                    sources.files.push(file);
                } else {
                    sources.notes.add(format!("`{}` is given more than once and read once", file.display()));
                }
            }
        }
        Ok(sources)
    }

    /// The same, without the lines that are not documents; a note counts them.
    pub fn skipping_bad(self) -> Self {
        Self { skipped: Some(Mutex::default()), ..self }
    }

    fn files_of(&self, input: &Path) -> Result<Vec<PathBuf>, PackError> {
        match std::fs::metadata(input) {
            Ok(about) if about.is_dir() => {
                let mut found = folder::Found::default();
                folder::search(input, &mut found)?;
                found.files.sort();
                found.others.sort();
                if found.files.is_empty() {
                    let (folder, endings) = (input.into(), IN_FOLDERS.as_str());
                    return Err(PackError::NoMatch { folder, endings, others: found.others });
                }
                for (path, reason) in found.others {
                    self.notes.add(format!("not read: `{}`: {reason}", path.display()));
                }
                Ok(found.files)
            }
            Ok(_) => Ok(vec![input.into()]),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(PackError::NoInput { path: input.into() }),
            Err(source) => Err(PackError::Unreadable { path: input.into(), source }),
        }
    }

    /// What a user should know about the files that were found and read so far.
    pub fn notes(&self) -> Vec<String> {
        self.notes.all().into_iter().chain(self.left_out()).collect()
    }

    /// A sentence about the lines that the last reading left out.
    pub fn left_out(&self) -> Option<String> {
        self.skipped.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).note()
    }

    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of all files on the disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|about| about.len()).sum()
    }

    /// Reads everything into `sink`; `progress` is called often with the bytes read from the disk so far.
    pub fn read(&self, progress: &mut dyn FnMut(u64), sink: Sink<'_>) -> Result<(), DataError> {
        if let Some(skipped) = &self.skipped {
            *skipped.lock().unwrap_or_else(PoisonError::into_inner) = Skipped::default();
        }
        let count = Rc::new(Cell::new(0));
        for path in &self.files {
            let mut watched = |path: &Path, event: Event<'_>| {
                progress(count.get());
                sink(path, event)
            };
            if self.read_file(path, &count, &mut watched)?.is_break() {
                break;
            }
        }
        progress(count.get());
        Ok(())
    }

    fn read_file(&self, path: &Path, count: &Rc<Cell<u64>>, sink: Sink<'_>) -> Flow {
        let unreadable = |source| DataError::from(PackError::Unreadable { path: path.into(), source });
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let (begin, length) = (count.get(), file.metadata().map_err(unreadable)?.len());
        let (start, raw) = peek(counted(file, count), 8).map_err(unreadable)?;
        let (named, compression) = (Compression::of_name(path), Compression::of_content(&start));
        if compression == Compression::None && named != Compression::None {
            let problem = if start.is_empty() { "it is empty" } else { "it does not begin as such data do" };
            return Err(damaged(path, named, problem));
        }
        let reader = BufReader::with_capacity(BLOCK, decompressed(raw, compression));
        let (start, mut reader) = peek(reader, START).map_err(failed(path, compression))?;
        let offset = if start.starts_with(MARK) { MARK.len() } else { 0 };
        if offset > 0 {
            reader.consume(offset);
            self.notes.add(format!("the byte order mark at the front of `{}` is removed", path.display()));
        }
        let start = start.get(offset..).unwrap_or_default();
        if formats::is_text(path) {
            foreign::check(path, compression, start)?;
        }
        let progress = |share: f64| count.set(begin + (share * length as f64) as u64);
        let (key, notes, skipped) = (self.key.as_str(), &self.notes, self.skipped.as_ref());
        let file = Opened { path, compression, start, offset, key, notes, skipped, progress: &progress };
        formats::reader(path)(&file, &mut reader, sink)
    }
}
