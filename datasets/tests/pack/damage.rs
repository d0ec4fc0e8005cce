//! Damage, interrupted packings and folders that are in use.

use super::*;

#[test]
fn a_damaged_shard_is_named() {
    let shard = "train-00000.bin";
    let error = |change: &dyn Fn(&mut Vec<u8>)| Place::error_after(shard, change);
    let said = error(&|bytes| bytes[0] = b'X');
    assert!(matches!(said, DataError::Pack(PackError::NotAShard { .. })), "{said}");
    let said = error(&|bytes| bytes.clear());
    assert!(matches!(said, DataError::Pack(PackError::NotAShard { .. })), "{said}");
    let said = error(&|bytes| bytes[8] = 2);
    assert!(matches!(said, DataError::Pack(PackError::OtherVersion { found: 2, supported: 1, .. })), "{said}");
    let said = error(&|bytes| bytes[12] = 3);
    assert!(matches!(said, DataError::Pack(PackError::BadTokenSize { found: 3, .. })), "{said}");
    let said = error(&|bytes| bytes.truncate(240));
    assert!(matches!(said, DataError::Pack(PackError::WrongLength { found: 240, expected: 242, .. })), "{said}");
    let said = error(&|bytes| bytes.push(0));
    assert!(matches!(said, DataError::Pack(PackError::WrongLength { found: 243, .. })), "{said}");
    let said = error(&|bytes| bytes.truncate(20));
    assert!(matches!(said, DataError::Pack(PackError::WrongLength { found: 20, expected: 64, .. })), "{said}");
    let said = error(&|bytes| bytes[100] ^= 1);
    assert!(matches!(said, DataError::Pack(PackError::BadChecksum { .. })), "{said}");
    for offset in [24, 40] {
        let said = error(&|bytes| bytes[offset] ^= 1);
        assert!(matches!(said, DataError::Pack(PackError::ForeignShard { .. })), "{said}");
    }
}

/// Such a shard has a correct checksum: only a program with a bug writes it.
#[test]
fn a_token_outside_the_vocabulary_is_named() {
    let place = Place::new();
    place.write("a.txt", &b"0123456789".repeat(10));
    place.pack(&["a.txt"], "byte");
    let (shard, manifest) = (place.path("out/train-00000.bin"), place.path("out/manifest.json"));
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[64 + 2 * 30 + 1] = 1;
    let digest = Sha256::digest(&bytes[64..]);
    let (old, new) = (hex::encode(&bytes[32..64]), hex::encode(digest));
    bytes[32..64].copy_from_slice(&digest);
    std::fs::write(&shard, bytes).unwrap();
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(&old));
    std::fs::write(&manifest, text.replace(&old, &new)).unwrap();
    let error = Packed::open(&place.path("out")).unwrap_err();
    assert!(
        matches!(error, DataError::Pack(PackError::TokenOutside { token: 304, position: 30, vocab_size: 256, .. })),
        "{error}"
    );
}

#[test]
fn a_damaged_manifest_or_tokenizer_is_named() {
    let said = Place::error_after("manifest.json", |bytes| bytes.truncate(100));
    assert!(matches!(said, DataError::Pack(PackError::BadManifest { .. })), "{said}");
    let said = Place::error_after("manifest.json", |bytes| *bytes = b"{}".to_vec());
    assert!(said.to_string().contains("`format` is not `polaron-tokens`"), "{said}");
    let replace = |from: &'static str, to: &'static str| {
        Place::error_after("manifest.json", move |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            *bytes = text.replace(from, to).into_bytes();
        })
    };
    let said = replace("\"version\": 1", "\"version\": 7");
    assert!(matches!(said, DataError::Pack(PackError::OtherVersion { found: 7, .. })), "{said}");
    let said = replace("train-00000.bin", "../train-00000.bin");
    assert!(said.to_string().contains("not the name of a shard"), "{said}");
    let said = Place::error_after("tokenizer.json", |bytes| bytes.push(b' '));
    assert!(matches!(said, DataError::Pack(PackError::ForeignTokenizer { .. })), "{said}");
}

#[test]
fn a_missing_shard_is_named() {
    let place = Place::new();
    place.write("a.txt", &b"0123456789".repeat(10));
    place.pack(&["a.txt"], "byte");
    std::fs::remove_file(place.path("out/valid-00000.bin")).unwrap();
    let error = Packed::open(&place.path("out")).unwrap_err();
    assert!(error.to_string().contains("valid-00000.bin"), "{error}");
}

#[test]
fn what_an_interrupted_packing_leaves_is_not_a_data_set_and_is_removed() {
    let place = Place::new();
    place.write("a.txt", &b"0123456789".repeat(10));
    // All that it may leave: shards under either name, the tokenizer, the lock, a manifest without its name.
    for name in ["part-00003.bin", "train-00000.bin", "tokenizer.json", "pack.lock", ".manifest.json.tmp"] {
        place.write(&format!("out/{name}"), b"left over");
    }
    let error = TextData::load(place.path("out").to_str().unwrap(), TokenizerKind::Auto, 0.1).unwrap_err();
    assert!(matches!(error, DataError::Pack(PackError::Unfinished { .. })), "{error}");
    assert!(error.to_string().contains("interrupted"), "{error}");
    place.pack(&["a.txt"], "byte");
    let mut names: Vec<_> =
        std::fs::read_dir(place.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["manifest.json", "tokenizer.json", "train-00000.bin", "valid-00000.bin"]);
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let place = Place::new();
    place.write("a.txt", &b"0123456789".repeat(10));
    for name in ["out/notes.txt", "out/tokenizer.json"] {
        let mine = place.write(name, b"mine");
        let error = place.try_pack(&["a.txt"], "byte").unwrap_err();
        assert!(matches!(error, DataError::Pack(PackError::Occupied { .. })), "{error}");
        assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
        std::fs::remove_file(mine).unwrap();
    }
    place.pack(&["a.txt"], "byte");
    let error = place.try_pack(&["a.txt"], "byte").unwrap_err();
    assert!(matches!(error, DataError::Pack(PackError::Exists { .. })), "{error}");
    Packed::open(&place.path("out")).unwrap();
    place.write("file", b"a file");
    let error = pack(&place.options(&["a.txt"], "byte"), &place.path("file"), &mut |_| {}).unwrap_err();
    assert!(matches!(error, DataError::Pack(PackError::Unwritable { .. })), "{error}");
}

#[test]
fn two_processes_cannot_pack_into_one_folder() {
    let place = Place::new();
    place.write("a.txt", &b"0123456789".repeat(10));
    let mut second = None;
    pack(&place.options(&["a.txt"], "byte"), &place.path("out"), &mut |_| {
        second.get_or_insert_with(|| place.try_pack(&["a.txt"], "byte"));
    })
    .unwrap();
    let error = second.unwrap().unwrap_err();
    assert!(matches!(error, DataError::Pack(PackError::Locked { .. })), "{error}");
    Packed::open(&place.path("out")).unwrap();
}
