//! Data: images, texts, records, packed tokens, tokenizers.

use std::path::Path;

use polaron_datasets::import::{ImportOptions, ImportTokenizer, import};
use polaron_datasets::pack::{PackOptions, PackTokenizer, pack};
use polaron_datasets::{ImageData, Packed, TextData, Tokenizer, TokenizerKind};
use sha2::{Digest, Sha256};

use crate::harness::{fuzz, words};

/// An IDX file of `dimensions` and that many bytes.
fn idx(magic: u32, dimensions: &[u32]) -> Vec<u8> {
    let elements = dimensions.iter().product::<u32>() as usize;
    let header = [&[magic], dimensions].concat().into_iter().flat_map(u32::to_be_bytes);
    header.chain((0..elements).map(|element| (element % 3) as u8)).collect()
}

/// Puts the input in the place of one of the four files of a folder of images.
fn images(folder: &Path, replaced: &str, bytes: &[u8]) -> Result<(), String> {
    for (name, file) in [
        ("train-images-idx3-ubyte", idx(0x803, &[4, 2, 3])),
        ("train-labels-idx1-ubyte", idx(0x801, &[4])),
        ("t10k-images-idx3-ubyte", idx(0x803, &[4, 2, 3])),
        ("t10k-labels-idx1-ubyte", idx(0x801, &[4])),
    ] {
        std::fs::write(folder.join(name), if name == replaced { bytes } else { &file }).unwrap();
    }
    let data = ImageData::load(folder.to_str().unwrap(), 0.2).map_err(words)?;
    for split in [&data.train, &data.valid] {
        assert_eq!(split.pixels.len(), split.len() * split.features);
        assert!(split.labels.iter().all(|label| usize::from(*label) < data.classes));
    }
    Ok(())
}

#[test]
fn idx_images_are_refused_in_words_or_whole() {
    fuzz("idx_images", 300, |folder, bytes| images(folder, "train-images-idx3-ubyte", bytes));
}

#[test]
fn idx_labels_are_refused_in_words_or_whole() {
    fuzz("idx_labels", 300, |folder, bytes| images(folder, "t10k-labels-idx1-ubyte", bytes));
}

/// Packs one file and opens the result: what was packed is what is read.
fn packed(folder: &Path, name: &str, bytes: &[u8], tokenizer: PackTokenizer) -> Result<(), String> {
    let (path, out) = (folder.join(name), folder.join("out"));
    std::fs::write(&path, bytes).unwrap();
    let _ = std::fs::remove_dir_all(&out);
    let manifest = pack(&PackOptions::new([path], tokenizer), &out, &mut |_| {}).map_err(|error| {
        assert!(error.to_string().contains(name) || !matches!(name, "x.gz" | "x.zst"), "{error}");
        words(error)
    })?;
    let open = Packed::open(&out).expect("what was just packed");
    assert_eq!(open.manifest, manifest);
    assert_eq!([open.train.len() as u64, open.valid.len() as u64], manifest.tokens());
    Ok(())
}

#[test]
fn records_are_refused_in_words_or_packed() {
    fuzz("jsonl", 300, |folder, bytes| packed(folder, "x.jsonl", bytes, PackTokenizer::Kind(TokenizerKind::Byte)));
}

#[test]
fn gzip_is_refused_in_words_or_packed() {
    fuzz("gzip", 300, |folder, bytes| packed(folder, "x.txt.gz", bytes, PackTokenizer::Kind(TokenizerKind::Char)));
}

#[test]
fn zstd_is_refused_in_words_or_packed() {
    fuzz("zstd", 300, |folder, bytes| packed(folder, "x.txt.zst", bytes, PackTokenizer::Kind(TokenizerKind::Byte)));
}

#[test]
fn tables_are_refused_in_words_or_packed() {
    fuzz("parquet", 300, |folder, bytes| packed(folder, "x.parquet", bytes, PackTokenizer::Kind(TokenizerKind::Byte)));
}

