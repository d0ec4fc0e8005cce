//! Packed data and learnt tokenizers, from the command line.

use std::io::Write;

use crate::support::{Place, names_in};

const SHORT: &[&str] = &["--steps", "12", "--set", "train.valid_every=6"];

/// Packs `text.txt` into `out`.
fn pack(place: &Place, tokenizer: &str, more: &[&str]) -> String {
    place.run(&[&["data", "pack", "text.txt", "--tokenizer", tokenizer], more].concat()).succeeds().out
}

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [SHORT, more].concat()
}

#[test]
fn training_on_packed_data_gives_the_weights_that_the_text_gives() {
    for tokenizer in ["char", "bpe:300"] {
        let place = Place::new();
        let said = pack(&place, tokenizer, &["--out", "packed", "--shard-tokens", "1000"]);
        assert!(said.contains(tokenizer) && said.contains("polaron train --data packed"), "{said}");
        let set = format!("data.tokenizer={tokenizer}");
        place.train(&short(&["--set", &set, "--out", "plain"])).succeeds();
        place.train(&short(&["--data", "packed", "--out", "run"])).succeeds();
        assert_eq!(place.weights("run", 12), place.weights("plain", 12), "{tokenizer}");
        assert_eq!(place.timeless_events("run"), place.timeless_events("plain"), "{tokenizer}");
        assert_eq!(place.read("run/tokenizer.json"), place.read("packed/tokenizer.json"), "{tokenizer}");
    }
}

#[test]
fn a_run_on_packed_data_repeats_resumes_and_generates() {
    let place = Place::new();
    pack(&place, "bpe:300", &["--out", "packed", "--valid-fraction", "0.2"]);
    place.train(&short(&["--data", "packed", "--out", "run"])).succeeds();
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    assert!(config.contains("tokenizer = \"bpe:300\"") && config.contains("valid_fraction = 0.2"), "{config}");
    place.run(&["train", "run/config.toml", "--out", "again"]).succeeds();
    assert_eq!(place.weights("again", 12), place.weights("run", 12));
    place.train(&short(&["--data", "packed", "--out", "run"])).succeeds();
    let text = place.run(&["generate", "run", "--prompt", "The k\u{f6}nig", "--tokens", "30"]).succeeds().out;
    assert!(text.starts_with("The k\u{f6}nig"), "{text}");
}

#[test]
fn another_tokenizer_or_split_than_the_packed_one_is_refused() {
    let place = Place::new();
    pack(&place, "byte", &["--out", "packed"]);
    let refused = |set: &str, parts: &[&str]| {
        place.train(&short(&["--data", "packed", "--set", set, "--out", "run"])).fails(2, parts);
        assert!(!place.path("run").exists());
    };
    refused(
        "data.tokenizer=char",
        &["packed with the tokenizer byte", "`data.tokenizer` is char", "remove that setting"],
    );
    refused("data.tokenizer=bpe:400", &["packed with the tokenizer byte", "bpe:400"]);
    refused("data.valid_fraction=0.3", &["`data.valid_fraction` is 0.3", "packed with 0.1", "--valid-fraction 0.3"]);
    place.train(&short(&["--data", "packed", "--set", "data.tokenizer=byte", "--out", "run"])).succeeds();
}

#[test]
fn a_tokenizer_that_is_none_is_refused() {
    let place = Place::new();
    let refused = |value: &str, parts: &[&str]| {
        place.train(&["--set", &format!("data.tokenizer={value}"), "--out", "run"]).fails(2, parts);
    };
    refused("bpe:100", &["`data.tokenizer` is bpe:100", "from 257"]);
    refused("bytes", &["`data.tokenizer` is `bytes`", "did you mean `byte`?"]);
    refused("file", &["`file` belongs to packed data"]);
}

