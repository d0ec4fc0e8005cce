//! Promises of packing: every text can be read back, and damage is reported.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use polaron_common::splitmix64;
use polaron_datasets::pack::{PackOptions, PackTokenizer, pack};
use polaron_datasets::{
    Batch, DataError, Manifest, PackError, Packed, TextData, Tokenizer, TokenizerKind, Tokens, Windows,
    validation_batches,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

#[path = "pack/damage.rs"]
mod damage;
#[path = "pack/documents.rs"]
mod documents;
#[path = "pack/import.rs"]
mod import;
#[path = "pack/tables.rs"]
mod tables;

const ODD: &str = "na\u{ef}ve \u{1F600} \u{4f60}\u{597d}\n\n\ttabs  two spaces\r\n\u{200d}\u{301}end";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn options(&self, inputs: &[&str], tokenizer: &str) -> PackOptions {
        PackOptions::new(inputs.iter().map(|name| self.path(name)), tokenizer.parse().unwrap())
    }

    fn try_pack(&self, inputs: &[&str], tokenizer: &str) -> Result<Manifest, DataError> {
        pack(&self.options(inputs, tokenizer), &self.path("out"), &mut |_| {})
    }

    /// Packs `inputs` and opens the result.
    fn pack(&self, inputs: &[&str], tokenizer: &str) -> Packed {
        self.try_pack(inputs, tokenizer).unwrap();
        Packed::open(&self.path("out")).unwrap()
    }

    /// Fails to pack, with a message that contains all `parts`; nothing may be left behind.
    #[track_caller]
    fn refused(&self, inputs: &[&str], tokenizer: &str, parts: &[&str]) {
        let said = self.try_pack(inputs, tokenizer).unwrap_err().to_string();
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        assert!(!self.path("out").exists(), "something was left behind");
    }

    /// What opening says after `change` was made to the file `name` of a data set of 99 bytes.
    fn error_after(name: &str, change: impl Fn(&mut Vec<u8>)) -> DataError {
        let place = Self::new();
        place.write("a.txt", &b"0123456789".repeat(10)[..99]);
        place.pack(&["a.txt"], "byte");
        let path = place.path("out").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let error = Packed::open(&place.path("out")).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(TextData::load(place.path("out").to_str().unwrap(), TokenizerKind::Auto, 0.1).is_err());
        error
    }
}

fn all(packed: &Packed) -> Vec<u32> {
    [&packed.train, &packed.valid].map(|split| split.to_vec(0..split.len())).concat()
}

