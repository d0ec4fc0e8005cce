//! Losses in bits per byte, and those of trained models on other texts.

use std::f64::consts::LN_2;

use polaron_datasets::{TextData, TokenizerKind, validation_batches};
use serde_json::Value;

use crate::support::Place;

fn validations(place: &Place, run: &str) -> Vec<Value> {
    place.events(run).into_iter().filter(|event| event["event"] == "valid").collect()
}

fn number(event: &Value, field: &str) -> f64 {
    event[field].as_f64().unwrap_or_else(|| panic!("no {field} in {event}"))
}

/// Tokens and bytes of what validations over `windows` windows of 16 tokens predict.
fn predicted(place: &Place, kind: TokenizerKind, windows: usize) -> (f64, f64) {
    let data = TextData::load(place.path("text.txt").to_str().unwrap(), kind, 0.1).unwrap();
    let (mut tokens, mut bytes) = (0, 0);
    for batch in validation_batches(&data.valid, 16, windows, 7) {
        for row in 0..batch.rows() {
            let targets: Vec<u32> = batch.targets(row..row + 1).into_iter().map(|token| token as u32).collect();
            tokens += targets.len();
            bytes += data.tokenizer.decode(&targets).unwrap().len();
        }
    }
    (tokens as f64, bytes as f64)
}

#[test]
fn validations_are_in_bits_per_byte_too() {
    for (tokenizer, kind) in [("char", TokenizerKind::Char), ("bpe:300", TokenizerKind::Bpe(300))] {
        let place = Place::new();
        let tokenizer = format!("data.tokenizer={tokenizer}");
        let more = ["--set", "train.valid_every=2", "--set", "train.valid_windows=5", "--set", &tokenizer];
        let said = place.train(&[&["--steps", "4", "--out", "run"], more.as_slice()].concat()).succeeds();
        let events = validations(&place, "run");
        assert_eq!(events.len(), 2);
        for (event, windows) in events.iter().zip([5, usize::MAX]) {
            let (tokens, bytes) = predicted(&place, kind, windows);
            let expected = number(event, "loss") / LN_2 * tokens / bytes;
            assert!((number(event, "bits_per_byte") / expected - 1.0).abs() < 1e-12, "{event}");
        }
        let last = format!("{:.4}", number(&events[1], "bits_per_byte"));
        assert!(said.out.contains(&format!("bits per byte    {last}\n")), "{}", said.out);
        assert!(said.err.contains(&format!("{last} bits per byte")), "{}", said.err);
        let page = String::from_utf8(place.read("run/report.html")).unwrap();
        assert!(page.contains("<th>bits per byte</th>") && page.contains(&format!("<td>{last}</td>")));
        // What is said of the finished run is read from its metrics.
        let again = place.run(&["train", "--resume", "run"]).succeeds();
        assert!(again.out.contains(&format!("bits per byte    {last}\n")), "{}", again.out);
    }
}

fn eval(place: &Place, more: &[&str]) -> Value {
    let out = place.run(&[&["eval", "run", "--json", "--threads", "2"], more].concat()).succeeds().out;
    serde_json::from_str(&out).unwrap()
}

/// A text whose validation split has whole windows only.
pub fn of_whole_windows() -> Place {
    let place = Place::new();
    let text = String::from_utf8(place.read("text.txt")).unwrap();
    let fits = |length: &usize| {
        let data = TextData::from_text("text", &text[..*length], TokenizerKind::Char, 0.1).unwrap();
        data.valid.len() % 16 == 1
    };
    let length = (5000..text.len()).find(fits).unwrap();
    place.write("text.txt", &text.as_bytes()[..length]);
    place
}

/// A run on such a text.
fn trained() -> Place {
    let place = of_whole_windows();
    place.train(&["--steps", "20", "--out", "run"]).succeeds();
    place
}

#[test]
fn the_loss_of_a_run_is_that_of_its_last_validation() {
    let place = trained();
    let last = validations(&place, "run").pop().unwrap();
    let found = eval(&place, &[]);
    for field in ["loss", "bits_per_byte"] {
        assert_eq!(number(&found, field), number(&last, field), "{field}");
    }
    assert_eq!(number(&found, "perplexity"), number(&last, "loss").exp());
    assert_eq!((found["split"].as_str(), found["step"].as_u64()), (Some("valid"), Some(20)));
    assert_eq!(number(&found, "tokens"), 16.0 * number(&found, "windows"));
    assert!(number(&eval(&place, &["--step", "0"]), "loss") > number(&found, "loss"));
    let said = place.run(&["eval", "run"]).succeeds().out;
    for line in ["model          run, step 20\n", "bits per byte  ", " nats per token\n", " of 16 tokens\n"] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
}

