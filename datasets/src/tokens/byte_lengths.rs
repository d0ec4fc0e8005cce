//! How many bytes of text each token stands for: what turns nats per token into bits per byte.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::Value;

use super::byte_pairs::alphabet;

/// How many bytes of text each token of a vocabulary stands for, as the tokens spell the text: a space that a tokenizer adds at
/// the front of a text counts, what it changes before it encodes counts as changed. Special tokens, such as the end of a text, and
/// the unknown token stand for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteLengths(Vec<u32>);

impl ByteLengths {
    pub(super) fn new(lengths: Vec<u32>) -> Self {
        Self(lengths)
    }

    /// Bytes of the text of some tokens; those outside the vocabulary have none.
    pub fn of(&self, tokens: impl IntoIterator<Item = u32>) -> u64 {
        tokens.into_iter().map(|token| u64::from(self.0.get(token as usize).copied().unwrap_or_default())).sum()
    }
}

/// How the tokens of a `tokenizer.json` spell text, where each can be read alone.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    /// Every character of a token stands for a byte.
    bytes: bool,
    /// Tokens such as `<0x0A>` stand for a byte.
    fallback: bool,
    /// What is written in place of other text, and that text.
    replaced: Vec<(String, String)>,
}

impl Spelling {
    /// The spelling of a `tokenizer.json`; None where the text of a token depends on its neighbours, or where text is lost
    /// between tokens.
    pub fn of(json: &Value) -> Option<Self> {
        let part = |name: &str| json.get(name).filter(|part| !part.is_null());
        let kept = part("normalizer").is_none_or(keeps_text) && part("pre_tokenizer").is_none_or(keeps_text);
        let mut spelling = Self::default();
        (kept && spelling.add(part("decoder")?)).then_some(spelling)
    }

    /// Adds a decoder; false for one that cannot be applied to a single token.
    fn add(&mut self, decoder: &Value) -> bool {
        let text = |pointer: &str| decoder.pointer(pointer).and_then(Value::as_str).map(String::from);
        match decoder.get("type").and_then(Value::as_str).unwrap_or_default() {
            "Sequence" => parts(decoder, "decoders").all(|part| self.add(part)),
            "ByteLevel" => {
                self.bytes = true;
                true
            }
            "ByteFallback" => {
                self.fallback = true;
                true
            }
            "Metaspace" => {
                self.replaced.extend(text("/replacement").map(|written| (written, " ".into())));
                true
            }
            "Replace" => match (text("/pattern/String"), text("/content")) {
                (Some(written), Some(meant)) if !written.is_empty() => {
                    self.replaced.push((written, meant));
                    true
                }
                _ => false,
            },
            "Fuse" => true,
            // At the front of a text it undoes what the tokenizer added there; elsewhere it would change every token.
            "Strip" => decoder.get("stop").and_then(Value::as_u64) == Some(0),
            _ => false,
        }
    }

    /// Bytes of the text that a token of the vocabulary spells.
    pub fn length(&self, token: &str) -> usize {
        if self.fallback && is_byte(token) {
            return 1;
        }
        let replace = |text: String, (written, meant): &(String, String)| text.replace(written.as_str(), meant);
        let text = self.replaced.iter().fold(token.to_owned(), replace);
        // A token with any other character is written out.
        let written_out = !self.bytes || text.chars().any(|character| !is_of_byte(character));
        if written_out { text.len() } else { text.chars().count() }
    }
}

fn parts<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Whether a normaliser or a splitter of words keeps all text, so that its length can be counted in tokens.
fn keeps_text(part: &Value) -> bool {
    let text = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "Sequence" => parts(part, "normalizers").chain(parts(part, "pretokenizers")).all(keeps_text),
        "Prepend" | "NFC" | "ByteLevel" | "Metaspace" | "Digits" | "UnicodeScripts" => true,
        // A pattern that is an expression may match what it then drops.
        "Replace" => part.pointer("/pattern/String").is_some(),
        "Split" | "Punctuation" => text("behavior") != "Removed",
        _ => false,
    }
}

/// Whether a token is written as a byte, such as `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Whether a character stands for a byte in GPT-2's alphabet of bytes.
fn is_of_byte(character: char) -> bool {
    static ALPHABET: LazyLock<HashSet<char>> = LazyLock::new(|| alphabet().into_iter().collect());
    ALPHABET.contains(&character)
}
