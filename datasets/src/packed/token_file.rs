//! Files of tokens that other programs wrote.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::errors::PackError;

/// Bytes of a header of llm.c: 256 numbers.
const HEADER: u64 = 1024;
/// Tokens that are read at a time.
const BLOCK: u64 = 1 << 18;

/// A format with a header: the first number, the version that is known, bytes of a token.
const FORMATS: [(u32, u32, usize); 2] = [(20_240_520, 1, 2), (20_240_801, 7, 4)];

/// What begins in another way than the files that are read here.
const OTHERS: [(&[u8], &str); 4] = [
    (b"POLARTOK", "it is a shard of packed tokens: train on the folder that it is in"),
    (b"\x93NUMPY", "it is a NumPy array: write its numbers with `array.astype(\"<u2\").tofile(\"train.bin\")`"),
    (b"\x1f\x8b", "it is compressed: decompress it with `gzip -d`"),
    (b"\x28\xb5\x2f\xfd", "it is compressed: decompress it with `zstd -d`"),
];

/// A file of tokens, open for reading from front to end.
pub(super) struct TokenFile {
    path: PathBuf,
    reader: BufReader<File>,
    token_bytes: usize,
    /// Where reading is.
    offset: u64,
    length: u64,
}

impl TokenFile {
    /// Opens a file and checks its header and its length.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let unreadable = |source| PackError::Unreadable { path: path.into(), source };
        let about = std::fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => PackError::NoInput { path: path.into() },
            _ => unreadable(error),
        })?;
        let bad = |problem: String| PackError::NotTokens { path: path.into(), problem };
        if about.is_dir() {
            return Err(bad("it is a folder: give the files in it".into()));
        }
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(unreadable)?);
        let mut start = Vec::new();
        reader.by_ref().take(HEADER).read_to_end(&mut start).map_err(unreadable)?;
        let length = about.len();
        let known = |word: usize| FORMATS.iter().find(|(magic, _, _)| number(&start, word) == Some(*magic));
        let (begin, token_bytes) = match known(0) {
            Some((_, version, token_bytes)) => {
                check_header(&start, length, *version, *token_bytes).map_err(bad)?;
                (HEADER, *token_bytes)
            }
            None => {
                check_plain(&start, length).map_err(bad)?;
                reader.seek_relative(-(start.len() as i64)).map_err(unreadable)?;
                (0, 2)
            }
        };
        if length == begin {
            return Err(bad("it has no tokens".into()));
        }
        Ok(Self { path: path.into(), reader, token_bytes, offset: begin, length })
    }

    /// Bytes that were read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next tokens, all of them below `vocab_size`; none at the end.
    pub fn read(&mut self, vocab_size: usize) -> Result<Vec<u32>, PackError> {
        let size = self.token_bytes;
        let mut bytes = vec![0; (self.length - self.offset).min(BLOCK * size as u64) as usize];
        let unreadable = |source| PackError::Unreadable { path: self.path.clone(), source };
        self.reader.read_exact(&mut bytes).map_err(unreadable)?;
        let value = |token: &[u8]| token.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        let tokens: Vec<u32> = bytes.chunks_exact(size).map(value).collect();
        if let Some(at) = tokens.iter().position(|token| *token as usize >= vocab_size) {
            let problem = format!(
                "the token {} at byte offset {} is outside the vocabulary of {vocab_size} tokens: give the tokenizer or the size of the \
                 vocabulary that it was made with",
                tokens.get(at).copied().unwrap_or_default(),
                self.offset + (at * size) as u64
            );
            return Err(PackError::NotTokens { path: self.path.clone(), problem });
        }
        self.offset += bytes.len() as u64;
        Ok(tokens)
    }
}

/// A number of a header.
fn number(start: &[u8], word: usize) -> Option<u32> {
    start.get(4 * word..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn check_header(start: &[u8], length: u64, version: u32, token_bytes: usize) -> Result<(), String> {
    let (Some(found), Some(tokens)) = (number(start, 1), number(start, 2)) else {
        return Err("it ends inside its header: download it again".into());
    };
    if found != version {
        return Err(format!(
            "its version, at byte offset 4, is {found}, but only {version} is known: write it with that version"
        ));
    }
    let expected = HEADER + u64::from(tokens) * token_bytes as u64;
    if length != expected {
        return Err(format!(
            "it has {length} bytes, but its header asks, at byte offset 8, for {tokens} tokens of {token_bytes} bytes, so for {expected}: \
             it is damaged or truncated, download it again"
        ));
    }
    Ok(())
}

/// Checks a file without a header: tokens of two bytes.
fn check_plain(start: &[u8], length: u64) -> Result<(), String> {
    if let Some((_, problem)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err((*problem).into());
    }
    if length % 2 == 1 {
        return Err(format!(
            "it has no header, so every token takes 2 bytes, but its number of bytes is odd, and byte offset {} begins half a token: it \
             is truncated, or not a file of tokens",
            length - 1
        ));
    }
    Ok(())
}
