//! Byte-level byte pairs as GPT-2 has them, encoded without the library: the same tokens, many times faster.
//!
//! The library keeps for every word its offsets and every change to its characters, which only a training set of marked words
//! needs. Here a word is looked up, and merged if it is new.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::words::words;

/// Words that one thread remembers, and the longest of them in bytes: 20 MB at most.
const REMEMBERED: usize = 1 << 17;
const LONGEST_REMEMBERED: usize = 48;

/// Two neighbouring tokens.
type Pair = (u32, u32);

/// A byte-level BPE.
pub(super) struct BytePairs {
    /// The tokens of the 256 bytes.
    bytes: Vec<u32>,
    /// Of a pair: its rank, the smallest is merged first, and the token that it becomes.
    merges: HashMap<Pair, (u32, u32)>,
    /// Whole words that are a token, if they are looked up before anything is merged.
    whole: Option<HashMap<Vec<u8>, u32>>,
    /// Tokens outside of the merges, such as the end of text, the longest first. Without a number: those whose place in a text
    /// depends on what is around them.
    added: Vec<(Vec<u8>, Option<u32>)>,
    /// The bytes with which they begin.
    begins: [bool; 256],
    /// What the threads remember while they do not work.
    memories: Mutex<Vec<Memory>>,
}

/// Words that were encoded before: where their tokens lie.
#[derive(Default)]
struct Memory {
    places: HashMap<Box<[u8]>, (u32, u32)>,
    tokens: Vec<u32>,
}

impl BytePairs {
    /// Of a `tokenizer.json`, as the library writes it; None for what encodes in any other way.
    pub fn of(json: &Value) -> Option<Self> {
        let model = json.get("model")?;
        let unset = |key: &str| model.get(key).is_none_or(|value| matches!(value, Value::Null) || value == "");
        let off = |key: &str| model.get(key).is_none_or(|value| value.is_null() || value == false);
        let splitter = json.get("pre_tokenizer")?;
        let plain = model.get("type")? == "BPE"
            && ["dropout", "continuing_subword_prefix", "end_of_word_suffix"].into_iter().all(unset)
            && off("byte_fallback")
            && json.get("normalizer").is_none_or(Value::is_null)
            && splitter.get("type")? == "ByteLevel"
            && splitter.get("add_prefix_space")? == false
            && splitter.get("use_regex").is_none_or(|value| value == true);
        if !plain {
            return None;
        }
        let vocabulary = model.get("vocab")?.as_object()?;
        let token = |text: &str| vocabulary.get(text).and_then(number);
        let alphabet = alphabet();
        let bytes: Option<Vec<u32>> = alphabet.iter().map(|letter| token(letter.encode_utf8(&mut [0; 4]))).collect();
        let mut merges = HashMap::new();
        for (rank, merge) in (0..).zip(model.get("merges")?.as_array()?) {
            let (left, right) = (merge.get(0)?.as_str()?, merge.get(1)?.as_str()?);
            merges.insert((token(left)?, token(right)?), (rank, token(&format!("{left}{right}"))?));
        }
        let whole = if off("ignore_merges") {
            None
        } else {
            let back: HashMap<char, u8> = alphabet.into_iter().zip(0..=u8::MAX).collect();
            let bytes_of = |text: &str| text.chars().map(|letter| back.get(&letter).copied()).collect::<Option<_>>();
            Some(vocabulary.iter().filter_map(|(text, value)| Some((bytes_of(text)?, number(value)?))).collect())
        };
        let mut added = json.get("added_tokens")?.as_array()?.iter().map(added_token).collect::<Option<Vec<_>>>()?;
        added.sort_by_key(|(content, _)| Reverse(content.len()));
        let mut begins = [false; 256];
        added.iter().filter_map(|(content, _)| content.first()).for_each(|byte| begins[usize::from(*byte)] = true);
        Some(Self { bytes: bytes?, merges, whole, added, begins, memories: Mutex::default() })
    }

