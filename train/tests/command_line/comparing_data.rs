//! Comparisons whose plan or data change between two sessions.

use super::comparing::{ONE_RATE, TWO, compare, losses, spawn, wait_for_runs};
use crate::support::{Place, Said};
use serde_json::Value;

fn fingerprint(place: &Place, run: &str) -> String {
    let state: Value =
        serde_json::from_slice(&place.read(&format!("{run}/checkpoints/step-000000/trainer.json"))).unwrap();
    state["data_sha256"].as_str().unwrap().into()
}

#[test]
fn a_text_that_changes_between_two_sessions_stops_the_comparison_and_nothing_is_lost() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    let (before, good) = (losses(&place, "c"), fingerprint(&place, "c/runs/verdict-muon-s1"));
    std::fs::remove_dir_all(place.path("c/runs/verdict-muon-s2")).unwrap();
    let text = place.read("text.txt");
    let mut other = text.clone();
    other.rotate_left(1);
    place.write("text.txt", &other);
    let fragments = ["text.txt", "`verdict-adamw-s1`", "`verdict-muon-s1`", &good, "now it is", "nothing is lost"];
    place.run(&["compare", "c"]).fails(2, &fragments);
    compare(&place, ONE_RATE).fails(2, &fragments);
    assert!(!place.path("c/runs/verdict-muon-s2").exists());
    place.write("text.txt", &text);
    place.run(&["compare", "c"]).succeeds();
    assert_eq!(losses(&place, "c"), before);
}

#[test]
fn a_text_that_changes_while_a_comparison_runs_stops_it_and_nothing_is_lost() {
    let place = Place::new();
    let more = ["--set", "train.checkpoint_every=10", "--steps", "400"];
    let arguments = [TWO, &more, &["--out", "c"]].concat();
    let mut child = spawn(&place, &arguments);
    wait_for_runs(&place, "c", 1, &mut child);
    let text = place.read("text.txt");
    let mut other = text.clone();
    other.rotate_left(1);
    place.write("text.txt", &other);
    let said: Said = child.wait_with_output().unwrap().into();
    said.fails(2, &["text.txt", "have changed since the comparison began", "`tune-", "now it is"]);
    assert!(!place.path("c/results.json").exists());
    place.write("text.txt", &text);
    place.run(&["compare", "c"]).succeeds();
}

#[test]
fn runs_on_different_texts_have_no_verdict() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    place.write("other.txt", &[place.read("text.txt"), b"More of it.\n".to_vec()].concat());
    let apart = ["--data", "other.txt", "--optimizers", "adamw,muon", "--lrs", "0.01", "--seeds", "2", "--out", "d"];
    compare(&place, &apart).succeeds();
    let run = "runs/verdict-muon-s2";
    std::fs::remove_dir_all(place.path(&format!("c/{run}"))).unwrap();
    std::fs::rename(place.path(&format!("d/{run}")), place.path(&format!("c/{run}"))).unwrap();
    let both = [fingerprint(&place, "c/runs/verdict-adamw-s1"), fingerprint(&place, &format!("c/{run}"))];
    let fragments = ["`verdict-adamw-s1`", "`verdict-muon-s2`", &both[0], &both[1]];
    place.run(&["compare", "c"]).fails(2, &fragments);
    place.run(&["report", "c"]).fails(2, &fragments);
}

#[test]
fn a_comparison_goes_on_with_a_text_that_was_moved() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    let before = losses(&place, "c");
    std::fs::remove_dir_all(place.path("c/runs/verdict-muon-s2")).unwrap();
    std::fs::rename(place.path("text.txt"), place.path("moved.txt")).unwrap();
    place.run(&["compare", "c"]).fails(2, &["text.txt", "polaron compare c --data PATH"]);
    place.run(&["compare", "c", "--data", "moved.txt"]).succeeds();
    assert_eq!(losses(&place, "c"), before);
    std::fs::remove_dir_all(place.path("c/runs/verdict-muon-s2")).unwrap();
    place.run(&["compare", "c"]).succeeds();
    place.run(&["report", "c"]).succeeds();
}

#[test]
fn a_plan_that_was_edited_is_refused_with_the_differences() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    let plan = String::from_utf8(place.read("c/plan.toml")).unwrap();
    for (from, to, said) in [
        ("\nseeds = 2\n", "\nseeds = 3\n", "`compare.seeds` was 2 and is 3 now"),
        ("lrs = [0.01]", "lrs = [0.02]", "`optimizers.adamw.lrs` was [0.01] and is [0.02] now"),
    ] {
        assert!(plan.contains(from), "{plan}");
        place.write("c/plan.toml", plan.replace(from, to).as_bytes());
        place.run(&["compare", "c"]).fails(2, &[said, "polaron compare c/plan.toml --out NEW"]);
        place.run(&["report", "c"]).fails(2, &[said]);
    }
    place.write("c/plan.toml", plan.replace("jobs = ", "jobs = 1").as_bytes());
    place.run(&["compare", "c"]).succeeds();
}
