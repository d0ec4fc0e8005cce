//! Metrics for other programs, and the page of a run that is still training.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Place, names_in, wait};

const LOGGED: &[&str] = &["--log-to", "tensorboard", "--set", "train.checkpoint_every=50", "--out", "run"];

/// The steps whose training loss is in the event file of a run.
fn logged_steps(place: &Place) -> Vec<u64> {
    let names = names_in(&place.path("run"));
    let files: Vec<&String> = names.iter().filter(|name| name.contains("tfevents")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = place.read(&format!("run/{}", files[0]));
    let (mut at, mut steps) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let event = &bytes[at + 12..at + 12 + length];
        if event.windows(10).any(|window| window == b"train/loss") {
            assert_eq!(event[9], 0x10, "the step");
            let digits = event[10..].iter().scan(true, |more, byte| more.then(|| (*more = *byte > 0x7f, *byte).1));
            steps.push(digits.enumerate().map(|(place, byte)| u64::from(byte & 0x7f) << (7 * place)).sum());
        }
        at += length + 16;
    }
    steps
}

#[test]
fn an_event_file_has_every_step_once_also_after_a_kill() {
    let place = Place::new();
    let more = [&["--steps", "400"], LOGGED].concat();
    let mut child = place.spawn_train(&more);
    place.wait_for_step("run", 170, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = logged_steps(&place);
    // Killed after step 170 was written to metrics.jsonl, perhaps before it was written here.
    assert!((169..400).contains(&before.len()), "{}", before.len());
    place.train(&more).succeeds();
    assert_eq!(logged_steps(&place), (1..=400).collect::<Vec<u64>>());
    place.train(&["--steps", "400", "--set", "train.checkpoint_every=50", "--out", "without"]).succeeds();
    assert_eq!(place.weights("run", 400), place.weights("without", 400));
    assert!(!names_in(&place.path("without")).iter().any(|name| name.contains("tfevents")));
}

#[test]
fn logs_may_be_asked_for_when_a_run_resumes() {
    let place = Place::new();
    let mut child = place.spawn_train(&["--steps", "300", "--set", "train.checkpoint_every=50", "--out", "run"]);
    place.wait_for_step("run", 120, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    place.run(&["train", "--resume", "run", "--log-to", "tensorboard"]).succeeds();
    assert_eq!(logged_steps(&place), (1..=300).collect::<Vec<u64>>());
    place
        .train(&["--steps", "2", "--log-to", "tensorbord"])
        .fails(2, &["`train.log_to`", "did you mean `tensorboard`?"]);
    place.train(&["--steps", "2", "--set", "train.log_to=[3]"]).fails(2, &["log_to"]);
}

#[test]
fn metrics_become_a_table() {
    let place = Place::new();
    let sets = ["train.valid_every=3", "train.valid_windows=5", "train.spectra_every=6"].map(|set| ["--set", set]);
    place.train(&[&["--steps", "6", "--out", "my, run"], sets.concat().as_slice()].concat()).succeeds();
    let said = place.run(&["report", "my, run", "--csv", "metrics.csv"]).succeeds();
    assert_eq!(said.out, "wrote metrics.csv\n");
    let text = String::from_utf8(place.read("metrics.csv")).unwrap();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(head[..5], ["run", "event", "step", "loss", "lr"]);
    for name in ["nuclear_rank", "bulk/sigma", "overlap/rows", "since_start/stable_rank"] {
        let column = format!("matrices/head.weight/{name}");
        assert!(head.contains(&column.as_str()), "{column}: {head:?}");
    }
    for name in ["loss", "lr", "tokens", "grad_norm", "bits_per_byte", "windows", "status", "peak_memory_bytes"] {
        assert_eq!(head.iter().filter(|column| **column == name).count(), 1, "{name}: {head:?}");
    }
    let rows: Vec<Vec<&str>> =
        lines.map(|line| line.strip_prefix("\"my, run\",").unwrap().split(',').collect()).collect();
    let events = place.events("my, run");
    assert_eq!(rows.len(), events.len());
    for (row, event) in rows.iter().zip(&events) {
        assert_eq!((row[0], row[1]), (event["event"].as_str().unwrap(), event["step"].to_string().as_str()));
        // The name of the run is cut off.
        assert_eq!(row.len() + 1, head.len());
        for (name, value) in event.as_object().unwrap().iter().filter(|(_, value)| value.is_number()) {
            let column = head.iter().position(|column| column == name).unwrap();
            assert_eq!(row[column - 1], value.to_string(), "{name} of {event}");
        }
    }
    place.run(&["report", "nowhere", "--csv", "x.csv"]).fails(2, &["`nowhere`", "neither a run nor a comparison"]);
    place.run(&["report", "my, run", "--csv", "x.csv", "--watch"]).fails(2, &["--watch"]);
    assert!(!place.path("x.csv").exists());
}

fn page(place: &Place) -> String {
    std::fs::read_to_string(place.path("run/report.html")).unwrap_or_default()
}

#[test]
fn a_watched_page_loads_itself_again_until_training_ends() {
    const RELOAD: &str = "<meta http-equiv=\"refresh\" content=\"1\">";
    let place = Place::new();
    let endless = ["--steps", "1000000", "--set", "train.valid_every=100", "--out", "run"];
    let mut child = place.spawn_train(&endless);
    place.wait_for_step("run", 100, &mut child);
    for end in ["interrupt", "end of training"] {
        let mut watching = place.command(&["report", "run", "--watch", "1"]).spawn().unwrap();
        wait(&mut watching, || page(&place).contains(RELOAD));
        let before = page(&place);
        wait(&mut watching, || page(&place) != before);
        if end == "interrupt" {
            let id = watching.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        } else {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let start = Instant::now();
        assert!(watching.wait().unwrap().success(), "{end}");
        assert!(start.elapsed() < Duration::from_secs(60), "{end}");
        let last = page(&place);
        assert!(
            last.contains("</html>") && !last.contains("http-equiv") && !last.contains("Training is still running"),
            "{end}"
        );
    }
    let said = place.run(&["report", "run", "--watch"]).succeeds();
    assert!(said.err.contains("nothing is being trained") && said.out.contains("wrote run/report.html"), "{said:?}");
    assert!(!page(&place).contains("http-equiv"));
    place.run(&["report", "run", "--watch", "0"]).fails(2, &["`--watch` is 0", "at least 1"]);
}
