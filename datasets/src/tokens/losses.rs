//! Counts of what a tokenizer from a file does not know or changes, so that no text is lost silently.

use std::collections::HashMap;
use std::path::Path;

use crate::errors::{DataError, PackError};

/// The fraction of a text that may be unknown to its tokenizer; a text with more is refused: 0.1 %.
const ALLOWED: f64 = 1e-3;
/// At most this many characters are named.
const NAMED: usize = 5;

/// What a tokenizer does with a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    /// It is dropped, or becomes the unknown token.
    Unknown,
    /// The normaliser replaces it.
    Changed,
}

/// Counts for a whole text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    fates: HashMap<char, Fate>,
    characters: u64,
    unknown: u64,
    changed: u64,
    unknown_named: Vec<String>,
    changed_named: Vec<String>,
    /// All tokens, and those that stand for unknown words.
    tokens: [u64; 2],
}

impl Losses {
    /// Counts the characters of a text; `fate` is called once for each distinct one.
    pub fn count(&mut self, text: &str, fate: impl Fn(char) -> Fate) {
        for character in text.chars() {
            let fate = *self.fates.entry(character).or_insert_with(|| {
                let fate = fate(character);
                let named = match fate {
                    Fate::Kept => return fate,
                    Fate::Unknown => &mut self.unknown_named,
                    Fate::Changed => &mut self.changed_named,
                };
                if named.len() < NAMED {
                    named.push(format!("{character:?}"));
                }
                fate
            });
            self.unknown += u64::from(fate == Fate::Unknown);
            self.changed += u64::from(fate == Fate::Changed);
            self.characters += 1;
        }
    }

    /// Counts the characters of a text that keeps all of them.
    pub fn count_kept(&mut self, text: &str) {
        self.characters += text.chars().count() as u64;
    }

    /// Counts the tokens of a text, `unknown` of which stand for unknown words.
    pub fn count_tokens(&mut self, tokens: usize, unknown: usize) {
        self.tokens[0] += tokens as u64;
        self.tokens[1] += unknown as u64;
    }

    /// Whether nothing has been counted so far.
    pub fn is_empty(&self) -> bool {
        self.characters == 0
    }

    /// Whether so far everything was known and nothing changed.
    pub fn keep_all(&self) -> bool {
        self.unknown == 0 && self.changed == 0 && self.tokens[1] == 0
    }

    /// A sentence about what is unknown; None if everything is known.
    pub fn unknown(&self) -> Option<String> {
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        if self.unknown > 0 {
            return Some(format!(
                "{} of {} characters ({:.2} %) are unknown to the tokenizer, the first are {}",
                self.unknown,
                self.characters,
                share(self.unknown, self.characters),
                self.unknown_named.join(", ")
            ));
        }
        let [tokens, unknown] = self.tokens;
        (unknown > 0).then(|| {
            format!(
                "{unknown} of {tokens} tokens ({:.2} %) are the unknown token: their words are unknown to the tokenizer",
                share(unknown, tokens)
            )
        })
    }

    /// Notes about the text; refuses it if too much is unknown.
    pub fn judge(&self, tokenizer: &Path, allowed: bool) -> Result<Vec<String>, DataError> {
        let mut notes = Vec::new();
        if let Some(problem) = self.unknown() {
            let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
            let share = share(self.unknown, self.characters).max(share(self.tokens[1], self.tokens[0]));
            // A single one is only noted: in a short text it is a large fraction.
            if !allowed && share > ALLOWED && self.unknown.max(self.tokens[1]) > 1 {
                return Err(PackError::TooMuchUnknown { tokenizer: tokenizer.into(), problem }.into());
            }
            notes.push(format!("{problem}; they are lost"));
        }
        if self.changed > 0 {
            notes.push(format!(
                "the tokenizer changes {} of {} characters before it encodes them (lower case, accents or the like), the first \
                 are {}: decoding does not restore them",
                self.changed,
                self.characters,
                self.changed_named.join(", ")
            ));
        }
        Ok(notes)
    }
}

/// A sentence about decoded tokens that are not the text; None if they are, except for white space at the front, which some
/// tokenizers add.
pub(crate) fn difference(text: &str, decoded: &str) -> Option<String> {
    let (text, decoded) = (text.trim_start(), decoded.trim_start());
    if text == decoded {
        return None;
    }
    let same = text.chars().zip(decoded.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(8)).take(24).collect::<String>();
    Some(format!("decoding the tokens does not restore the text: {:?} becomes {:?}", part(text), part(decoded)))
}
