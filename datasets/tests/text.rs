//! Promises of [`polaron_datasets::TextData`].

use std::path::{Path, PathBuf};

use polaron_datasets::{DATASETS, DataError, TextData, Tokenizer, TokenizerKind};
use sha2::{Digest, Sha256};

fn load(path: &Path) -> Result<TextData, DataError> {
    TextData::load(path.to_str().unwrap(), TokenizerKind::Char, 0.1)
}

fn file_with(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn the_embedded_text_is_the_documented_one() {
    let data = TextData::load("shakespeare", TokenizerKind::Char, 0.1).unwrap();
    assert_eq!(data.name, "shakespeare");
    assert_eq!(data.characters, 4_987_348);
    assert_eq!(data.tokenizer.vocab_size(), 80);
    assert_eq!((data.train.len(), data.valid.len()), (4_488_613, 498_735));
    let text =
        data.tokenizer.decode(&[data.train, data.valid].map(|split| split.to_vec(0..split.len())).concat()).unwrap();
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    assert_eq!(digest, "7b069592ab1d4580288961a79e0f421efd1ebd92cb81521f62d7ca6cb1814aa3");
}

#[test]
fn every_listed_text_loads_with_every_tokenizer() {
    for info in DATASETS {
        for kind in [TokenizerKind::Char, TokenizerKind::Byte] {
            let data = TextData::load(info.name, kind, 0.1).unwrap();
            assert_eq!(data.tokenizer.kind(), kind);
            data.check_windows(256).unwrap();
        }
    }
}

#[test]
fn the_split_truncates_the_training_share() {
    // int(0.9 * 1,115,394), the split of the public tinyshakespeare text.
    let text = "a".repeat(1_115_394);
    let data = TextData::from_text("text", &text, TokenizerKind::Byte, 0.1).unwrap();
    assert_eq!((data.train.len(), data.valid.len()), (1_003_854, 111_540));
}

#[test]
fn a_file_is_read_by_its_path_and_counted_in_characters() {
    let (_folder, path) = file_with("h\u{e9}llo w\u{f6}rld".as_bytes());
    let data = load(&path).unwrap();
    assert_eq!(data.characters, 11);
    assert_eq!((data.train.len(), data.valid.len()), (9, 2));
    assert_eq!(data.tokenizer, Tokenizer::char_from("h\u{e9}llo w\u{f6}rld"));
    let bytes = TextData::load(path.to_str().unwrap(), TokenizerKind::Byte, 0.5).unwrap();
    assert_eq!((bytes.characters, bytes.train.len() + bytes.valid.len()), (11, 13));
}

#[test]
fn a_source_that_is_neither_embedded_nor_a_file_names_both_possibilities() {
    let error = TextData::load("no/such/file.txt", TokenizerKind::Char, 0.1).unwrap_err().to_string();
    for part in ["`no/such/file.txt`", "embedded text (shakespeare)", "existing file", "spelling of the path"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_misspelt_embedded_name_is_suggested() {
    for name in ["shakespere", "Shakespeare", "shakespeare.txt", "shakspeare", "tinyshakespeare"] {
        let error = TextData::load(name, TokenizerKind::Char, 0.1).unwrap_err().to_string();
        assert!(error.contains("did you mean `shakespeare`?"), "{error}");
    }
    let error = TextData::load("wikipedia", TokenizerKind::Char, 0.1).unwrap_err().to_string();
    assert!(!error.contains("did you mean"), "{error}");
}

#[test]
fn a_folder_is_refused_as_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let error = load(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Folder { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
}

#[test]
fn an_empty_file_is_refused() {
    let (_folder, path) = file_with(b"");
    let error = load(&path).unwrap_err();
    assert!(matches!(error, DataError::Empty { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn invalid_utf8_is_refused_with_its_byte_offset() {
    let (_folder, path) = file_with(b"h\xc3\xa9llo\xff world");
    let error = load(&path).unwrap_err();
    assert!(matches!(error, DataError::NotUtf8 { offset: 6, .. }), "{error}");
    assert!(error.to_string().contains("byte offset 6"), "{error}");
}

#[test]
fn a_text_cut_inside_a_character_is_refused_with_its_byte_offset() {
    let (_folder, path) = file_with(b"abc\xe2\x82");
    assert!(matches!(load(&path), Err(DataError::NotUtf8 { offset: 3, .. })));
}

#[cfg(unix)]
#[test]
fn a_file_without_read_permission_is_refused_as_unreadable() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = file_with(b"secret");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may read everything; then there is nothing to refuse.
    if std::fs::read(&path).is_err() {
        let error = load(&path).unwrap_err();
        assert!(matches!(error, DataError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("permission"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_fails_while_being_read_is_refused_as_unreadable() {
    // Reading a process's own memory at address 0 is an I/O error for every user, the superuser
    // included.
    let error = load(Path::new("/proc/self/mem")).unwrap_err();
    assert!(matches!(error, DataError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("/proc/self/mem"), "{error}");
}

#[test]
fn a_validation_share_outside_zero_to_one_is_refused() {
    for value in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        let error = TextData::load("shakespeare", TokenizerKind::Char, value).unwrap_err();
        assert!(matches!(error, DataError::BadFraction { .. }), "{error}");
        assert!(error.to_string().contains(&value.to_string()), "{error}");
    }
}

#[test]
fn a_text_shorter_than_one_window_is_refused() {
    let data = TextData::from_text("short.txt", &"ab".repeat(50), TokenizerKind::Char, 0.1).unwrap();
    data.check_windows(9).unwrap();
    let error = data.check_windows(10).unwrap_err().to_string();
    for part in ["validation split", "`short.txt`", "has 10 tokens", "context 10 needs 11"] {
        assert!(error.contains(part), "{error}");
    }
    let error = data.check_windows(90).unwrap_err().to_string();
    assert!(error.contains("training split") && error.contains("needs 91"), "{error}");
    assert!(matches!(data.check_windows(0), Err(DataError::Zero { what: "context" })));
    data.check_windows(usize::MAX).unwrap_err();
}
