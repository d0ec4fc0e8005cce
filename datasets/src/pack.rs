//! Packing: texts of any size to a folder of tokens that training maps into memory.
//!
//! ```no_run
//! use polaron_datasets::pack::{PackOptions, pack};
//! use polaron_datasets::{TextData, TokenizerKind};
//!
//! let options = PackOptions::new(["books".into()], "bpe:4096".parse()?);
//! let manifest = pack(&options, "packed".as_ref(), &mut |_| {})?;
//! println!("{:?} training and validation tokens", manifest.tokens());
//! let data = TextData::load("packed", TokenizerKind::Auto, 0.1)?;
//! # Ok::<(), polaron_datasets::DataError>(())
//! ```
//!
//! # What is read
//!
//! Files in the order given; of a folder, at any depth, those ending in `.txt`, `.md`, `.jsonl` and their like in any case
//! of the letters, sorted by path. Any of them may be packed by gzip or zstd. A text file is one document; a line of a
//! `.jsonl` or `.ndjson` file is one, the string under a key (`text`) of its object. Everything is UTF-8. Files are read as a stream, once
//! for learning a tokenizer and once for encoding, and never held whole.
//!
//! # What is written
//!
//! The tokens of all documents, one after the other. Between two of them stands the end-of-text token, for tokenizers
//! that have one, or otherwise a line break; nothing stands before the first or after the last. So one text file gives
//! the tokens that it gives unpacked, and the same split: the first `N * (1 - valid_fraction)` tokens, truncated to a
//! whole number, are the training split.
//!
//! ```text
//! manifest.json      what is in the folder; written last
//! tokenizer.json     the tokenizer; a BPE in the format of the `tokenizers` library
//! train-00000.bin    shards: a header of 64 bytes, then the tokens, 2 or 4 bytes each
//! valid-00000.bin
//! ```
//!
//! A shard, all numbers little-endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `POLARTOK` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | bytes per token: 2 up to a vocabulary of 65,536, otherwise 4 |
//! | 16 | 8 | number of tokens |
//! | 24 | 4 | size of the vocabulary; every token is below it |
//! | 28 | 4 | zero |
//! | 32 | 32 | SHA-256 of the tokens' bytes |
//! | 64 | | the tokens |
//!
//! Every file is on the disk before the manifest gets its name, and a shard has no header before it is complete: what
//! is left by a process that was killed is never taken for a data set. The next packing into that folder clears it
//! away.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use sha2::{Digest, Sha256};

use crate::learned::{self, LESSONS};
use crate::losses::{self, Losses};
use crate::packed::{MANIFEST, Manifest, ShardEntry, TOKENIZER, hex, is_shard};
use crate::shard::{self, Header, ShardWriter};
use crate::source::{Event, Sources, TEXT_KEY};
use crate::{DataError, PackError, Tokenizer, TokenizerKind};

const LOCK: &str = "pack.lock";
/// The manifest before it has its name.
const UNNAMED: &str = ".manifest.json.tmp";
/// Text that is compared with what its tokens decode to.
const COMPARED: usize = 1 << 15;
/// Text that is gathered before it is encoded: enough pieces to keep every processor busy.
const GATHERED: usize = 1 << 20;
/// Pieces that wait between reading and learning.
const WAITING: usize = 16;

/// Which tokenizer packing uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackTokenizer {
    /// One that is made for the texts: `char`, `byte`, `bpe:N`.
    Kind(TokenizerKind),
    /// A `tokenizer.json`, of this library or of the `tokenizers` library.
    File(PathBuf),
}

impl std::str::FromStr for PackTokenizer {
    type Err = DataError;

    /// A kind, or otherwise the path of an existing file.
    fn from_str(text: &str) -> Result<Self, DataError> {
        match text.parse() {
            Ok(TokenizerKind::File | TokenizerKind::Auto) | Err(_) if Path::new(text).is_file() => {
                Ok(Self::File(text.into()))
            }
            Ok(kind @ (TokenizerKind::Char | TokenizerKind::Byte | TokenizerKind::Bpe(_))) => Ok(Self::Kind(kind)),
            _ => Err(PackError::NoTokenizer { value: text.into() }.into()),
        }
    }
}

