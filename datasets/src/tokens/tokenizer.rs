//! Text to token numbers and back.

use std::borrow::Cow;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::alphabet::{Alphabet, Characters};
use super::byte_lengths::ByteLengths;
use super::learned::{Learned, MOST_TOKENS};
use super::losses::{Fate, Losses};
use super::{pieces, published};
use crate::errors::{DataError, PackError};
use crate::text::decode_utf8;
use crate::tokenizer_kind::TokenizerKind;

/// A tokenizer. Stored as `{"kind": "char", "alphabet": "..."}`, as `{"kind": "byte"}`, as `{"kind": "none", "vocab_size": N}`
/// if only the number of tokens is known, or in the `tokenizer.json` format of the `tokenizers` library, which other programs read
/// too.
///
/// ```
/// use polaron_datasets::Tokenizer;
///
/// let tokenizer = Tokenizer::char_from("hello");
/// assert_eq!(tokenizer.encode("hole")?, [1, 3, 2, 0]); // e h l o
/// assert_eq!(tokenizer.decode(&[1, 3, 2, 0])?, "hole");
/// # Ok::<(), polaron_datasets::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Tokenizer {
    pub(super) inner: Inner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inner {
    Char(Alphabet),
    Byte,
    Learned(Learned),
    /// The number of tokens is known, their text is not.
    None(usize),
}

impl Tokenizer {
    /// A character tokenizer whose alphabet is every distinct character of `text`, sorted by code
    /// point.
    pub fn char_from(text: &str) -> Self {
        let mut characters = Characters::default();
        characters.add(text);
        Self::char_of(characters)
    }

    /// A character tokenizer for the documents whose characters were collected.
    pub(crate) fn char_of(characters: Characters) -> Self {
        Self { inner: Inner::Char(characters.into()) }
    }

    /// The byte tokenizer.
    pub fn byte() -> Self {
        Self { inner: Inner::Byte }
    }

    /// Tokens without text, of which only the number is known: those that another program made with an unknown tokenizer.
    ///
    /// # Errors
    ///
    /// [`DataError::BadTokenizer`] for no token, or more than 1,048,576.
    pub fn without_text(vocab_size: usize) -> Result<Self, DataError> {
        if (1..=MOST_TOKENS as usize).contains(&vocab_size) {
            return Ok(Self { inner: Inner::None(vocab_size) });
        }
        let problem = format!("a vocabulary of {vocab_size} tokens, but it must have from 1 to {MOST_TOKENS}");
        Err(DataError::BadTokenizer { problem: problem.into() })
    }

    /// Whether it turns text into tokens and back.
    pub fn has_text(&self) -> bool {
        !matches!(self.inner, Inner::None(_))
    }

    /// A byte-level BPE of at most `vocab_size` tokens, learnt from `texts`. The same texts give the same tokenizer,
    /// whatever the number of threads.
    ///
    /// # Errors
    ///
    /// [`DataError::Learning`].
    pub fn bpe_from<S: AsRef<str> + Send>(
        vocab_size: usize,
        texts: impl Iterator<Item = S> + Send,
    ) -> Result<Self, DataError> {
        Ok(Self { inner: Inner::Learned(Learned::train(vocab_size, texts)?) })
    }

    /// The tokenizer of that kind for `text`. A BPE learns from its first 64 MiB.
    ///
    /// # Errors
    ///
    /// [`DataError::Learning`], [`DataError::NoTokenizerFile`] for [`TokenizerKind::File`].
    pub fn for_text(kind: TokenizerKind, text: &str) -> Result<Self, DataError> {
        Self::for_documents(kind, &[text])
    }

    /// The same for documents that a separator will separate.
    pub(crate) fn for_documents<S: AsRef<str> + Sync>(kind: TokenizerKind, documents: &[S]) -> Result<Self, DataError> {
        match kind {
            TokenizerKind::Auto | TokenizerKind::Char => {
                let mut characters = Characters::default();
                for document in documents {
                    characters.add(document.as_ref());
                    characters.end_document();
                }
                Ok(Self::char_of(characters))
            }
            TokenizerKind::Byte => Ok(Self::byte()),
            TokenizerKind::Bpe(vocab_size) => {
                let texts = documents.iter().map(AsRef::as_ref);
                Self::bpe_from(vocab_size, pieces::lessons(texts))
            }
            TokenizerKind::File => Err(DataError::NoTokenizerFile),
        }
    }

