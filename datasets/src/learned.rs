//! Byte-pair encoding, and whatever else a `tokenizer.json` of the `tokenizers` library describes.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, ModelWrapper, NormalizedString, Normalizer};

use crate::DataError;
use crate::losses::Fate;

/// Stands between two documents; token 0 of a vocabulary that was learnt here.
const END_OF_TEXT: &str = "<|endoftext|>";
/// What other tokenizers call it.
const ENDS: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]"];
/// Stands for a space in the tokens of SentencePiece.
const METASPACE: char = '\u{2581}';
/// A pair must occur this often to become a token.
const MIN_PAIRS: u64 = 2;
/// From this length on a text is encoded in pieces, each cut off at the first place that suits.
const PIECE: usize = 1 << 16;
/// Longer words are learnt from in parts of so many characters.
const LONGEST_WORD: usize = 256;
/// A piece without such a place is cut here.
const LONGEST_PIECE: usize = 1 << 20;

/// Bytes that a BPE learns from, at the front of the text, to the end of the piece in which they are reached.
pub(crate) const LESSONS: usize = 64 << 20;

/// More than any vocabulary in use. The library works through all numbers up to the largest, whether they are used or not.
const MOST_TOKENS: u64 = 1 << 20;

/// The numbers of the tokens of a `tokenizer.json`.
fn numbers(json: &Value) -> impl Iterator<Item = u64> {
    let vocabulary = json.pointer("/model/vocab").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
    let added = json.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    vocabulary.chain(added.filter_map(|token| token.get("id"))).filter_map(Value::as_u64)
}

/// Two tokens of a vocabulary that have one number, of which the library would keep one without a word.
fn two_of_one_number(json: &Value) -> Option<[&str; 2]> {
    let mut first = std::collections::HashMap::new();
    let vocabulary = json.pointer("/model/vocab").and_then(Value::as_object)?;
    let numbered = vocabulary.iter().filter_map(|(token, number)| Some((token.as_str(), number.as_u64()?)));
    numbered.into_iter().find_map(|(token, number)| first.insert(number, token).map(|before| [before, token]))
}

/// Bytes of a token; far more than any in use. The library walks through the letters of a Unigram token by recursion.
const LONGEST_TOKEN: usize = 4096;

/// The length of the longest token of a Unigram vocabulary.
fn longest_unigram(json: &Value) -> usize {
    let vocabulary = json.pointer("/model/vocab").and_then(Value::as_array).into_iter().flatten();
    vocabulary.filter_map(|entry| entry.get(0)?.as_str()).map(str::len).max().unwrap_or(0)
}

/// A tokenizer of the `tokenizers` library.
#[derive(Clone)]
pub(crate) struct Learned {
    tokenizer: Arc<tokenizers::Tokenizer>,
    /// The content of its `tokenizer.json`.
    json: Arc<Value>,
    vocab_size: usize,
}

impl fmt::Debug for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learned").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

impl PartialEq for Learned {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for Learned {}

impl Learned {
    /// Learns a byte-level BPE of at most `vocab_size` tokens: the end of text, the 256 bytes, then merges in order of
    /// how often their pair occurs, at least twice, ties by token number. Words are split as GPT-2 splits them.
    pub fn train<S: AsRef<str> + Send>(
        vocab_size: usize,
        texts: impl Iterator<Item = S> + Send,
    ) -> Result<Self, DataError> {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| DataError::Learning { problem: error.to_string() };
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(MIN_PAIRS)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
            .build();
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        tokenizer.train(&mut TrainerWrapper::from(trainer), texts.flat_map(owned_parts)).map_err(failed)?;
        let json = tokenizer.to_string(false).map_err(failed)?;
        Self::from_json(&json)
    }

    /// The tokenizer of a `tokenizer.json`. Its truncation and padding are switched off: they are for batches of
    /// sentences, and would cut texts.
    pub fn from_json(json: &str) -> Result<Self, DataError> {
        let bad = |problem: String| DataError::BadTokenizer { problem };
        let given: Value = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        if let Some(token) = numbers(&given).find(|token| *token >= MOST_TOKENS) {
            return Err(bad(format!("it has a token {token}; the largest must be below {MOST_TOKENS}")));
        }
        if let Some([one, other]) = two_of_one_number(&given) {
            return Err(bad(format!("its tokens {one:?} and {other:?} have one number")));
        }
        let longest = longest_unigram(&given);
        if longest > LONGEST_TOKEN {
            return Err(bad(format!("it has a token of {longest} bytes; the longest may have {LONGEST_TOKEN}")));
        }
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|error| bad(error.to_string()))?;
        tokenizer.with_truncation(None).map_err(|error| bad(error.to_string()))?;
        tokenizer.with_padding(None);
        let json = tokenizer.to_string(false).map_err(|error| bad(error.to_string()))?;
        let json: Value = serde_json::from_str(&json).map_err(|error| bad(error.to_string()))?;
        let highest = tokenizer.get_vocab(true).into_values().max();
        let vocab_size = highest.map(|token| token as usize + 1).ok_or_else(|| bad("it has no token".into()))?;
        Ok(Self { tokenizer: Arc::new(tokenizer), json: Arc::new(json), vocab_size })
    }

    pub fn json(&self) -> &Value {
        &self.json
    }

