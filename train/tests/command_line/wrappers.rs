//! Wrappers around the steps and averages of the weights: what is validated, stored, used and continued.

use serde_json::Value;

use crate::comparing::compare;
use crate::evaluating::of_whole_windows;
use crate::support::Place;

const AVERAGE: &[&str] = &["--set", "train.average.from=10", "--set", "train.average.horizon=8"];
const SCHEDULE_FREE: &[&str] = &["--set", "optimizer.wrapper.kind=schedule_free", "--set", "schedule.kind=constant"];

fn validations(place: &Place, run: &str) -> Vec<Value> {
    place.events(run).into_iter().filter(|event| event["event"] == "valid").collect()
}

fn number(event: &Value, field: &str) -> f64 {
    event[field].as_f64().unwrap_or_else(|| panic!("no {field} in {event}"))
}

fn file(place: &Place, run: &str, step: u64, name: &str) -> Vec<u8> {
    place.read(&format!("{run}/checkpoints/step-{step:06}/{name}.safetensors"))
}

/// The loss that `polaron eval` finds.
fn eval(place: &Place, run: &str) -> f64 {
    let said = place.run(&["eval", run, "--json", "--threads", "2"]).succeeds();
    assert!(said.err.contains("note: these are the averaged weights of"), "{said:?}");
    number(&serde_json::from_str(&said.out).unwrap(), "loss")
}

#[test]
fn an_average_is_validated_stored_and_used_and_does_not_change_training() {
    let place = of_whole_windows();
    let train = |more: &[&str]| place.train(&[&["--steps", "30", "--set", "train.valid_every=5"], more].concat());
    train(&["--out", "plain"]).succeeds();
    let said = train(&[AVERAGE, &["--out", "run"]].concat()).succeeds();
    assert!(said.err.contains("average    from step 10 on, over 8 steps"), "{said:?}");
    assert!(said.err.contains("of the trained weights"), "{said:?}");
    assert_eq!(place.weights("run", 30), place.weights("plain", 30));
    assert_ne!(file(&place, "run", 30, "evaluation"), place.weights("run", 30));
    let (averaged, plain) = (validations(&place, "run"), validations(&place, "plain"));
    for (averaged, plain) in averaged.iter().zip(&plain) {
        let step = number(plain, "step");
        // The first average is the weights themselves.
        let trained = if step < 10.0 { "loss" } else { "trained_loss" };
        assert_eq!(number(averaged, trained), number(plain, "loss"), "{averaged}");
        assert_eq!(number(averaged, "loss") == number(plain, "loss"), step <= 10.0, "{averaged}");
        assert!(averaged["trained_loss"].is_null() == (step < 10.0), "{averaged}");
    }
    // What was printed is what the folder gives.
    assert_eq!(eval(&place, "run"), number(averaged.last().unwrap(), "loss"));
    let config = String::from_utf8(place.read("plain/config.toml")).unwrap();
    assert!(!config.contains("average") && !config.contains("wrapper"), "{config}");
}

#[test]
fn a_run_from_averaged_weights_begins_at_the_loss_that_was_printed_and_a_continued_one_at_the_trained_weights() {
    let place = Place::new();
    let constant = ["--set", "schedule.kind=constant", "--steps", "20"];
    place.train(&[&constant, AVERAGE, &["--out", "run"]].concat()).succeeds();
    place.train(&["--steps", "2", "--init", "run", "--out", "second"]).succeeds();
    assert_eq!(validations(&place, "second")[0]["loss"], validations(&place, "run").last().unwrap()["loss"]);
    assert_eq!(place.weights("second", 0), file(&place, "run", 20, "evaluation"));
    place.run(&["train", "--extend", "run", "--steps", "30", "--out", "longer"]).succeeds();
    place.train(&[&constant[..2], AVERAGE, &["--steps", "30", "--out", "whole"]].concat()).succeeds();
    for name in ["model", "optimizer", "evaluation"] {
        assert_eq!(file(&place, "longer", 30, name), file(&place, "whole", 30, name), "{name}");
    }
    // Other programs get the weights that were validated, or with the states those that they belong to.
    place.run(&["export", "run", "--out", "used.safetensors"]).succeeds();
    place.run(&["export", "run", "--out", "trained.safetensors", "--optimizer-state"]).succeeds();
    place.train(&[&constant, ["--out", "plain"].as_slice()].concat()).succeeds();
    place.run(&["export", "plain", "--out", "plain.safetensors"]).succeeds();
    assert_eq!(place.read("trained.safetensors"), place.read("plain.safetensors"));
    assert_ne!(place.read("used.safetensors"), place.read("plain.safetensors"));
    place.run(&["generate", "run", "--prompt", "The", "--tokens", "5"]).succeeds();
}

