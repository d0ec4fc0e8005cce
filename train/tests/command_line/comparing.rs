//! Comparisons, end to end with tiny models: verdicts, kills, and what is refused.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Place, Said, names_in, wait};

/// Settings that make a run take a fraction of a second.
const TINY: &[&str] = &[
    "compare",
    "--set",
    "model.d_model=16",
    "--set",
    "model.layers=1",
    "--set",
    "model.heads=2",
    "--set",
    "model.context=16",
    "--set",
    "train.batch=4",
    "--set",
    "schedule.warmup=5",
    "--data",
    "text.txt",
    "--threads",
    "2",
    "--steps",
    "40",
    "--tune-steps",
    "20",
];
pub const TWO: &[&str] = &["--optimizers", "adamw,muon", "--lrs", "0.003,0.01"];

fn with<'a>(more: &[&[&'a str]]) -> Vec<&'a str> {
    let mut all = TINY.to_vec();
    more.iter().for_each(|part| all.extend_from_slice(part));
    all
}

pub fn compare(place: &Place, more: &[&str]) -> Said {
    place.run(&with(&[more]))
}

fn results(place: &Place, out: &str) -> Value {
    serde_json::from_slice(&place.read(&format!("{out}/results.json"))).unwrap()
}

/// The metrics of every run of a comparison that has begun.
fn metrics(place: &Place, out: &str) -> BTreeMap<String, Vec<u8>> {
    let begun = |name: &String| place.path(&format!("{out}/runs/{name}/metrics.jsonl")).exists();
    let names = names_in(&place.path(&format!("{out}/runs"))).into_iter().filter(begun);
    names.map(|name| (name.clone(), place.read(&format!("{out}/runs/{name}/metrics.jsonl")))).collect()
}

/// Name and final loss of every verdict run: what does not depend on the clock.
pub fn losses(place: &Place, out: &str) -> Vec<(String, f64)> {
    let results = results(place, out);
    let runs = results["optimizers"].as_array().unwrap().iter().flat_map(|o| o["runs"].as_array().unwrap().clone());
    runs.map(|run| (run["name"].as_str().unwrap().into(), run["loss"].as_f64().unwrap())).collect()
}

