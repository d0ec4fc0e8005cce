//! Comparisons on training loops of one's own: files, resumption, kills, what is a result and what an error.

mod example;
mod kills;
mod networks;

use std::path::Path;
use std::sync::Mutex;

use polaron_common::splitmix64;
use polaron_train::{Comparison, Error, Measurement, Results, Trial};
use serde_json::Value;

/// A number in -0.5 to 0.5 for each counter.
fn noise(counter: u64) -> f64 {
    splitmix64(counter) as f64 / u64::MAX as f64 - 0.5
}

/// A training without a network: its loss falls with the steps, depends on the learning rate, and a part of it on the seed alone.
/// `offset` is what an optimizer ends above the best.
fn simulated(trial: &Trial, offset: f64) -> Vec<Measurement> {
    let best = if trial.optimizer_name() == "adamw" { 1e-3 } else { 0.02 };
    let own = trial.optimizer_name().bytes().map(u64::from).sum::<u64>();
    let shared = 0.1 * noise(trial.seed()) + 0.002 * noise(trial.seed() * 1000 + own);
    let wrong = 0.1 * (trial.lr() / best).ln().abs();
    let loss = |step: u64| 1.0 + offset + shared + wrong + 2.0 * (-(step as f64) / 8.0).exp();
    let step = |step: u64| {
        let valid = trial.validates(step).then(|| Measurement::valid(step, loss(step)));
        std::iter::once(Measurement::timed(step, loss(step - 1), 0.5)).chain(valid)
    };
    trial.steps().flat_map(step).collect()
}

fn plan(folder: &Path) -> Comparison {
    Comparison::new(folder).optimizers(["adamw", "muon"]).steps(40).counts(64, "images").setting("batch", 64)
}