/// What is packed, and how.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PackOptions {
    /// Files and folders.
    pub inputs: Vec<PathBuf>,
    /// Which tokenizer.
    pub tokenizer: PackTokenizer,
    /// The key of a document's text in a JSONL record; `text` by default.
    pub key: String,
    /// Whether more than 0.1 % of the text may be unknown to the tokenizer of a file, and lost, and any of it to an alphabet.
    pub allow_unknown: bool,
    /// Share of the tokens, at the end, kept for validation; 0.1 by default.
    pub valid_fraction: f64,
    /// Tokens of one shard; 67,108,864 by default, which is 128 MiB at two bytes each.
    pub shard_tokens: u64,
}

impl PackOptions {
    /// The defaults for those inputs.
    pub fn new(inputs: impl IntoIterator<Item = PathBuf>, tokenizer: PackTokenizer) -> Self {
        let inputs = inputs.into_iter().collect();
        Self {
            inputs,
            tokenizer,
            key: TEXT_KEY.into(),
            allow_unknown: false,
            valid_fraction: 0.1,
            shard_tokens: 1 << 26,
        }
    }
}

/// How far packing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackProgress {
    /// "learning the tokenizer", "encoding".
    pub doing: &'static str,
    /// Bytes read from the disk in this pass.
    pub read: u64,
    /// Bytes of all files on the disk.
    pub total: u64,
}

/// Packs texts into the folder `out`, which must be new, empty, or left by a packing that was interrupted. `progress`
/// is called often. Returns what was written.
///
/// # Errors
///
/// One [`DataError`] each for: an input that is not there, unreadable, damaged or not UTF-8, a folder without any file
/// of the right kind, a bad JSONL record, no text at all, a text too short to split, a bad tokenizer, a folder that is
/// in use, a disk that is full. Nothing is left behind.
pub fn pack(
    options: &PackOptions,
    out: &Path,
    progress: &mut (dyn FnMut(PackProgress) + Send),
) -> Result<Manifest, DataError> {
    crate::text::check_fraction(options.valid_fraction)?;
    if options.shard_tokens == 0 {
        return Err(DataError::Zero { what: "shard tokens" });
    }
    let sources = Sources::find(&options.inputs, &options.key)?;
    let folder = Folder::claim(out)?;
    let packed = write(options, &sources, &folder, progress);
    if packed.is_err() {
        folder.clear();
    }
    packed
}

fn write(
    options: &PackOptions,
    sources: &Sources,
    folder: &Folder,
    progress: &mut (dyn FnMut(PackProgress) + Send),
) -> Result<Manifest, DataError> {
    let (kind, tokenizer) = make_tokenizer(&options.tokenizer, sources, progress)?;
    let json =
        serde_json::to_vec(&tokenizer).map_err(|error| DataError::BadTokenizer { problem: error.to_string() })?;
    let mut manifest = Manifest::empty(kind, options.valid_fraction);
    manifest.tokenizer_sha256 = hex(&Sha256::digest(&json));
    manifest.vocab_size = tokenizer.vocab_size();
    manifest.sources = sources.files().iter().map(|path| path.display().to_string()).collect();
    let shards = Shards::new(folder, tokenizer.vocab_size(), options.shard_tokens);
    let losses = Losses::default();
    let mut encoder =
        Encoder { tokenizer: &tokenizer, options, shards, text: String::new(), manifest: &mut manifest, losses };
    let total = sources.bytes();
    let mut report = |read| progress(PackProgress { doing: "encoding", read, total });
    sources.read(&mut report, &mut |path, event| encoder.take(path, event))?;
    let parts = encoder.shards.finish()?;
    let losses = encoder.losses;
    manifest.notes.extend(sources.notes());
    if let PackTokenizer::File(path) = &options.tokenizer {
        manifest.notes.extend(losses.judge(path, options.allow_unknown)?);
    }
    if parts.is_empty() {
        let names: Vec<String> = options.inputs.iter().map(|path| path.display().to_string()).collect();
        return Err(DataError::Empty { name: names.join(", ") });
    }
    [manifest.train, manifest.valid] = divide(folder, parts, options.valid_fraction)?;
    folder.write(TOKENIZER, &json)?;
    folder.finish(&manifest)?;
    Ok(manifest)
}

