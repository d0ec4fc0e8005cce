//! Documents from many files, read as a stream: nothing is ever held but one block, or one JSONL record.
//!
//! A plain text file is one document; a file ending in `.jsonl` holds one a line, an object whose `text` (or another
//! key) is the document. Either may be packed, with the further ending `.gz` or `.zst`. Blank lines of a JSONL file and
//! empty documents do not count.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::{DataError, PackError};

/// Endings of the files that are taken from a folder, each also with `.gz` or `.zst` after it.
const ENDINGS: [&str; 3] = ["txt", "md", "jsonl"];
/// Bytes that are read at once.
const BLOCK: usize = 1 << 18;

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
}

impl Sources {
    /// The files in `inputs` in the order given; those of a folder, at any depth, sorted by path.
    pub fn find(inputs: &[PathBuf], key: &str) -> Result<Self, PackError> {
        let mut files = Vec::new();
        for input in inputs {
            let unreadable = |source| PackError::Unreadable { path: input.clone(), source };
            match std::fs::metadata(input) {
                Ok(about) if about.is_dir() => {
                    let mut found = Vec::new();
                    search(input, &mut found)?;
                    if found.is_empty() {
                        return Err(PackError::NoMatch { folder: input.clone() });
                    }
                    found.sort();
                    files.extend(found);
                }
                Ok(_) => files.push(input.clone()),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(PackError::NoInput { path: input.clone() });
                }
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(Self { files, key: key.into() })
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
        let file = File::open(path).map_err(|source| PackError::Unreadable { path: path.into(), source })?;
        let counted = BufReader::with_capacity(BLOCK, Counted { inner: file, count: count.clone() });
        let reader: Box<dyn Read> = match packing(path) {
            Packing::None => Box::new(counted),
            Packing::Gzip => Box::new(MultiGzDecoder::new(counted)),
            Packing::Zstd => Box::new(Frames { source: counted, decoder: FrameDecoder::new(), inside: false }),
        };
        if is_jsonl(path) { self.read_records(path, reader, sink) } else { read_text(path, reader, sink) }
    }

    fn read_records(&self, path: &Path, reader: Box<dyn Read>, sink: Sink<'_>) -> Result<ControlFlow<()>, DataError> {
        let mut reader = BufReader::with_capacity(BLOCK, reader);
        let (mut line, mut offset) = (Vec::new(), 0);
        for number in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(failed(path))?;
            if length == 0 {
                break;
            }
            let text = std::str::from_utf8(&line)
                .map_err(|error| DataError::NotUtf8 { path: path.into(), offset: offset + error.valid_up_to() })?;
            offset += length;
            if text.trim().is_empty() {
                continue;
            }
            let document = self.document(text.trim()).map_err(|problem| PackError::BadRecord {
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
        let key = &self.key;
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
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    let path = path.to_path_buf();
    move |source| PackError::Unreadable { path: path.clone(), source }.into()
}

/// The files below `folder` whose names end as they should. Links to folders are not followed: they may lead in circles.
fn search(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), PackError> {
    let unreadable = |source| PackError::Unreadable { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            search(&path, found)?;
        } else if ENDINGS.contains(&ending(&unpacked_name(&path))) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

enum Packing {
    None,
    Gzip,
    Zstd,
}

fn packing(path: &Path) -> Packing {
    match ending(path) {
        "gz" => Packing::Gzip,
        "zst" => Packing::Zstd,
        _ => Packing::None,
    }
}

/// The name without `.gz` or `.zst`.
fn unpacked_name(path: &Path) -> PathBuf {
    if let Packing::None = packing(path) { path.into() } else { path.with_extension("") }
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

fn is_jsonl(path: &Path) -> bool {
    ending(&unpacked_name(path)) == "jsonl"
}

/// One plain document, block by block; a character that a block cuts waits for the next.
fn read_text(path: &Path, mut reader: Box<dyn Read>, sink: Sink<'_>) -> Result<ControlFlow<()>, DataError> {
    let mut block = vec![0; BLOCK];
    let (mut held, mut offset) = (0, 0);
    loop {
        let length = match reader.read(block.get_mut(held..).unwrap_or_default()) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(path)(error)),
        };
        let bytes = block.get(..held + length).unwrap_or_default();
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // At the end of the file nothing can complete a character any more.
            Err(error) if error.error_len().is_none() && length > 0 => {
                bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default()
            }
            Err(error) => return Err(DataError::NotUtf8 { path: path.into(), offset: offset + error.valid_up_to() }),
        };
        if !text.is_empty() && sink(path, Event::Text(text))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let (valid, filled) = (text.len(), held + length);
        block.copy_within(valid..filled, 0);
        (held, offset) = (filled - valid, offset + valid);
        if length == 0 {
            return if offset > 0 { sink(path, Event::End) } else { Ok(ControlFlow::Continue(())) };
        }
    }
}

/// Counts the bytes that pass.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(into)?;
        self.count.set(self.count.get() + length as u64);
        Ok(length)
    }
}

/// All frames of a zstd file, one after the other: some programs write several.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    inside: bool,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; false at the end of the file.
    fn begin(&mut self) -> std::io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    std::io::copy(&mut self.source.by_ref().take(length.into()), &mut std::io::sink())?;
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }

    /// The decoder reads the frame's checksum and computes its own, but leaves the comparison to its user.
    fn end(&self) -> std::io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(stored), Some(computed)) if stored != computed => Err(damaged("a checksum does not match")),
            _ => Ok(()),
        }
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, error)
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if !self.inside && !self.begin()? {
                return Ok(0);
            }
            self.inside = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1)).map_err(damaged)?;
            }
            let length = self.decoder.read(into)?;
            if length > 0 || into.is_empty() {
                return Ok(length);
            }
            self.end()?;
            self.inside = false;
        }
    }
}
