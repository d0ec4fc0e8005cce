//! Byte-pair encoding, and every other tokenizer that a `tokenizer.json` of the `tokenizers` library describes.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, ModelWrapper, NormalizedString, Normalizer, Trainer};

use super::byte_lengths::Spelling;
use super::byte_pairs::{BytePairs, alphabet};
use super::losses::Fate;
use super::pieces::{owned_parts, pieces};
use super::words::words;
use crate::errors::{DataError, Problem};

/// The token between two documents; token 0 of a vocabulary that this crate learns.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Its names in other tokenizers.
const ENDS: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]"];
/// Stands for a space in the tokens of SentencePiece.
const METASPACE: char = '\u{2581}';
/// A pair must occur this often to become a token.
const MIN_PAIRS: u64 = 2;

/// Larger than any vocabulary in use. The library loops over all numbers up to the largest, used or not.
pub(super) const MOST_TOKENS: u64 = 1 << 20;

/// The numbers of the tokens of a `tokenizer.json`.
fn numbers(json: &Value) -> impl Iterator<Item = u64> {
    let vocabulary = json.pointer("/model/vocab").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
    let added = json.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    vocabulary.chain(added.filter_map(|token| token.get("id"))).filter_map(Value::as_u64)
}

/// Two tokens of a vocabulary with the same number; the library would silently keep only one of them.
fn two_of_one_number(json: &Value) -> Option<[&str; 2]> {
    let mut first = std::collections::HashMap::new();
    let vocabulary = json.pointer("/model/vocab").and_then(Value::as_object)?;
    let numbered = vocabulary.iter().filter_map(|(token, number)| Some((token.as_str(), number.as_u64()?)));
    numbered.into_iter().find_map(|(token, number)| first.insert(number, token).map(|before| [before, token]))
}

