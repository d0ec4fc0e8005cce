//! `manifest.json`, and the names of the files in a folder of packed tokens.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::{PackError, Problem};
use crate::text::without_mark;
use crate::tokenizer_kind::TokenizerKind;
use crate::tokens::VERSION;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
const FORMAT: &str = "polaron-tokens";

/// `manifest.json` of a folder of packed tokens: its contents and their origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `polaron-tokens`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// The tokenizer that was asked for.
    pub tokenizer: TokenizerKind,
    /// SHA-256 of `tokenizer.json`, in hexadecimal.
    pub tokenizer_sha256: String,
    /// Number of different tokens; every token is below it.
    pub vocab_size: usize,
    /// The tokens between two documents.
    pub separator: Vec<u32>,
    /// Number of documents.
    pub documents: u64,
    /// Their characters, without separators; 0 for imported tokens, whose text is not known.
    pub characters: u64,
    /// The fraction of the tokens, at the end, that is for validation.
    pub valid_fraction: f64,
    /// Shards of the training split, in order.
    pub train: Vec<ShardEntry>,
    /// Shards of the validation split, in order.
    pub valid: Vec<ShardEntry>,
    /// The files that were read, in order, as they were given.
    pub sources: Vec<String>,
    /// Notes about them: what was not read, removed or unknown to the tokenizer.
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
    /// SHA-256 of the tokens' bytes, in hexadecimal; it is also in the header of the shard.
    pub sha256: String,
}

impl Manifest {
    /// A manifest of the current format, without contents.
    pub(super) fn empty(tokenizer: TokenizerKind, valid_fraction: f64) -> Self {
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

    pub(super) fn read(folder: &Path) -> Result<Self, PackError> {
        let path = folder.join(MANIFEST);
        let damaged = |problem: Problem| PackError::BadManifest { path: path.clone(), problem };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(PackError::Unfinished { folder: folder.into() });
            }
            Err(source) => return Err(PackError::Unreadable { path, source }),
        };
        let value: Value = serde_json::from_slice(without_mark(&bytes)).map_err(|error| damaged(error.into()))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(damaged(format!("its `format` is not `{FORMAT}`").into()));
        }
        // Checked before the other keys, which another version may have changed.
        let version = value.get("version").and_then(Value::as_u64).unwrap_or_default();
        if version != u64::from(VERSION) {
            return Err(PackError::OtherVersion { path, found: version, supported: VERSION });
        }
        serde_json::from_value(value).map_err(|error| damaged(error.into()))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &ShardEntry> {
        self.train.iter().chain(&self.valid)
    }

    /// Number of tokens of the training and of the validation split.
    pub fn tokens(&self) -> [u64; 2] {
        [&self.train, &self.valid].map(|split| sum(split.iter()))
    }
}

/// The number of tokens in some shards; saturating, because a damaged manifest may have any numbers.
pub(super) fn sum<'a>(entries: impl Iterator<Item = &'a ShardEntry>) -> u64 {
    entries.fold(0, |sum, entry| sum.saturating_add(entry.tokens))
}

/// Whether a file of that name is a shard, finished or not.
pub(super) fn is_shard(name: &str) -> bool {
    let stem = name.strip_suffix(".bin").and_then(|name| name.rsplit_once('-'));
    stem.is_some_and(|(kind, number)| {
        ["part", "train", "valid"].contains(&kind) && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
