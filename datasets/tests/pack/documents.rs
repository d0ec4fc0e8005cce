//! Documents: what separates them, which are left out, where the splits divide them.

use super::*;

/// Lines of JSON with texts of these lengths.
fn records(lengths: &[usize]) -> String {
    lengths.iter().map(|length| format!("{{\"text\": \"{}\"}}\n", "x".repeat(*length))).collect()
}

#[test]
fn the_validation_split_begins_with_a_document_packed_and_unpacked() {
    let place = Place::new();
    // With the line breaks between them, documents end after 101, 382, 463 and 1000 bytes.
    let path = place.write("a.jsonl", records(&[100, 280, 80, 537]).as_bytes());
    let mut options = place.options(&["a.jsonl"], "byte");
    options.valid_fraction = 0.6;
    let manifest = pack(&options, &place.path("out"), &mut |_| {}).unwrap();
    let plain = TextData::load(path.to_str().unwrap(), TokenizerKind::Byte, 0.6).unwrap();
    assert_eq!(manifest.tokens(), [382, 618]);
    assert_eq!((plain.train.len(), plain.valid.len()), (382, 618));
    assert_eq!((manifest.notes, plain.notes), (vec![], vec![]));
    assert_eq!(plain.train.to_vec(381..382), [u32::from(b'\n')]);
}

#[test]
fn a_document_that_the_splits_divide_is_noted_packed_and_unpacked() {
    let place = Place::new();
    let path = place.write("a.jsonl", records(&[100, 899]).as_bytes());
    let manifest = place.try_pack(&["a.jsonl"], "byte").unwrap();
    let plain = TextData::load(path.to_str().unwrap(), TokenizerKind::Byte, 0.1).unwrap();
    assert_eq!(manifest.tokens(), [900, 100]);
    assert_eq!(manifest.notes, plain.notes);
    assert!(plain.notes[0].contains("799 tokens of which") && plain.notes[0].contains("100 in the valid"), "{plain:?}");
}

#[test]
fn bad_lines_are_an_error_or_counted_and_named() {
    let place = Place::new();
    let lines: &[&[u8]] = &[
        b"{\"text\": \"one\"}",
        b"",
        b"{\"text\": 5}",
        b"{\"te",
        b"{\"text\": \"two\"}",
        b"{\"text\": \"\xff\"}",
        b"[]",
        b"{\"text\": null}",
        b"{\"body\": \"x\"}",
        b"{\"text\": \"three\"}",
    ];
    place.write("a.jsonl", &lines.join(&b'\n'));
    place.refused(&["a.jsonl"], "byte", &["line 3 of", "a.jsonl", "`text` is not a string", "--skip-bad"]);
    for (number, tokenizer) in ["byte", "char", "bpe:300"].into_iter().enumerate() {
        let mut options = place.options(&["a.jsonl"], tokenizer);
        options.skip_bad = true;
        let out = place.path(&format!("out{number}"));
        let manifest = pack(&options, &out, &mut |_| {}).unwrap();
        assert_eq!(manifest.documents, 3);
        let said = &manifest.notes[0];
        assert!(said.starts_with("6 bad lines are left out, the first are "), "{said}");
        for part in
            ["a.jsonl:3` (its `text` is not", "a.jsonl:4`", "a.jsonl:6` (invalid utf-8", "a.jsonl:7`", "a.jsonl:8`"]
        {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert!(!said.contains("a.jsonl:9"), "{said}");
    }
    place.write("bad.jsonl", b"5\n6\n");
    let mut options = place.options(&["bad.jsonl"], "byte");
    options.skip_bad = true;
    let said = pack(&options, &place.path("out"), &mut |_| {}).unwrap_err().to_string();
    assert!(said.contains("2 bad lines are left out") && said.contains("bad.jsonl:1`"), "{said}");
    assert!(!place.path("out").exists());
}

#[test]
fn the_token_between_documents_can_be_chosen() {
    let place = Place::new();
    place.write("a.txt", b"one");
    place.write("b.txt", b"two");
    for (number, (tokenizer, eot, expected)) in [
        ("byte", "|", "one|two"),
        ("byte", "none", "onetwo"),
        ("char", "w", "onewtwo"),
        ("bpe:257", "<|endoftext|>", "one<|endoftext|>two"),
        ("bpe:257", "!", "one!two"),
        ("bpe:257", "none", "onetwo"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut options = place.options(&["a.txt", "b.txt"], tokenizer);
        options.eot = Some(eot.into());
        let out = place.path(&format!("out{number}"));
        pack(&options, &out, &mut |_| {}).unwrap();
        assert_eq!(text_of(&Packed::open(&out).unwrap()), expected);
    }
    for (tokenizer, eot) in [("byte", "<|endoftext|>"), ("char", "z"), ("bpe:257", "</s>"), ("byte", "")] {
        let mut options = place.options(&["a.txt", "b.txt"], tokenizer);
        options.eot = Some(eot.into());
        let said = pack(&options, &place.path("out"), &mut |_| {}).unwrap_err().to_string();
        assert!(said.contains(&format!("no token `{eot}`")) && said.contains("--eot"), "{said}");
        assert!(!place.path("out").exists());
    }
}

#[test]
fn packing_gives_the_same_bytes_with_any_number_of_threads() {
    let place = Place::new();
    let documents: String = (1..400).map(|n| format!("{{\"text\": {:?}}}\n", words(n * 7))).collect();
    place.write("a.jsonl", documents.as_bytes());
    let read = |out: &str| std::fs::read(place.path(out).join("train-00000.bin")).unwrap();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = format!("out{threads}");
        pool.install(|| pack(&place.options(&["a.jsonl"], "bpe:400"), &place.path(&out), &mut |_| {})).unwrap();
        assert_eq!(read(&out), read("out1"), "{threads}");
    }
}
