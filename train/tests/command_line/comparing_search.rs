//! Comparisons that tune several keys at once, and optimizers and rates that are added to a comparison later.

use serde_json::Value;

use super::comparing::{TWO, compare, losses};
use crate::support::{Place, names_in};

fn results(place: &Place) -> Value {
    serde_json::from_slice(&place.read("c/results.json")).unwrap()
}

/// The tuning runs of an optimizer.
fn tuning(place: &Place, optimizer: &str) -> Vec<String> {
    let of = |name: &String| name.starts_with(&format!("tune-{optimizer}-"));
    names_in(&place.path("c/runs")).into_iter().filter(of).collect()
}

#[test]
fn a_search_gives_every_optimizer_the_same_steps_and_its_files_say_so() {
    let place = Place::new();
    place.write("plan.toml", b"optimizers = ['adamw', 'muon']\n[compare]\nextensions = 0\nseeds = 2\n");
    let search = ["plan.toml", "--trials", "4", "--halvings", "1", "--out", "c"];
    let said = compare(&place, &search).succeeds();
    for optimizer in results(&place)["optimizers"].as_array().unwrap() {
        let found = [&optimizer["tuning_runs"], &optimizer["tuning_steps"]].map(|number| number.as_u64().unwrap());
        assert_eq!(found, [6, 4 * 10 + 2 * 20]);
        let swept = optimizer["chosen"]["swept"].as_array().unwrap();
        assert!(swept.iter().any(|pair| pair[0] == "optimizer.weight_decay"), "{swept:?}");
    }
    let muon = tuning(&place, "muon");
    assert_eq!((muon.len(), muon.iter().filter(|name| name.ends_with("-10steps")).count()), (6, 4), "{muon:?}");
    let note = "Every optimizer was tuned with 4 candidates, drawn evenly from the ranges in plan.toml: 4 for 10 steps, then 2 for 20 \
                steps, each time the better half.";
    assert!(said.out.contains(note) && said.out.contains("tuning steps"), "{said:?}");
    let csv = String::from_utf8(place.read("c/results.csv")).unwrap();
    assert!(csv.lines().next().unwrap().contains("optimizer.matrix.momentum"), "{csv}");
    assert_eq!(csv.lines().count(), 1 + 2 * (6 + 2), "every run has its line");
    // The plan in the folder has all ranges: it repeats the comparison, and the command resumes it without a run.
    assert_eq!(compare(&place, &search).succeeds().out, said.out);
    place.run(&["compare", "c/plan.toml", "--out", "again"]).succeeds();
    assert_eq!(losses(&place, "c"), losses(&place, "again"));
    let dry = compare(&place, &["plan.toml", "--trials", "4", "--halvings", "1", "--dry-run"]).succeeds().out;
    assert!(dry.contains("4 candidates") && dry.contains("16 runs in about"), "{dry}");
    let other = ["plan.toml", "--trials", "6", "--halvings", "1", "--out", "c"];
    compare(&place, &other).fails(2, &["`compare.trials` is 4 there and 6 now"]);
}

#[test]
fn a_search_that_was_interrupted_resumes_with_the_same_choice() {
    let place = Place::new();
    let search = ["--optimizers", "adamw,muon", "--trials", "4", "--halvings", "1", "--seeds", "1", "--out", "c"];
    compare(&place, &search).succeeds();
    let (whole, runs) = (losses(&place, "c"), tuning(&place, "muon"));
    // A run of the first round is lost, and everything that followed from it is there.
    std::fs::remove_dir_all(
        place.path(&format!("c/runs/{}", runs.iter().find(|name| name.ends_with("steps")).unwrap())),
    )
    .unwrap();
    std::fs::remove_file(place.path("c/results.json")).unwrap();
    place.run(&["compare", "c"]).succeeds();
    assert_eq!((losses(&place, "c"), tuning(&place, "muon")), (whole, runs));
}

#[test]
fn optimizers_and_rates_are_added_and_only_the_missing_runs_are_made() {
    let place = Place::new();
    compare(&place, &[TWO, &["--seeds", "2", "--out", "c"]].concat()).succeeds();
    let metrics = |name: &String| place.read(&format!("c/runs/{name}/metrics.jsonl"));
    let before: Vec<(String, Vec<u8>)> =
        names_in(&place.path("c/runs")).into_iter().map(|name| (name.clone(), metrics(&name))).collect();
    place.run(&["compare", "c", "--optimizers", "sgd"]).succeeds();
    let said = place.run(&["compare", "c", "--lrs", "0.02"]).succeeds().out;
    for (name, bytes) in &before {
        assert!(&metrics(name) == bytes, "{name} was repeated");
    }
    let names: Vec<Value> =
        results(&place)["optimizers"].as_array().unwrap().iter().map(|o| o["name"].clone()).collect();
    assert_eq!(names, ["adamw", "muon", "sgd"]);
    assert!(
        ["adamw", "muon", "sgd"].iter().all(|name| tuning(&place, name).iter().any(|run| run.contains("-lr0.02-")))
    );
    assert!(
        said.contains("Learning rates were added after the comparison began: adamw 0.02, muon 0.02, sgd 0.02."),
        "{said}"
    );
    place.run(&["compare", "c", "--lrs", "-1"]).fails(2, &["-1 cannot be among the learning rates"]);
    place.run(&["compare", "c", "--optimizers", "sdg"]).fails(2, &["did you mean `sgd`?"]);
    place.run(&["compare", "c", "--trials", "4"]).fails(2, &["use one of them"]);
}