    /// One more than the largest token number.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub fn is_bpe(&self) -> bool {
        matches!(self.tokenizer.get_model(), ModelWrapper::BPE(_))
    }

    /// The token that stands between documents, if the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        ENDS.iter().find_map(|name| self.tokenizer.token_to_id(name))
    }

    /// Special tokens written out in the text count as themselves, as elsewhere; none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encodings = self
            .tokenizer
            .encode_batch_fast(pieces(text).collect(), false)
            .map_err(|error| DataError::Encoding { problem: error.to_string() })?;
        Ok(encodings.iter().flat_map(|encoding| encoding.get_ids()).copied().collect())
    }

    /// What becomes of a character. White space counts as kept: many tokenizers fold it, and decoding shows that.
    pub fn fate(&self, character: char) -> Fate {
        if character.is_whitespace() {
            return Fate::Kept;
        }
        let text = character.to_string();
        let mut normal = NormalizedString::from(text.as_str());
        let normalised = self.tokenizer.get_normalizer().is_none_or(|rule| rule.normalize(&mut normal).is_ok());
        if !normalised || normal.get().trim_matches(|c: char| c == METASPACE || c.is_whitespace()) != text {
            return Fate::Changed;
        }
        // Of a vocabulary of words, only whole words can be asked.
        if matches!(self.tokenizer.get_model(), ModelWrapper::WordLevel(_) | ModelWrapper::WordPiece(_)) {
            return Fate::Kept;
        }
        let tokens = self.encode(&text).unwrap_or_default();
        let known = self.unknown_in(&tokens) == 0 && self.decode(&tokens).is_ok_and(|back| back.contains(character));
        if known { Fate::Kept } else { Fate::Unknown }
    }

    /// How many of the tokens are the unknown token.
    pub fn unknown_in(&self, tokens: &[u32]) -> usize {
        let model = self.json.get("model");
        let field = |name: &str| model.and_then(|model| model.get(name));
        let by_name = field("unk_token").and_then(Value::as_str).and_then(|name| self.tokenizer.token_to_id(name));
        let unknown = by_name.or_else(|| field("unk_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()));
        unknown.map_or(0, |unknown| tokens.iter().filter(|token| **token == unknown).count())
    }

    /// The caller has checked that every token is in the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.tokenizer.decode(tokens, false).map_err(|error| DataError::Encoding { problem: error.to_string() })
    }
}

/// What a BPE learns from texts: their pieces up to 64 MiB. Enough for any vocabulary of a small model, and a bound on
/// the time.
pub(crate) fn lessons<'a>(texts: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut length = 0;
    texts.flat_map(pieces).take_while(move |piece| {
        let begins = length;
        length += piece.len();
        begins < LESSONS
    })
}

/// A piece in parts, none of which has a word of more than [`LONGEST_WORD`] characters: the time to learn from a word grows with the
/// square of its length. Text with shorter words is one part.
fn parts(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let (part, after) = rest.split_at(end_of_part(rest));
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// The parts of what a learner is handed, as it can keep them.
fn owned_parts<S: AsRef<str>>(piece: S) -> Vec<String> {
    parts(piece.as_ref()).map(String::from).collect()
}

/// Where GPT-2's splitting has met [`LONGEST_WORD`] characters of one class in a row.
fn end_of_part(text: &str) -> usize {
    let (mut run, mut class) = (0, 0);
    for (offset, character) in text.char_indices() {
        let present = match character {
            c if c.is_alphabetic() => 0,
            c if c.is_numeric() => 1,
            c if c.is_whitespace() => 2,
            _ => 3,
        };
        run = if present == class { run + 1 } else { 1 };
        class = present;
        if run > LONGEST_WORD {
            return offset;
        }
    }
    text.len()
}

/// The pieces in which a text is encoded.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = match first_cut(rest) {
            Some(cut) => rest.split_at(cut),
            None if rest.is_empty() => return None,
            None => (rest, ""),
        };
        rest = after;
        Some(piece)
    })
}

/// Where the first piece of `text` ends; None if it may go on beyond the end.
///
/// The cut is between a letter or digit and white space: there no word of GPT-2's or Llama's splitting goes across, so
/// that the pieces give the tokens that the whole would. It depends on the text before it alone, so that a text that
/// is read block by block is cut at the same places.
fn first_cut(text: &str) -> Option<usize> {
    let mut before = ' ';
    for (offset, character) in text.char_indices() {
        if offset >= LONGEST_PIECE || (offset >= PIECE && before.is_alphanumeric() && character.is_whitespace()) {
            return Some(offset);
        }
        before = character;
    }
    None
}

/// Length of the part of `text` that can be encoded before more of it is known.
pub(crate) fn complete(text: &str) -> usize {
    let mut end = 0;
    while let Some(cut) = text.get(end..).and_then(first_cut) {
        end += cut;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_text_and_no_longer_than_they_may_be() {
        let words = "word. Another1 ".repeat(20_000);
        let solid = "x".repeat(LONGEST_PIECE + 5);
        let wide = "\u{1F600}".repeat(LONGEST_PIECE / 4 + 9);
        for text in ["", "short", &words, &solid, &wide] {
            let all: Vec<&str> = pieces(text).collect();
            assert_eq!(all.concat(), text);
            assert!(all.iter().all(|piece| piece.len() <= LONGEST_PIECE + 3));
        }
        assert!(pieces(&words).all(|piece| piece.len() < PIECE + 20));
    }

    #[test]
    fn what_is_complete_ends_at_a_cut_of_the_whole() {
        let text = "some words, more words;  and\n\n more ".repeat(9_000);
        let lengths: Vec<usize> = pieces(&text).map(str::len).collect();
        for end in [0, 1000, PIECE, PIECE + 40, 3 * PIECE + 777, text.len()] {
            let known = complete(&text[..end]);
            assert!(known <= end && end - known < 2 * PIECE);
            let parts: Vec<usize> = pieces(&text[..known]).map(str::len).collect();
            assert_eq!(parts, lengths[..parts.len()], "{end}");
        }
    }
}