#[test]
fn data_or_tokenizer_that_changed_under_a_run_are_refused() {
    let place = Place::new();
    pack(&place, "bpe:300", &["--out", "packed"]);
    place.train(&short(&["--data", "packed", "--out", "run"])).succeeds();
    std::fs::remove_dir_all(place.path("packed")).unwrap();
    place.write("more.txt", b"Another text. The fool is a king.\n");
    place.run(&["data", "pack", "text.txt", "more.txt", "--tokenizer", "bpe:300", "--out", "packed"]).succeeds();
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000012")).unwrap();
    place.train(&short(&["--data", "packed", "--out", "run"])).fails(2, &["packed", "have changed since"]);
    let learnt = place.read("run/tokenizer.json");
    place.write("run/tokenizer.json", &place.read("packed/tokenizer.json"));
    place.run(&["generate", "run", "--prompt", "x"]).fails(2, &["run/tokenizer.json", "trained with"]);
    place.write("run/tokenizer.json", b"{\"kind\":\"byte\"}");
    place.run(&["generate", "run", "--prompt", "x"]).fails(2, &["run/tokenizer.json", "trained with"]);
    place.write("run/tokenizer.json", &learnt);
    place.run(&["generate", "run", "--prompt", "x", "--tokens", "3"]).succeeds();
}

#[test]
fn damaged_packed_data_is_refused() {
    let place = Place::new();
    pack(&place, "byte", &["--out", "packed"]);
    let whole = place.read("packed/train-00000.bin");
    let mut damaged = whole.clone();
    damaged[1000] ^= 4;
    for (bytes, problem) in [(&damaged[..], "checksum"), (&whole[..999], "has 999 bytes")] {
        place.write("packed/train-00000.bin", bytes);
        place.train(&["--data", "packed", "--out", "run"]).fails(2, &["train-00000.bin", problem]);
        place.run(&["data", "info", "packed"]).fails(2, &["train-00000.bin", problem]);
    }
    assert!(!place.path("run").exists());
}

