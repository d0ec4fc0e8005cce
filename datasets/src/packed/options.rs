//! What is packed, and how.

use std::path::{Path, PathBuf};

use crate::errors::{DataError, PackError};
use crate::text::TEXT_KEY;
use crate::tokenizer_kind::TokenizerKind;

/// The tokenizer that packing uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackTokenizer {
    /// A tokenizer for these texts: `char`, `byte`, `bpe:N`.
    Kind(TokenizerKind),
    /// A `tokenizer.json`, from this library or from the `tokenizers` library.
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
    /// The tokenizer.
    pub tokenizer: PackTokenizer,
    /// The key of a document's text in a JSON record; `text` by default.
    pub key: String,
    /// What is between two documents: a token, as it is written, or `none`; by default the end-of-text token of the tokenizer, or
    /// a line break.
    pub eot: Option<String>,
    /// Whether lines that are not documents are left out, counted and noted.
    pub skip_bad: bool,
    /// Whether more than 0.1 % of the text may be unknown to the tokenizer of a file and lost; for an alphabet, whether any of it
    /// may.
    pub allow_unknown: bool,
    /// The fraction of the tokens, at the end, for validation; 0.1 by default.
    pub valid_fraction: f64,
    /// Tokens of one shard; 67,108,864 by default, which is 128 MiB at two bytes per token.
    pub shard_tokens: u64,
}

impl PackOptions {
    /// The defaults for these inputs.
    pub fn new(inputs: impl IntoIterator<Item = PathBuf>, tokenizer: PackTokenizer) -> Self {
        let inputs = inputs.into_iter().collect();
        Self {
            inputs,
            tokenizer,
            key: TEXT_KEY.into(),
            eot: None,
            skip_bad: false,
            allow_unknown: false,
            valid_fraction: 0.1,
            shard_tokens: 1 << 26,
        }
    }
}

/// The progress of packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackProgress {
    /// "learning the tokenizer" or "encoding".
    pub doing: &'static str,
    /// Bytes read from the disk in this pass.
    pub read: u64,
    /// Bytes of all files on the disk.
    pub total: u64,
}
