//! Promises about how files are read: as text, as records, compressed, or refused as what they are.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use polaron_common::splitmix64;
use polaron_datasets::pack::{PackOptions, pack};
use polaron_datasets::{DataError, Manifest, Packed, TextData, TokenizerKind, decode_utf8, quoted};

const RECORDS: &str =
    "{\"text\": \"one king\"}\r\n\r\n{\"id\": 2, \"text\": \"two queens\"}\n{\"text\": \"three fools\"}";
const MARK: &[u8] = b"\xef\xbb\xbf";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn pack(&self, inputs: &[&str], out: &str) -> Result<Manifest, DataError> {
        let inputs = inputs.iter().map(|name| self.0.path().join(name));
        pack(&PackOptions::new(inputs, "byte".parse().unwrap()), &self.0.path().join(out), &mut |_| {})
    }
}

fn load(path: &Path) -> Result<TextData, DataError> {
    TextData::load(path.to_str().unwrap(), TokenizerKind::Byte, 0.1)
}

fn text_of(data: &TextData) -> String {
    let tokens = [&data.train, &data.valid].map(|split| split.to_vec(0..split.len())).concat();
    data.tokenizer.decode(&tokens).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

#[test]
fn records_and_packed_files_are_read_the_same_packed_and_unpacked_in_any_case_of_the_ending() {
    let records = RECORDS.as_bytes();
    let files = [
        ("a.jsonl", records.to_vec()),
        ("UPPER.JSONL", records.to_vec()),
        ("data.ndjson", records.to_vec()),
        ("a.NdJson.GZ", gzip(records)),
        ("a.jsonl.ZST", zstd(records)),
        ("a.json", records.to_vec()),
        ("named.jsonl", gzip(records)),
        ("marked.jsonl", [MARK, records, b"\n", MARK, b"{\"text\": \"\"}"].concat()),
    ];
    for (name, bytes) in files {
        let place = Place::new();
        let path = place.write(name, &bytes);
        let data = load(&path).unwrap();
        assert_eq!(text_of(&data), "one king\ntwo queens\nthree fools", "{name}");
        assert_eq!(data.characters, 29, "{name}");
        let manifest = place.pack(&[name], "out").unwrap();
        assert_eq!((manifest.documents, manifest.characters), (3, 29), "{name}");
        let packed = load(&place.0.path().join("out")).unwrap();
        assert_eq!(packed.train.to_vec(0..99), data.train.to_vec(0..99), "{name}");
        assert_eq!(packed.notes, data.notes, "{name}");
    }
}

#[test]
fn several_records_give_the_same_tokens_packed_and_unpacked_with_every_tokenizer() {
    let place = Place::new();
    let path = place.write("a.jsonl", RECORDS.repeat(20).replace("}{", "}\n{").as_bytes());
    for tokenizer in ["char", "byte", "bpe:280"] {
        let plain = TextData::load(path.to_str().unwrap(), tokenizer.parse().unwrap(), 0.1).unwrap();
        let out = place.0.path().join(tokenizer.replace(':', ""));
        pack(&PackOptions::new([path.clone()], tokenizer.parse().unwrap()), &out, &mut |_| {}).unwrap();
        let packed = TextData::load(out.to_str().unwrap(), TokenizerKind::Auto, 0.1).unwrap();
        assert_eq!(packed.tokenizer, plain.tokenizer, "{tokenizer}");
        for (packed, plain) in [(&packed.train, &plain.train), (&packed.valid, &plain.valid)] {
            assert_eq!(packed.to_vec(0..usize::MAX), plain.to_vec(0..usize::MAX), "{tokenizer}");
        }
    }
}

#[test]
fn a_bad_record_is_named_with_file_and_line_without_packing_too() {
    let place = Place::new();
    for (line, problem) in
        [("{\"body\": \"x\"}", "only: body"), ("[1]", "not an object"), ("{\"text\": null}", "not a string")]
    {
        let path = place.write("a.jsonl", format!("{{\"text\": \"x\"}}\n\n{line}\n").as_bytes());
        let said = load(&path).unwrap_err().to_string();
        for part in ["line 3", "a.jsonl", problem, "--key"] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
    let path = place.write("array.json", b"[{\"text\": \"x\"}]");
    let said = load(&path).unwrap_err().to_string();
    assert!(said.contains("array.json") && said.contains("jq -c '.[]'"), "{said}");
}

#[test]
fn files_of_a_folder_that_are_not_read_are_listed_with_the_reason() {
    let place = Place::new();
    for name in ["in/B.TXT", "in/a/C.Md", "in/d.text", "in/e.JSONL.GZ"] {
        let bytes = if name.ends_with("GZ") { gzip(b"{\"text\": \"r\"}") } else { name.as_bytes().to_vec() };
        place.write(name, &bytes);
    }
    place.write("in/picture.png", b"\x89PNG");
    place.write("in/.hidden.txt", b"secret");
    place.write("in/.git/config.txt", b"secret");
    let manifest = place.pack(&["in", "in/B.TXT"], "out").unwrap();
    assert_eq!(manifest.sources.len(), 4, "{:?}", manifest.sources);
    for (name, reason) in
        [("picture.png", "ending"), (".hidden.txt", "hidden"), (".git", "hidden"), ("B.TXT", "more than once")]
    {
        let lines: Vec<_> = manifest.notes.iter().filter(|note| note.contains(&format!("{name}`"))).collect();
        assert!(lines.len() == 1 && lines[0].contains(reason), "{name}: {:?}", manifest.notes);
    }
    place.write("none/picture.png", b"\x89PNG");
    let said = place.pack(&["none"], "out2").unwrap_err().to_string();
    assert!(said.contains("no file ending in .txt") && said.contains("picture.png"), "{said}");
}

#[cfg(unix)]
#[test]
fn links_to_nothing_or_to_folders_are_listed() {
    let place = Place::new();
    place.write("in/a.txt", b"some text");
    std::os::unix::fs::symlink("gone.txt", place.0.path().join("in/broken.txt")).unwrap();
    std::os::unix::fs::symlink("..", place.0.path().join("in/circle")).unwrap();
    let notes = place.pack(&["in"], "out").unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("broken.txt") && note.contains("does not exist")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("circle") && note.contains("link to a folder")), "{notes:?}");
}