/// Makes a comparison in which Muon ends 0.05 below AdamW. Returns its results and the names of the runs that were made.
fn made(comparison: &Comparison) -> Result<(Results, Vec<String>), Error> {
    let made = Mutex::new(Vec::new());
    let results = comparison.run(|trial| {
        made.lock().unwrap().push(trial.name().to_owned());
        Ok::<_, String>(simulated(&trial, if trial.optimizer_name() == "adamw" { 0.05 } else { 0.0 }))
    })?;
    Ok((results, made.into_inner().unwrap()))
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_loop_of_ones_own_has_the_files_the_verdict_and_the_page_of_the_program() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("c");
    let (results, runs) = made(&plan(&folder)).unwrap();
    assert_eq!(runs.len(), 2 * (3 + 3), "{runs:?}");
    let pair = &results.pairs[0];
    assert!(pair.separated && pair.a == "muon", "{}", pair.sentence);
    assert!((pair.loss.unwrap().mean - 0.05).abs() < 0.003, "{}", pair.sentence);
    for file in ["plan.toml", "sessions.txt", "results.json", "results.csv", "results.md", "report.html"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let read: Value = serde_json::from_str(&text(&folder.join("results.json"))).unwrap();
    assert_eq!((&read["unit"], &read["tokens_per_step"]), (&Value::from("images"), &Value::from(64)));
    assert_eq!(read["optimizers"][1]["chosen"]["lr"], 0.02);
    let run = &read["optimizers"][1]["runs"][0];
    assert_eq!((&run["tokens"], &run["seconds"]), (&Value::from(40 * 64), &Value::from(20.0)));
    let page = text(&folder.join("report.html"));
    for part in ["Comparison of adamw, muon", "muon ends 0.0", "Validation loss during training", "images"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(text(&folder.join("results.csv")).lines().count(), 1 + runs.len());
}

/// How many of 20 comparisons of two optimizers find a difference, where one ends `offset` above the other and chance moves each by
/// up to 0.01.
fn differences_found(offset: f64) -> usize {
    let place = tempfile::tempdir().unwrap();
    let found = (0..20).filter(|index| {
        let names = ["one", "two"].map(|name| format!("name = '{name}'\nstack = 'muon'\nlrs = [0.02]"));
        let folder = place.path().join(index.to_string());
        let twins = Comparison::new(folder).optimizer(&names[0]).unwrap().optimizer(&names[1]).unwrap();
        let results = twins.seeds(5).steps(1).run(|trial| {
            let second = u64::from(trial.optimizer_name() == "two");
            let chance = 0.02 * noise(1000 * index + 10 * trial.seed() + second);
            let loss = 2.0 + noise(1000 * index + trial.seed()) + chance + offset * second as f64;
            Ok::<_, String>(vec![Measurement::valid(1, loss)])
        });
        results.unwrap().pairs[0].separated
    });
    found.count()
}

#[test]
fn planted_ties_and_differences_are_told_apart() {
    let (ties, differences) = (differences_found(0.0), differences_found(0.03));
    assert!(ties <= 2 && differences >= 18, "{ties} of 20 ties, {differences} of 20 differences");
}

#[test]
fn what_has_ended_is_never_made_again_and_added_seeds_make_only_the_missing_runs() {
    let place = tempfile::tempdir().unwrap();
    let (first, _) = made(&plan(place.path())).unwrap();
    let (again, runs) = made(&plan(place.path())).unwrap();
    assert_eq!((again, runs.len()), (first, 0));
    let (more, runs) = made(&plan(place.path()).seeds(5)).unwrap();
    assert_eq!(more.seeds_before, [3]);
    let mut runs = runs;
    runs.sort();
    assert_eq!(runs, ["verdict-adamw-s4", "verdict-adamw-s5", "verdict-muon-s4", "verdict-muon-s5"]);
    assert!(more.notes.iter().any(|note| note.starts_with("Seeds were added")), "{:?}", more.notes);
    let fewer = made(&plan(place.path()).seeds(2)).unwrap_err().to_string();
    assert!(fewer.contains("seeds can be added but not taken away"), "{fewer}");
}

#[test]
fn added_optimizers_and_rates_make_only_the_missing_runs_and_are_noted() {
    let place = tempfile::tempdir().unwrap();
    made(&plan(place.path())).unwrap();
    let (three, runs) = made(&plan(place.path()).optimizers(["kaon"])).unwrap();
    assert!(runs.iter().all(|name| name.contains("-kaon-")), "{runs:?}");
    assert_eq!((three.pairs.len(), three.optimizers.len()), (3, 3));
    assert!(three.notes.iter().any(|note| note.contains("comparison began: kaon.")), "{:?}", three.notes);
    let rates = |name: &str, lrs: &str| format!("name = '{name}'\nlrs = {lrs}");
    let more = Comparison::new(place.path()).steps(40).counts(64, "images").setting("batch", 64);
    let more = more.optimizer(&rates("adamw", "[0.000333, 0.001, 0.003, 0.002]")).unwrap();
    let more = more.optimizer(&rates("muon", "[0.00667, 0.02, 0.06, 0.04]")).unwrap();
    let kaon = &three.optimizers[2].tuning.trials;
    let mut lrs: Vec<f64> = kaon.iter().take(3).map(|trial| trial.candidate.lr).collect();
    lrs.push(0.021);
    let more = more.optimizer(&rates("kaon", &format!("{lrs:?}"))).unwrap();
    let (four, mut runs) = made(&more).unwrap();
    runs.sort();
    // AdamW and Muon keep their choice, so that their verdict runs stay; Kaon has a better rate now.
    assert_eq!(runs.len(), 3 + 3, "{runs:?}");
    assert!(runs.iter().filter(|name| name.starts_with("verdict-kaon-")).count() == 3, "{runs:?}");
    let said = "began: adamw 0.002, muon 0.04, kaon 0.021.";
    assert!(four.notes.iter().any(|note| note.contains(said)), "{:?}", four.notes);
    assert_eq!(made(&more).unwrap().1.len(), 0);
}

#[test]
fn a_changed_setting_of_a_folder_is_an_error_that_names_the_key() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    made(&plan(folder)).unwrap();
    let refused = |comparison: Comparison, parts: &[&str]| {
        let said = made(&comparison).unwrap_err().to_string();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    };
    refused(plan(folder).setting("batch", 32), &["`loop.settings.batch` is 64 there and 32 now"]);
    refused(plan(folder).steps(41), &["`compare.steps` is 40 there and 41 now"]);
    refused(
        plan(folder).lrs([0.1, 0.2, 0.3]),
        &["`optimizers.adamw.lrs` is [0.000333", "there and [0.1, 0.2, 0.3] now"],
    );
    refused(Comparison::new(folder).optimizers(["adamw", "kaon"]).steps(40), &["optimizers.muon"]);
    let edited = text(&folder.join("plan.toml")).replace("tune_steps = 24", "tune_steps = 25");
    std::fs::write(folder.join("plan.toml"), edited).unwrap();
    refused(plan(folder), &["`compare.tune_steps` was 24 and is 25 now"]);
}

#[test]
fn a_plan_that_cannot_be_is_refused_before_anything_is_written() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("c");
    let refused = |comparison: Comparison, part: &str| {
        let said = made(&comparison).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
        assert!(!folder.exists(), "{part}");
    };
    refused(Comparison::new(&folder).optimizers(["adamw"]), "at least two optimizers");
    refused(Comparison::new(&folder).optimizers(["adamw", "moun"]), "did you mean `muon`?");
    refused(Comparison::new(&folder).optimizers(["muon", "muon"]), "two optimizers are called `muon`");
    refused(plan(&folder).seeds(0), "compare.seeds");
    refused(plan(&folder).lrs([0.1, -0.1]), "positive");
    refused(plan(&folder).sweep("train.batch", [1, 2]), "`train.batch` cannot be swept");
    refused(plan(&folder).sweep("optimizer.lr", [1.0]), "compare.lrs");
    refused(plan(&folder).sweep("optimizer.weight_decai", [1.0]), "weight_decai");
    refused(plan(&folder).sweep("schedule.warmup", [1]), "schedule.warmup");
    let unequal = Comparison::new(&folder).optimizers(["adamw"]).optimizer("name = 'muon'\nlrs = [0.1]").unwrap();
    refused(unequal, "tries the same number");
}