#[test]
fn info_says_what_is_in_a_folder() {
    let place = Place::new();
    pack(&place, "byte", &["--out", "packed"]);
    let said = place.run(&["data", "info", "packed", "--verify"]).succeeds().out;
    for part in ["1 file, 1 document", "byte, vocabulary 256, 1.00 characters", "2, 1 MB", "good", "text.txt"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    place.run(&["data", "info", "."]).fails(2, &["holds no packed tokens"]);
    place.run(&["data", "info", "nowhere"]).fails(2, &["nowhere", "holds no packed tokens"]);
}

#[test]
fn what_cannot_be_packed_is_refused_and_nothing_stays_behind() {
    let place = Place::new();
    place.write("latin1.txt", b"caf\xe9 and more");
    place.write("empty.txt", b"");
    place.write("bad.jsonl", b"{\"body\": \"x\"}\n");
    std::fs::create_dir(place.path("folder")).unwrap();
    let before = names_in(&place.path(""));
    let refused = |arguments: &[&str], parts: &[&str]| {
        place.run(&[&["data", "pack", "--out", "packed"], arguments].concat()).fails(2, parts);
        assert_eq!(names_in(&place.path("")), before, "something was written");
    };
    refused(&["text.txt"], &["--tokenizer"]);
    refused(&["--tokenizer", "byte"], &["FILE"]);
    refused(&["nowhere.txt", "--tokenizer", "byte"], &["nowhere.txt", "spelling"]);
    refused(&["folder", "--tokenizer", "byte"], &["folder", "no file ending in"]);
    refused(&["text.txt", "--tokenizer", "bpe:1"], &["`bpe:1`", "bpe:N with N from 257"]);
    refused(&["text.txt", "--tokenizer", "text.txt"], &["text.txt", "is not a tokenizer"]);
    refused(&["empty.txt", "--tokenizer", "char"], &["empty.txt", "is empty"]);
    refused(&["latin1.txt", "--tokenizer", "byte"], &["latin1.txt", "byte offset 3"]);
    refused(&["bad.jsonl", "--tokenizer", "byte"], &["line 1", "bad.jsonl", "only: body", "--key"]);
    refused(&["text.txt", "--tokenizer", "byte", "--valid-fraction", "1"], &["`valid_fraction` is 1"]);
    refused(&["text.txt", "--tokenizer", "byte", "--shard-tokens", "0"], &["shard tokens"]);
    pack(&place, "byte", &["--out", "packed"]);
    place.run(&["data", "pack", "text.txt", "--tokenizer", "byte", "--out", "packed"]).fails(2, &["already"]);
    place.train(&["--data", "folder", "--out", "run"]).fails(2, &["folder", "polaron data pack"]);
}

/// The input is a pipe that never ends, so that the kill always comes in the middle.
#[cfg(unix)]
#[test]
fn a_killed_packing_leaves_no_data_set_and_does_not_stand_in_the_way() {
    use std::process::{Command, Stdio};
    let place = Place::new();
    let pipe = place.path("endless.txt");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let arguments =
        ["data", "pack", "endless.txt", "--tokenizer", "byte", "--out", "packed", "--shard-tokens", "200000"];
    let mut child = place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    writer.write_all(&b"some words of text\n".repeat(200_000)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let left = names_in(&place.path("packed"));
    assert!(left.len() > 5 && left.iter().all(|name| name != "manifest.json"), "{left:?}");
    place.train(&["--data", "packed", "--out", "run"]).fails(2, &["packed", "was interrupted"]);
    place.run(&["data", "info", "packed"]).fails(2, &["packed", "was interrupted"]);
    pack(&place, "byte", &["--out", "packed"]);
    let names = ["manifest.json", "tokenizer.json", "train-00000.bin", "valid-00000.bin"];
    assert_eq!(names_in(&place.path("packed")), names);
    place.train(&short(&["--data", "packed", "--out", "run"])).succeeds();
}

#[test]
fn every_kind_of_text_file_trains_without_packing_and_the_rest_is_named() {
    let place = Place::new();
    let text = String::from_utf8(place.read("text.txt")).unwrap();
    let records: String = text.lines().map(|line| format!("{{\"text\": \"{line}\"}}\r\n")).collect();
    place.write("UPPER.JSONL", records.as_bytes());
    place.train(&short(&["--data", "UPPER.JSONL", "--out", "records"])).succeeds();
    // Packed or not, the splits are divided between two documents.
    place.run(&["data", "pack", "UPPER.JSONL", "--tokenizer", "char", "--out", "packed"]).succeeds();
    place.train(&short(&["--data", "packed", "--out", "again"])).succeeds();
    assert_eq!(place.weights("records", 12), place.weights("again", 12));
    place.write("marked.txt", format!("\u{feff}{text}").as_bytes());
    let said = place.train(&short(&["--data", "marked.txt", "--out", "marked"])).succeeds().err;
    assert!(said.contains("note: the byte order mark at the front of") && said.contains("marked.txt"), "{said}");
    place.write("x.parquet", b"PAR1\x15\x04\x15\x10");
    place
        .train(&short(&["--data", "x.parquet", "--out", "x"]))
        .fails(2, &["x.parquet", "Parquet table", "cannot be read"]);
    place.write("a b.txt", b"caf\xe9 and more");
    place.train(&short(&["--data", "a b.txt", "--out", "x"])).fails(2, &["iconv -f ISO-8859-1 -t UTF-8 '", "a b.txt'"]);
    assert!(!place.path("x").exists());
}

#[test]
fn a_configuration_with_a_byte_order_mark_is_read_and_one_in_utf_16_is_named() {
    let place = Place::new();
    place.write("c.toml", "\u{feff}[train]\nsteps = 3\n".as_bytes());
    let said = place.run(&["train", "c.toml", "--out", "run", "--data", "x.parquet"]);
    assert!(said.err.contains("note: the byte order mark at the front of `c.toml`"), "{said:?}");
    let wide: Vec<u8> = "\u{feff}[train]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    place.write("w.toml", &wide);
    place.run(&["train", "w.toml", "--out", "wide"]).fails(2, &["w.toml", "UTF-16", "iconv -f UTF-16 -t UTF-8 w.toml"]);
}

#[test]
fn a_tokenizer_that_loses_the_text_is_refused_unless_allowed() {
    let place = Place::new();
    place.write("t.json", b"{\"kind\": \"char\", \"alphabet\": \"\\n .Tabcdefghiklmnoqrstuwy\"}");
    place.write("odd.txt", "The king \u{4e2d}. ".repeat(200).as_bytes());
    let arguments = ["data", "pack", "odd.txt", "--tokenizer", "t.json", "--out", "packed"];
    place.run(&arguments).fails(2, &["odd.txt", "'\u{4e2d}'"]);
    let said = place.run(&[&arguments[..], &["--allow-unknown"]].concat()).succeeds().out;
    assert!(said.contains("200 of 2400 characters (8.33 %)"), "{said}");
    let said = place.train(&short(&["--data", "packed", "--out", "run"])).succeeds().err;
    assert!(said.contains("note: 200 of 2400 characters"), "{said}");
    place.run(&["generate", "run", "--prompt", "\u{4e2d}"]).fails(2, &["'\u{4e2d}'"]);
}

#[test]
fn tokens_of_another_program_are_trained_on_without_their_tokenizer() {
    let place = Place::new();
    let tokens = |count: u32, seed: u32| -> Vec<u8> {
        (0..count).flat_map(|n| ((n * n + seed) as u16 % 300).to_le_bytes()).collect()
    };
    place.write("train.bin", &tokens(6000, 1));
    place.write("val.bin", &tokens(600, 7));
    let said =
        place.run(&["data", "import", "train.bin", "val.bin", "--vocab", "300", "--out", "packed"]).succeeds().out;
    for part in ["2 files", "vocabulary 300", "6,000 training and 600 validation tokens", "the text is not known"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert!(!said.contains("characters"), "{said}");
    let done = place.train(&short(&["--data", "packed", "--out", "run"])).succeeds().out;
    assert!(!done.contains("sample") && !done.contains("polaron generate"), "{done}");
    let unknown = ["imported with --vocab", "--tokenizer"];
    for prompt in ["x", ""] {
        place.run(&["generate", "run", "--prompt", prompt]).fails(2, &unknown);
    }
    place.train(&short(&["--data", "packed", "--set", "train.sample_prompt=x", "--out", "other"])).fails(2, &unknown);
    assert!(!place.path("other").exists());
}

#[test]
fn what_cannot_be_imported_is_refused_and_nothing_stays_behind() {
    let place = Place::new();
    place.write("good.bin", &[1, 0].repeat(50));
    place.write("odd.bin", &[1; 11]);
    let before = names_in(&place.path(""));
    let refused = |arguments: &[&str], parts: &[&str]| {
        place.run(&[&["data", "import", "--out", "packed"], arguments].concat()).fails(2, parts);
        assert_eq!(names_in(&place.path("")), before, "something was written");
    };
    refused(&["good.bin"], &["--tokenizer"]);
    refused(&["good.bin", "--vocab", "300", "--tokenizer", "t.json"], &["--vocab"]);
    refused(&["good.bin", "--tokenizer", "t.json"], &["t.json"]);
    refused(&["good.bin", "odd.bin", "--vocab", "300"], &["odd.bin", "byte offset 10"]);
    refused(&["good.bin", "--vocab", "1"], &["good.bin", "token 1 at byte offset 0", "vocabulary of 1"]);
    refused(&["good.bin", "--vocab", "0"], &["vocabulary of 0"]);
    refused(&["good.bin", "--vocab", "300", "--valid-fraction", "1"], &["`valid_fraction` is 1"]);
}

#[test]
fn bad_lines_are_left_out_if_that_is_asked_for() {
    let place = Place::new();
    place.write("a.jsonl", b"{\"text\": \"The king is dead.\"}\n{\"text\": 5}\n{\"text\": \"Long live the king.\"}\n");
    let pack = |more: &[&str]| {
        place.run(&[&["data", "pack", "a.jsonl", "--tokenizer", "byte", "--out", "packed"], more].concat())
    };
    pack(&[]).fails(2, &["line 2", "a.jsonl", "--skip-bad"]);
    let said = pack(&["--skip-bad", "--eot", "|"]).succeeds().out;
    assert!(said.contains("1 bad line is left out, the first is `a.jsonl:2`"), "{said}");
    std::fs::remove_dir_all(place.path("packed")).unwrap();
    pack(&["--skip-bad", "--eot", "</s>"]).fails(2, &["no token `</s>`"]);
}
