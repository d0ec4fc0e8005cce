//! Promises about tokenizers from files: what they lose is counted, and their tokens decode correctly.

use std::path::PathBuf;

use polaron_common::splitmix64;
use polaron_datasets::pack::{PackOptions, pack};
use polaron_datasets::{DataError, Manifest, TextStream, Tokenizer, TokenizerKind};
use serde_json::{Value, json};

const WORDS: [&str; 5] = ["the", "cat", "sat", "on", "mat"];

fn tokenizer(value: Value) -> Tokenizer {
    serde_json::from_value(value).unwrap()
}

/// A vocabulary of the letters of `WORDS`, then more.
fn bpe(more: &[&str], unknown: Option<&str>, extra: Value) -> Value {
    let letters = WORDS.concat().chars().map(String::from).collect::<std::collections::BTreeSet<_>>();
    let names = letters.into_iter().chain(more.iter().map(|name| (*name).to_owned()));
    let vocab: serde_json::Map<String, Value> = names.enumerate().map(|(id, name)| (name, id.into())).collect();
    let mut value =
        json!({ "version": "1.0", "model": { "type": "BPE", "vocab": vocab, "merges": [], "unk_token": unknown } });
    value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    value
}

fn metaspace() -> Value {
    let part = json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true });
    bpe(&["\u{2581}", ".", "<unk>"], Some("<unk>"), json!({ "pre_tokenizer": part, "decoder": part }))
}

fn byte_level_without_bytes() -> Value {
    let part = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    bpe(&["\u{120}", "."], None, json!({ "pre_tokenizer": part, "decoder": part }))
}

fn word_piece() -> Value {
    let vocab = json!({ "[UNK]": 0, "the": 1, "cat": 2, "##s": 3, "sat": 4, ".": 5 });
    json!({
        "version": "1.0",
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 },
    })
}

fn try_pack(tokenizer: &Value, text: &str, allowed: bool) -> Result<Manifest, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name)
    };
    let file = write("t.json", tokenizer.to_string().as_bytes());
    let mut options = PackOptions::new([write("a.txt", text.as_bytes())], file.to_str().unwrap().parse().unwrap());
    options.allow_unknown = allowed;
    pack(&options, &folder.path().join("out"), &mut |_| {})
}

#[test]
fn a_text_that_the_tokenizer_does_not_know_is_refused_unless_allowed() {
    let text = "the cat sat on the mat. \u{1F642}\u{4e2d} ".repeat(40);
    for value in [metaspace(), byte_level_without_bytes()] {
        let said = try_pack(&value, &text, false).unwrap_err().to_string();
        for part in ["80 of 1080 characters (7.41 %)", "\u{1F642}", "\u{4e2d}", "t.json", "0.1 %", "--allow-unknown"] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        let notes = try_pack(&value, &text, true).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("80 of 1080 characters"), "{notes:?}");
    }
    let said = try_pack(&word_piece(), &"the cat sat mat. ".repeat(9), false).unwrap_err().to_string();
    assert!(said.contains("9 of 45 tokens (20.00 %)"), "{said}");
    let alphabet = json!({ "kind": "char", "alphabet": " .acehmnost" });
    assert!(try_pack(&alphabet, &text, false).unwrap_err().to_string().contains("character '\u{1F642}'"));
    let manifest = try_pack(&alphabet, &text, true).unwrap();
    assert!(manifest.notes[0].contains("80 of 1080 characters"), "{:?}", manifest.notes);
}

#[test]
fn a_small_fraction_is_noted_and_a_known_text_has_no_notes() {
    let text = "the cat sat on the mat. ".repeat(400);
    for value in [metaspace(), byte_level_without_bytes()] {
        assert_eq!(try_pack(&value, &text, false).unwrap().notes, Vec::<String>::new());
        let notes = try_pack(&value, &format!("{text}\u{4e2d}\u{4e2d}{text}"), false).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("2 of 19202 characters"), "{notes:?}");
    }
}

#[test]
fn a_tokenizer_that_changes_the_text_says_so() {
    let notes = try_pack(&word_piece(), &"The cat sat. ".repeat(9), false).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("changes 9 of 117 characters") && note.contains("'T'")), "{notes:?}");
    let notes = try_pack(&word_piece(), &"the  cat\nsat. ".repeat(9), false).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("does not restore the text")), "{notes:?}");
}