fn text_of(packed: &Packed) -> String {
    packed.tokenizer.decode(&all(packed)).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn words(count: usize) -> String {
    let words = ["king", " queen", "\nfool", ", ghost", "  sailor", "'s", " 42", "\n\nn\u{e4}her"];
    (0..count as u64).map(|i| words[(splitmix64(i) % 8) as usize]).collect()
}

/// Inputs and targets of all rows.
fn both(batch: &Batch<'_>) -> [Vec<i32>; 2] {
    [batch.inputs(0..batch.rows()), batch.targets(0..batch.rows())]
}

#[test]
fn one_text_gives_the_tokens_and_batches_it_gives_unpacked() {
    let place = Place::new();
    let text = words(20_000);
    let path = place.write("a.txt", text.as_bytes());
    for (number, tokenizer) in ["char", "byte", "bpe:300"].into_iter().enumerate() {
        let plain = TextData::load(path.to_str().unwrap(), tokenizer.parse().unwrap(), 0.1).unwrap();
        let out = place.path(&format!("out{number}"));
        let mut options = place.options(&["a.txt"], tokenizer);
        options.shard_tokens = 777;
        pack(&options, &out, &mut |_| {}).unwrap();
        let packed = TextData::load(out.to_str().unwrap(), TokenizerKind::Auto, 0.5).unwrap();
        assert_eq!(packed.tokenizer, plain.tokenizer);
        assert_eq!(packed.characters, plain.characters);
        let windows = |tokens: &Tokens| {
            let windows = Windows::new(tokens, 7, 16, 200).unwrap();
            (0..20).map(|step| windows.batch(step)).map(|batch| both(&batch)).collect::<Vec<_>>()
        };
        assert_eq!(windows(&packed.train), windows(&plain.train), "{tokenizer}");
        let all = |tokens: &Tokens| {
            validation_batches(tokens, 33, usize::MAX, 4).map(|batch| both(&batch)).collect::<Vec<_>>()
        };
        assert_eq!(all(&packed.valid), all(&plain.valid), "{tokenizer}");
    }
}

#[test]
fn shards_are_read_as_one_sequence() {
    let place = Place::new();
    place.write("a.txt", words(500).as_bytes());
    let mut options = place.options(&["a.txt"], "byte");
    options.shard_tokens = 100;
    let manifest = pack(&options, &place.path("out"), &mut |_| {}).unwrap();
    let packed = Packed::open(&place.path("out")).unwrap();
    let whole = words(500).into_bytes();
    let tokens = packed.train.to_vec(0..usize::MAX);
    assert!(manifest.train.len() > 10);
    for (start, end) in [(0, 1), (99, 101), (100, 200), (150, 450), (1234, 1234), (0, tokens.len())] {
        let expected: Vec<u32> = whole[start..end].iter().copied().map(u32::from).collect();
        assert_eq!(packed.train.to_vec(start..end), expected, "{start}..{end}");
    }
    assert_eq!(packed.train.to_vec(tokens.len() - 2..tokens.len() + 9).len(), 2);
    assert!(packed.train.to_vec(tokens.len() + 5..tokens.len() + 9).is_empty());
    // The border is that of an unpacked text, and cuts a shard.
    assert_eq!(tokens.len(), (whole.len() as f64 * 0.9) as usize);
    assert_eq!(tokens.len() + packed.valid.len(), whole.len());
    assert!(!tokens.len().is_multiple_of(100));
}

#[test]
fn every_tokenizer_restores_every_text() {
    for tokenizer in ["char", "byte", "bpe:257", "bpe:400"] {
        let place = Place::new();
        place.write("a.txt", ODD.repeat(40).as_bytes());
        let packed = place.pack(&["a.txt"], tokenizer);
        assert_eq!(text_of(&packed), ODD.repeat(40), "{tokenizer}");
        packed.verify().unwrap();
    }
}

#[test]
fn a_bpe_that_never_saw_a_character_still_knows_it() {
    let tokenizer = Tokenizer::bpe_from(300, ["only ascii here, only ascii"].into_iter()).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode(ODD).unwrap()).unwrap(), ODD);
}

#[test]
fn learning_gives_the_same_tokenizer_every_time() {
    let text = words(50_000);
    let learn = || serde_json::to_string(&Tokenizer::for_text(TokenizerKind::Bpe(500), &text).unwrap()).unwrap();
    let first = learn();
    for _ in 0..4 {
        assert_eq!(learn(), first);
    }
    let tokenizer: Tokenizer = serde_json::from_str(&first).unwrap();
    assert!((300..=500).contains(&tokenizer.vocab_size()), "{}", tokenizer.vocab_size());
}

/// A long text is encoded in pieces, without any effect on the tokens.
#[test]
fn pieces_give_the_tokens_of_the_whole() {
    let text = TextData::load("shakespeare", TokenizerKind::Byte, 0.1).unwrap();
    let text = text.tokenizer.decode(&text.train.to_vec(0..1_000_000)).unwrap();
    let tokenizer = Tokenizer::for_text(TokenizerKind::Bpe(1000), &text).unwrap();
    let json = serde_json::to_string(&tokenizer).unwrap();
    let whole = tokenizers::Tokenizer::from_bytes(json).unwrap().encode(text.as_str(), false).unwrap();
    assert_eq!(tokenizer.encode(&text).unwrap(), whole.get_ids());
}

/// `bpe_reference.py` beside this file made the expected tokens with the Python package `tokenizers`.
#[test]
fn a_tokenizer_file_gives_the_tokens_of_other_programs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bpe");
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json")).unwrap();
    let cases = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
    let mut count = 0;
    for line in cases.lines() {
        let (text, ids): (String, Vec<u32>) = serde_json::from_str(line).unwrap();
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        count += 1;
    }
    assert!(count >= 10);
}

