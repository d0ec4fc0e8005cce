//! Tokenizers of characters and of bytes in the `tokenizer.json` format of the `tokenizers` library, and recognised in it.

use serde_json::{Map, Value, json};

use super::alphabet::Alphabet;
use super::byte_pairs::alphabet as letters;

/// One token per character: words of a vocabulary, which are cut after every character. A character outside of the alphabet is an
/// error there too, since the vocabulary lacks the unknown token that it names.
pub(super) fn of_characters(alphabet: &Alphabet) -> Value {
    let vocabulary: Map<String, Value> =
        alphabet.to_text().chars().enumerate().map(|(token, character)| (character.into(), token.into())).collect();
    assembled(
        json!({ "type": "Split", "pattern": { "Regex": "[\\s\\S]" }, "behavior": "Isolated", "invert": false }),
        json!({ "type": "Fuse" }),
        json!({ "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" }),
    )
}

/// One token per byte: byte pairs without a merge, whose vocabulary numbers the letters that stand for the bytes.
pub(super) fn of_bytes() -> Value {
    let vocabulary: Map<String, Value> =
        letters().into_iter().enumerate().map(|(byte, letter)| (letter.into(), byte.into())).collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": false,
        "vocab": vocabulary,
        "merges": [],
    });
    assembled(byte_level.clone(), byte_level, model)
}

fn assembled(splitter: Value, decoder: Value, model: Value) -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": splitter,
        "post_processor": null,
        "decoder": decoder,
        "model": model,
    })
}

/// The alphabet of a `tokenizer.json` that is one of characters.
pub(super) fn characters_in(json: &Value) -> Option<Alphabet> {
    let mut numbered: Vec<(u64, &str)> = Vec::new();
    for (token, number) in json.pointer("/model/vocab")?.as_object()? {
        numbered.push((number.as_u64()?, token));
    }
    numbered.sort_unstable();
    let text: String = numbered.into_iter().map(|(_, token)| token).collect();
    let alphabet = Alphabet::stored(&text).ok()?;
    encodes_alike(json, &of_characters(&alphabet)).then_some(alphabet)
}

/// Whether a `tokenizer.json` is the one of bytes.
pub(super) fn is_of_bytes(json: &Value) -> bool {
    encodes_alike(json, &of_bytes())
}

/// Whether everything that decides about tokens is the same. A post-processor does not: it adds special tokens, which no text here has.
fn encodes_alike(json: &Value, other: &Value) -> bool {
    let parts = ["/added_tokens", "/normalizer", "/pre_tokenizer", "/decoder", "/model/type"];
    parts.into_iter().chain(["/model/vocab", "/model/merges"]).all(|part| json.pointer(part) == other.pointer(part))
}