    /// The tokens of a text; None if only the library knows what to do with a token that is written out in it.
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let memories = || self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = memories().pop();
        let mut memory = taken.unwrap_or_default();
        let (mut tokens, mut rest) = (Vec::with_capacity(text.len() / 3), text);
        while let Some((at, length, token)) = self.first_added(rest.as_bytes()) {
            let (before, after) = (rest.get(..at)?, rest.get(at + length..)?);
            words(before).for_each(|word| self.encode_word(word.as_bytes(), &mut memory, &mut tokens));
            tokens.push(token?);
            rest = after;
        }
        words(rest).for_each(|word| self.encode_word(word.as_bytes(), &mut memory, &mut tokens));
        memories().push(memory);
        Some(tokens)
    }

    /// The first token outside of the merges that is written out: where, its length, its number.
    fn first_added(&self, text: &[u8]) -> Option<(usize, usize, Option<u32>)> {
        let places = text.iter().enumerate().filter(|(_, byte)| self.begins[usize::from(**byte)]);
        places.filter_map(|(at, _)| Some((at, text.get(at..)?))).find_map(|(at, rest)| {
            let (content, token) = self.added.iter().find(|(content, _)| rest.starts_with(content))?;
            Some((at, content.len(), *token))
        })
    }

    fn encode_word(&self, word: &[u8], memory: &mut Memory, into: &mut Vec<u32>) {
        if let Some((begin, end)) = memory.places.get(word) {
            into.extend_from_slice(memory.tokens.get(*begin as usize..*end as usize).unwrap_or_default());
            return;
        }
        let before = into.len();
        match self.whole.as_ref().and_then(|whole| whole.get(word)) {
            Some(token) => into.push(*token),
            None => self.merge(word, into),
        }
        if word.len() <= LONGEST_REMEMBERED && memory.places.len() < REMEMBERED {
            let begin = memory.tokens.len() as u32;
            memory.tokens.extend_from_slice(into.get(before..).unwrap_or_default());
            memory.places.insert(word.into(), (begin, memory.tokens.len() as u32));
        }
    }

    /// Appends the tokens of a word: of all pairs, always that of the smallest rank is merged, the first of several.
    fn merge(&self, word: &[u8], into: &mut Vec<u32>) {
        let mut parts: Vec<Part> = word.iter().enumerate().map(|(at, byte)| self.part(at, *byte, word.len())).collect();
        let candidate = |parts: &[Part], at: usize| {
            let left = parts.get(at)?;
            let (rank, token) = self.merges.get(&(left.token, parts.get(left.next)?.token))?;
            Some(Reverse((*rank, at, *token)))
        };
        let mut queue: BinaryHeap<_> = (0..parts.len()).filter_map(|at| candidate(&parts, at)).collect();
        while let Some(Reverse((rank, at, token))) = queue.pop() {
            // What has been merged since has left the queue in another form.
            if parts.get(at).is_none_or(|part| part.gone) || candidate(&parts, at) != Some(Reverse((rank, at, token))) {
                continue;
            }
            let next = parts[at].next;
            let after = parts[next].next;
            parts[next].gone = true;
            parts[at] = Part { token, next: after, ..parts[at] };
            if let Some(part) = parts.get_mut(after) {
                part.before = at;
            }
            queue.extend(candidate(&parts, at));
            queue.extend(candidate(&parts, parts[at].before));
        }
        into.extend(parts.iter().filter(|part| !part.gone).map(|part| part.token));
    }

    fn part(&self, at: usize, byte: u8, length: usize) -> Part {
        let token = self.bytes.get(usize::from(byte)).copied().unwrap_or_default();
        Part { token, before: at.checked_sub(1).unwrap_or(length), next: at + 1, gone: false }
    }
}

/// A token of a word that is being merged; a neighbour beyond an end has the number of bytes of the word.
#[derive(Clone, Copy)]
struct Part {
    token: u32,
    before: usize,
    next: usize,
    gone: bool,
}