#[test]
fn files_of_tokens_are_refused_in_words_or_imported() {
    fuzz("tokens", 300, |folder, bytes| {
        let (path, out) = (folder.join("x.bin"), folder.join("out"));
        std::fs::write(&path, bytes).unwrap();
        let _ = std::fs::remove_dir_all(&out);
        let options = ImportOptions::new([path], ImportTokenizer::Vocabulary(300));
        let manifest = import(&options, &out, &mut |_| {}).map_err(|error| {
            assert!(!out.exists(), "something was left behind");
            words(error)
        })?;
        assert_eq!(Packed::open(&out).expect("what was just imported").manifest, manifest);
        Ok(())
    });
}

#[test]
fn a_text_is_refused_in_words_or_comes_back() {
    fuzz("text", 300, |folder, bytes| {
        let path = folder.join("x.txt");
        std::fs::write(&path, bytes).unwrap();
        for kind in [TokenizerKind::Char, TokenizerKind::Byte] {
            let data = TextData::load(path.to_str().unwrap(), kind, 0.1).map_err(words)?;
            let mut tokens = Vec::new();
            data.train.read(0..data.train.len(), &mut tokens);
            data.valid.read(0..data.valid.len(), &mut tokens);
            let back = data.tokenizer.decode(&tokens).unwrap();
            assert!(
                std::str::from_utf8(bytes).unwrap().ends_with(&back),
                "a byte order mark is all that may be left out"
            );
        }
        Ok(())
    });
}

#[test]
fn a_tokenizer_is_refused_in_words_or_used() {
    fuzz("tokenizer", 300, |folder, bytes| {
        let path = folder.join("tokenizer.json");
        std::fs::write(&path, bytes).unwrap();
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| {
            assert!(error.to_string().contains("tokenizer.json"), "{error}");
            words(error)
        })?;
        let size = tokenizer.vocab_size();
        let written = serde_json::to_string(&tokenizer).unwrap();
        assert_eq!(serde_json::from_str::<Tokenizer>(&written).expect(&written).vocab_size(), size);
        for text in ["", "the cat sat.\n", "\u{1F600}\u{e9} \u{0}"] {
            if let Ok(tokens) = tokenizer.encode(text) {
                assert!(tokens.iter().all(|token| (*token as usize) < size));
                let _ = tokenizer.decode(&tokens);
            }
        }
        let _ = tokenizer.decode(&[0, size as u32, u32::MAX]);
        let _ = tokenizer.separator();
        Ok(())
    });
}

/// Puts `bytes` in the place of one file of packed data, and opens it.
fn open_changed(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let out = folder.join("packed");
    if !out.exists() {
        std::fs::write(folder.join("x.txt"), "the cat sat on the mat.\n".repeat(4)).unwrap();
        let options = PackOptions::new([folder.join("x.txt")], PackTokenizer::Kind(TokenizerKind::Byte));
        pack(&options, &out, &mut |_| {}).unwrap();
    }
    let path = out.join(name);
    let before = std::fs::read(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let result = Packed::open(&out).map_err(words).map(|open| {
        open.manifest.tokens();
        let mut tokens = Vec::new();
        open.train.read(0..open.train.len(), &mut tokens);
        assert!(tokens.iter().all(|token| (*token as usize) < open.tokenizer.vocab_size()));
    });
    if let Some(manifest) = Packed::manifest_at(&out) {
        manifest.tokens();
    }
    std::fs::write(path, before).unwrap();
    result
}

#[test]
fn a_manifest_is_refused_in_words_or_true() {
    fuzz("manifest", 300, |folder, bytes| open_changed(folder, "manifest.json", bytes));
}

#[test]
fn a_shard_is_refused_in_words_or_true() {
    fuzz("shard", 300, |folder, bytes| {
        open_changed(folder, "train-00000.bin", bytes)?;
        let (header, tokens) = bytes.split_at(64);
        assert_eq!(header[32..], *Sha256::digest(tokens), "accepted with a wrong checksum");
        Ok(())
    });
}
