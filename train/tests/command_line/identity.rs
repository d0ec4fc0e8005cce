//! A run resumes only with its own configuration and its own data, even if the data have been moved.

use sha2::{Digest, Sha256};

use crate::support::{Place, Said};

const STEPS: &[&str] = &["--steps", "6", "--set", "train.checkpoint_every=3", "--out", "run"];

fn text(place: &Place, name: &str) -> String {
    String::from_utf8(place.read(name)).unwrap()
}

/// A run that stands at step 3 of 6.
fn half_done() -> Place {
    half_done_by("muon")
}

fn half_done_by(stack: &str) -> Place {
    let place = Place::new();
    place.train(&[STEPS, &["--optimizer", stack]].concat()).succeeds();
    let metrics = text(&place, "run/metrics.jsonl");
    let until = |line: &&str| line.starts_with("{\"event\":\"train\"") && !line.contains("\"step\":4");
    let kept: Vec<&str> = metrics.lines().take_while(|line| until(line)).collect();
    place.write("run/metrics.jsonl", format!("{}\n", kept.join("\n")).as_bytes());
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000006")).unwrap();
    place
}

fn resume(place: &Place, more: &[&str]) -> Said {
    place.run(&[&["train", "--resume", "run"], more].concat())
}

fn edit(place: &Place, name: &str, from: &str, to: &str) {
    let before = text(place, name);
    assert!(before.contains(from), "{from} is not in {before}");
    place.write(name, before.replace(from, to).as_bytes());
}

#[test]
fn an_edited_configuration_is_refused_with_the_differences_and_nothing_changes() {
    let edits = [
        ("lr = 0.02\n", "lr = 0.5\n", "`optimizer.lr` was 0.02 and is 0.5 now"),
        ("steps = 6\n", "steps = 9\n", "`train.steps` was 6 and is 9 now"),
        ("\nseed = 1\n", "\nseed = 3\n", "`train.seed` was 1 and is 3 now"),
        ("heads = 2\n", "heads = 4\n", "`model.heads` was 2 and is 4 now"),
        ("threads = 2\n", "threads = 1\n", "`device.threads` was 2 and is 1 now"),
        ("valid_fraction = 0.1\n", "valid_fraction = 0.2\n", "`data.valid_fraction` was 0.1 and is 0.2 now"),
    ];
    let place = half_done();
    let (metrics, config) = (text(&place, "run/metrics.jsonl"), text(&place, "run/config.toml"));
    for (from, to, said) in edits {
        edit(&place, "run/config.toml", from, to);
        resume(&place, &[]).fails(2, &["run/config.toml", said, "polaron train run/config.toml --out NEW"]);
        // The command that began the run does not go on beside such a file either.
        place.train(STEPS).fails(2, &[said]);
        assert_eq!(text(&place, "run/metrics.jsonl"), metrics);
        place.write("run/config.toml", config.as_bytes());
    }
    resume(&place, &["--lr", "0.5"]).fails(2, &["`optimizer.lr` is 0.02 there and 0.5 now", "--out"]);
    resume(&place, &["--set", "train.steps=9"]).fails(2, &["`train.steps` is 6 there and 9 now", "--out"]);
    resume(&place, &[]).succeeds();
}

#[test]
fn a_finished_run_with_an_edited_configuration_is_refused_too() {
    let place = Place::new();
    place.train(STEPS).succeeds();
    edit(&place, "run/config.toml", "lr = 0.02\n", "lr = 0.5\n");
    resume(&place, &[]).fails(2, &["`optimizer.lr` was 0.02 and is 0.5 now"]);
    // What reads the run goes by the copy in the checkpoint, and says so.
    let said = place.run(&["report", "run"]).succeeds();
    assert!(said.err.contains("warning: `run/config.toml` was edited"), "{said:?}");
    assert!(text(&place, "run/report.html").contains("<td>0.02</td>"));
}

#[test]
fn what_only_changes_what_is_said_may_be_edited() {
    let place = half_done();
    edit(&place, "run/config.toml", "sample_tokens = 20\n", "sample_tokens = 0\n");
    edit(&place, "run/config.toml", "log_every = 1\n", "log_every = 2\n");
    resume(&place, &[]).succeeds();
}

#[test]
fn a_run_without_its_configuration_is_refused() {
    let place = half_done();
    std::fs::remove_file(place.path("run/config.toml")).unwrap();
    resume(&place, &[]).fails(2, &["`run`", "no config.toml"]);
    place.train(STEPS).fails(2, &["`run`", "no config.toml", "--out"]);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let place = half_done();
    place.train(&["--steps", "6", "--seed", "5", "--set", "train.checkpoint_every=3", "--out", "other"]).succeeds();
    std::fs::rename(place.path("other/checkpoints/step-000006"), place.path("run/checkpoints/step-000006")).unwrap();
    resume(&place, &[]).fails(2, &["run/config.toml", "`train.seed` was 5 and is 1 now"]);
}

/// Leaves the checkpoints as an earlier version wrote them.
fn forget_configuration(place: &Place) {
    for step in ["000000", "000003"] {
        let folder = format!("run/checkpoints/step-{step}");
        let [trainer, marker] = ["trainer.json", "complete.json"].map(|name| format!("{folder}/{name}"));
        let mut state: serde_json::Value = serde_json::from_slice(&place.read(&trainer)).unwrap();
        state.as_object_mut().unwrap().remove("config").unwrap();
        let bytes = serde_json::to_vec(&state).unwrap();
        place.write(&trainer, &bytes);
        let mut json: serde_json::Value = serde_json::from_slice(&place.read(&marker)).unwrap();
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        json["files"]["trainer.json"] = serde_json::json!({ "bytes": bytes.len(), "sha256": sha256 });
        place.write(&marker, &serde_json::to_vec(&json).unwrap());
    }
}

