//! Text to token numbers and back.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encoding::decode_utf8;
use crate::learned::{self, Learned};
use crate::losses::{Fate, Losses};
use crate::{DataError, PackError};

/// Tokens that every byte-pair vocabulary holds: the 256 bytes and the end of text.
const SMALLEST_BPE: usize = 257;
/// More than any vocabulary in use.
const LARGEST_BPE: usize = 1 << 20;

/// How a text becomes tokens. Written as `auto`, `char`, `byte`, `bpe:4096`, `file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TokenizerKind {
    /// Characters for a text; for packed data, what it was packed with.
    Auto,
    /// One token per character; the alphabet is what the text holds.
    #[default]
    Char,
    /// One token per byte of the UTF-8 form; 256 tokens, any text.
    Byte,
    /// Byte-level byte-pair encoding (arXiv 1508.07909, in the form of GPT-2), learnt from the text: at most so many
    /// tokens, from 257 to 1,048,576; any text.
    Bpe(usize),
    /// Read from a file when the data was packed; of packed data only.
    File,
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
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let unknown = || DataError::BadTokenizerKind { value: text.into() };
        match text {
            "auto" => Ok(Self::Auto),
            "char" => Ok(Self::Char),
            "byte" => Ok(Self::Byte),
            "file" => Ok(Self::File),
            _ => {
                let size: usize = text.strip_prefix("bpe:").and_then(|size| size.parse().ok()).ok_or_else(unknown)?;
                if (SMALLEST_BPE..=LARGEST_BPE).contains(&size) { Ok(Self::Bpe(size)) } else { Err(unknown()) }
            }
        }
    }
}

