//! A folder of packed tokens, read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::encoding::decode_utf8;
use crate::shard::{self, Shard, VERSION};
use crate::{DataError, PackError, TextData, Tokenizer, TokenizerKind, Tokens};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
const FORMAT: &str = "polaron-tokens";
/// Up to this many bytes of shards, every checksum and every token is checked whenever the folder is opened: 0.2 s at
/// worst on a slow processor.
const CHECKED_AT_ONCE: u64 = 64 << 20;

/// `manifest.json` of a folder of packed tokens: what is in it and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `polaron-tokens`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// The tokenizer as it was asked for.
    pub tokenizer: TokenizerKind,
    /// SHA-256 of `tokenizer.json`, in hexadecimal.
    pub tokenizer_sha256: String,
    /// Number of different tokens; every token is below it.
    pub vocab_size: usize,
    /// The tokens between two documents.
    pub separator: Vec<u32>,
    /// Number of documents.
    pub documents: u64,
    /// Their characters, separators left out.
    pub characters: u64,
    /// Share of the tokens, at the end, that is kept for validation.
    pub valid_fraction: f64,
    /// Shards of the training split, in order.
    pub train: Vec<ShardEntry>,
    /// Shards of the validation split, in order.
    pub valid: Vec<ShardEntry>,
    /// The files that were read, in order, as they were given.
    pub sources: Vec<String>,
    /// What is to be known about them: what was not read, left out or not known to the tokenizer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One shard of a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Name in the folder.
    pub file: String,
    /// Number of tokens.
    pub tokens: u64,
    /// SHA-256 of the tokens' bytes, in hexadecimal; the shard's header holds the same.
    pub sha256: String,
}

impl Manifest {
    /// A manifest of the present format with the sizes of nothing.
    pub(crate) fn empty(tokenizer: TokenizerKind, valid_fraction: f64) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            tokenizer,
            tokenizer_sha256: String::new(),
            vocab_size: 0,
            separator: Vec::new(),
            documents: 0,
            characters: 0,
            valid_fraction,
            train: Vec::new(),
            valid: Vec::new(),
            sources: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn read(folder: &Path) -> Result<Self, PackError> {
        let path = folder.join(MANIFEST);
        let damaged = |problem: String| PackError::BadManifest { path: path.clone(), problem };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(PackError::Unfinished { folder: folder.into() });
            }
            Err(source) => return Err(PackError::Unreadable { path, source }),
        };
        let text = decode_utf8(&path, bytes).map_err(|error| damaged(error.to_string()))?.0;
        let value: Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(damaged(format!("its `format` is not `{FORMAT}`")));
        }
        // Before the other keys, which another version may have changed.
        let version = value.get("version").and_then(Value::as_u64).unwrap_or_default();
        if version != u64::from(VERSION) {
            return Err(PackError::OtherVersion { path, found: version, supported: VERSION });
        }
        serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
    }

    fn entries(&self) -> impl Iterator<Item = &ShardEntry> {
        self.train.iter().chain(&self.valid)
    }

    /// Number of tokens of the training and of the validation split.
    pub fn tokens(&self) -> [u64; 2] {
        [&self.train, &self.valid].map(|split| sum(split.iter()))
    }
}

/// Packed tokens, open for reading.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Where they are.
    pub folder: PathBuf,
    /// What the folder says about itself.
    pub manifest: Manifest,
    /// The tokenizer that made the tokens.
    pub tokenizer: Tokenizer,
    /// The training split, memory mapped.
    pub train: Tokens,
    /// The validation split, memory mapped.
    pub valid: Tokens,
}

