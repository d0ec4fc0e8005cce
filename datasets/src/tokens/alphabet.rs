//! The characters of texts, each of them a token.

use std::collections::BTreeSet;

use crate::errors::DataError;

/// The characters of documents while they are collected.
#[derive(Default)]
pub(crate) struct Characters {
    found: BTreeSet<char>,
    documents: u64,
}

impl Characters {
    /// Adds the characters of a text; each code point below 128 is looked up in the tree only once.
    pub fn add(&mut self, text: &str) {
        let mut seen = [false; 128];
        for character in text.chars() {
            match seen.get_mut(character as usize) {
                Some(true) => continue,
                Some(seen) => *seen = true,
                None => {}
            }
            self.found.insert(character);
        }
    }

    /// Ends a document. A line break will separate it from the next.
    pub fn end_document(&mut self) {
        self.documents += 1;
    }
}

/// Characters in strictly ascending order of their code points; the position of a character is its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alphabet(Vec<char>);

impl From<Characters> for Alphabet {
    fn from(mut characters: Characters) -> Self {
        if characters.documents > 1 {
            characters.found.insert('\n');
        }
        Self(characters.found.into_iter().collect())
    }
}

impl Alphabet {
    /// An alphabet as it is stored.
    ///
    /// # Errors
    ///
    /// [`DataError::BadAlphabet`].
    pub fn stored(text: &str) -> Result<Self, DataError> {
        let alphabet: Vec<char> = text.chars().collect();
        if alphabet.is_empty() {
            return Err(DataError::BadAlphabet { problem: "it is empty".into() });
        }
        let disorder = alphabet.iter().zip(alphabet.iter().skip(1)).find(|(left, right)| left >= right);
        match disorder {
            None => Ok(Self(alphabet)),
            Some((left, right)) => {
                Err(DataError::BadAlphabet { problem: format!("{left:?} is followed by {right:?}") })
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn has(&self, character: char) -> bool {
        self.0.binary_search(&character).is_ok()
    }

    /// The character of a token.
    pub fn character(&self, token: u32) -> Option<char> {
        self.0.get(usize::try_from(token).ok()?).copied()
    }

    /// Bytes of every character.
    pub fn byte_lengths(&self) -> Vec<u32> {
        self.0.iter().map(|character| character.len_utf8() as u32).collect()
    }

    /// The characters in order.
    pub fn to_text(&self) -> String {
        self.0.iter().collect()
    }

    /// The tokens of a text.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownCharacter`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let table = self.ascii_table();
        let mut tokens = Vec::with_capacity(text.len());
        for (offset, character) in text.chars().enumerate() {
            let token = match table.get(character as usize) {
                Some(entry) => *entry,
                None => self.0.binary_search(&character).ok().map(token_number),
            };
            tokens.push(token.ok_or(DataError::UnknownCharacter { character, offset, known: self.len() })?);
        }
        Ok(tokens)
    }

    /// The tokens of the code points below 128, which are looked up without a search.
    fn ascii_table(&self) -> [Option<u32>; 128] {
        let mut table = [None; 128];
        for (token, character) in self.0.iter().enumerate() {
            if let Some(entry) = table.get_mut(*character as usize) {
                *entry = Some(token_number(token));
            }
        }
        table
    }
}

/// There are fewer than 2^21 characters in all, so a position in an alphabet always fits.
fn token_number(position: usize) -> u32 {
    position as u32
}