impl TryFrom<String> for TokenizerKind {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<TokenizerKind> for String {
    fn from(kind: TokenizerKind) -> Self {
        kind.to_string()
    }
}

/// A tokenizer. Stored as `{"kind": "char", "alphabet": "..."}`, as `{"kind": "byte"}`, or in the
/// `tokenizer.json` format of the `tokenizers` library, which other programs read too.
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
    inner: Inner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Inner {
    /// Strictly ascending code points; a character's token is its position.
    Char(Vec<char>),
    Byte,
    Learned(Learned),
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Stored {
    Char { alphabet: String },
    Byte {},
}

/// Tokens of the code points below 128, looked up without a search.
type AsciiTable = [Option<u32>; 128];

impl Tokenizer {
    /// A character tokenizer whose alphabet is every distinct character of `text`, sorted by code
    /// point.
    pub fn char_from(text: &str) -> Self {
        let mut alphabet = BTreeSet::new();
        add_characters(&mut alphabet, text);
        Self::char_of(alphabet)
    }

    /// The same from the characters themselves.
    pub(crate) fn char_of(alphabet: BTreeSet<char>) -> Self {
        Self { inner: Inner::Char(alphabet.into_iter().collect()) }
    }

    /// The byte tokenizer.
    pub fn byte() -> Self {
        Self { inner: Inner::Byte }
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

    /// The same for documents between which a separator will stand.
    pub(crate) fn for_documents<S: AsRef<str> + Sync>(kind: TokenizerKind, documents: &[S]) -> Result<Self, DataError> {
        match kind {
            TokenizerKind::Auto | TokenizerKind::Char => {
                let mut alphabet: BTreeSet<char> = BTreeSet::new();
                documents.iter().for_each(|document| add_characters(&mut alphabet, document.as_ref()));
                if documents.len() > 1 {
                    alphabet.insert('\n');
                }
                Ok(Self::char_of(alphabet))
            }
            TokenizerKind::Byte => Ok(Self::byte()),
            TokenizerKind::Bpe(vocab_size) => {
                let texts = documents.iter().map(AsRef::as_ref);
                Self::bpe_from(vocab_size, learned::lessons(texts))
            }
            TokenizerKind::File => Err(DataError::NoTokenizerFile),
        }
    }

    /// Reads a `tokenizer.json`, of this library or of the `tokenizers` library.
    ///
    /// # Errors
    ///
    /// [`PackError::BadTokenizerFile`] naming the file.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let bad = |problem: String| PackError::BadTokenizerFile { path: path.into(), problem };
        let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let (text, _) = decode_utf8(path, bytes)?;
        Ok(serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?)
    }

    /// Which kind this is. A BPE counts with the size that its vocabulary has; what is neither of the others is a
    /// [`TokenizerKind::File`].
    pub fn kind(&self) -> TokenizerKind {
        match &self.inner {
            Inner::Char(_) => TokenizerKind::Char,
            Inner::Byte => TokenizerKind::Byte,
            Inner::Learned(learned) if learned.is_bpe() => TokenizerKind::Bpe(learned.vocab_size()),
            Inner::Learned(_) => TokenizerKind::File,
        }
    }

    /// What stands between two documents: the end-of-text token where there is one, otherwise a line break.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`] when the alphabet has no line break either.
    pub fn separator(&self) -> Result<Vec<u32>, DataError> {
        let end = if let Inner::Learned(learned) = &self.inner { learned.end_of_text() } else { None };
        end.map_or_else(|| self.encode("\n"), |token| Ok(vec![token]))
    }

    /// Number of different tokens; every token is below it.
    pub fn vocab_size(&self) -> usize {
        match &self.inner {
            Inner::Char(alphabet) => alphabet.len(),
            Inner::Byte => 256,
            Inner::Learned(learned) => learned.vocab_size(),
        }
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`] names the first character outside the alphabet and its
    /// offset; [`DataError::Encoding`] if a tokenizer from a file gives up.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.inner {
            Inner::Byte => Ok(text.bytes().map(u32::from).collect()),
            Inner::Char(alphabet) => encode_chars(alphabet, text),
            Inner::Learned(learned) => learned.encode(text),
        }
    }

    /// The tokens of `text`, with what is not known counted instead of refused.
    pub(crate) fn encode_counting(&self, text: &str, losses: &mut Losses) -> Result<Vec<u32>, DataError> {
        match &self.inner {
            Inner::Byte => self.encode(text),
            Inner::Char(alphabet) => {
                let knows = |character: char| alphabet.binary_search(&character).is_ok();
                losses.count(text, |character| if knows(character) { Fate::Kept } else { Fate::Unknown });
                encode_chars(alphabet, &text.chars().filter(|character| knows(*character)).collect::<String>())
            }
            Inner::Learned(learned) => {
                losses.count(text, |character| learned.fate(character));
                let tokens = learned.encode(text)?;
                losses.count_tokens(tokens.len(), learned.unknown_in(&tokens));
                Ok(tokens)
            }
        }
    }

    /// Checks that a short text, such as a prompt, holds nothing that the tokenizer drops or makes the unknown token of.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`], [`DataError::UnknownText`].
    pub fn check_known(&self, text: &str) -> Result<(), DataError> {
        if let Inner::Char(_) = &self.inner {
            return self.encode(text).map(drop);
        }
        let mut losses = Losses::default();
        self.encode_counting(text, &mut losses)?;
        losses.unknown().map_or(Ok(()), |problem| Err(DataError::UnknownText { problem }))
    }

    /// The text that `tokens` add after `before`. Some tokens read otherwise at the front of a text, so both are decoded
    /// together; bytes at the end that only begin a character are left out.
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
        let added = whole.strip_prefix(first).unwrap_or_else(|| {
            // What follows can change the end of what stands before, a space before a full stop for example.
            let same = first.chars().zip(whole.chars()).take_while(|(a, b)| a == b);
            whole.get(same.map(|(a, _)| a.len_utf8()).sum()..).unwrap_or_default()
        });
        Ok(added.into())
    }

    /// The text of `tokens` without those of up to three at the end, the last `new` ones at most, that only begin a character: some
    /// decoders would spoil whole characters before them.
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
    /// may write them) become the replacement character U+FFFD.
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
                .map(|(position, token)| {
                    let character = usize::try_from(token).ok().and_then(|index| alphabet.get(index));
                    character.copied().ok_or_else(|| unknown(position, token))
                })
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
        }
    }
}

/// Adds the characters of a text, with a look at the tree only once for each code point below 128.
pub(crate) fn add_characters(alphabet: &mut BTreeSet<char>, text: &str) {
    let mut seen = [false; 128];
    for character in text.chars() {
        match seen.get_mut(character as usize) {
            Some(true) => continue,
            Some(seen) => *seen = true,
            None => {}
        }
        alphabet.insert(character);
    }
}

fn encode_chars(alphabet: &[char], text: &str) -> Result<Vec<u32>, DataError> {
    let table = ascii_table(alphabet);
    let mut tokens = Vec::with_capacity(text.len());
    for (offset, character) in text.chars().enumerate() {
        let token = match table.get(character as usize) {
            Some(entry) => *entry,
            None => alphabet.binary_search(&character).ok().map(token_number),
        };
        tokens.push(token.ok_or(DataError::UnknownCharacter { character, offset, known: alphabet.len() })?);
    }
    Ok(tokens)
}

