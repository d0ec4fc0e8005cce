//! Tokens of other programs.

use polaron_datasets::import::{ImportOptions, ImportTokenizer, import};

use super::*;

/// A file of llm.c: its header, then tokens of `size` bytes.
fn shard(magic: u32, version: u32, count: u32, tokens: &[u32], size: usize) -> Vec<u8> {
    let header = [magic, version, count].into_iter().chain([0; 253]).flat_map(u32::to_le_bytes);
    header.chain(plain(tokens, size)).collect()
}

fn plain(tokens: &[u32], size: usize) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()[..size].to_vec()).collect()
}

fn numbers(count: u32, below: u32) -> Vec<u32> {
    (0..count).map(|n| (splitmix64(n.into()) % u64::from(below)) as u32).collect()
}

impl Place {
    fn try_import(&self, inputs: &[&str], vocab_size: usize) -> Result<Manifest, DataError> {
        let inputs = inputs.iter().map(|name| self.path(name));
        let options = ImportOptions::new(inputs, ImportTokenizer::Vocabulary(vocab_size));
        import(&options, &self.path("out"), &mut |_| {})
    }

    #[track_caller]
    fn import_refused(&self, inputs: &[&str], vocab_size: usize, parts: &[&str]) {
        let said = self.try_import(inputs, vocab_size).unwrap_err().to_string();
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        assert!(!self.path("out").exists(), "something was left behind");
    }
}

#[test]
fn the_names_of_files_decide_about_the_split() {
    let (train, valid) = (numbers(700, 50_257), numbers(90, 50_257));
    let both = |names: [&str; 2], bytes: [Vec<u8>; 2], vocab_size| {
        let place = Place::new();
        names.iter().zip(bytes).for_each(|(name, bytes)| drop(place.write(name, &bytes)));
        // The order of the files does not decide.
        let manifest = place.try_import(&[names[1], names[0]], vocab_size).unwrap();
        let packed = Packed::open(&place.path("out")).unwrap();
        assert_eq!(packed.train.to_vec(0..9999), train, "{names:?}");
        assert_eq!(packed.valid.to_vec(0..9999), valid, "{names:?}");
        assert_eq!(manifest.valid_fraction, 90.0 / 790.0);
        assert_eq!((manifest.characters, manifest.notes.len()), (0, 0));
    };
    both(["train.bin", "val.bin"], [plain(&train, 2), plain(&valid, 2)], 50_257);
    let shards =
        |magic, version, size| [shard(magic, version, 700, &train, size), shard(magic, version, 90, &valid, size)];
    both(["fineweb_train_000001.bin", "fineweb_val_000000.bin"], shards(20_240_520, 1, 2), 50_304);
    both(["train.bin", "tiny-VALIDATION.bin"], shards(20_240_801, 7, 4), 128_256);
}

#[test]
fn without_names_the_end_is_for_validation_and_what_is_unknown_is_said() {
    let place = Place::new();
    place.write("a.bin", &plain(&numbers(500, 300), 2));
    place.write("val.bin", &plain(&numbers(500, 300), 2));
    let manifest = place.try_import(&["a.bin"], 300).unwrap();
    assert_eq!(manifest.tokens(), [450, 50]);
    assert!(manifest.notes[0].contains("may begin inside a document"), "{:?}", manifest.notes);
    // A given fraction counts more than names.
    let inputs = ["a.bin", "val.bin"].map(|name| place.path(name));
    let mut options = ImportOptions::new(inputs, ImportTokenizer::Vocabulary(300));
    options.valid_fraction = Some(0.2);
    let manifest = import(&options, &place.path("other"), &mut |_| {}).unwrap();
    assert_eq!((manifest.tokens(), manifest.valid_fraction), ([800, 200], 0.2));
}

