//! Shards: token numbers in a file that can be memory-mapped.
//!
//! [`pack`](crate::pack) describes the format.
//!
//! While a shard is being written its header is all zeros, so an unfinished shard is not read as one.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::errors::PackError;

const MAGIC: [u8; 8] = *b"POLARTOK";
/// Version of the format of shards and of the manifest; other versions are refused.
pub(crate) const VERSION: u32 = 1;
const HEADER: usize = 64;
/// The largest vocabulary whose tokens fit into two bytes.
const TWO_BYTES: usize = 1 << 16;
/// Tokens that are copied or checked at a time.
const BLOCK: usize = 1 << 18;

/// The header of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub token_bytes: usize,
    pub tokens: u64,
    pub vocab_size: u32,
    pub sha256: [u8; 32],
}

impl Header {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.token_bytes as u32).to_le_bytes());
        bytes.extend(self.tokens.to_le_bytes());
        bytes.extend(self.vocab_size.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.sha256);
        bytes
    }

    /// The header at the front of a file of `length` bytes.
    fn parse(path: &Path, bytes: &[u8], length: u64) -> Result<Self, PackError> {
        let path = || path.to_path_buf();
        if !bytes.starts_with(&MAGIC) {
            return Err(PackError::NotAShard { path: path() });
        }
        let truncated = |expected: u64| PackError::WrongLength { path: path(), found: length, expected };
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or_else(|| truncated(HEADER as u64))?;
        let word = |offset: usize| header.iter().skip(offset).take(4).rev().fold(0_u32, |n, b| n << 8 | u32::from(*b));
        if word(8) != VERSION {
            return Err(PackError::OtherVersion { path: path(), found: word(8).into(), supported: VERSION });
        }
        let token_bytes = word(12) as usize;
        if ![2, 4].contains(&token_bytes) {
            return Err(PackError::BadTokenSize { path: path(), found: token_bytes });
        }
        let tokens = u64::from(word(16)) | u64::from(word(20)) << 32;
        let expected = tokens.saturating_mul(token_bytes as u64).saturating_add(HEADER as u64);
        if length != expected {
            return Err(truncated(expected));
        }
        let mut sha256 = [0; 32];
        sha256.iter_mut().zip(header.iter().skip(32)).for_each(|(to, from)| *to = *from);
        Ok(Self { token_bytes, tokens, vocab_size: word(24), sha256 })
    }
}

/// Bytes of one token of a vocabulary.
pub(crate) fn token_bytes(vocab_size: usize) -> usize {
    if vocab_size <= TWO_BYTES { 2 } else { 4 }
}

/// A memory-mapped shard; the system reads only what is used.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    map: Mmap,
    pub header: Header,
}

impl Shard {
    /// Maps a file and checks its header and its length; [`verify`](Self::verify) checks the tokens.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let unreadable = |source| PackError::Unreadable { path: path.into(), source };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if length == 0 {
            return Err(PackError::NotAShard { path: path.into() });
        }
        let map = map_file(&file).map_err(unreadable)?;
        let header = Header::parse(path, &map, length)?;
        Ok(Self { path: path.into(), map, header })
    }

    pub fn len(&self) -> usize {
        self.header.tokens as usize
    }

    /// Appends the tokens `start..end` to `into`; the caller ensures that they are in the shard.
    pub fn read<T>(&self, start: usize, end: usize, into: &mut Vec<T>, convert: impl Fn(u32) -> T) {
        let size = self.header.token_bytes;
        let bytes = self.map.get(HEADER + start * size..HEADER + end * size).unwrap_or_default();
        decode(bytes, size, into, convert);
    }

    /// Checks every byte against the checksum and every token against the vocabulary.
    pub fn verify(&self) -> Result<(), PackError> {
        let payload = self.map.get(HEADER..).unwrap_or_default();
        let mut hasher = Sha256::new();
        let (mut tokens, mut position) = (Vec::new(), 0);
        let mut outside = None;
        for block in payload.chunks(BLOCK * self.header.token_bytes) {
            hasher.update(block);
            tokens.clear();
            decode(block, self.header.token_bytes, &mut tokens, |token| token);
            let found = tokens.iter().position(|token| *token >= self.header.vocab_size);
            outside = outside.or(found.and_then(|at| Some((*tokens.get(at)?, position + at as u64))));
            position += tokens.len() as u64;
        }
        // The checksum first: damage explains a wrong token, not the other way round.
        if <[u8; 32]>::from(hasher.finalize()) != self.header.sha256 {
            return Err(PackError::BadChecksum { path: self.path.clone() });
        }
        match outside {
            None => Ok(()),
            Some((token, position)) => {
                let vocab_size = self.header.vocab_size as usize;
                Err(PackError::TokenOutside { path: self.path.clone(), token, position, vocab_size })
            }
        }
    }
}