    /// Reads a `tokenizer.json`, of this library or of the `tokenizers` library.
    ///
    /// # Errors
    ///
    /// [`PackError::Unreadable`], [`PackError::BadTokenizerFile`].
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(|source| PackError::Unreadable { path: path.into(), source })?;
        let (text, _) = decode_utf8(path, bytes)?;
        let value = serde_json::from_str(&text).map_err(|error| DataError::BadTokenizer { problem: error.into() });
        let result = value.and_then(|value: Value| Self::try_from(value));
        // The sentence about the file takes the place of that about a stored tokenizer, with the same problem.
        result.map_err(|error| {
            let problem = match error {
                DataError::BadTokenizer { problem } => problem,
                other => other.into(),
            };
            PackError::BadTokenizerFile { path: path.into(), problem }.into()
        })
    }

    /// Which kind this is. A BPE has the size of its vocabulary; what is none of the other kinds is a
    /// [`TokenizerKind::File`].
    pub fn kind(&self) -> TokenizerKind {
        match &self.inner {
            Inner::Char(_) => TokenizerKind::Char,
            Inner::Byte => TokenizerKind::Byte,
            Inner::Learned(learned) if learned.is_bpe() => TokenizerKind::Bpe(learned.vocab_size()),
            Inner::Learned(_) | Inner::None(_) => TokenizerKind::File,
        }
    }

    /// The tokens between two documents: the end-of-text token if there is one, otherwise a line break.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`] when the alphabet has no line break either.
    pub fn separator(&self) -> Result<Vec<u32>, DataError> {
        self.end_of_text().map_or_else(|| self.encode("\n"), |token| Ok(vec![token]))
    }

    /// The token that ends a text; characters and bytes have none.
    pub fn end_of_text(&self) -> Option<u32> {
        if let Inner::Learned(learned) = &self.inner { learned.end_of_text() } else { None }
    }

    /// The `tokenizer.json` that the `tokenizers` library reads, with the same tokens. Read back, it is this tokenizer.
    pub fn published(&self) -> Value {
        match &self.inner {
            Inner::Char(alphabet) => published::of_characters(alphabet),
            Inner::Byte => published::of_bytes(),
            Inner::Learned(learned) => learned.json().clone(),
            // Without text there is nothing to publish but the number.
            Inner::None(_) => self.clone().into(),
        }
    }

    /// Names of the tokens that end a text and that stand for what is unknown, if the vocabulary has them.
    pub fn special_names(&self) -> [Option<String>; 2] {
        match &self.inner {
            Inner::Learned(learned) => learned.special_names(),
            Inner::Char(_) | Inner::Byte | Inner::None(_) => [None, None],
        }
    }

    /// How many bytes of text each token stands for. None for a tokenizer whose tokens have no such number of their own: the text
    /// of a word piece depends on its neighbours, and a tokenizer that folds white space or drops accents does not count them.
    ///
    /// ```
    /// use polaron_datasets::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::char_from("caf\u{e9}");
    /// let lengths = tokenizer.byte_lengths();
    /// assert_eq!(lengths.map(|lengths| lengths.of([0, 3])), Some(3)); // a \u{e9}
    /// ```
    pub fn byte_lengths(&self) -> Option<ByteLengths> {
        let lengths = match &self.inner {
            Inner::Char(alphabet) => alphabet.byte_lengths(),
            Inner::Byte => vec![1; self.vocab_size()],
            Inner::Learned(learned) => learned.byte_lengths()?,
            Inner::None(_) => return None,
        };
        Some(ByteLengths::new(lengths))
    }

    /// The same, or instead the token that is written `asked`; nothing for `none`.
    ///
    /// # Errors
    ///
    /// [`DataError::NoSuchToken`], and those of [`separator`](Self::separator).
    pub(crate) fn separator_as(&self, asked: Option<&str>) -> Result<Vec<u32>, DataError> {
        let token = match (asked, &self.inner) {
            (None, _) => return self.separator(),
            (Some("none"), _) => return Ok(Vec::new()),
            (Some(asked), Inner::Learned(learned)) => learned.token(asked),
            (Some(asked), _) => {
                self.encode(asked).ok().and_then(|tokens| <[u32; 1]>::try_from(tokens).ok()).map(|[token]| token)
            }
        };
        let asked = asked.unwrap_or_default();
        token.map(|token| vec![token]).ok_or_else(|| DataError::NoSuchToken { token: asked.into() })
    }

    /// Number of different tokens; every token is below it.
    pub fn vocab_size(&self) -> usize {
        match &self.inner {
            Inner::Char(alphabet) => alphabet.len(),
            Inner::Byte => 256,
            Inner::Learned(learned) => learned.vocab_size(),
            Inner::None(vocab_size) => *vocab_size,
        }
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`] names the first character outside the alphabet and its
    /// offset; [`DataError::Encoding`] if a tokenizer from a file fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.inner {
            Inner::Byte => Ok(text.bytes().map(u32::from).collect()),
            Inner::Char(alphabet) => alphabet.encode(text),
            Inner::Learned(learned) => learned.encode(text),
            Inner::None(_) => Err(DataError::NoText),
        }
    }

    /// The tokens of each of several texts, encoded on all threads.
    pub(crate) fn encode_all<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Vec<Result<Vec<u32>, DataError>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text without the characters that its alphabet does not have; what is unknown to the tokenizer is counted.
    pub(crate) fn known<'a>(&self, text: &'a str, losses: &mut Losses) -> Cow<'a, str> {
        match &self.inner {
            Inner::Byte | Inner::None(_) => {}
            Inner::Learned(learned) if learned.keeps_all() => losses.count_kept(text),
            Inner::Learned(learned) => losses.count(text, |character| learned.fate(character)),
            Inner::Char(alphabet) => {
                losses.count(text, |character| if alphabet.has(character) { Fate::Kept } else { Fate::Unknown });
                return text.chars().filter(|character| alphabet.has(*character)).collect::<String>().into();
            }
        }
        text.into()
    }

    /// Counts the unknown tokens among those of a text.
    pub(crate) fn count_tokens(&self, tokens: &[u32], losses: &mut Losses) {
        if let Inner::Learned(learned) = &self.inner {
            losses.count_tokens(tokens.len(), learned.unknown_in(tokens));
        }
    }

    /// Checks that a short text, such as a prompt, has nothing that the tokenizer drops or encodes as the unknown token.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`], [`DataError::UnknownText`].
    pub fn check_known(&self, text: &str) -> Result<(), DataError> {
        if let Inner::Char(_) = &self.inner {
            return self.encode(text).map(drop);
        }
        let mut losses = Losses::default();
        let known = self.known(text, &mut losses);
        self.count_tokens(&self.encode(&known)?, &mut losses);
        losses.unknown().map_or(Ok(()), |problem| Err(DataError::UnknownText { problem }))
    }

    /// The text that `tokens` add after `before`. Some tokens decode differently at the front of a text, so both are decoded
    /// together; bytes of an incomplete character at the end are left out.
    ///
    /// ```
    /// use polaron_datasets::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::byte();
    /// assert_eq!(tokenizer.decode_after(&[0xc3], &[0xa9, 0x21, 0xc3])?, "\u{e9}!");
    /// # Ok::<(), polaron_datasets::DataError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub fn decode_after(&self, before: &[u32], tokens: &[u32]) -> Result<String, DataError> {
        const REPLACEMENT: char = '\u{fffd}';
        let first = self.decode(before)?;
        let whole = self.decode_complete(&[before, tokens].concat(), tokens.len())?;
        let (first, whole) = (first.trim_end_matches(REPLACEMENT), whole.trim_end_matches(REPLACEMENT));
        // What follows can change the end of what is before it, for example a space before a full stop.
        Ok(whole.get(same_front(first, whole)..).unwrap_or_default().into())
    }

    /// The text of `tokens` without up to three tokens of an incomplete character at the end, at most the last `new` ones: with
    /// them, some decoders would damage the complete characters before.
    fn decode_complete(&self, tokens: &[u32], new: usize) -> Result<String, DataError> {
        let whole = self.decode(tokens)?;
        if !whole.ends_with('\u{fffd}') {
            return Ok(whole);
        }
        for left_out in 1..=new.min(3) {
            let text = self.decode(tokens.get(..tokens.len() - left_out).unwrap_or_default())?;
            if !text.ends_with('\u{fffd}') {
                return Ok(text);
            }
        }
        Ok(whole)
    }

    /// The text of `tokens`. With byte and byte-pair tokenizers, byte sequences that are not UTF-8 (a model
    /// may generate them) become the replacement character U+FFFD.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownToken`] names the first token outside the vocabulary and its position.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        let unknown =
            |position: usize, token: u32| DataError::UnknownToken { token, position, vocab_size: self.vocab_size() };
        let tokens = tokens.iter().copied().enumerate();
        match &self.inner {
            Inner::Char(alphabet) => tokens
                .map(|(position, token)| alphabet.character(token).ok_or_else(|| unknown(position, token)))
                .collect(),
            Inner::Byte => {
                let bytes: Result<Vec<u8>, DataError> =
                    tokens.map(|(position, token)| u8::try_from(token).map_err(|_| unknown(position, token))).collect();
                Ok(String::from_utf8_lossy(&bytes?).into_owned())
            }
            Inner::Learned(learned) => {
                let ids: Result<Vec<u32>, DataError> = tokens
                    .map(
                        |(at, token)| {
                            if (token as usize) < self.vocab_size() { Ok(token) } else { Err(unknown(at, token)) }
                        },
                    )
                    .collect();
                learned.decode(&ids?)
            }
            Inner::None(_) => Err(DataError::NoText),
        }
    }
}

/// How many bytes two texts have in common at their front, in whole characters.
pub(super) fn same_front(one: &str, other: &str) -> usize {
    if other.starts_with(one) {
        return one.len();
    }
    one.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(character, _)| character.len_utf8()).sum()
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