#[test]
fn a_prompt_with_something_unknown_is_refused() {
    for value in [metaspace(), byte_level_without_bytes()] {
        let tokenizer = tokenizer(value);
        tokenizer.check_known("the cat").unwrap();
        let said = tokenizer.check_known("the \u{4e2d}").unwrap_err().to_string();
        assert!(said.contains("1 of 5 characters") && said.contains("\u{4e2d}"), "{said}");
    }
    assert!(tokenizer(word_piece()).check_known("the dog").is_err());
    assert!(Tokenizer::char_from("ab").check_known("c").is_err());
    Tokenizer::byte().check_known("\u{4e2d}").unwrap();
}

/// As Llama 2: spaces are written as a character of their own, and what is unknown as its bytes.
fn llama() -> Value {
    let fallback: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let names: Vec<&str> = ["\u{2581}", "."].into_iter().chain(fallback.iter().map(String::as_str)).collect();
    let mut llama = bpe(
        &names,
        None,
        json!({
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "\u{2581}" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" } ] },
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
                { "type": "ByteFallback" }, { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 } ] },
        }),
    );
    llama["model"]["byte_fallback"] = true.into();
    llama
}

#[test]
fn new_tokens_decode_as_they_do_after_the_tokens_before() {
    let byte_pairs = Tokenizer::bpe_from(300, ["the cat sat on the mat. the cat"].into_iter()).unwrap();
    let text = "the cat sat.";
    let cases = [tokenizer(metaspace()), tokenizer(byte_level_without_bytes()), tokenizer(llama()), byte_pairs.clone()];
    for tokenizer in cases.into_iter().chain([Tokenizer::byte(), Tokenizer::char_from(text)]) {
        let tokens = tokenizer.encode(text).unwrap();
        let whole = tokenizer.decode(&tokens).unwrap();
        for cut in 0..=tokens.len() {
            let (before, after) = tokens.split_at(cut);
            let joined = tokenizer.decode(before).unwrap() + &tokenizer.decode_after(before, after).unwrap();
            assert_eq!(joined, whole, "{tokenizer:?} cut at {cut}");
        }
    }
    let words = tokenizer(word_piece());
    let [the, cat, s, sat, stop] = [1, 2, 3, 4, 5];
    assert_eq!(words.decode_after(&[the, cat], &[s, sat, stop]).unwrap(), "s sat.");
    // Characters of several tokens: complete ones appear, an incomplete one does not.
    for tokenizer in [Tokenizer::byte(), byte_pairs, tokenizer(llama())] {
        let tokens = tokenizer.encode("cat \u{1F642}\u{1F642}").unwrap();
        let before = &tokens[..tokens.len() - 6];
        assert_eq!(tokenizer.decode_after(before, &tokens[tokens.len() - 6..]).unwrap(), "\u{1F642}\u{1F642}");
        assert_eq!(tokenizer.decode_after(before, &tokens[tokens.len() - 6..tokens.len() - 1]).unwrap(), "\u{1F642}");
    }
}

#[test]
fn text_that_comes_token_by_token_is_the_text_of_all_tokens() {
    let byte_pairs = Tokenizer::bpe_from(300, ["the cat sat on the mat. the cat"].into_iter()).unwrap();
    let text = "the cat sat on the mat. \u{e9}\u{1F642}\u{4e2d} ".repeat(30);
    let known = "the cat sat on the mat. ".repeat(30);
    for (tokenizer, text) in [
        (Tokenizer::byte(), &text),
        (Tokenizer::char_from(&text), &text),
        (byte_pairs, &text),
        (tokenizer(llama()), &text),
        (tokenizer(metaspace()), &known),
        (tokenizer(byte_level_without_bytes()), &known),
    ] {
        let mut tokens = tokenizer.encode(text).unwrap();
        // The last character may be incomplete.
        tokens.truncate(tokens.len() - 3);
        let (before, after) = tokens.split_at(5);
        let mut stream = TextStream::new(&tokenizer, before.to_vec());
        let pieces: Vec<String> = after.iter().map(|token| stream.push(*token).unwrap()).collect();
        assert_eq!(pieces.concat(), tokenizer.decode_after(before, after).unwrap(), "{tokenizer:?}");
        assert!(!pieces.concat().contains('\u{fffd}'), "{tokenizer:?}");
        assert!(pieces.iter().filter(|piece| !piece.is_empty()).count() > 500, "{tokenizer:?} holds text back");
    }
    let words = tokenizer(word_piece());
    let mut stream = TextStream::new(&words, vec![1]);
    let pieces = [2, 3, 4, 5].map(|token| stream.push(token).unwrap());
    assert_eq!(pieces.concat(), " cats sat.");
    // A byte that is no text appears once it is certain that nothing completes it.
    let bytes = Tokenizer::byte();
    let mut stream = TextStream::new(&bytes, Vec::new());
    assert_eq!([0x41, 0xff, 0x42].map(|token| stream.push(token).unwrap()), ["A", "", "\u{fffd}B"]);
}