#[test]
fn a_byte_order_mark_is_removed_with_a_note() {
    for (name, bytes) in [
        ("a.txt", [MARK, b"some text".as_slice()].concat()),
        ("a.txt.gz", gzip(&[MARK, b"some text".as_slice()].concat())),
        ("a.txt.zst", zstd(&[MARK, b"some text".as_slice()].concat())),
    ] {
        let place = Place::new();
        let path = place.write(name, &bytes);
        let data = load(&path).unwrap();
        assert_eq!(text_of(&data), "some text", "{name}");
        assert!(data.notes.len() == 1 && data.notes[0].contains("byte order mark"), "{:?}", data.notes);
        place.write("b.txt", &[MARK, b"more"].concat());
        let manifest = place.pack(&[name, "b.txt"], "out").unwrap();
        let marks = manifest.notes.iter().filter(|note| note.contains("byte order mark")).count();
        assert_eq!((manifest.characters, marks), (13, 2), "{:?}", manifest.notes);
    }
    let place = Place::new();
    let only = place.write("only.txt", MARK);
    assert!(matches!(load(&only), Err(DataError::Empty { .. })));
    let joined = place.write("joined.txt", &[b"a".as_slice(), MARK, b"b"].concat());
    let data = load(&joined).unwrap();
    assert_eq!(text_of(&data), "a\u{feff}b");
    assert!(data.notes[0].contains("U+FEFF"), "{:?}", data.notes);
}

#[test]
fn other_encodings_are_named_with_the_command_that_converts_that_file() {
    let text = "The k\u{f6}nig sings.\n";
    let utf32: Vec<u8> = text.chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
    let cases = [
        (utf16(&format!("\u{feff}{text}"), u16::to_le_bytes), "UTF-16"),
        (utf16(&format!("\u{feff}{text}"), u16::to_be_bytes), "UTF-16"),
        (utf16(text, u16::to_le_bytes), "UTF-16LE"),
        (utf16(text, u16::to_be_bytes), "UTF-16BE"),
        (utf32.clone(), "UTF-32LE"),
        ([b"\xff\xfe\0\0".as_slice(), &utf32].concat(), "UTF-32"),
        (b"The k\xf6nig sings.\n".to_vec(), "ISO-8859-1"),
        (b"The k\xf6nig \x93sings\x94.\n".to_vec(), "WINDOWS-1252"),
    ];
    for (bytes, encoding) in cases {
        for name in ["it's a text.txt", "a.jsonl", "noending"] {
            let place = Place::new();
            let path = place.write(name, &bytes);
            let command = format!("iconv -f {encoding} -t UTF-8 {} > ", quoted(&path));
            for said in
                [load(&path).unwrap_err(), place.pack(&[name], "out").unwrap_err()].map(|error| error.to_string())
            {
                assert!(said.contains(&command), "{command} is not in {said}");
            }
            assert!(decode_utf8(&path, bytes.clone()).unwrap_err().to_string().contains(&command));
        }
        let place = Place::new();
        let path = place.write("a.txt.gz", &gzip(&bytes));
        let said = load(&path).unwrap_err().to_string();
        assert!(said.contains(&format!("gzip -dc {} | iconv -f {encoding} ", quoted(&path))), "{said}");
    }
}

