//! Probes of the next step: what they record, that they change nothing, and how they are asked for.

use serde_json::Value;

use crate::support::Place;

/// The probes of a run without `step`-independent fields: step and group, and the event.
fn probes(place: &Place, run: &str) -> Vec<(u64, String, Value)> {
    let named = |event: Value| {
        let (step, group) = (event["step"].as_u64().unwrap(), event["group"].as_str().unwrap().to_owned());
        (step, group, event)
    };
    place.events(run).into_iter().filter(|event| event["event"] == "probe").map(named).collect()
}

const PROBED: [&str; 4] = ["--set", "train.probe_every=8", "--set", "train.probe_batches=2"];

#[test]
fn probing_changes_no_weight_and_measures_every_role() {
    let place = Place::new();
    place.train(&["--steps", "20", "--out", "without"]).succeeds();
    place.train(&[&["--steps", "20", "--out", "with"], &PROBED[..]].concat()).succeeds();
    assert_eq!(place.weights("with", 20), place.weights("without", 20));
    let found = probes(&place, "with");
    let mut steps: Vec<u64> = found.iter().map(|(step, _, _)| *step).collect();
    steps.dedup();
    assert_eq!(steps, [8, 16, 20]);
    for (_, group, event) in &found {
        for key in ["slope", "curvature", "decrease", "lr", "alignment"] {
            assert!(event[key].is_f64(), "{group}: {event}");
        }
    }
    let groups: Vec<&str> =
        found.iter().filter(|(step, _, _)| *step == 8).map(|(_, group, _)| group.as_str()).collect();
    for role in ["embedding", "attention_query", "down", "gain", "head"] {
        assert!(groups.contains(&role), "{role} is not in {groups:?}");
    }
    // The loss falls along every step at its start, so early in training.
    assert!(found.iter().all(|(_, _, event)| event["slope"].as_f64().unwrap() > 0.0), "{found:?}");
    let page = place.run(&["report", "with"]).succeeds();
    let html = String::from_utf8(place.read("with/report.html")).unwrap();
    assert!(html.contains("Best learning rates") && html.contains("best rate / rate"), "{}", page.err);
    let other = String::from_utf8(place.read("without/report.html")).unwrap_or_default();
    assert!(!other.contains("Best learning rates"));
}

#[test]
fn a_resumed_run_has_the_probes_of_an_undisturbed_one_once() {
    let place = Place::new();
    let settings = [&["--steps", "24", "--set", "train.checkpoint_every=12", "--out", "run"], &PROBED[..]].concat();
    place.train(&settings).succeeds();
    let undisturbed = probes(&place, "run");
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000024")).unwrap();
    place.train(&settings).succeeds();
    assert_eq!(probes(&place, "run"), undisturbed);
    assert!(undisturbed.iter().any(|(step, _, _)| *step == 16));
}

