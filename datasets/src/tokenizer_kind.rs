//! How a text becomes tokens, by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Tokens that every byte-pair vocabulary holds: the 256 bytes and the end of text.
const SMALLEST_BPE: usize = 257;
/// Larger than any vocabulary in use.
const LARGEST_BPE: usize = 1 << 20;

/// How a text becomes tokens. Written as `auto`, `char`, `byte`, `bpe:4096`, `file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TokenizerKind {
    /// Characters for a text; for packed data, the tokenizer that it was packed with.
    Auto,
    /// One token per character; the alphabet is the set of characters in the text.
    #[default]
    Char,
    /// One token per byte of the UTF-8 form; 256 tokens, any text.
    Byte,
    /// Byte-level byte-pair encoding (arXiv 1508.07909, in the form of GPT-2), learnt from the text: at most this many
    /// tokens, from 257 to 1,048,576; any text.
    Bpe(usize),
    /// Read from a file when the data was packed; for packed data only.
    File,
}

/// No tokenizer has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{value}` is not a tokenizer: write auto, char, byte or bpe:N with N from 257 to 1048576, for example bpe:4096"
)]
pub struct BadTokenizerKind {
    /// The name that was given.
    pub value: String,
}

impl fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Char => f.write_str("char"),
            Self::Byte => f.write_str("byte"),
            Self::Bpe(vocab_size) => write!(f, "bpe:{vocab_size}"),
            Self::File => f.write_str("file"),
        }
    }
}

impl FromStr for TokenizerKind {
    type Err = BadTokenizerKind;

    fn from_str(text: &str) -> Result<Self, BadTokenizerKind> {
        let bpe = |text: &str| text.strip_prefix("bpe:").and_then(|size| size.parse().ok());
        match text {
            "auto" => Ok(Self::Auto),
            "char" => Ok(Self::Char),
            "byte" => Ok(Self::Byte),
            "file" => Ok(Self::File),
            _ => match bpe(text) {
                Some(size) if (SMALLEST_BPE..=LARGEST_BPE).contains(&size) => Ok(Self::Bpe(size)),
                _ => Err(BadTokenizerKind { value: text.into() }),
            },
        }
    }
}

impl TryFrom<String> for TokenizerKind {
    type Error = BadTokenizerKind;

    fn try_from(text: String) -> Result<Self, BadTokenizerKind> {
        text.parse()
    }
}

impl From<TokenizerKind> for String {
    fn from(kind: TokenizerKind) -> Self {
        kind.to_string()
    }
}