#[test]
fn files_that_are_not_text_are_named_as_what_they_are() {
    let random: Vec<u8> = (0..500).flat_map(|i| splitmix64(i).to_le_bytes()).collect();
    let with = |magic: &[u8]| [magic, &random].concat();
    let header = b"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    let safetensors = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &[0; 4]].concat();
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let cases = [
        ("x", with(b"PAR1\x15\x04"), "Parquet", ".parquet"),
        ("x.bin", random.clone(), "binary", "text"),
        ("x.txt", random.clone(), "binary", "file "),
        ("x.zip", with(b"PK\x03\x04"), "zip archive", "unzip"),
        ("x.docx", with(b"PK\x03\x04"), "Word document", "pandoc"),
        ("x.pdf", with(b"%PDF-1.7\n"), "PDF", "pdftotext"),
        ("x.PDF", b"%PDF-1.7\nall ASCII".to_vec(), "PDF", "pdftotext"),
        ("x.npy", with(b"\x93NUMPY\x01\0"), "NumPy", "numbers"),
        ("x.safetensors", safetensors, "safetensors", "weights"),
        ("x.arrow", with(b"ARROW1\0\0"), "Arrow", "read_feather"),
        ("x.txt.xz", with(b"\xfd7zXZ\0"), "xz data", "xz -dc"),
        ("x.txt.bz2", with(b"BZh91AY&SY"), "bzip2", "bzip2 -dc"),
        ("x.tar", tar.clone(), "tar archive", "tar xf"),
        ("x.tar.gz", gzip(&tar), "tar archive", "tar xf"),
        ("images-idx3-ubyte", with(b"\0\0\x08\x03"), "IDX", "--model mlp"),
    ];
    for (name, bytes, what, advice) in cases {
        let place = Place::new();
        let path = place.write(name, &bytes);
        for error in [load(&path).unwrap_err(), place.pack(&[name], "out").unwrap_err()] {
            let said = error.to_string();
            assert!(matches!(error, DataError::Foreign { .. }), "{name}: {said}");
            assert!(said.contains(name) && said.contains(what) && said.contains(advice), "{name}: {said}");
        }
    }
    let place = Place::new();
    let path = place.write("prose.bin", b"PAR1 and ORC are letters, and this is a text.");
    load(&path).unwrap();
}

#[test]
fn damaged_packed_files_are_named_without_packing_too() {
    let text = b"some words that are packed ".repeat(500);
    for (name, whole) in [("a.txt.gz", gzip(&text)), ("a.txt.zst", zstd(&text))] {
        let program = if name.ends_with("gz") { "gzip" } else { "zstd" };
        for length in [0, 3, 5, whole.len() / 2, whole.len() - 1] {
            let place = Place::new();
            let path = place.write(name, &whole[..length]);
            let said = load(&path).unwrap_err().to_string();
            assert!(said.contains(name) && said.contains(&format!("{program} -t")), "{length}: {said}");
        }
        let place = Place::new();
        let path = place.write(name, &[&whole[..], b"garbage"].concat());
        let said = load(&path).unwrap_err().to_string();
        assert!(said.contains(name) && said.contains("damaged"), "{said}");
        let path = place.write(name, &[&whole[..], &whole].concat());
        assert_eq!(load(&path).unwrap().characters, 2 * text.len() as u64);
    }
    // A skippable frame whose length is beyond the end of the file.
    let place = Place::new();
    let path = place.write("a.zst", &[0x50, 0x2a, 0x4d, 0x18, 99, 0, 0, 0, 1, 2, 3]);
    assert!(load(&path).unwrap_err().to_string().contains("ends inside a frame"));
}

#[test]
fn a_shard_that_the_manifest_does_not_list_is_refused() {
    let place = Place::new();
    place.write("a.txt", &b"0123456789".repeat(10));
    place.pack(&["a.txt"], "out").unwrap();
    let out = place.0.path().join("out");
    std::fs::copy(out.join("train-00000.bin"), out.join("train-00001.bin")).unwrap();
    let said = Packed::open(&out).unwrap_err().to_string();
    assert!(said.contains("does not list the shard `train-00001.bin`"), "{said}");
}

#[test]
fn paths_are_quoted_for_the_shell() {
    for (path, expected) in
        [("a/b-1.txt", "a/b-1.txt"), ("a b", "'a b'"), ("$HOME", "'$HOME'"), ("", "''"), ("-f", "./-f")]
    {
        assert_eq!(quoted(Path::new(path)), expected);
    }
}
