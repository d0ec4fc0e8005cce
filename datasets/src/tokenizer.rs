//! Text to token numbers and back.

use serde::{Deserialize, Serialize};

use crate::DataError;

/// How a text becomes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// One token per character; the alphabet is what the text holds.
    #[default]
    Char,
    /// One token per byte of the UTF-8 form; 256 tokens, any text.
    Byte,
}

/// A tokenizer. Stored as `{"kind": "char", "alphabet": "..."}` or `{"kind": "byte"}`.
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
#[serde(try_from = "Stored", into = "Stored")]
pub struct Tokenizer {
    inner: Inner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Inner {
    /// Strictly ascending code points; a character's token is its position.
    Char(Vec<char>),
    Byte,
}

#[derive(Serialize, Deserialize)]
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
        let mut alphabet: Vec<char> = text.chars().collect::<std::collections::HashSet<_>>().into_iter().collect();
        alphabet.sort_unstable();
        Self { inner: Inner::Char(alphabet) }
    }

    /// The byte tokenizer.
    pub fn byte() -> Self {
        Self { inner: Inner::Byte }
    }

    /// The tokenizer of that kind for `text`.
    pub fn for_text(kind: TokenizerKind, text: &str) -> Self {
        match kind {
            TokenizerKind::Char => Self::char_from(text),
            TokenizerKind::Byte => Self::byte(),
        }
    }

    /// Which kind this is.
    pub fn kind(&self) -> TokenizerKind {
        match self.inner {
            Inner::Char(_) => TokenizerKind::Char,
            Inner::Byte => TokenizerKind::Byte,
        }
    }

    /// Number of different tokens; every token is below it.
    pub fn vocab_size(&self) -> usize {
        match &self.inner {
            Inner::Char(alphabet) => alphabet.len(),
            Inner::Byte => 256,
        }
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`] names the first character outside the alphabet and its
    /// offset.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.inner {
            Inner::Byte => Ok(text.bytes().map(u32::from).collect()),
            Inner::Char(alphabet) => encode_chars(alphabet, text),
        }
    }

    /// The text of `tokens`. With the byte tokenizer, byte sequences that are not UTF-8 (a model
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
        }
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

impl TryFrom<Stored> for Tokenizer {
    type Error = DataError;

    fn try_from(stored: Stored) -> Result<Self, DataError> {
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

impl From<Tokenizer> for Stored {
    fn from(tokenizer: Tokenizer) -> Self {
        match tokenizer.inner {
            Inner::Char(alphabet) => Self::Char { alphabet: alphabet.into_iter().collect() },
            Inner::Byte => Self::Byte {},
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
