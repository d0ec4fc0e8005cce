//! Parquet tables. `make_tables.py` in the folder `parquet` wrote them with the Python package `pyarrow`.

use super::*;

const TEXT: &str = "The first row.\nna\u{ef}ve \u{1F600} text\n\nwith lines\nThe first row.\nthe last one";

fn table(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parquet").join(name)).unwrap()
}

#[test]
fn tables_of_other_programs_give_their_rows() {
    for (number, name) in ["snappy.parquet", "zstd.parquet", "gzip.parquet", "plain.parquet"].into_iter().enumerate() {
        for key in ["text", "body"] {
            let place = Place::new();
            let path = place.write(&format!("a{number}.PARQUET"), &table(name));
            let mut options = place.options(&[path.to_str().unwrap()], "byte");
            options.key = key.into();
            let mut read = Vec::new();
            let manifest = pack(&options, &place.path("out"), &mut |now| read.push(now.read)).unwrap();
            assert_eq!(text_of(&Packed::open(&place.path("out")).unwrap()), TEXT, "{name}");
            assert_eq!((manifest.documents, manifest.characters), (4, 64), "{name}");
            assert_eq!(read.last(), Some(&(table(name).len() as u64)), "{name}");
            let plain = TextData::load(path.to_str().unwrap(), TokenizerKind::Byte, 0.1).unwrap();
            assert_eq!(plain.train.len() + plain.valid.len(), TEXT.len(), "{name}");
        }
    }
}

#[test]
fn a_table_in_a_folder_is_read() {
    let place = Place::new();
    place.write("in/b.parquet", &table("snappy.parquet"));
    place.write("in/a.txt", b"a");
    assert_eq!(text_of(&place.pack(&["in"], "char")), format!("a\n{TEXT}"));
}

#[test]
fn a_table_without_the_column_is_refused_with_those_that_it_has() {
    let place = Place::new();
    place.write("a.parquet", &table("snappy.parquet"));
    let mut options = place.options(&["a.parquet"], "byte");
    for (key, columns) in [
        ("title", "only: `id` (int32), `text` (text), `body` (text), `raw` (byte_array)"),
        ("id", "`id` (int32)"),
        ("raw", "--key"),
    ] {
        options.key = key.into();
        let said = pack(&options, &place.path("out"), &mut |_| {}).unwrap_err().to_string();
        assert!(said.contains(&format!("no column `{key}` of text")) && said.contains(columns), "{said}");
        assert!(!place.path("out").exists());
    }
    place.write("n.parquet", &table("nested.parquet"));
    place.refused(
        &["n.parquet"],
        "byte",
        &["no column `text` of text", "`text.list.element` (text), `number` (double)"],
    );
}

#[test]
fn a_row_without_a_text_is_an_error_or_left_out() {
    let place = Place::new();
    place.write("a.parquet", &table("null.parquet"));
    place.refused(&["a.parquet"], "byte", &["row 2 of", "a.parquet", "its `text` is null", "--skip-bad"]);
    let mut options = place.options(&["a.parquet"], "byte");
    options.skip_bad = true;
    let manifest = pack(&options, &place.path("out"), &mut |_| {}).unwrap();
    assert_eq!(text_of(&Packed::open(&place.path("out")).unwrap()), "one\nthree");
    assert!(manifest.notes[0].contains("1 bad line is left out") && manifest.notes[0].contains("a.parquet:2`"));
}

#[test]
fn damaged_tables_are_named() {
    let place = Place::new();
    for name in ["snappy.parquet", "zstd.parquet", "gzip.parquet"] {
        let whole = table(name);
        for length in [0, 3, 4, 11, whole.len() / 2, whole.len() - 1] {
            place.write("a.parquet", &whole[..length]);
            place.refused(&["a.parquet"], "byte", &["Parquet table", "a.parquet", "download it again"]);
        }
    }
    place.write("a.parquet", b"this is a text");
    place.refused(&["a.parquet"], "byte", &["Parquet table", "cannot be read"]);
    place.write("a.parquet", &table("lz4.parquet"));
    place.refused(&["a.parquet"], "byte", &["Parquet table", "lz4", "write it again with snappy, zstd or gzip"]);
    place.write("a.parquet.gz", &gzip(&table("snappy.parquet")));
    place.refused(&["a.parquet.gz"], "byte", &["inside gzip", "gzip -dc"]);
    place.write("a.table", &table("snappy.parquet"));
    place.refused(&["a.table"], "byte", &["is a Parquet table", "ends in .parquet"]);
}