#[test]
fn a_comparison_ends_with_a_verdict_and_its_files() {
    let place = Place::new();
    let said = compare(&place, &[TWO, &["--out", "c"]].concat()).succeeds();
    assert!(said.out.contains("ranking: "), "{said:?}");
    assert!(said.out.contains(" ends ") || said.out.contains("no difference detected between"), "{said:?}");
    let results = results(&place, "c");
    assert_eq!(results["pairs"].as_array().unwrap().len(), 1);
    for optimizer in results["optimizers"].as_array().unwrap() {
        assert_eq!(optimizer["runs"].as_array().unwrap().len(), 3);
        assert_eq!(optimizer["targets"][0]["reached"], 3, "the common target is one that every run reached");
        assert!(optimizer["tuning_runs"].as_u64().unwrap() >= 2);
        assert!(optimizer["state_bytes_per_parameter"].as_f64().unwrap() > 3.0);
    }
    // A seed has the same first loss under every optimizer: the same weights, the same batch.
    let first = |name: &str| place.events(&format!("c/runs/verdict-{name}-s2"))[0]["loss"].as_f64().unwrap();
    assert_eq!(first("adamw"), first("muon"));
    let csv = String::from_utf8(place.read("c/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + metrics(&place, "c").len());
    assert!(csv.starts_with("run,purpose,optimizer,seed,lr,status,final_loss,"), "{csv}");
    assert!(String::from_utf8(place.read("c/results.md")).unwrap().contains("| optimizer |"));
    // The plan repeats the comparison.
    place.run(&["compare", "c/plan.toml", "--out", "again"]).succeeds();
    assert_eq!(losses(&place, "again"), losses(&place, "c"));
}

#[test]
fn sensitivity_runs_are_told_apart_and_change_no_choice() {
    let place = Place::new();
    compare(&place, &[TWO, &["--out", "plain"]].concat()).succeeds();
    compare(&place, &[TWO, &["--sensitivity", "--out", "c"]].concat()).succeeds();
    assert_eq!(losses(&place, "c"), losses(&place, "plain"));
    let (plain, full) = (results(&place, "plain"), results(&place, "c"));
    for (before, after) in plain["optimizers"].as_array().unwrap().iter().zip(full["optimizers"].as_array().unwrap()) {
        assert_eq!((&before["chosen"], &before["tuning_runs"]), (&after["chosen"], &after["tuning_runs"]));
        let known = |optimizer: &Value| {
            let told = optimizer["at_factors"].as_array().unwrap();
            told.iter().filter(|at| at["known"] == "measured").count()
        };
        assert_eq!(known(after), 5, "{after}");
        assert!(known(before) < 5, "{before}");
    }
    let csv = String::from_utf8(place.read("c/results.csv")).unwrap();
    let probes = csv.lines().filter(|line| line.contains(",sensitivity,")).count();
    assert!(probes >= 6, "{csv}");
    assert_eq!(csv.lines().count(), 1 + metrics(&place, "c").len());
    assert!(String::from_utf8(place.read("c/results.md")).unwrap().contains("| ÷4 | ÷2 | ×1 | ×2 | ×4 |"));
    compare(&place, &[TWO, &["--out", "c"]].concat()).fails(2, &["compare.sensitivity"]);
}

#[test]
fn a_comparison_of_before_a_key_existed_goes_on() {
    let place = Place::new();
    let arguments = [TWO, &["--seeds", "1", "--out", "c"]].concat();
    compare(&place, &arguments).succeeds();
    let plan = String::from_utf8(place.read("c/plan.toml")).unwrap();
    let newer = |line: &&str| line.starts_with("sensitivity") || line.starts_with("spectra_every");
    assert_eq!(plan.lines().filter(newer).count(), 2, "{plan}");
    let older: Vec<&str> = plan.lines().filter(|line| !newer(line)).collect();
    place.write("c/plan.toml", older.join("\n").as_bytes());
    let before = metrics(&place, "c");
    compare(&place, &arguments).succeeds();
    place.run(&["compare", "c"]).succeeds();
    assert_eq!(metrics(&place, "c"), before);
}

#[test]
fn a_finished_run_is_never_repeated() {
    let place = Place::new();
    let arguments = [TWO, &["--out", "c"]].concat();
    let first = compare(&place, &arguments).succeeds();
    let before = metrics(&place, "c");
    let second = compare(&place, &arguments).succeeds();
    assert_eq!(metrics(&place, "c"), before);
    assert_eq!(first.out, second.out);
    assert!(!second.err.contains("verdict"), "{second:?}");
}

pub fn spawn(place: &Place, more: &[&str]) -> Child {
    place.command(&with(&[more])).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until so many runs have begun, then until one of them has made a step.
pub fn wait_for_runs(place: &Place, out: &str, count: usize, child: &mut Child) {
    let begun = || {
        let names = std::fs::read_dir(place.path(&format!("{out}/runs"))).into_iter().flatten().filter_map(Result::ok);
        names.filter(|entry| entry.path().join("metrics.jsonl").exists()).count()
    };
    wait(child, || begun() >= count);
}

#[test]
fn a_comparison_killed_again_and_again_ends_like_an_undisturbed_one() {
    let place = Place::new();
    compare(&place, &[TWO, &["--out", "calm"]].concat()).succeeds();
    let arguments = [TWO, &["--out", "c"]].concat();
    for count in [1, 3, 6, 8] {
        let mut child = spawn(&place, &arguments);
        wait_for_runs(&place, "c", count, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let finished: Vec<(String, Vec<u8>)> =
        metrics(&place, "c").into_iter().filter(|(_, text)| text.ends_with(b"}\n") && ended(text)).collect();
    compare(&place, &arguments).succeeds();
    assert_eq!(losses(&place, "c"), losses(&place, "calm"));
    assert_eq!(names_in(&place.path("c/runs")), names_in(&place.path("calm/runs")));
    let after = metrics(&place, "c");
    for (name, text) in finished {
        assert_eq!(after[&name], text, "{name} was repeated");
    }
}

fn ended(metrics: &[u8]) -> bool {
    let text = String::from_utf8_lossy(metrics);
    text.lines().last().is_some_and(|line| line.contains("\"finished\""))
}

#[cfg(unix)]
#[test]
fn a_signal_stops_the_runs_after_saving() {
    let place = Place::new();
    let arguments = [TWO, &["--steps", "100000", "--tune-steps", "3", "--out", "c"]].concat();
    let mut child = spawn(&place, &arguments);
    let runs = place.path("c/runs");
    let verdict_runs = || {
        std::fs::read_dir(&runs).into_iter().flatten().filter_map(Result::ok).filter(|entry| {
            entry.file_name().to_string_lossy().starts_with("verdict-") && entry.path().join("metrics.jsonl").exists()
        })
    };
    wait(&mut child, || verdict_runs().count() > 0);
    let status = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(said.err.contains("`polaron compare c`"), "{said:?}");
    let interrupted = |text: &Vec<u8>| String::from_utf8_lossy(text).contains("\"interrupted\"");
    assert!(metrics(&place, "c").values().any(interrupted), "no run says that it was interrupted");
}

#[test]
fn one_seed_gives_numbers_and_no_verdict() {
    let place = Place::new();
    let arguments = ["--optimizers", "adamw,muon", "--lrs", "0.01", "--seeds", "1", "--out", "c"];
    let said = compare(&place, &arguments).succeeds();
    assert!(said.out.contains("with one seed no verdict is possible"), "{said:?}");
    assert!(said.out.contains("no place is established"), "{said:?}");
    assert!(said.out.contains("use at least 3 seeds"), "{said:?}");
}

#[test]
fn the_same_optimizer_twice_shows_no_difference() {
    let place = Place::new();
    place.write("plan.toml", b"optimizers = [{ name = 'one', stack = 'muon' }, { name = 'two', stack = 'muon' }]");
    let said = compare(&place, &["plan.toml", "--lrs", "0.01", "--out", "c"]).succeeds();
    let expected = "no difference detected between one and two with 3 seeds: their runs ended with the same losses";
    assert!(said.out.contains(expected), "{said:?}");
    assert!(said.out.contains("1–2. one, 1–2. two"), "{said:?}");
}

#[test]
fn a_rate_that_diverges_is_a_result() {
    let place = Place::new();
    let said = compare(&place, &["--optimizers", "adamw,sgd", "--lrs", "0.01,1e30", "--out", "c"]).succeeds();
    assert!(said.err.contains("diverged at step"), "{said:?}");
    let results = results(&place, "c");
    assert!(results["optimizers"][0]["diverged_in_tuning"].as_u64().unwrap() >= 1);
    assert_eq!(results["optimizers"][0]["chosen"]["lr"], 0.01);
    assert!(said.out.contains("diverged"), "{said:?}");
}

#[test]
fn when_everything_diverges_there_is_nothing_to_compare() {
    let place = Place::new();
    place.write("plan.toml", b"[compare]\nextensions = 0");
    let arguments = ["plan.toml", "--optimizers", "adamw,sgd", "--lrs", "1e29,1e30", "--out", "c"];
    compare(&place, &arguments).fails(1, &["every tuning run", "--lrs"]);
}

#[test]
fn a_target_that_nobody_reaches_is_said() {
    let place = Place::new();
    let arguments = ["--optimizers", "adamw,muon", "--lrs", "0.01", "--target", "0.001", "--out", "c"];
    let said = compare(&place, &arguments).succeeds();
    assert!(said.out.contains("No run reached 0.001 within 40 steps"), "{said:?}");
    assert_eq!(results(&place, "c")["optimizers"][0]["targets"][0]["reached"], 0);
}

#[test]
fn a_folder_of_another_plan_is_refused_with_the_difference() {
    let place = Place::new();
    let two = |more: &[&str]| {
        compare(&place, &[&["--optimizers", "adamw,muon", "--lrs", "0.01", "--out", "c"], more].concat())
    };
    two(&[]).succeeds();
    two(&["--steps", "41"]).fails(2, &["`c`", "`compare.steps` is 40 there and 41 now"]);
    two(&["--set", "optimizer.weight_decay=0.5"]).fails(2, &["optimizers.muon.weight_decay", "0.5 now"]);
    place.train(&["--steps", "2", "--out", "run"]).succeeds();
    compare(&place, &["--out", "run"]).fails(2, &["`run`", "holds no comparison"]);
}

#[test]
fn bad_plans_are_refused_before_anything_is_written() {
    let place = Place::new();
    place.write("plan.toml", b"[compare]\nsedes = 3\n");
    let before = names_in(&place.path(""));
    let refused = |arguments: &[&str], fragments: &[&str]| {
        let said = compare(&place, &[arguments, &["--out", "c"]].concat()).fails(2, fragments);
        assert_eq!(said.out, "");
        assert_eq!(names_in(&place.path("")), before, "something was written");
    };
    refused(&["--optimizers", "adamw,moun"], &["moun", "did you mean `muon`?"]);
    refused(&["--optimizers", "adamw,adamw"], &["adamw", "another name"]);
    refused(&["--optimizers", "adamw"], &["at least two"]);
    refused(&["--lrs", "0.1,-0.1"], &["-0.1", "positive"]);
    refused(&["--seeds", "0"], &["`compare.seeds` is 0"]);
    refused(&["--seeds", "-1"], &["`compare.seeds` is -1"]);
    refused(&["--target", "nan"], &["compare.targets"]);
    refused(&["--set", "train.steps=3"], &["train.steps", "compare.steps"]);
    refused(&["--set", "model.heads=3"], &["heads"]);
    refused(&["plan.toml"], &["`compare.sedes`", "plan.toml", "did you mean `compare.seeds`?"]);
    refused(&["nowhere.toml"], &["nowhere.toml"]);
    refused(&["--data", "nowhere.txt"], &["nowhere.txt"]);
    place.write("rule.toml", b"[[optimizer.rule]]\nmatch = 'blocks.*.nothing'\nkind = 'sgd'\n");
    compare(&place, &["rule.toml", "--out", "c"]).fails(2, &["blocks.*.nothing"]);
    assert!(!place.path("c").exists());
}

#[test]
fn a_run_that_fails_stops_the_comparison_with_its_message() {
    let place = Place::new();
    let arguments = ["--optimizers", "adamw,muon", "--lrs", "0.01", "--seeds", "2", "--out", "c"];
    compare(&place, &arguments).succeeds();
    std::fs::remove_dir_all(place.path("c/runs/verdict-muon-s2")).unwrap();
    std::fs::create_dir_all(place.path("c/runs/verdict-muon-s2/in the way")).unwrap();
    let fragments = ["the run `verdict-muon-s2` failed", "is not empty", "c/logs/verdict-muon-s2.log"];
    place.run(&["compare", "c"]).fails(2, &fragments);
}

#[test]
fn two_processes_cannot_compare_in_one_folder() {
    let place = Place::new();
    let arguments = [TWO, &["--steps", "100000", "--tune-steps", "100000", "--out", "c"]].concat();
    let mut child = spawn(&place, &arguments);
    wait_for_runs(&place, "c", 1, &mut child);
    let said = compare(&place, &arguments);
    child.kill().unwrap();
    child.wait().unwrap();
    said.fails(2, &["another process is comparing in `c`"]);
}

#[test]
fn a_dry_run_counts_the_runs_and_writes_nothing() {
    let place = Place::new();
    let before = names_in(&place.path(""));
    let said = compare(&place, &[TWO, &["--dry-run", "--out", "c"]].concat()).succeeds();
    assert!(said.out.contains("10 runs in about"), "{said:?}");
    assert!(said.out.contains("2 to 5"), "{said:?}");
    assert_eq!(names_in(&place.path("")), before);
}

pub const ONE_RATE: &[&str] = &["--optimizers", "adamw,muon", "--lrs", "0.01", "--seeds", "2", "--out", "c"];

/// No NaN or infinity where a number stands; why a run diverged may name one.
fn has_only_numbers(text: &str) {
    let text: String = text.lines().filter(|line| !line.contains("the run diverged at step")).collect();
    for word in ["NaN", "nan ", ">inf", " inf", ",inf", "Infinity", "infinity"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn an_optimizer_whose_every_run_diverged_is_last_and_has_no_place() {
    let place = Place::new();
    // A single rate is not tuned, so the verdict is where it diverges.
    place.write(
        "plan.toml",
        b"optimizers = [{ name = 'wild', stack = 'sgd', lrs = [1e30] }, { name = 'calm', stack = 'adamw', lrs = [0.01] }, \
          { name = 'second', stack = 'muon', lrs = [0.01] }]",
    );
    let said = compare(&place, &["plan.toml", "--out", "c"]).succeeds();
    assert!(said.out.contains("; without a place: wild (diverged in 3 of 3 runs)"), "{said:?}");
    assert!(said.out.contains("wild diverged in 3 of 3 runs and has no place; calm finished 3 of 3"), "{said:?}");
    let table = said.out.lines().find(|line| line.starts_with("optimizer ")).unwrap();
    assert!(table.trim_end().ends_with("wild"), "{table}");
    let places = said.out.lines().find(|line| line.starts_with("place ")).unwrap();
    assert!(places.trim_end().ends_with('–'), "{places}");
    let results = results(&place, "c");
    assert!(results["optimizers"][0]["places"].is_null() && results["optimizers"][0]["loss"].is_null());
    // The two others share the places 1 and 2.
    for index in [1, 2] {
        assert!(results["optimizers"][index]["places"][1].as_u64().unwrap() <= 2, "{results}");
    }
    for file in ["c/results.json", "c/results.csv", "c/results.md"] {
        has_only_numbers(&String::from_utf8(place.read(file)).unwrap());
    }
    has_only_numbers(&said.out);
    let page = String::from_utf8(place.read("c/report.html")).unwrap();
    assert!(page.contains("without a place: wild"));
}

#[test]
fn when_every_verdict_run_diverges_there_is_no_verdict() {
    let place = Place::new();
    let arguments = ["--optimizers", "adamw,sgd", "--lrs", "1e30", "--target", "1.5", "--out", "c"];
    let said = compare(&place, &arguments);
    has_only_numbers(&said.out);
    assert!(said.out.contains("every run of adamw and of sgd diverged"), "{said:?}");
    said.fails(1, &["every verdict run", "--lrs"]);
    place.run(&["report", "c"]).succeeds();
}