#[test]
fn the_bytes_of_tokens_add_up_to_those_of_the_text() {
    let text = "the cat sat on the mat. \u{e9}\u{1F642} the  cat\n";
    let byte_pairs = Tokenizer::bpe_from(300, ["the cat sat on the mat. the cat"].into_iter()).unwrap();
    let known = "the cat sat on the mat. ";
    for (tokenizer, text, added) in [
        (Tokenizer::byte(), text, 0),
        (Tokenizer::char_from(text), text, 0),
        (byte_pairs.clone(), text, 0),
        (tokenizer(llama()), text, 1),
        // These do not know every character.
        (tokenizer(metaspace()), known, 1),
        (tokenizer(byte_level_without_bytes()), known, 0),
    ] {
        let lengths = tokenizer.byte_lengths().unwrap();
        let bytes = lengths.of(tokenizer.encode(text).unwrap());
        assert_eq!(bytes, text.len() as u64 + added, "{tokenizer:?}");
        assert_eq!(lengths.of([tokenizer.vocab_size() as u32]), 0, "{tokenizer:?}");
    }
    let (end, lengths) = (byte_pairs.end_of_text().unwrap(), byte_pairs.byte_lengths().unwrap());
    assert_eq!(byte_pairs.encode("a<|endoftext|>b").unwrap()[1], end);
    assert_eq!(lengths.of(byte_pairs.encode("a<|endoftext|>b").unwrap()), 2);
    // Their tokens do not say what was between words, or what was there before accents and capitals were dropped.
    assert_eq!(tokenizer(word_piece()).byte_lengths(), None);
    let mut folded = llama();
    folded["normalizer"] = json!({ "type": "Lowercase" });
    assert_eq!(tokenizer(folded).byte_lengths(), None);
    assert_eq!(tokenizer(bpe(&[" "], None, json!({}))).byte_lengths(), None);
}

/// Quadratic time would take hours, so the test ends only if the time is linear.
#[test]
fn byte_pairs_of_text_without_white_space_take_linear_time() {
    let digits: String = (0..1_500_000).map(|i| char::from(b'0' + (splitmix64(i) % 10) as u8)).collect();
    let ideographs: String =
        (0..500_000).filter_map(|i| char::from_u32(0x4e00 + (splitmix64(i) % 500) as u32)).collect();
    for text in [digits, "a".repeat(1_500_000), ideographs, " ".repeat(1_500_000), "=".repeat(1_500_000)] {
        let tokenizer = Tokenizer::for_text(TokenizerKind::Bpe(600), &text).unwrap();
        let tokens = tokenizer.encode(&text).unwrap();
        assert!(tokenizer.decode(&tokens).unwrap() == text);
        assert!(tokens.len() < text.len() / 2, "{} tokens of {} bytes", tokens.len(), text.len());
        // Other programs read the same tokens from the stored tokenizer.
        let json = serde_json::to_string(&tokenizer).unwrap();
        let front = &text[..text.floor_char_boundary(50_000)];
        let other = tokenizers::Tokenizer::from_bytes(json).unwrap().encode(front, false).unwrap();
        assert_eq!(tokenizer.encode(front).unwrap(), other.get_ids());
    }
}