impl Packed {
    /// Whether `folder` holds packed tokens, whole or not: a manifest, or shards.
    pub fn is_at(folder: &Path) -> bool {
        let names = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        names.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| name == MANIFEST || is_shard(&name))
    }

    /// What the folder says about itself; None without a manifest that can be read.
    pub fn manifest_at(folder: &Path) -> Option<Manifest> {
        Manifest::read(folder).ok()
    }

    /// Opens the tokens in `folder`. Headers and lengths are checked against the manifest; checksums and token numbers
    /// as well while the shards are no more than 64 MiB together. For larger ones that is
    /// [`verify`](Self::verify)'s business.
    ///
    /// # Errors
    ///
    /// One [`PackError`] each for: packing that was interrupted, a damaged manifest, another version, a tokenizer that
    /// does not belong to the tokens, a missing, damaged or shortened shard.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let manifest = Manifest::read(folder)?;
        let tokenizer = read_tokenizer(folder, &manifest)?;
        let open = |entries: &[ShardEntry]| -> Result<Tokens, PackError> {
            let shards: Result<_, _> = entries.iter().map(|entry| open_shard(folder, entry, &manifest)).collect();
            Ok(Tokens::from_shards(shards?))
        };
        let (train, valid) = (open(&manifest.train)?, open(&manifest.valid)?);
        check_names(folder, &manifest)?;
        let packed = Self { folder: folder.into(), train, valid, tokenizer, manifest };
        if packed.is_checked() {
            packed.verify()?;
        }
        Ok(packed)
    }

    /// Whether opening checked every byte.
    pub fn is_checked(&self) -> bool {
        self.bytes() <= CHECKED_AT_ONCE
    }

    /// Bytes of all tokens on the disk.
    pub fn bytes(&self) -> u64 {
        sum(self.manifest.entries()).saturating_mul(shard::token_bytes(self.manifest.vocab_size) as u64)
    }

    /// Checks every shard against its checksum, and every token against the vocabulary.
    ///
    /// # Errors
    ///
    /// [`PackError::BadChecksum`], [`PackError::TokenOutside`].
    pub fn verify(&self) -> Result<(), PackError> {
        self.train.verify()?;
        self.valid.verify()
    }

    /// As data to train on; `asked` must be the tokenizer it was packed with, or `auto`.
    pub(crate) fn into_text(self, name: &str, asked: TokenizerKind) -> Result<TextData, DataError> {
        let packed = self.manifest.tokenizer;
        if asked != TokenizerKind::Auto && asked != packed {
            return Err(PackError::OtherTokenizer { folder: self.folder, packed, asked }.into());
        }
        let Self { tokenizer, train, valid, manifest, .. } = self;
        let Manifest { characters, notes, .. } = manifest;
        Ok(TextData { name: name.into(), tokenizer, train, valid, characters, notes })
    }
}

/// A damaged manifest may promise more than any number holds.
fn sum<'a>(entries: impl Iterator<Item = &'a ShardEntry>) -> u64 {
    entries.fold(0, |sum, entry| sum.saturating_add(entry.tokens))
}

/// Whether a file of that name is a shard, finished or not.
pub(crate) fn is_shard(name: &str) -> bool {
    let stem = name.strip_suffix(".bin").and_then(|name| name.rsplit_once('-'));
    stem.is_some_and(|(kind, number)| {
        ["part", "train", "valid"].contains(&kind) && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Refuses a folder with shards that its manifest does not list, or lists twice: something was added or left out.
fn check_names(folder: &Path, manifest: &Manifest) -> Result<(), PackError> {
    let path = folder.join(MANIFEST);
    let mut listed: Vec<&str> = manifest.entries().map(|entry| entry.file.as_str()).collect();
    listed.sort_unstable();
    if let Some((name, _)) = listed.iter().zip(listed.iter().skip(1)).find(|(left, right)| left == right) {
        return Err(PackError::BadManifest { path, problem: format!("it lists `{name}` twice") });
    }
    let unreadable = |source| PackError::Unreadable { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if is_shard(&name) && listed.binary_search(&name.as_str()).is_err() {
            let problem = format!("it does not list the shard `{name}` that lies beside it");
            return Err(PackError::BadManifest { path, problem });
        }
    }
    Ok(())
}

fn read_tokenizer(folder: &Path, manifest: &Manifest) -> Result<Tokenizer, DataError> {
    let path = folder.join(TOKENIZER);
    let bytes = std::fs::read(&path).map_err(|source| PackError::Unreadable { path: path.clone(), source })?;
    if hex(&Sha256::digest(&bytes)) != manifest.tokenizer_sha256 {
        return Err(PackError::ForeignTokenizer { path }.into());
    }
    let tokenizer = Tokenizer::from_file(&path)?;
    if tokenizer.vocab_size() != manifest.vocab_size {
        return Err(PackError::ForeignTokenizer { path }.into());
    }
    Ok(tokenizer)
}

fn open_shard(folder: &Path, entry: &ShardEntry, manifest: &Manifest) -> Result<Shard, PackError> {
    let path = folder.join(&entry.file);
    // A manifest is a file like any other: it must not lead outside.
    if !is_shard(&entry.file) {
        let problem = format!("`{}` is no name of a shard", entry.file);
        return Err(PackError::BadManifest { path: folder.join(MANIFEST), problem });
    }
    let shard = Shard::open(&path)?;
    let header = shard.header;
    let agrees = header.tokens == entry.tokens
        && hex(&header.sha256) == entry.sha256
        && header.vocab_size as usize == manifest.vocab_size
        && header.token_bytes == shard::token_bytes(manifest.vocab_size);
    if agrees { Ok(shard) } else { Err(PackError::ForeignShard { path }) }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