fn ascii_table(alphabet: &[char]) -> AsciiTable {
    let mut table = [None; 128];
    for (token, character) in alphabet.iter().enumerate() {
        if let Some(entry) = table.get_mut(*character as usize) {
            *entry = Some(token_number(token));
        }
    }
    table
}

/// There are fewer than 2^21 characters in all, so a position in an alphabet always fits.
fn token_number(position: usize) -> u32 {
    position as u32
}

impl TryFrom<Value> for Tokenizer {
    type Error = DataError;

    fn try_from(value: Value) -> Result<Self, DataError> {
        if value.get("model").is_some() {
            return Ok(Self { inner: Inner::Learned(Learned::from_json(&value.to_string())?) });
        }
        let stored: Stored =
            serde_json::from_value(value).map_err(|error| DataError::BadTokenizer { problem: error.to_string() })?;
        let Stored::Char { alphabet } = stored else {
            return Ok(Self::byte());
        };
        let alphabet: Vec<char> = alphabet.chars().collect();
        if alphabet.is_empty() {
            return Err(DataError::BadAlphabet { problem: "it is empty".into() });
        }
        let disorder = alphabet.iter().zip(alphabet.iter().skip(1)).find(|(left, right)| left >= right);
        if let Some((left, right)) = disorder {
            let problem = format!("{left:?} is followed by {right:?}");
            return Err(DataError::BadAlphabet { problem });
        }
        Ok(Self { inner: Inner::Char(alphabet) })
    }
}

impl From<Tokenizer> for Value {
    fn from(tokenizer: Tokenizer) -> Self {
        match tokenizer.inner {
            Inner::Char(alphabet) => json!({ "kind": "char", "alphabet": String::from_iter(alphabet) }),
            Inner::Byte => json!({ "kind": "byte" }),
            Inner::Learned(learned) => learned.json().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_numbered_by_code_point() {
        let tokenizer = Tokenizer::char_from("b\u{e9}a\n\u{1F600}a");
        assert_eq!(tokenizer.vocab_size(), 5);
        assert_eq!(tokenizer.encode("\nab\u{e9}\u{1F600}").unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn decoding_undoes_encoding() {
        let text = "To be, or not to be: \u{e9}\u{1F600}\n";
        for tokenizer in [Tokenizer::char_from(text), Tokenizer::byte()] {
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens.iter().all(|token| (*token as usize) < tokenizer.vocab_size()));
            assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
        }
    }

    #[test]
    fn an_unknown_character_is_named_with_its_offset() {
        let error = Tokenizer::char_from("abc").encode("ab\u{e9}").unwrap_err();
        assert!(matches!(error, DataError::UnknownCharacter { character: '\u{e9}', offset: 2, known: 3 }));
        assert!(error.to_string().contains("'\u{e9}' at character offset 2"), "{error}");
        let error = Tokenizer::char_from("\u{e9}").encode("x").unwrap_err();
        assert!(matches!(error, DataError::UnknownCharacter { character: 'x', offset: 0, known: 1 }));
    }

    #[test]
    fn an_unknown_token_is_named_with_its_position() {
        let error = Tokenizer::char_from("abc").decode(&[0, 1, 3]).unwrap_err();
        assert!(matches!(error, DataError::UnknownToken { token: 3, position: 2, vocab_size: 3 }), "{error}");
        let error = Tokenizer::byte().decode(&[256]).unwrap_err();
        assert!(matches!(error, DataError::UnknownToken { token: 256, position: 0, vocab_size: 256 }), "{error}");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(Tokenizer::byte().decode(&[0x41, 0xff, 0x42]).unwrap(), "A\u{fffd}B");
    }

    #[test]
    fn a_stored_tokenizer_comes_back_equal() {
        for tokenizer in [Tokenizer::char_from("hello \u{e9}\n\""), Tokenizer::byte()] {
            let json = serde_json::to_string(&tokenizer).unwrap();
            assert_eq!(serde_json::from_str::<Tokenizer>(&json).unwrap(), tokenizer, "{json}");
        }
        let json = serde_json::to_string(&Tokenizer::char_from("ba")).unwrap();
        assert_eq!(json, r#"{"kind":"char","alphabet":"ab"}"#);
    }

    #[test]
    fn a_stored_alphabet_that_is_unsorted_or_empty_is_refused() {
        for (alphabet, problem) in
            [("ba", "'b' is followed by 'a'"), ("aa", "'a' is followed by 'a'"), ("", "it is empty")]
        {
            let json = format!(r#"{{"kind":"char","alphabet":"{alphabet}"}}"#);
            let error = serde_json::from_str::<Tokenizer>(&json).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
