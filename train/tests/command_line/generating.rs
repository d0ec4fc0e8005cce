//! Where generated text ends, several prompts, and text that appears while it is generated.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::support::Place;

fn trained(more: &[&str]) -> Place {
    let place = Place::new();
    place.train(&[&["--out", "run", "--steps", "5"], more].concat()).succeeds();
    place
}

fn generate(place: &Place, more: &[&str]) -> String {
    place.run(&[&["generate", "run", "--tokens", "60", "--temperature", "1.5"], more].concat()).succeeds().out
}

fn json(place: &Place, more: &[&str]) -> Vec<Value> {
    let out = generate(place, &[&["--json"], more].concat());
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn text_ends_before_a_stop_and_is_otherwise_the_same() {
    let place = trained(&[]);
    let whole = generate(&place, &["--prompt", "The "]);
    let new = whole.strip_suffix('\n').and_then(|text| text.strip_prefix("The ")).unwrap();
    // Three characters from the middle, of which an earlier piece may be the same.
    let stop: String = new.chars().skip(30).take(3).collect();
    let cut = new.find(&stop).unwrap();
    let stopped = generate(&place, &["--prompt", "The ", "--stop", "\u{2603}", "--stop", &stop]);
    assert_eq!(stopped, format!("The {}\n", &new[..cut]));
    let line = &json(&place, &["--prompt", "The ", "--stop", &stop])[0];
    assert_eq!((line["text"].as_str(), line["ended"].as_str()), (Some(&new[..cut]), Some("stop")));
    let line = &json(&place, &["--prompt", "The "])[0];
    assert_eq!((line["tokens"].as_u64(), line["ended"].as_str()), (Some(60), Some("length")));
    assert_eq!(line["text"].as_str(), Some(new));
    place.run(&["generate", "run", "--prompt", "T", "--stop", ""]).fails(2, &["--stop", "an empty text"]);
}

#[test]
fn text_ends_at_the_end_of_text_token() {
    // A model that has seen hardly anything else: every other document is one letter.
    let place = Place::new();
    place.write("text.txt", "a\n".repeat(3).as_bytes());
    let documents: String = (0..900).map(|i| format!("{{\"text\": \"{}\"}}\n", ["a", "ab"][i % 2])).collect();
    place.write("text.jsonl", documents.as_bytes());
    let more = ["--data", "text.jsonl", "--set", "data.tokenizer=bpe:260"];
    place.train(&[&["--out", "run", "--steps", "60"], more.as_slice()].concat()).succeeds();
    let ended = |line: &Value| (line["ended"].as_str().unwrap().to_owned(), line["tokens"].as_u64().unwrap());
    let line = &json(&place, &["--prompt", "a", "--temperature", "0"])[0];
    assert_eq!(ended(line).0, "end_of_text", "{line}");
    assert!(!line["text"].as_str().unwrap().contains("endoftext"), "{line}");
    let line = &json(&place, &["--prompt", "a", "--temperature", "0", "--ignore-eot"])[0];
    assert_eq!(ended(line), ("length".into(), 60), "{line}");
    assert!(line["text"].as_str().unwrap().contains("<|endoftext|>"), "{line}");
}

#[test]
fn every_prompt_of_a_file_is_continued_with_a_seed_of_its_own() {
    let place = trained(&[]);
    place.write("prompts.txt", b"The king\n\nThe fool \n");
    place.write("prompts.jsonl", b"{\"prompt\": \"The king\"}\n{\"prompt\": \"The fool \", \"id\": 7}\n");
    let one = generate(&place, &["--prompt", "The king", "--seed", "7"]);
    let two = generate(&place, &["--prompt", "The fool ", "--seed", "8"]);
    let all = generate(&place, &["--prompts", "prompts.txt", "--seed", "7"]);
    assert_eq!(all, format!("=== 1 of 2 ===\n{one}=== 2 of 2 ===\n{two}"));
    let lines = json(&place, &["--prompts", "prompts.jsonl", "--seed", "7"]);
    let joined = |line: &Value| format!("{}{}\n", line["prompt"].as_str().unwrap(), line["text"].as_str().unwrap());
    assert_eq!(lines.iter().map(joined).collect::<Vec<_>>(), [one, two]);
    assert_eq!((lines[1]["index"].as_u64(), lines[1]["seed"].as_u64()), (Some(1), Some(8)));
    place.write("bad.txt", "The\nThe \u{e9}\n".as_bytes());
    let said = place.run(&["generate", "run", "--prompts", "bad.txt"]);
    assert_eq!(said.out, "", "all prompts are checked before the first text");
    said.fails(2, &["line 2 of bad.txt", "'\u{e9}'"]);
    place.write("bad.jsonl", b"The\n");
    place.run(&["generate", "run", "--prompts", "bad.jsonl"]).fails(2, &["line 1 of bad.jsonl", "prompt"]);
    place.run(&["generate", "run", "--prompts", "no.txt"]).fails(2, &["cannot read the prompts `no.txt`"]);
    place.run(&["generate", "run", "--prompts", "bad.txt", "--prompt", "x"]).fails(2, &["--prompt"]);
    place.run(&["generate", "run"]).fails(2, &["--prompt"]);
}

#[test]
fn the_likeliest_alone_are_greedy_and_all_are_all() {
    let place = trained(&[]);
    let greedy = generate(&place, &["--prompt", "The ", "--temperature", "0"]);
    assert_eq!(generate(&place, &["--prompt", "The ", "--top-p", "1e-9"]), greedy);
    let all = generate(&place, &["--prompt", "The "]);
    assert_eq!(generate(&place, &["--prompt", "The ", "--top-p", "1"]), all);
    assert_ne!(generate(&place, &["--prompt", "The ", "--top-p", "0.5"]), all);
    for value in ["0", "1.5", "-1", "nan"] {
        place.run(&["generate", "run", "--prompt", "T", "--top-p", value]).fails(2, &["`--top-p`", "at most 1"]);
    }
}

#[test]
fn text_appears_while_it_is_generated() {
    let place = trained(&[]);
    // More than a test could wait for: it must be read before the end.
    let mut child = place
        .command(&["generate", "run", "--prompt", "The ", "--tokens", "100000000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = [0; 200];
    child.stdout.take().unwrap().read_exact(&mut text).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    let whole = place.run(&["generate", "run", "--prompt", "The ", "--tokens", "196"]).succeeds().out;
    assert_eq!(whole.into_bytes()[..200], text);
}