/// The only unsafe code of the crate.
#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and private to `Shard`, which returns copies, never references. This program never
    // writes to a finished shard. If another program truncates the file, this one ends with a bus error, like any
    // program that maps files; the documentation of `Tokens` says so.
    unsafe { Mmap::map(file) }
}

fn decode<T>(bytes: &[u8], token_bytes: usize, into: &mut Vec<T>, convert: impl Fn(u32) -> T) {
    if token_bytes == 2 {
        into.extend(bytes.as_chunks::<2>().0.iter().map(|token| convert(u16::from_le_bytes(*token).into())));
    } else {
        into.extend(bytes.as_chunks::<4>().0.iter().map(|token| convert(u32::from_le_bytes(*token))));
    }
}

/// A shard while it is being written.
pub(crate) struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Sha256,
    tokens: u64,
    vocab_size: usize,
    buffer: Vec<u8>,
}

impl ShardWriter {
    pub fn create(path: &Path, vocab_size: usize) -> Result<Self, PackError> {
        let create = || {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
            file.write_all(&[0; HEADER])?;
            Ok(file)
        };
        let file = create().map_err(PackError::writing(path))?;
        Ok(Self { path: path.into(), file, hasher: Sha256::new(), tokens: 0, vocab_size, buffer: Vec::new() })
    }

    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    pub fn push(&mut self, tokens: &[u32]) -> Result<(), PackError> {
        self.buffer.clear();
        for (index, token) in tokens.iter().enumerate() {
            if *token as usize >= self.vocab_size {
                let position = self.tokens + index as u64;
                let (path, vocab_size) = (self.path.clone(), self.vocab_size);
                return Err(PackError::TokenOutside { path, token: *token, position, vocab_size });
            }
            // Every token is below the vocabulary's size, so two bytes are enough where two are used.
            let bytes = token.to_le_bytes();
            self.buffer.extend(bytes.iter().take(token_bytes(self.vocab_size)));
        }
        self.hasher.update(&self.buffer);
        self.tokens += tokens.len() as u64;
        self.file.write_all(&self.buffer).map_err(PackError::writing(&self.path))
    }

    /// Writes the header and waits until everything is on the disk.
    pub fn finish(mut self) -> Result<Header, PackError> {
        let header = Header {
            token_bytes: token_bytes(self.vocab_size),
            tokens: self.tokens,
            vocab_size: self.vocab_size as u32,
            sha256: self.hasher.finalize().into(),
        };
        let mut close = || {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header.to_bytes())?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        close().map_err(PackError::writing(&self.path))?;
        Ok(header)
    }
}

/// Writes the tokens of the shard `from` into two: the first `border` and the rest.
pub(crate) fn split(from: &Path, border: u64, [left, right]: [&Path; 2]) -> Result<[Header; 2], PackError> {
    let unreadable = |source| PackError::Unreadable { path: from.into(), source };
    let mut file = BufReader::with_capacity(1 << 20, File::open(from).map_err(unreadable)?);
    let length = file.get_ref().metadata().map_err(unreadable)?.len();
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(unreadable)?;
    let header = Header::parse(from, &header, length)?;
    let mut copy = |to: &Path, mut count: u64| {
        let mut writer = ShardWriter::create(to, header.vocab_size as usize)?;
        let mut tokens = Vec::new();
        while count > 0 {
            let now = count.min(BLOCK as u64);
            let mut bytes = vec![0; now as usize * header.token_bytes];
            file.read_exact(&mut bytes).map_err(unreadable)?;
            tokens.clear();
            decode(&bytes, header.token_bytes, &mut tokens, |token| token);
            writer.push(&tokens)?;
            count -= now;
        }
        writer.finish()
    };
    Ok([copy(left, border)?, copy(right, header.tokens.saturating_sub(border))?])
}