/// A token outside of the merges, and its number if it is found wherever it is written.
fn added_token(entry: &Value) -> Option<(Vec<u8>, Option<u32>)> {
    let content = entry.get("content")?.as_str()?.as_bytes().to_vec();
    let anywhere = ["lstrip", "rstrip", "single_word", "normalized"]
        .into_iter()
        .all(|flag| entry.get(flag) == Some(&Value::Bool(false)));
    let token = entry.get("id").and_then(number).filter(|_| anywhere);
    (!content.is_empty()).then_some((content, token))
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// The letters that stand for the 256 bytes in the tokens of a byte-level vocabulary.
pub(super) fn alphabet() -> Vec<char> {
    let printed = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (256_u32..).filter_map(char::from_u32);
    (0..=u8::MAX).filter_map(|byte| if printed(byte) { Some(byte.into()) } else { others.next() }).collect()
}

#[cfg(test)]
mod tests {
    use polaron_common::splitmix64;

    use super::*;

    /// The `tokenizer.json` that another program learnt, changed.
    fn changed(change: impl Fn(&mut Value)) -> (Option<BytePairs>, tokenizers::Tokenizer) {
        let mut json = serde_json::from_str(include_str!("../../tests/bpe/tokenizer.json")).unwrap();
        change(&mut json);
        let library = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
        (BytePairs::of(&serde_json::from_str(&library.to_string(false).unwrap()).unwrap()), library)
    }

    fn text(seed: u64) -> String {
        let parts = [
            "king",
            " queen",
            "the the",
            "'s",
            " '",
            "\n\n  ",
            "<|endoftext|>",
            "<|endoftext",
            " 1234",
            "\u{e9}t\u{e9}",
            "\u{1F600}",
            " \u{4f60}\u{597d}",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "<x>",
            "<x>y",
            "!?.",
            "\t",
        ];
        (0..splitmix64(seed) % 40).map(|at| parts[(splitmix64(seed << 8 | at) % parts.len() as u64) as usize]).collect()
    }

    #[test]
    fn tokens_are_those_of_the_library() {
        let added = |content: &str, normalized: bool| {
            serde_json::json!({"id": 0, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": normalized, "special": true})
        };
        let more = |json: &mut Value, entries: &[Value]| {
            let size = json["model"]["vocab"].as_object().unwrap().len();
            let numbered = entries.iter().zip(size..).map(|(entry, id)| {
                let mut entry = entry.clone();
                entry["id"] = id.into();
                entry
            });
            json["added_tokens"].as_array_mut().unwrap().extend(numbered);
        };
        let changes: [&dyn Fn(&mut Value); 4] = [
            &|_| {},
            &|json| json["model"]["ignore_merges"] = true.into(),
            &|json| more(json, &[added("<x>", false), added("<x>y", false)]),
            &|json| more(json, &[added("<x>", true)]),
        ];
        for change in changes {
            let (ours, library) = changed(change);
            let ours = ours.unwrap();
            let mut alone = 0;
            for seed in 0..400 {
                let text = text(seed);
                if let Some(tokens) = ours.encode(&text) {
                    assert_eq!(tokens, library.encode_fast(text.as_str(), false).unwrap().get_ids(), "{text:?}");
                    alone += 1;
                }
            }
            assert!(alone > 50, "{alone}");
        }
        assert!(changed(|_| {}).0.unwrap().encode("a<|endoftext|>").is_some());
    }

    #[test]
    fn what_encodes_in_another_way_is_left_to_the_library() {
        let changes: [&dyn Fn(&mut Value); 5] = [
            &|json| json["normalizer"] = serde_json::json!({"type": "Lowercase"}),
            &|json| json["pre_tokenizer"]["add_prefix_space"] = true.into(),
            &|json| json["pre_tokenizer"]["use_regex"] = false.into(),
            &|json| json["pre_tokenizer"] = Value::Null,
            &|json| json["model"]["dropout"] = 0.5.into(),
        ];
        assert!(changes.into_iter().all(|change| changed(change).0.is_none()));
    }
}
