//! Documents from many files, read as a stream: nothing is ever held but one block, or one JSONL record.
//!
//! A plain text file is one document; a file of JSON lines holds one a line, an object whose `text` (or another
//! key) is the document. Either may be packed by gzip or zstd: the content tells. Blank lines of a JSONL file and
//! empty documents do not count. What is no UTF-8 text is refused by what it is.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use crate::encoding::{self, MARK};
use crate::kind::{self, Form, Packing};
use crate::unpack::{BLOCK, counted, peek, unpacked};
use crate::{DataError, PackError, folder};

/// Key of the text of a JSONL record, unless another is asked for.
pub(crate) const TEXT_KEY: &str = "text";
/// Bytes at the front of a file that tell what it is.
const START: usize = 1 << 16;

/// What reading comes across, in order.
pub(crate) enum Event<'a> {
    /// A part of the present document, never empty.
    Text(&'a str),
    /// The document has ended; it held some text.
    End,
}

/// Takes the events of the file at a path; `Break` ends the reading.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&Path, Event<'_>) -> Result<ControlFlow<()>, DataError>;

/// Files in the order in which they are read.
pub(crate) struct Sources {
    files: Vec<PathBuf>,
    /// The key of a document's text in a JSONL record.
    key: String,
    /// What there is to say about the files, each once.
    notes: Mutex<Vec<String>>,
}

impl Sources {
    /// The files in `inputs` in the order given, each once; those of a folder, at any depth, sorted by path.
    pub fn find(inputs: &[PathBuf], key: &str) -> Result<Self, PackError> {
        let mut sources = Self { files: Vec::new(), key: key.into(), notes: Mutex::default() };
        let mut seen = HashSet::new();
        for input in inputs {
            for file in sources.files_of(input)? {
                // A pipe has no such path.
                let real = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
                if seen.insert(real) {
                    sources.files.push(file);
                } else {
                    sources.note(format!("`{}` is given more than once and read once", file.display()));
                }
            }
        }
        Ok(sources)
    }

    fn files_of(&self, input: &Path) -> Result<Vec<PathBuf>, PackError> {
        match std::fs::metadata(input) {
            Ok(about) if about.is_dir() => {
                let mut found = folder::Found::default();
                folder::search(input, &mut found)?;
                found.files.sort();
                found.others.sort();
                if found.files.is_empty() {
                    return Err(PackError::NoMatch { folder: input.into(), others: found.others });
                }
                for (path, reason) in found.others {
                    self.note(format!("not read: `{}`: {reason}", path.display()));
                }
                Ok(found.files)
            }
            Ok(_) => Ok(vec![input.into()]),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(PackError::NoInput { path: input.into() }),
            Err(source) => Err(PackError::Unreadable { path: input.into(), source }),
        }
    }

    /// Remembers what a user should know, once.
    fn note(&self, note: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// What a user should know about the files that were found and read so far.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of all files on the disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|about| about.len()).sum()
    }

    /// Reads everything into `sink`; `progress` gets the bytes read from the disk so far, now and then.
    pub fn read(&self, progress: &mut dyn FnMut(u64), sink: Sink<'_>) -> Result<(), DataError> {
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

    fn read_file(&self, path: &Path, count: &Rc<Cell<u64>>, sink: Sink<'_>) -> Result<ControlFlow<()>, DataError> {
        let unreadable = |source| DataError::from(PackError::Unreadable { path: path.into(), source });
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let (start, raw) = peek(counted(file, count), 8).map_err(unreadable)?;
        let (named, packing) = (Packing::of_name(path), Packing::of_content(&start));
        if packing == Packing::None && named != Packing::None {
            let problem = if start.is_empty() { "it is empty" } else { "it does not begin as such data do" };
            return Err(damaged(path, named, problem));
        }
        let reader = BufReader::with_capacity(BLOCK, unpacked(raw, packing));
        let (start, mut reader) = peek(reader, START).map_err(failed(path, packing))?;
        let marked = start.starts_with(MARK);
        let start = start.get(if marked { MARK.len() } else { 0 }..).unwrap_or_default();
        if marked {
            reader.consume(MARK.len());
            self.note(format!("the byte order mark at the front of `{}` is left out", path.display()));
        }
        kind::check(path, packing, start)?;
        let file = Opened { path, packing, key: &self.key, offset: if marked { MARK.len() } else { 0 } };
        let form = match Form::of(path) {
            Form::Json => file.form_of_json(start)?,
            form => form,
        };
        if form == Form::Lines {
            return file.read_records(reader, self, sink);
        }
        if file.holds_record(start) {
            self.note(format!(
                "`{}` is read as one plain text, though its first line is a JSON record: rename it to .jsonl to read records",
                path.display()
            ));
        }
        file.read_text(reader, self, sink)
    }
}

/// A file that is being read.
struct Opened<'a> {
    path: &'a Path,
    packing: Packing,
    /// The key of a document's text in a JSONL record.
    key: &'a str,
    /// Where in the content reading begins.
    offset: usize,
}