/// Bytes of a token; far more than any in use. The library recurses over the characters of a Unigram token.
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
    /// The same, if it is of the kind that is encoded here.
    byte_pairs: Option<Arc<BytePairs>>,
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
    /// Learns a byte-level BPE of at most `vocab_size` tokens: the end of text, the 256 bytes, then merges of pairs that occur at
    /// least twice, the most frequent first, ties by token number. Words are split as in GPT-2.
    pub fn train<S: AsRef<str> + Send>(
        vocab_size: usize,
        texts: impl Iterator<Item = S> + Send,
    ) -> Result<Self, DataError> {
        let failed = |problem: Problem| DataError::Learning { problem };
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(MIN_PAIRS)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
            .build();
        let letters = alphabet();
        let letter = |byte: u8| letters.get(usize::from(byte)).copied();
        let lettered = |word: &str| word.bytes().filter_map(letter).collect::<String>();
        trainer.feed(texts.flat_map(owned_parts), |text| Ok(words(text).map(lettered).collect())).map_err(failed)?;
        let mut model = BPE::default();
        let special = trainer.train(&mut model).map_err(failed)?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.add_special_tokens(special).map_err(failed)?;
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        let json = tokenizer.to_string(false).map_err(failed)?;
        Self::from_json(&json)
    }

    /// The tokenizer of a `tokenizer.json`. Its truncation and padding are turned off: they are for batches of sentences and would
    /// cut texts.
    pub fn from_json(json: &str) -> Result<Self, DataError> {
        let bad = |problem: Problem| DataError::BadTokenizer { problem };
        let parse = |json: &str| serde_json::from_str(json).map_err(|error| bad(error.into()));
        let given: Value = parse(json)?;
        if let Some(token) = numbers(&given).find(|token| *token >= MOST_TOKENS) {
            return Err(bad(format!("it has a token {token}; the largest must be below {MOST_TOKENS}").into()));
        }
        if let Some([one, other]) = two_of_one_number(&given) {
            return Err(bad(format!("its tokens {one:?} and {other:?} have the same number").into()));
        }
        let longest = longest_unigram(&given);
        if longest > LONGEST_TOKEN {
            return Err(bad(format!("it has a token of {longest} bytes; the longest may have {LONGEST_TOKEN}").into()));
        }
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(bad)?;
        tokenizer.with_truncation(None).map_err(bad)?;
        tokenizer.with_padding(None);
        let json: Value = parse(&tokenizer.to_string(false).map_err(bad)?)?;
        let highest = tokenizer.get_vocab(true).into_values().max();
        let vocab_size = highest.map(|token| token as usize + 1).ok_or_else(|| bad("it has no tokens".into()))?;
        let byte_pairs = BytePairs::of(&json).map(Arc::new);
        Ok(Self { tokenizer: Arc::new(tokenizer), byte_pairs, json: Arc::new(json), vocab_size })
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

    /// The token between documents, if the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        ENDS.iter().find_map(|name| self.tokenizer.token_to_id(name))
    }

    /// The number of a token, as it is written.
    pub fn token(&self, written: &str) -> Option<u32> {
        self.tokenizer.token_to_id(written)
    }

    /// The tokens of a text. Special tokens that are written out in it are encoded as themselves, as in other programs; none is
    /// added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let pieces: Vec<&str> = pieces(text).collect();
        let tokens: Result<Vec<_>, _> = pieces.par_iter().map(|piece| self.encode_piece(piece)).collect();
        Ok(tokens?.concat())
    }

    fn encode_piece(&self, piece: &str) -> Result<Vec<u32>, DataError> {
        if let Some(tokens) = self.byte_pairs.as_ref().and_then(|byte_pairs| byte_pairs.encode(piece)) {
            return Ok(tokens);
        }
        let encoding = self.tokenizer.encode_fast(piece, false).map_err(|problem| DataError::Encoding { problem })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Whether it encodes every text, and decoding restores it.
    pub fn keeps_all(&self) -> bool {
        self.byte_pairs.is_some()
    }

    /// What happens to a character. White space counts as kept: many tokenizers fold it, which decoding shows.
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
        // A vocabulary of words can only be asked for whole words.
        if matches!(self.tokenizer.get_model(), ModelWrapper::WordLevel(_) | ModelWrapper::WordPiece(_)) {
            return Fate::Kept;
        }
        let tokens = self.encode(&text).unwrap_or_default();
        let known = self.unknown_in(&tokens) == 0 && self.decode(&tokens).is_ok_and(|back| back.contains(character));
        if known { Fate::Kept } else { Fate::Unknown }
    }

    /// Bytes of the text of every token; None where it cannot be told for each token alone.
    pub fn byte_lengths(&self) -> Option<Vec<u32>> {
        let spelling = Spelling::of(&self.json)?;
        let spelt = |token| self.tokenizer.id_to_token(token).map_or(0, |text| spelling.length(&text) as u32);
        let mut lengths: Vec<u32> = (0..self.vocab_size as u32).map(spelt).collect();
        let added = self.tokenizer.get_added_tokens_decoder();
        let written = added.iter().map(|(id, token)| (*id, if token.special { 0 } else { token.content.len() as u32 }));
        let silent = [self.end_of_text(), self.unknown()].into_iter().flatten().map(|id| (id, 0));
        for (id, length) in written.chain(silent) {
            lengths.get_mut(id as usize).into_iter().for_each(|slot| *slot = length);
        }
        Some(lengths)
    }

    /// How many of the tokens are the unknown token.
    pub fn unknown_in(&self, tokens: &[u32]) -> usize {
        self.unknown().map_or(0, |unknown| tokens.iter().filter(|token| **token == unknown).count())
    }

    /// Names of the tokens that end a text and that stand for what is unknown.
    pub fn special_names(&self) -> [Option<String>; 2] {
        [self.end_of_text(), self.unknown()].map(|token| self.tokenizer.id_to_token(token?))
    }

    fn unknown(&self) -> Option<u32> {
        let model = self.json.get("model");
        let field = |name: &str| model.and_then(|model| model.get(name));
        let by_name = field("unk_token").and_then(Value::as_str).and_then(|name| self.tokenizer.token_to_id(name));
        by_name.or_else(|| field("unk_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()))
    }

    /// The caller has checked that every token is in the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.tokenizer.decode(tokens, false).map_err(|problem| DataError::Encoding { problem })
    }
}