/// The tokenizer and the name under which it is asked for.
fn make_tokenizer(
    asked: &PackTokenizer,
    sources: &Sources,
    progress: &mut (dyn FnMut(PackProgress) + Send),
) -> Result<(TokenizerKind, Tokenizer), DataError> {
    let total = sources.bytes();
    let mut report = |read| progress(PackProgress { doing: "learning the tokenizer", read, total });
    let kind = match asked {
        PackTokenizer::Kind(kind) => *kind,
        PackTokenizer::File(path) => return Ok((TokenizerKind::File, Tokenizer::from_file(path)?)),
    };
    let tokenizer = match kind {
        TokenizerKind::Byte => Tokenizer::byte(),
        TokenizerKind::Bpe(vocab_size) => learn(vocab_size, sources, &mut report)?,
        TokenizerKind::File => return Err(DataError::NoTokenizerFile),
        TokenizerKind::Char | TokenizerKind::Auto => {
            let (mut alphabet, mut documents) = (BTreeSet::new(), 0_u64);
            sources.read(&mut report, &mut |_, event| {
                match event {
                    Event::Text(text) => crate::tokenizer::add_characters(&mut alphabet, text),
                    Event::End => documents += 1,
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if documents > 1 {
                // Between two documents.
                alphabet.insert('\n');
            }
            Tokenizer::char_of(alphabet)
        }
    };
    Ok((kind, tokenizer))
}

/// Reads on one thread and learns on another, so that no more than a few pieces are ever held.
fn learn(vocab_size: usize, sources: &Sources, report: &mut (dyn FnMut(u64) + Send)) -> Result<Tokenizer, DataError> {
    let (sender, receiver) = sync_channel::<String>(WAITING);
    let (mut text, mut length) = (String::new(), 0);
    // Whether the learner wants more; it hangs up only when it has failed, and then its error is the one to report.
    let mut send = move |pieces: &str| {
        learned::pieces(pieces).all(|piece| {
            let begins = length;
            length += piece.len();
            begins < LESSONS && sender.send(piece.into()).is_ok()
        })
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            sources.read(report, &mut |_, event| {
                let ready = match event {
                    Event::Text(more) => {
                        text.push_str(more);
                        learned::complete(&text)
                    }
                    Event::End => text.len(),
                };
                let wanted = send(text.get(..ready).unwrap_or_default());
                text.drain(..ready);
                Ok(if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        });
        let tokenizer = Tokenizer::bpe_from(vocab_size, receiver.into_iter());
        match reader.join() {
            Ok(result) => result.and(tokenizer),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Turns what is read into tokens.
struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a PackOptions,
    losses: Losses,
    shards: Shards<'a>,
    /// Text of the present document that is not encoded yet.
    text: String,
    /// Counts documents and characters, and learns the separator.
    manifest: &'a mut Manifest,
}

impl Encoder<'_> {
    fn take(&mut self, path: &Path, event: Event<'_>) -> Result<ControlFlow<()>, DataError> {
        let in_file = |source| PackError::InFile { path: path.into(), source: Box::new(source) };
        match event {
            Event::Text(text) => {
                self.text.push_str(text);
                if self.text.len() >= GATHERED {
                    self.encode(learned::complete(&self.text)).map_err(in_file)?;
                }
            }
            Event::End => {
                self.encode(self.text.len()).map_err(in_file)?;
                self.manifest.documents += 1;
                self.shards.between = true;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Encodes the first `end` bytes of what is gathered.
    fn encode(&mut self, end: usize) -> Result<(), DataError> {
        if self.shards.between {
            // Only now is it sure that another document follows.
            self.manifest.separator = self.tokenizer.separator()?;
            self.shards.push(&self.manifest.separator)?;
            self.shards.between = false;
        }
        let text = self.text.get(..end).unwrap_or_default();
        let of_file = matches!(self.options.tokenizer, PackTokenizer::File(_));
        // An alphabet names the first character that it lacks, unless it may lack some.
        let counting = of_file && (self.options.allow_unknown || self.tokenizer.kind() != TokenizerKind::Char);
        if counting {
            let is_first = self.losses.is_empty();
            let tokens = self.tokenizer.encode_counting(text, &mut self.losses)?;
            if is_first && self.losses.keep_all() {
                self.manifest.notes.extend(difference(self.tokenizer, text)?);
            }
            self.shards.push(&tokens)?;
        } else {
            self.shards.push(&self.tokenizer.encode(text)?)?;
        }
        self.manifest.characters += text.chars().count() as u64;
        self.text.drain(..end);
        Ok(())
    }
}

/// What is to be said when a tokenizer does not give the front of a text back.
fn difference(tokenizer: &Tokenizer, text: &str) -> Result<Option<String>, DataError> {
    let front = text.get(..text.floor_char_boundary(COMPARED)).unwrap_or_default();
    Ok(losses::difference(front, &tokenizer.decode(&tokenizer.encode(front)?)?))
}

/// Shards of the same length, one after the other.
struct Shards<'a> {
    folder: &'a Folder,
    vocab_size: usize,
    length: u64,
    current: Option<ShardWriter>,
    finished: Vec<Header>,
    /// Whether a document has ended after which nothing has been written.
    between: bool,
}

impl<'a> Shards<'a> {
    fn new(folder: &'a Folder, vocab_size: usize, length: u64) -> Self {
        Self { folder, vocab_size, length, current: None, finished: Vec::new(), between: false }
    }

    fn push(&mut self, mut tokens: &[u32]) -> Result<(), PackError> {
        while !tokens.is_empty() {
            let mut writer = match self.current.take() {
                Some(writer) => writer,
                None => ShardWriter::create(&self.folder.shard("part", self.finished.len()), self.vocab_size)?,
            };
            let room = usize::try_from(self.length - writer.tokens()).unwrap_or(usize::MAX);
            let (now, later) = tokens.split_at(tokens.len().min(room));
            writer.push(now)?;
            if writer.tokens() == self.length {
                self.finished.push(writer.finish()?);
            } else {
                self.current = Some(writer);
            }
            tokens = later;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Header>, PackError> {
        if let Some(writer) = self.current.take() {
            self.finished.push(writer.finish()?);
        }
        Ok(self.finished)
    }
}

/// Gives the parts their names as shards of the two splits, and cuts the one in which the border lies.
fn divide(folder: &Folder, parts: Vec<Header>, valid_fraction: f64) -> Result<[Vec<ShardEntry>; 2], DataError> {
    let total: u64 = parts.iter().map(|part| part.tokens).sum();
    let border = (total as f64 * (1.0 - valid_fraction)) as u64;
    if border == 0 || border == total {
        return Err(PackError::TooFew { tokens: total, valid_fraction }.into());
    }
    let names = ["train", "valid"];
    let mut splits = [Vec::new(), Vec::new()];
    let mut begin = 0;
    for (index, part) in parts.into_iter().enumerate() {
        let path = folder.shard("part", index);
        let inside = border.saturating_sub(begin).min(part.tokens);
        begin += part.tokens;
        if inside > 0 && inside < part.tokens {
            let numbers = [splits[0].len(), splits[1].len()];
            let targets = [folder.shard(names[0], numbers[0]), folder.shard(names[1], numbers[1])];
            let headers = shard::split(&path, inside, [&targets[0], &targets[1]])?;
            std::fs::remove_file(&path).map_err(PackError::writing(&path))?;
            for ((split, header), target) in splits.iter_mut().zip(headers).zip(&targets) {
                split.push(entry(target, header));
            }
        } else {
            let side = usize::from(inside == 0);
            let target = folder.shard(names[side], splits[side].len());
            std::fs::rename(&path, &target).map_err(PackError::writing(&target))?;
            splits[side].push(entry(&target, part));
        }
    }
    Ok(splits)
}

fn entry(path: &Path, header: Header) -> ShardEntry {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    ShardEntry { file, tokens: header.tokens, sha256: hex(&header.sha256) }
}

/// The folder that is being filled; nobody else may.
struct Folder {
    path: PathBuf,
    /// Whether it was made for this.
    is_new: bool,
    _lock: File,
}

impl Folder {
    /// Makes the folder if needed, takes its lock and clears away what an interrupted packing left.
    fn claim(path: &Path) -> Result<Self, PackError> {
        let is_new = !path.exists();
        std::fs::create_dir_all(path).map_err(PackError::writing(path))?;
        check_free(path)?;
        let lock_path = path.join(LOCK);
        let lock =
            File::options().create(true).append(true).open(&lock_path).map_err(PackError::writing(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PackError::Locked { folder: path.into() }),
            Err(TryLockError::Error(source)) => return Err(PackError::Unwritable { path: lock_path, source }),
        }
        // Another process may have finished between the first look and the lock.
        check_free(path)?;
        let folder = Self { path: path.into(), is_new, _lock: lock };
        folder.remove_leftovers();
        Ok(folder)
    }

    fn shard(&self, kind: &str, number: usize) -> PathBuf {
        self.path.join(format!("{kind}-{number:05}.bin"))
    }

    /// Writes a file and waits until it is on the disk.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        let path = self.path.join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(PackError::writing(&path))
    }

    /// Makes the folder a data set.
    fn finish(&self, manifest: &Manifest) -> Result<(), DataError> {
        let path = self.path.join(MANIFEST);
        let problem =
            |error: serde_json::Error| PackError::BadManifest { path: path.clone(), problem: error.to_string() };
        let mut json = serde_json::to_vec_pretty(manifest).map_err(problem)?;
        json.push(b'\n');
        self.write(UNNAMED, &json)?;
        // The names of the shards must be on the disk before the one that vouches for them.
        self.sync()?;
        std::fs::rename(self.path.join(UNNAMED), &path).map_err(PackError::writing(&path))?;
        self.sync()?;
        let _ = std::fs::remove_file(self.path.join(LOCK));
        Ok(())
    }

    fn sync(&self) -> Result<(), PackError> {
        // Windows cannot open a folder as a file; its renames are written through.
        if cfg!(unix) {
            let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
            synced.map_err(PackError::writing(&self.path))?;
        }
        Ok(())
    }

    /// Removes everything after a failure. Best effort: the error to report is the one that led here, and the next
    /// packing tries again.
    fn clear(&self) {
        self.remove_leftovers();
        let _ = std::fs::remove_file(self.path.join(LOCK));
        if self.is_new {
            let _ = std::fs::remove_dir(&self.path);
        }
    }

    fn remove_leftovers(&self) {
        for name in names(&self.path).unwrap_or_default() {
            if is_leftover(&name) && name != LOCK {
                let _ = std::fs::remove_file(self.path.join(name));
            }
        }
    }
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn is_leftover(name: &str) -> bool {
    [LOCK, UNNAMED, TOKENIZER].contains(&name) || is_shard(name)
}

/// Refuses a folder that holds a data set, or anything that packing did not put there.
fn check_free(folder: &Path) -> Result<(), PackError> {
    let names = match names(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotADirectory => Vec::new(),
        Err(source) => return Err(PackError::Unwritable { path: folder.into(), source }),
    };
    if names.iter().any(|name| name == MANIFEST) {
        return Err(PackError::Exists { folder: folder.into() });
    }
    // A tokenizer alone may be somebody's own.
    let begun = names.iter().any(|name| name == LOCK || is_shard(name));
    let foreign = names.into_iter().find(|name| !is_leftover(name) || (name == TOKENIZER && !begun));
    match foreign {
        None => Ok(()),
        Some(name) => Err(PackError::Occupied { folder: folder.into(), name }),
    }
}
