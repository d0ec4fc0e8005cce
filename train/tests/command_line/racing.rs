//! The race: what is run, what is said, and what is refused.

use crate::support::{Place, names_in};

const MUON: &[u8] = b"steps = 3\n[optimizer]\nstack = 'muon'\n[schedule]\nwarmup = 1\n";

#[test]
fn an_entry_is_run_and_resumed_and_its_claim_is_judged() {
    let place = Place::new();
    place.write("muon.toml", MUON);
    place.write("adamw.toml", b"name = 'baseline'\nsteps = 3\n[optimizer]\nstack = 'adamw'\n[schedule]\nwarmup = 1\n");
    let race = ["race", "muon.toml", "adamw.toml", "--steps", "1", "--seeds", "1", "--out", "r"];
    let said = place.run(&race).succeeds();
    for part in
        ["shakespeare: target ", "entry", "muon", "baseline", "open: 1 of 8 runs", "(target - mean) √n ≥ 3.09 σ"]
    {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }
    assert_eq!(names_in(&place.path("r")), ["race.json", "race.md", "shakespeare-baseline-1", "shakespeare-muon-1"]);
    let found: serde_json::Value = serde_json::from_slice(&place.read("r/race.json")).unwrap();
    let losses = |entry: usize| found["entries"][entry]["losses"][0].as_f64().unwrap();
    assert!((2.0..6.0).contains(&losses(0)) && losses(0) != losses(1), "{found}");
    assert_eq!(found["pairs"].as_array().unwrap().len(), 1);
    // Nothing is run again, and nothing else is said.
    let metrics = || place.read("r/shakespeare-muon-1/runs/verdict-muon-s1/metrics.jsonl");
    let before = metrics();
    assert_eq!((place.run(&race).succeeds().out, metrics()), (said.out, before));
    // An entry is a comparison of one: it has a page, and its folder is resumed like any other.
    assert!(place.path("r/shakespeare-muon-1/report.html").exists());
    let alone = place.run(&["compare", "r/shakespeare-muon-1"]).succeeds().out;
    assert!(
        alone.contains("an entry of the race on shakespeare") && alone.contains("`polaron race` judges its claim"),
        "{alone}"
    );
    assert!(!alone.contains("is tuned") && !alone.contains("p-values"), "{alone}");
}

#[test]
fn bad_entries_and_other_texts_are_refused_before_anything_is_run() {
    let place = Place::new();
    place.write("muon.toml", MUON);
    place.write("batch.toml", &[MUON, b"[train]\nbatch = 64\n"].concat());
    for (arguments, said) in [
        (["race", "muon.toml", "batch.toml"].as_slice(), "unknown key `train.batch`"),
        (&["race", "muon.toml", "muon.toml"], "two entries are called `muon`"),
        (&["race", "gone.toml"], "gone.toml"),
        (&["race", "muon.toml", "--data", "text.txt"], "is not the text of the race"),
        (&["race", "muon.toml", "--seeds", "0"], "`compare.seeds` is 0"),
    ] {
        place.run(&[arguments, &["--out", "r"]].concat()).fails(2, &[said]);
    }
    assert!(!place.path("r").exists());
    place.write("plan.toml", b"optimizers = ['muon']\n[compare]\nrace = 'mine'\n");
    place.run(&["compare", "plan.toml"]).fails(2, &["compare.race"]);
}