impl Opened<'_> {
    /// Whether the first line is a record with a text.
    fn holds_record(&self, start: &[u8]) -> bool {
        first_line(start).is_some_and(|line| line.starts_with('{') && self.document(line).is_ok())
    }

    fn form_of_json(&self, start: &[u8]) -> Result<Form, DataError> {
        let front = start.trim_ascii_start();
        let is_object = |line: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).is_ok();
        // Without a line break in sight, the first line is a long record or a long document; read, it will show.
        let lines = front.starts_with(b"{") && first_line(start).is_none_or(is_object);
        if lines || front.is_empty() {
            Ok(Form::Lines)
        } else {
            Err(kind::json_document(self.path, self.packing, front.starts_with(b"[")))
        }
    }

    fn read_records(
        &self,
        mut reader: impl BufRead,
        sources: &Sources,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<()>, DataError> {
        let (path, mut line, mut offset) = (self.path, Vec::new(), self.offset);
        for number in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(failed(path, self.packing))?;
            if length == 0 {
                break;
            }
            let text = std::str::from_utf8(&line).map_err(|error| {
                let (before, around) = line.split_at(error.valid_up_to());
                let source = self.not_utf8(offset + before.len(), before, around);
                PackError::InLine { line: number, source: Box::new(source) }
            })?;
            offset += length;
            // Files that were joined bring their marks along.
            let unmarked = text.trim_start_matches('\u{feff}');
            if unmarked.len() < text.len() {
                sources.note(format!("byte order marks inside `{}` are left out", path.display()));
            }
            let record = unmarked.trim();
            if record.is_empty() {
                continue;
            }
            let document = self.document(record).map_err(|problem| PackError::BadRecord {
                path: path.into(),
                line: number,
                problem,
            })?;
            if !document.is_empty()
                && (sink(path, Event::Text(&document))?.is_break() || sink(path, Event::End)?.is_break())
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn document(&self, line: &str) -> Result<String, String> {
        let key = self.key;
        match serde_json::from_str(line) {
            Ok(serde_json::Value::Object(mut record)) => match record.remove(key) {
                Some(serde_json::Value::String(text)) => Ok(text),
                Some(_) => Err(format!("its `{key}` is not a string")),
                None => {
                    let keys: Vec<&str> = record.keys().take(8).map(String::as_str).collect();
                    Err(format!("it has no key `{key}`, only: {}", keys.join(", ")))
                }
            },
            Ok(_) => Err("it is not an object".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// One plain document, block by block; a character that a block cuts waits for the next.
    fn read_text(
        &self,
        mut reader: impl Read,
        sources: &Sources,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<()>, DataError> {
        let path = self.path;
        let mut block = vec![0; BLOCK];
        let (mut held, mut offset) = (0, self.offset);
        loop {
            let length = match reader.read(block.get_mut(held..).unwrap_or_default()) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(path, self.packing)(error)),
            };
            let bytes = block.get(..held + length).unwrap_or_default();
            let text = match std::str::from_utf8(bytes) {
                Ok(text) => text,
                // At the end of the file nothing can complete a character any more.
                Err(error) if error.error_len().is_none() && length > 0 => bytes
                    .get(..error.valid_up_to())
                    .and_then(|valid| std::str::from_utf8(valid).ok())
                    .unwrap_or_default(),
                Err(error) => {
                    let (before, around) = bytes.split_at(error.valid_up_to());
                    return Err(self.not_utf8(offset + before.len(), before, around));
                }
            };
            if text.contains('\u{feff}') {
                sources.note(format!(
                    "`{}` has byte order marks (U+FEFF) in its middle, which stay: files were joined with theirs",
                    path.display()
                ));
            }
            if !text.is_empty() && sink(path, Event::Text(text))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let (valid, filled) = (text.len(), held + length);
            block.copy_within(valid..filled, 0);
            (held, offset) = (filled - valid, offset + valid);
            if length == 0 {
                return if offset > self.offset { sink(path, Event::End) } else { Ok(ControlFlow::Continue(())) };
            }
        }
    }

    fn not_utf8(&self, offset: usize, before: &[u8], around: &[u8]) -> DataError {
        encoding::not_utf8(self.path, self.packing, offset, before, around)
    }
}

/// The first line of the front of a file that is not blank; None if it may go on beyond that front.
fn first_line(start: &[u8]) -> Option<&str> {
    let front = start.trim_ascii_start();
    let line = match front.iter().position(|byte| *byte == b'\n') {
        Some(end) => front.get(..end)?,
        None if start.len() < START - MARK.len() => front,
        None => return None,
    };
    std::str::from_utf8(line).ok().map(str::trim)
}

fn damaged(path: &Path, packing: Packing, problem: impl std::fmt::Display) -> DataError {
    PackError::Damaged { path: path.into(), program: packing.program(), problem: problem.to_string() }.into()
}

/// What to say about an error while reading: of a packed file the content is to blame, unless the disk is.
fn failed(path: &Path, packing: Packing) -> impl Fn(std::io::Error) -> DataError {
    let path = path.to_path_buf();
    move |source| match packing {
        Packing::Gzip | Packing::Zstd if source.raw_os_error().is_none() => damaged(&path, packing, source),
        _ => PackError::Unreadable { path: path.clone(), source }.into(),
    }
}