#[test]
fn tokens_with_their_tokenizer_are_text_again_and_split_between_documents() {
    let place = Place::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bpe/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&file).unwrap();
    let text = format!("{}<|endoftext|>{}<|endoftext|>", "The king. ".repeat(90), "A fool! ".repeat(9));
    let tokens = tokenizer.encode(&text).unwrap();
    place.write("a.bin", &plain(&tokens, 2));
    let options = ImportOptions::new([place.path("a.bin")], ImportTokenizer::File(file));
    let manifest = import(&options, &place.path("out"), &mut |_| {}).unwrap();
    let packed = Packed::open(&place.path("out")).unwrap();
    assert_eq!(text_of(&packed), text);
    assert_eq!((manifest.documents, manifest.notes), (2, vec![]));
    assert!(packed.tokenizer.decode(&packed.valid.to_vec(0..9999)).unwrap().starts_with("A fool!"));
}

#[test]
fn tokens_without_a_tokenizer_have_no_text() {
    let place = Place::new();
    place.write("a.bin", &plain(&numbers(500, 300), 2));
    place.try_import(&["a.bin"], 300).unwrap();
    let data = TextData::load(place.path("out").to_str().unwrap(), TokenizerKind::Auto, 0.1).unwrap();
    assert!(
        !data.tokenizer.has_text() && data.tokenizer.vocab_size() == 300 && data.tokenizer.byte_lengths().is_none()
    );
    for said in [data.tokenizer.encode("x").unwrap_err(), data.tokenizer.decode(&[1]).unwrap_err()] {
        assert!(matches!(said, DataError::NoText) && said.to_string().contains("--tokenizer"), "{said}");
    }
}

#[test]
fn files_that_are_not_tokens_are_named_with_the_place() {
    let place = Place::new();
    let good = numbers(40, 300);
    let mut beyond = good.clone();
    beyond[30] = 300;
    let cases: [(&str, Vec<u8>, &[&str]); 13] = [
        ("empty.bin", vec![], &["it has no tokens"]),
        ("odd.bin", vec![1; 41], &["is odd", "byte offset 40"]),
        ("beyond.bin", plain(&beyond, 2), &["the token 300 at byte offset 60", "vocabulary of 300"]),
        ("beyond2.bin", shard(20_240_520, 1, 40, &beyond, 2), &["the token 300 at byte offset 1084"]),
        ("beyond4.bin", shard(20_240_801, 7, 40, &beyond, 4), &["the token 300 at byte offset 1144"]),
        ("more.bin", shard(20_240_520, 1, 41, &good, 2), &["1104 bytes", "41 tokens of 2 bytes", "for 1106"]),
        ("less.bin", shard(20_240_520, 1, 39, &good, 2), &["39 tokens of 2 bytes", "for 1102"]),
        ("many.bin", shard(20_240_801, 7, u32::MAX, &good, 4), &["4294967295 tokens of 4 bytes"]),
        ("none.bin", shard(20_240_520, 1, 0, &[], 2), &["it has no tokens"]),
        ("version.bin", shard(20_240_520, 2, 40, &good, 2), &["version", "byte offset 4, is 2, but only 1"]),
        ("short.bin", shard(20_240_801, 7, 40, &good, 4)[..10].to_vec(), &["ends inside its header"]),
        ("array.bin", [b"\x93NUMPY".to_vec(), vec![0; 100]].concat(), &["NumPy", "tofile"]),
        ("packed.bin", b"POLARTOK0000".to_vec(), &["shard of packed tokens"]),
    ];
    place.write("good.bin", &plain(&good, 2));
    for (name, bytes, parts) in cases {
        place.write(name, &bytes);
        place.import_refused(&["good.bin", name], 300, &[&[name][..], parts].concat());
    }
    place.import_refused(&["nowhere.bin"], 300, &["nowhere.bin", "spelling"]);
    place.import_refused(&["."], 300, &["it is a folder"]);
    place.import_refused(&["good.bin"], 0, &["a vocabulary of 0 tokens"]);
    place.write("one.bin", &[1, 0]);
    place.import_refused(&["one.bin"], 300, &["1 tokens cannot be split"]);
}