#[test]
fn schedule_free_goes_on_in_a_longer_run_and_is_evaluated_at_its_average() {
    let place = of_whole_windows();
    let train = |more: &[&str]| place.train(&[SCHEDULE_FREE, more].concat()).succeeds();
    train(&["--steps", "20", "--out", "short"]);
    train(&["--steps", "35", "--out", "long"]);
    place.run(&["train", "--extend", "short", "--steps", "35"]).succeeds();
    for name in ["model", "optimizer", "evaluation"] {
        assert_eq!(file(&place, "short-to35", 35, name), file(&place, "long", 35, name), "{name}");
    }
    assert_eq!(eval(&place, "long"), number(validations(&place, "long").last().unwrap(), "loss"));
    let plan = String::from_utf8(place.read("long/plan.txt")).unwrap();
    assert!(plan.contains("around the steps schedule_free"), "{plan}");
    place.run(&["export", "long", "--out", "w.safetensors", "--optimizer-state"]).succeeds();
    let said = place.train(&["--steps", "2", "--set", "optimizer.wrapper.kind=schedule_free"]).succeeds();
    assert!(said.err.contains("warning: the average of schedule_free takes the place of a decay"), "{said:?}");
}

#[test]
fn what_does_not_go_together_or_is_misspelt_is_refused() {
    let place = Place::new();
    let cases: [(&[&str], &[&str]); 7] = [
        (
            &[SCHEDULE_FREE, &["--set", "train.average.mix=1"]].concat(),
            &["`optimizer.wrapper` is schedule_free", "train.average"],
        ),
        (&["--set", "train.average.form=5"], &["did you mean `train.average.from`?"]),
        (&["--set", "train.average.from=9"], &["`train.average.from` is 9", "of the 5 that the run has"]),
        (&["--set", "train.average.horizon=0.5"], &["`train.average.horizon` is 0.5"]),
        (&["--set", "optimizer.wrapper.kind=ema"], &["`optimizer.wrapper.kind` is `ema`", "ema_nesterov"]),
        (&["--set", "optimizer.wrapper.strength=0.5"], &["optimizer.wrapper.kind", "ema_nesterov, outer_nesterov"]),
        (
            &["--set", "optimizer.wrapper.kind=ema_nesterov", "--set", "optimizer.wrapper.strength=2"],
            &["wrapper.strength: must be a number in [0, 1), got 2"],
        ),
    ];
    for (more, said) in cases {
        place.train(&[&["--steps", "5", "--out", "run"], more].concat()).fails(2, said);
        assert!(!place.path("run").exists());
    }
    // A whole table in one argument.
    let whole = ["--set", "optimizer.wrapper={kind = \"outer_nesterov\", every = 2}"];
    place.train(&[&["--steps", "4", "--out", "run"], whole.as_slice()].concat()).succeeds();
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    assert!(config.contains("every = 2") && config.contains("momentum = 0.9"), "{config}");
    // The file repeats the run.
    place.run(&["train", "run/config.toml", "--out", "again"]).succeeds();
    assert_eq!(place.weights("again", 4), place.weights("run", 4));
}

#[test]
fn a_comparison_takes_wrappers_as_settings_of_an_optimizer() {
    let place = Place::new();
    let plan = "optimizers = [\"muon\", { name = \"ahead\", stack = \"muon\", wrapper = { kind = \"ema_nesterov\", prefill = 5 } }]\n\
                [train.average]\nfrom = 0.5\nhorizon = 5\n";
    place.write("plan.toml", plan.as_bytes());
    let said = compare(&place, &["plan.toml", "--lrs", "0.01,0.02", "--out", "c"]).succeeds();
    assert!(said.out.contains("ranking: "), "{said:?}");
    let resolved = String::from_utf8(place.read("c/plan.toml")).unwrap();
    assert!(resolved.contains("kind = \"ema_nesterov\"") && resolved.contains("strength = 0.5"), "{resolved}");
    let (plain, ahead) = (place.events("c/runs/verdict-muon-s1"), place.events("c/runs/verdict-ahead-s1"));
    assert_eq!(plain[0]["loss"], ahead[0]["loss"]);
    assert_ne!(plain.last().unwrap()["valid_loss"], ahead.last().unwrap()["valid_loss"]);
    assert!(validations(&place, "c/runs/verdict-ahead-s1").last().unwrap()["trained_loss"].is_f64());
}
