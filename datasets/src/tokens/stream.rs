//! The text of tokens that come one at a time.

use super::tokenizer::{Tokenizer, same_front};
use crate::errors::DataError;

/// Tokens that are decoded together: the text of a token may depend on its neighbours, but not on tokens far away.
const WINDOW: usize = 64;

/// The text of tokens that come one at a time, each piece as soon as it is certain. Bytes of an incomplete character wait for
/// its other bytes. All pieces together are what [`Tokenizer::decode_after`] gives for all tokens.
///
/// ```
/// use polaron_datasets::{TextStream, Tokenizer};
///
/// let tokenizer = Tokenizer::byte();
/// let mut stream = TextStream::new(&tokenizer, tokenizer.encode("caf")?);
/// assert_eq!(stream.push(0xc3)?, "");
/// assert_eq!(stream.push(0xa9)?, "\u{e9}");
/// # Ok::<(), polaron_datasets::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens in front, whose text was given, or was never asked for.
    before: Vec<u32>,
    /// Tokens after them.
    tokens: Vec<u32>,
    /// The text of those, as far as it was given.
    given: String,
}

impl<'a> TextStream<'a> {
    /// The text that follows that of `before`.
    pub fn new(tokenizer: &'a Tokenizer, before: Vec<u32>) -> Self {
        Self { tokenizer, before, tokens: Vec::new(), given: String::new() }
    }

    /// The text that is certain with this token and was not before; often empty.
    ///
    /// # Errors
    ///
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, token: u32) -> Result<String, DataError> {
        self.tokens.push(token);
        let text = self.tokenizer.decode_after(&self.before, &self.tokens)?;
        let new = text.get(same_front(&self.given, &text)..).unwrap_or_default().to_owned();
        self.given = text;
        // Only between complete characters may the tokens be separated.
        if self.tokens.len() >= WINDOW && !self.tokenizer.decode(&self.tokens)?.ends_with(char::REPLACEMENT_CHARACTER) {
            self.before = std::mem::take(&mut self.tokens);
            self.given.clear();
        }
        Ok(new)
    }
}