/// The same lessons give the same tokens as the Python package learns from them.
#[test]
fn learning_agrees_with_other_programs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bpe");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let lessons: Vec<String> = serde_json::from_str(&read("lessons.json")).unwrap();
    let ours: serde_json::Value = Tokenizer::bpe_from(400, lessons.into_iter()).unwrap().into();
    let theirs: serde_json::Value = serde_json::from_str(&read("tokenizer.json")).unwrap();
    for part in ["vocab", "merges"] {
        assert_eq!(ours["model"][part], theirs["model"][part], "{part}");
    }
    assert_eq!(ours["added_tokens"], theirs["added_tokens"]);
}

#[test]
fn documents_are_separated_by_the_end_of_text_or_a_line_break() {
    for (tokenizer, expected) in
        [("byte", "one\ntwo\nthree"), ("char", "one\ntwo\nthree"), ("bpe:257", "one<|endoftext|>two<|endoftext|>three")]
    {
        let place = Place::new();
        place.write("a.txt", b"one");
        place.write("empty.txt", b"");
        place.write("b.jsonl", b"{\"text\": \"two\"}\n\n{\"id\": 3, \"text\": \"\"}\n{\"text\": \"three\"}");
        let packed = place.pack(&["a.txt", "empty.txt", "b.jsonl"], tokenizer);
        assert_eq!(text_of(&packed), expected);
        assert_eq!((packed.manifest.documents, packed.manifest.characters), (3, 11));
    }
}

#[test]
fn compressed_files_give_their_content() {
    let text = words(100_000);
    let two_frames = [zstd(&text.as_bytes()[..1000]), zstd(&text.as_bytes()[1000..])].concat();
    // A skippable frame, as some programs write them.
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &two_frames].concat();
    let files = [("a.txt.gz", gzip(text.as_bytes())), ("a.txt.zst", skippable), ("a.txt", text.clone().into_bytes())];
    for (name, bytes) in files {
        let place = Place::new();
        place.write(name, &bytes);
        assert!(text_of(&place.pack(&[name], "byte")) == text, "{name}");
    }
    let place = Place::new();
    place.write("a.jsonl.gz", &gzip(b"{\"body\": \"caf\\u00e9 au lait\"}"));
    let mut options = place.options(&["a.jsonl.gz"], "char");
    options.key = "body".into();
    pack(&options, &place.path("out"), &mut |_| {}).unwrap();
    assert_eq!(text_of(&Packed::open(&place.path("out")).unwrap()), "caf\u{e9} au lait");
}

#[test]
fn a_folder_is_read_in_the_order_of_its_paths() {
    let place = Place::new();
    for (name, text) in [("in/b.txt", "b"), ("in/a/z.md", "z"), ("in/a.jsonl", "{\"text\":\"j\"}"), ("in/c.txt", "c")] {
        place.write(name, text.as_bytes());
    }
    place.write("in/picture.png", b"\xff\xfe");
    let packed = place.pack(&["in"], "byte");
    assert_eq!(text_of(&packed), "z\nj\nb\nc");
    assert_eq!(packed.manifest.sources.len(), 4);
    place.write("other/x.bin", b"x");
    std::fs::remove_dir_all(place.path("out")).unwrap();
    place.refused(&["other"], "byte", &["other", "no file ending in .txt"]);
}

#[test]
fn progress_ends_at_the_total() {
    let place = Place::new();
    place.write("a.txt", words(300_000).as_bytes());
    let (mut seen, mut last) = (0, None);
    pack(&place.options(&["a.txt"], "bpe:300"), &place.path("out"), &mut |now| {
        assert!(now.read <= now.total);
        seen += 1;
        last = Some(now);
    })
    .unwrap();
    let last = last.unwrap();
    assert!(seen > 4 && last.read == last.total && last.doing == "encoding", "{seen} {last:?}");
}

