use serde_json::json;

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
    for (alphabet, problem) in [("ba", "'b' is followed by 'a'"), ("aa", "'a' is followed by 'a'"), ("", "it is empty")]
    {
        let json = format!(r#"{{"kind":"char","alphabet":"{alphabet}"}}"#);
        let error = serde_json::from_str::<Tokenizer>(&json).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn the_published_form_gives_the_same_tokens_in_the_library_and_is_recognised() {
    let text = "To be,\r\n or \u{e9}\u{1F600} \"not\"\t  to be\n\n";
    for tokenizer in [Tokenizer::char_from(text), Tokenizer::byte()] {
        let json = tokenizer.published();
        let library = Learned::from_json(&json.to_string()).unwrap();
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(library.encode(text).unwrap(), tokens);
        assert_eq!((library.decode(&tokens).unwrap().as_str(), library.vocab_size()), (text, tokenizer.vocab_size()));
        // As transformers writes it.
        let mut saved = library.json().clone();
        saved["post_processor"] =
            json!({ "type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {} });
        assert_eq!(Tokenizer::try_from(saved).unwrap(), tokenizer);
        assert_eq!((tokenizer.special_names(), tokenizer.end_of_text()), ([None, None], None));
    }
    let library = Learned::from_json(&Tokenizer::char_from("abc").published().to_string()).unwrap();
    library.encode("abd").unwrap_err();
}

#[test]
fn what_only_looks_like_a_published_form_stays_a_tokenizer_of_its_own() {
    let characters = Tokenizer::char_from("abc").published();
    for (part, value) in [
        ("/pre_tokenizer", json!({ "type": "Whitespace" })),
        ("/normalizer", json!({ "type": "Lowercase" })),
        ("/model/vocab", json!({ "a": 1, "b": 0, "c": 2 })),
        ("/model/vocab", json!({ "a": 0, "b": 1, "cd": 2 })),
    ] {
        let mut json = characters.clone();
        *json.pointer_mut(part).unwrap() = value;
        assert_eq!(Tokenizer::try_from(json).unwrap().kind(), TokenizerKind::File, "{part}");
    }
}

#[test]
fn a_learned_tokenizer_is_published_as_it_is_and_names_its_end() {
    let tokenizer = Tokenizer::bpe_from(300, ["to be or not to be".repeat(9)].iter()).unwrap();
    assert_eq!(tokenizer.published(), Value::from(tokenizer.clone()));
    assert_eq!(tokenizer.special_names(), [Some("<|endoftext|>".to_owned()), None]);
}