#[test]
fn measuring_the_sharpness_changes_no_weight() {
    let place = Place::new();
    place.train(&["--steps", "12", "--out", "without"]).succeeds();
    let sharpness = ["--set", "train.sharpness_every=5", "--set", "train.probe_batches=1"];
    place.train(&[&["--steps", "12", "--out", "with"], &sharpness[..]].concat()).succeeds();
    assert_eq!(place.weights("with", 12), place.weights("without", 12));
    let events = place.events("with").into_iter().filter(|event| event["event"] == "sharpness");
    let events: Vec<Value> = events.collect();
    assert_eq!(events.iter().map(|event| event["step"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 10, 12]);
    assert!(events.iter().all(|event| event["sharpness"].as_f64().unwrap() > 0.0), "{events:?}");
    assert!(events.iter().all(|event| event["stable_below"].as_f64().unwrap() > 2.0), "{events:?}");
    place.run(&["report", "with"]).succeeds();
    assert!(String::from_utf8(place.read("with/report.html")).unwrap().contains("<h2>Sharpness"));
}

#[test]
fn runs_of_any_kind_can_be_probed() {
    let place = Place::new();
    let all = ["--set", "train.probe_groups=all", "--steps", "8"];
    let cases: [(&str, &[&str]); 5] = [
        ("wrapper", &["--set", "optimizer.wrapper={kind = \"ema_nesterov\", prefill = 2}"]),
        ("adapters", &["--set", "train.lora.rank=2"]),
        ("freon", &["--optimizer", "freon", "--set", "train.accumulation=2"]),
        ("schedules", &["--set", "schedule.rule=[{role = \"head\", kind = \"constant\"}]"]),
        ("recompute", &["--set", "train.recompute=true"]),
    ];
    for (name, more) in cases {
        place.train(&[&PROBED[..], &all, more, &["--out", name]].concat()).succeeds();
        let found = probes(&place, name);
        assert_eq!(
            found.iter().map(|(step, group, _)| (*step, group.as_str())).collect::<Vec<_>>(),
            [(8, "all")],
            "{name}"
        );
        // Several rates: the direction is the step itself.
        assert!(found[0].2["lr"].is_null() || name == "adapters", "{name}: {}", found[0].2);
    }
    let perceptron =
        ["train", "--model", "mlp", "--set", "model.width=32", "--threads", "1", "--steps", "8", "--out", "mlp"];
    place.run(&[&perceptron[..], &PROBED].concat()).succeeds();
    assert!(probes(&place, "mlp").iter().any(|(_, group, _)| group == "hidden"));
}

#[test]
fn keys_of_probes_without_probes_are_refused() {
    let place = Place::new();
    for key in ["train.probe_batches=4", "train.probe_groups=all"] {
        let name = key.split('=').next().unwrap();
        place.train(&["--set", key]).fails(2, &[name, "train.probe_every"]);
    }
    place.train(&["--set", "train.probe_every=2", "--set", "train.probe_batches=0"]).fails(2, &["at least 1"]);
    place.train(&["--set", "train.probe_every=2", "--set", "train.probe_groups=rolls"]).fails(2, &["roles"]);
}

const MEASURED: [&str; 10] = [
    "--optimizer",
    "muon",
    "--set",
    "optimizer.matrix.weight_decay=0",
    "--set",
    "train.probe_batches=2",
    "--set",
    "train.checkpoint_every=6",
    "--set",
    "optimizer.matrix.nesterov=false",
];

#[test]
fn the_energy_is_recorded_from_the_start_and_changes_no_weight_also_after_a_kill() {
    let place = Place::new();
    let settings = |out: &'static str, energy: &'static str| {
        [&["--steps", "12", "--out", out, "--set", energy], &MEASURED[..]].concat()
    };
    place.train(&settings("with", "train.energy_every=4")).succeeds();
    let energies =
        || place.events("with").into_iter().filter(|event| event["event"] == "energy").collect::<Vec<Value>>();
    let found = energies();
    assert_eq!(found.iter().map(|event| event["step"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 4, 8, 12]);
    let number = |event: &Value, key: &str| event[key].as_f64().unwrap();
    for event in &found {
        let [objective, kinetic, total] = ["objective", "kinetic", "total"].map(|key| number(event, key));
        assert_eq!(total, objective + kinetic);
        assert!(kinetic > 0.0 || event["step"] == 0, "{event}");
    }
    assert_eq!(number(&found[0], "kinetic"), 0.0);
    assert!(found[0]["rises"].is_null() && found[1]["rises"].is_boolean(), "{found:?}");
    place.run(&["report", "with"]).succeeds();
    assert!(String::from_utf8(place.read("with/report.html")).unwrap().contains("<h2>Energy"));
    std::fs::remove_dir_all(place.path("with/checkpoints/step-000012")).unwrap();
    place.train(&settings("with", "train.energy_every=4")).succeeds();
    assert_eq!(energies(), found);
    place.train(&settings("without", "train.probe_every=1000")).succeeds();
    assert_eq!(place.weights("with", 12), place.weights("without", 12));
}

#[test]
fn an_energy_that_the_optimizer_does_not_have_is_refused_before_anything_is_written() {
    let place = Place::new();
    let energy = ["--steps", "4", "--out", "run", "--set", "train.energy_every=2"];
    place
        .train(&[&energy[..], &["--optimizer", "adamw"]].concat())
        .fails(2, &["train.energy_every", "regularized_muon"]);
    place
        .train(&[&energy[..], &["--optimizer", "muon"]].concat())
        .fails(2, &["train.energy_every", "weight_decay = 0"]);
    assert!(!place.path("run").exists());
}

#[test]
fn a_killed_run_with_all_measurements_ends_with_the_weights_of_an_undisturbed_one() {
    let place = Place::new();
    let all = ["train.probe_every=3", "train.sharpness_every=6", "train.energy_every=2", "train.spectra_every=3"];
    let all: Vec<&str> = all.into_iter().flat_map(|key| ["--set", key]).collect();
    let settings = [&["--steps", "12", "--out", "run"], &MEASURED[..], &all].concat();
    place.train(&settings).succeeds();
    let (weights, events) = (place.weights("run", 12), place.events("run").len());
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000012")).unwrap();
    place.train(&settings).succeeds();
    assert_eq!((place.weights("run", 12), place.events("run").len()), (weights, events));
}