#[test]
fn bad_texts_are_named_with_file_and_place() {
    let place = Place::new();
    let long = [vec![b'a'; 600_000], vec![0xff]].concat();
    place.write("bad.txt", &long);
    place.refused(&["bad.txt"], "byte", &["bad.txt", "byte offset 600000"]);
    place.write("cut.txt", b"abc\xe2\x82");
    place.refused(&["cut.txt"], "char", &["cut.txt", "byte offset 3"]);
    place.write("bad.jsonl", b"{\"text\": \"x\"}\n{\"text\": \"\xff\"}\n");
    place.refused(&["bad.jsonl"], "bpe:300", &["bad.jsonl", "byte offset 24"]);
    for (record, problem) in [
        ("{\"body\": \"x\"}", "no key `text`, only: body"),
        ("[1]", "not an object"),
        ("{\"text\": 3}", "not a string"),
        ("{\"te", "EOF"),
    ] {
        place.write("r.jsonl", format!("{{\"text\": \"x\"}}\n\n{record}\n").as_bytes());
        place.refused(&["r.jsonl"], "byte", &["line 3", "r.jsonl", problem]);
    }
    let whole = gzip(words(1000).as_bytes());
    place.write("short.txt.gz", &whole[..whole.len() / 2]);
    place.refused(&["short.txt.gz"], "byte", &["short.txt.gz", "cannot be read"]);
    place.write("no.txt.zst", b"this is not zstd");
    place.refused(&["no.txt.zst"], "byte", &["no.txt.zst", "cannot be read"]);
    let mut damaged = zstd(words(1000).as_bytes());
    let length = damaged.len();
    damaged.truncate(length / 2);
    place.write("half.txt.zst", &damaged);
    place.refused(&["half.txt.zst"], "byte", &["half.txt.zst", "cannot be read"]);
}

#[test]
fn inputs_without_text_are_refused() {
    let place = Place::new();
    place.refused(&["nowhere.txt"], "byte", &["nowhere.txt", "spelling"]);
    place.write("empty.txt", b"");
    for tokenizer in ["byte", "char", "bpe:300"] {
        place.refused(&["empty.txt"], tokenizer, &["empty.txt", "is empty"]);
    }
    place.write("one.txt", b"x");
    place.refused(&["one.txt"], "byte", &["1 tokens cannot be split"]);
}

#[test]
fn what_is_not_a_tokenizer_is_refused() {
    for value in ["bpe", "bpe:256", "bpe:0x200", "bpe:99999999", "chr", "auto", "file"] {
        let said = value.parse::<PackTokenizer>().unwrap_err().to_string();
        assert!(said.contains(&format!("`{value}`")) && said.contains("bpe:N"), "{said}");
    }
    let place = Place::new();
    place.write("a.txt", b"some text");
    place.write("t.json", b"{\"version\": \"1.0\"}");
    let tokenizer = place.path("t.json");
    place.refused(&["a.txt"], tokenizer.to_str().unwrap(), &["t.json", "is not a tokenizer"]);
    place.write("t.json", b"{\"kind\": \"char\", \"alphabet\": \"emost\"}");
    place.refused(&["a.txt"], tokenizer.to_str().unwrap(), &["a.txt", "character ' '"]);
}

#[test]
fn a_tokenizer_from_a_file_is_stored_with_the_packed_data() {
    let place = Place::new();
    place.write("a.txt", ODD.as_bytes());
    place.write("b.txt", b"more");
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bpe/tokenizer.json");
    let packed = place.pack(&["a.txt", "b.txt"], tokenizer.to_str().unwrap());
    assert_eq!(text_of(&packed), format!("{ODD}<|endoftext|>more"));
    assert_eq!(packed.manifest.tokenizer, TokenizerKind::File);
    let load = |kind| TextData::load(place.path("out").to_str().unwrap(), kind, 0.1);
    load(TokenizerKind::Auto).unwrap();
    load(TokenizerKind::File).unwrap();
    let said = load(TokenizerKind::Char).unwrap_err().to_string();
    assert!(said.contains("tokenizer file, but `data.tokenizer` is char"), "{said}");
}

#[test]
fn a_large_vocabulary_takes_four_bytes() {
    let place = Place::new();
    let mut vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..70_000).map(|i| (format!("w{i}"), i.into())).collect();
    vocabulary.insert("[UNK]".into(), 70_000.into());
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    });
    place.write("t.json", tokenizer.to_string().as_bytes());
    place.write("a.txt", b"w65536 w1 w69999 w65535 unheard");
    let packed = place.pack(&["a.txt"], place.path("t.json").to_str().unwrap());
    assert_eq!(all(&packed), [65_536, 1, 69_999, 65_535, 70_000]);
    assert_eq!(packed.bytes(), 20);
    packed.verify().unwrap();
}