#[test]
fn every_token_but_the_first_is_predicted_once() {
    let place = trained();
    let text = String::from_utf8(place.read("text.txt")).unwrap();
    let part = |name: &str, text: &str| {
        place.write(name, text.as_bytes());
        let found = eval(&place, &["--data", name]);
        assert_eq!(number(&found, "tokens"), text.len() as f64 - 1.0);
        assert_eq!(number(&found, "bytes"), text.len() as f64 - 1.0);
        number(&found, "loss") * number(&found, "tokens")
    };
    // 40 windows of 16, and one of 9.
    let (front, back) = (part("front.txt", &text[..641]), part("back.txt", &text[640..650]));
    let whole = part("whole.txt", &text[..650]);
    assert!((whole / (front + back) - 1.0).abs() < 1e-6, "{whole} {front} {back}");
    let said = place.run(&["eval", "run", "--data", "whole.txt"]).succeeds().out;
    assert!(said.contains("40 of 16 tokens and one of 9\n"), "{said}");
    // Fewer tokens before a token tell less about it.
    let short = eval(&place, &["--data", "whole.txt", "--context", "1"]);
    assert!(number(&short, "loss") * 649.0 > whole && number(&short, "windows") == 649.0, "{short}");
    let valid = eval(&place, &["--data", "whole.txt", "--split", "valid"]);
    assert_eq!(number(&valid, "tokens"), 64.0);
}

#[test]
fn packed_data_and_exported_folders_give_the_same_loss() {
    let place = trained();
    let text = eval(&place, &["--data", "text.txt"]);
    place.run(&["data", "pack", "text.txt", "--tokenizer", "run/tokenizer.json", "--out", "packed"]).succeeds();
    let packed = eval(&place, &["--data", "packed"]);
    assert_eq!((number(&packed, "loss"), number(&packed, "tokens")), (number(&text, "loss"), number(&text, "tokens")));
    place.run(&["data", "pack", "text.txt", "--tokenizer", "bpe:300", "--out", "other"]).succeeds();
    place.run(&["eval", "run", "--data", "other"]).fails(2, &["`other`", "packed with another tokenizer"]);
    place.run(&["export", "run", "--format", "hf", "--out", "hf"]).succeeds();
    let out = place.run(&["eval", "hf", "--data", "text.txt", "--json"]).succeeds().out;
    let there: Value = serde_json::from_str(&out).unwrap();
    assert!((number(&there, "bits_per_byte") / number(&text, "bits_per_byte") - 1.0).abs() < 1e-6, "{there}");
    place.run(&["eval", "hf"]).fails(2, &["`hf` names no data of its own", "--data TEXT"]);
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let place = trained();
    place.write("foreign.txt", "The \u{e9}".as_bytes());
    place.write("one.txt", b"T");
    for (more, fragments) in [
        (["--data", "foreign.txt"], ["`foreign.txt`", "'\u{e9}'"]),
        (["--data", "one.txt"], ["`one.txt`", "1 tokens"]),
        (["--data", "nowhere.txt"], ["nowhere.txt", "no data set"]),
        (["--context", "0"], ["`--context` is 0", "from 1 to 16"]),
        (["--context", "17"], ["`--context` is 17", "from 1 to 16"]),
        (["--split", "train"], ["train", "--split"]),
        (["--step", "7"], ["step 7", "0, 20"]),
    ] {
        place.run(&[&["eval", "run"], more.as_slice()].concat()).fails(2, &fragments);
    }
    place.run(&["eval", "nowhere"]).fails(2, &["nowhere"]);
    let text = String::from_utf8(place.read("text.txt")).unwrap();
    place.write("text.txt", text.replace("king", "fool").as_bytes());
    place.run(&["eval", "run"]).fails(2, &["has changed since `run` was trained", "--data TEXT"]);
    std::fs::remove_file(place.path("text.txt")).unwrap();
    place.run(&["eval", "run"]).fails(2, &["the data of `run` are not at", "--data TEXT"]);
}

#[test]
fn a_perceptron_is_measured_on_its_validation_images() {
    let place = Place::new();
    let small = ["--model", "mlp", "--set", "model.width=32", "--threads", "2", "--out", "run", "--steps", "30"];
    place.run(&[&["train"], small.as_slice()].concat()).succeeds();
    let last = validations(&place, "run").pop().unwrap();
    let found = eval(&place, &[]);
    for field in ["loss", "accuracy"] {
        assert_eq!(number(&found, field), number(&last, field), "{field}");
    }
    assert!(place.run(&["eval", "run"]).succeeds().out.contains("360 validation images"));
    place.run(&["eval", "run", "--context", "4"]).fails(2, &["a perceptron has no windows"]);
    place.run(&["eval", "run", "--data", "text.txt"]).fails(2, &["text.txt"]);
}