#[test]
fn a_checkpoint_of_an_earlier_version_without_a_configuration_goes_on() {
    let place = half_done();
    forget_configuration(&place);
    resume(&place, &[]).succeeds();
}

#[test]
fn a_run_of_an_earlier_version_whose_stack_has_another_axis_now_says_how_it_goes_on() {
    let place = half_done_by("row_norm");
    forget_configuration(&place);
    resume(&place, &[]).fails(2, &["run/config.toml", "axis = \"output\""]);
    let config = text(&place, "run/config.toml");
    let edited = config.replacen("[optimizer.matrix]\n", "[optimizer.matrix]\naxis = \"output\"\n", 1);
    assert_ne!(config, edited);
    place.write("run/config.toml", edited.as_bytes());
    resume(&place, &[]).succeeds();
}

#[test]
fn cut_metrics_are_mentioned() {
    let place = half_done();
    let metrics = text(&place, "run/metrics.jsonl");
    let (_, rest) = metrics.split_once('\n').unwrap();
    place.write("run/metrics.jsonl", rest.as_bytes());
    let said = resume(&place, &[]).succeeds();
    assert!(said.err.contains("holds 2 of 3 steps"), "{said:?}");
}

#[test]
fn a_run_goes_on_with_a_text_that_was_moved_and_ends_with_the_same_bytes() {
    let place = Place::new();
    place.train(&[&STEPS[..4], &["--out", "calm"]].concat()).succeeds();
    let weights = place.weights("calm", 6);
    let place = half_done();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    std::fs::rename(place.path("text.txt"), place.path("elsewhere/moved.txt")).unwrap();
    resume(&place, &[]).fails(2, &["text.txt", "if they were moved", "polaron train --resume run --data PATH"]);
    let said = resume(&place, &["--data", "elsewhere/moved.txt"]).succeeds();
    assert!(said.err.contains("the data are the same at"), "{said:?}");
    assert_eq!(place.weights("run", 6), weights);
    // The file repeats the run again, from any folder.
    let config = place.path("run/config.toml");
    let said = place
        .command(&["train", config.to_str().unwrap(), "--out", "../again"])
        .current_dir(place.path("elsewhere"))
        .output()
        .unwrap();
    Said::from(said).succeeds();
    assert_eq!(place.weights("again", 6), weights);
    for command in [
        &["generate", "run", "--prompt", "The ", "--tokens", "3"][..],
        &["report", "run"],
        &["inspect", "run"],
        &["export", "run", "--out", "x.safetensors"],
    ] {
        place.run(command).succeeds();
    }
}

#[test]
fn another_text_is_refused_with_both_fingerprints() {
    for finished in [false, true] {
        let place = half_done();
        if finished {
            resume(&place, &[]).succeeds();
        }
        let state = text(&place, "run/checkpoints/step-000003/trainer.json");
        let before: serde_json::Value = serde_json::from_str(&state).unwrap();
        let before = before["data_sha256"].as_str().unwrap();
        let mut other = place.read("text.txt");
        other.rotate_left(1);
        place.write("other.txt", &other);
        let said = resume(&place, &["--data", "other.txt"]).fails(2, &["other.txt", before, "--out"]);
        assert_eq!(said.err.matches("fingerprint").count(), 1, "{said:?}");
        place.write("text.txt", &other);
        resume(&place, &[]).fails(2, &["text.txt", "have changed", before]);
        place.train(STEPS).fails(2, &["have changed", before]);
    }
}

#[test]
fn a_finished_run_needs_its_text_no_more() {
    let place = Place::new();
    place.train(STEPS).succeeds();
    std::fs::remove_file(place.path("text.txt")).unwrap();
    let said = resume(&place, &[]).succeeds();
    assert!(said.err.contains("already finished"), "{said:?}");
}

#[test]
fn a_text_that_changed_before_the_first_checkpoint_brings_its_own_alphabet() {
    let place = Place::new();
    place.train(STEPS).succeeds();
    std::fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    let mut other = place.read("text.txt");
    other.extend("Öl und Käse.\n".repeat(20).bytes());
    place.write("text.txt", &other);
    place.train(STEPS).succeeds();
    place.run(&["generate", "run", "--prompt", "Öl", "--tokens", "3"]).succeeds();
}

#[test]
fn packed_tokens_may_be_moved() {
    let place = Place::new();
    place.run(&["data", "pack", "text.txt", "--tokenizer", "byte", "--out", "packed"]).succeeds();
    place.train(&[STEPS, &["--data", "packed"]].concat()).succeeds();
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000006")).unwrap();
    std::fs::rename(place.path("packed"), place.path("moved")).unwrap();
    resume(&place, &[]).fails(2, &["packed", "--data PATH"]);
    resume(&place, &["--data", "moved"]).succeeds();
}

#[test]
fn a_page_about_runs_on_different_texts_says_so() {
    let place = Place::new();
    place.train(STEPS).succeeds();
    place.write("other.txt", &[place.read("text.txt"), b"More of it.\n".to_vec()].concat());
    place.train(&["--steps", "6", "--data", "other.txt", "--out", "other"]).succeeds();
    place.train(&["--steps", "6", "--seed", "2", "--out", "same"]).succeeds();
    let said = place.run(&["report", "run", "same"]).succeeds();
    assert!(!said.err.contains("warning"), "{said:?}");
    let said = place.run(&["report", "run", "other"]).succeeds();
    let warning = "Losses on different data or tokenizers cannot be compared";
    assert!(said.err.contains(warning) && said.err.contains("other.txt"), "{said:?}");
    assert!(text(&place, "report.html").contains(warning));
}
