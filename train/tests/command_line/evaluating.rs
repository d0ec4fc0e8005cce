//! Losses in bits per byte.

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