#[test]
fn a_loss_that_is_not_finite_is_a_result() {
    let place = tempfile::tempdir().unwrap();
    let results = plan(place.path()).run(|trial| {
        let mut told = simulated(&trial, 0.0);
        match (trial.optimizer_name(), trial.seed()) {
            ("muon", 2) => told[20] = Measurement::train(20, f64::NAN),
            ("muon", 3) => told[20] = Measurement::Diverged("the weights grew".into()),
            ("adamw", 1) => *told.last_mut().unwrap() = Measurement::valid(40, f64::INFINITY),
            _ => {}
        }
        Ok::<_, String>(told)
    });
    let results = results.unwrap();
    assert_eq!((results.optimizers[0].diverged, results.optimizers[1].diverged), (1, 2));
    assert_eq!(results.pairs[0].test, "sign");
    let why = |optimizer: usize, run: usize| results.optimizers[optimizer].runs[run].diverged.clone().unwrap();
    assert_eq!(why(1, 1), "the training loss of step 20 is NaN");
    assert_eq!(why(1, 2), "the weights grew");
    assert_eq!(why(0, 0), "the validation loss after step 40 is inf");
}

#[test]
fn an_error_or_a_panic_of_the_loop_names_the_trial_and_loses_nothing_that_has_ended() {
    let place = tempfile::tempdir().unwrap();
    let wrong = |wrong: fn(Vec<Measurement>) -> Result<Vec<Measurement>, String>| {
        let run = plan(place.path()).run(|trial| {
            let told = simulated(&trial, 0.0);
            if trial.name() == "verdict-muon-s2" { wrong(told) } else { Ok(told) }
        });
        run.unwrap_err().to_string()
    };
    let said = wrong(|_| Err("no disk\nleft".into()));
    assert!(said.contains("the run `verdict-muon-s2` failed (no disk left)"), "{said}");
    let said = wrong(|_| panic!("index out of bounds"));
    assert!(said.contains("`verdict-muon-s2` failed (it panicked: index out of bounds"), "{said}");
    let said = wrong(|told| Ok(told[..20].to_vec()));
    assert!(said.contains("a run ends with a validation after its last step, 40, but its last one is"), "{said}");
    let said = wrong(|_| Ok(Vec::new()));
    assert!(said.contains("`verdict-muon-s2` failed (it ended without a measurement)"), "{said}");
    let said = wrong(|told| Ok([told.clone(), told].concat()));
    assert!(said.contains("it measured at step 1 after step 40 of 40"), "{said}");
    let said = wrong(|_| Ok(vec![Measurement::Failed("a parameter is gone".into())]));
    assert!(said.contains("(a parameter is gone)"), "{said}");
    let (_, runs) = made(&plan(place.path())).unwrap();
    assert!(runs.len() <= 3 && runs.contains(&"verdict-muon-s2".to_owned()), "{runs:?}");
}

#[test]
fn swept_keys_and_schedules_reach_the_trial() {
    let place = tempfile::tempdir().unwrap();
    let comparison = Comparison::new(place.path().join("c"))
        .optimizers(["muon", "muon_eq"])
        .schedule(polaron::Schedule::cosine(4))
        .sweep("optimizer.weight_decay", [0.0, 0.1])
        .sweep("schedule.warmup", [2, 8])
        .lrs([0.02])
        .steps(40);
    let seen = Mutex::new(Vec::new());
    let results = comparison.run(|trial| {
        let config = trial.config()?;
        let halves = [2, 8].map(|warmup| (trial.factor(warmup / 2) - 0.5).abs() < 1e-12);
        seen.lock().unwrap().push((config.weight_decay, halves));
        let worse = config.weight_decay + if halves[1] { 0.0 } else { 0.3 };
        Ok::<_, polaron::LayerwiseError>(simulated(&trial, worse))
    });
    let results = results.unwrap();
    let chosen = results.optimizers[0].chosen.clone().unwrap();
    let swept = |key: &str| chosen.swept.iter().find(|(k, _)| k == key).unwrap().1.to_string();
    assert_eq!((swept("optimizer.weight_decay"), swept("schedule.warmup")), ("0.0".into(), "8".into()));
    assert_eq!(results.optimizers[0].tuning_runs, 4);
    assert!(seen.into_inner().unwrap().contains(&(0.1, [true, false])));
}
