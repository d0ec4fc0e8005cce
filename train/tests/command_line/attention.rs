//! The largest attention logits: measured, logged, bounded by QK-clip.

use crate::support::{Place, names_in};

/// A decoder whose heads have logits of about a hundredth at the start.
const CLIPPED: &[&str] = &["--set", "optimizer.qk_clip=0.02"];
const LOGGED: &[&str] = &["--set", "train.logits_every=1"];

/// An event about heads: step, largest logits, clipped heads.
type Heads = (u64, Vec<Vec<f64>>, Option<u64>);

fn heads(place: &Place, run: &str) -> Vec<Heads> {
    let events = place.events(run).into_iter().filter(|event| event["event"] == "heads");
    let logits =
        |layer: &serde_json::Value| layer.as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap()).collect();
    let largest = |event: &serde_json::Value| event["largest"].as_array().unwrap().iter().map(logits).collect();
    events.map(|event| (event["step"].as_u64().unwrap(), largest(&event), event["clipped"].as_u64())).collect()
}

fn with<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

#[test]
fn logging_logits_changes_no_weight() {
    let place = Place::new();
    place.train(&["--steps", "25", "--out", "without"]).succeeds();
    place.train(&with(&[&["--steps", "25", "--out", "with", "--set", "train.logits_every=10"]])).succeeds();
    assert_eq!(place.weights("with", 25), place.weights("without", 25));
    assert!(heads(&place, "without").is_empty());
    let found = heads(&place, "with");
    assert_eq!(found.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), [10, 20, 25]);
    // One layer of two heads, and nothing that clips.
    assert!(found.iter().all(|(_, largest, clipped)| largest.len() == 1 && largest[0].len() == 2 && clipped.is_none()));
    let written = |run: &str| String::from_utf8(place.read(&format!("{run}/config.toml"))).unwrap();
    assert!(!written("without").contains("logits_every") && !written("without").contains("qk_clip"));
    assert!(written("with").contains("logits_every = 10"));
    assert!(!String::from_utf8(place.read("without/report.html")).unwrap().contains("attention logits"));
    let page = String::from_utf8(place.read("with/report.html")).unwrap();
    assert!(page.contains("Largest attention logits") && !page.contains("QK-clip scaled"));
}

#[test]
fn a_threshold_that_no_logit_reaches_changes_no_weight() {
    let place = Place::new();
    place.train(&["--steps", "25", "--out", "without"]).succeeds();
    place.train(&["--steps", "25", "--out", "with", "--set", "optimizer.qk_clip=1e6"]).succeeds();
    assert_eq!(place.weights("with", 25), place.weights("without", 25));
    assert!(heads(&place, "with").iter().all(|(.., clipped)| *clipped == Some(0)));
    place.train(&["--steps", "25", "--out", "off", "--set", "optimizer.qk_clip=0"]).succeeds();
    assert_eq!(place.read("off/config.toml"), place.read("without/config.toml"));
}

#[test]
fn clipped_heads_are_counted_in_every_step_and_stay_near_the_threshold() {
    let place = Place::new();
    for model in ["llama-d64", "nanogpt-char"] {
        place.train(&with(&[&["--model", model, "--steps", "30", "--out", "free"], LOGGED])).succeeds();
        place.train(&with(&[&["--model", model, "--steps", "30", "--out", "run"], CLIPPED])).succeeds();
        let (free, bound) = (heads(&place, "free"), heads(&place, "run"));
        assert_eq!(bound.len(), 30, "every step");
        let largest = |heads: &[Heads]| {
            heads[20..].iter().flat_map(|(_, largest, _)| largest[0].clone()).fold(f64::MIN, f64::max)
        };
        // What is scaled down to the threshold after a step is a little above it in the next batch.
        assert!(largest(&bound) < 0.5 * largest(&free), "{model}: {} {}", largest(&bound), largest(&free));
        for (step, largest, clipped) in &bound {
            let above = largest.iter().flatten().filter(|logit| **logit > 0.02).count() as u64;
            assert_eq!(*clipped, Some(above), "{model}, step {step}");
        }
        assert!(bound.iter().any(|(.., clipped)| *clipped > Some(0)), "{model}");
        let page = String::from_utf8(place.read("run/report.html")).unwrap();
        assert!(page.contains(">threshold</button>") && page.contains("QK-clip scaled down"), "{model}");
        place.run(&["report", "run", "--csv", "run.csv"]).succeeds();
        let table = String::from_utf8(place.read("run.csv")).unwrap();
        assert!(table.lines().next().unwrap().ends_with("largest/0") && table.contains("clipped"), "{model}");
        for run in ["free", "run"] {
            std::fs::remove_dir_all(place.path(run)).unwrap();
        }
    }
}

#[test]
fn the_logits_of_a_batch_do_not_depend_on_how_it_is_split() {
    let place = Place::new();
    let mut first: Option<Vec<Vec<f64>>> = None;
    for (name, more) in [
        ("one", vec!["--threads", "1"]),
        ("three", vec!["--threads", "3"]),
        ("parts", vec!["--threads", "1", "--set", "train.accumulation=4"]),
        ("both", vec!["--threads", "2", "--set", "train.accumulation=2"]),
        ("recomputed", vec!["--threads", "2", "--set", "train.recompute=true"]),
    ] {
        place.train(&with(&[&["--steps", "1", "--out", name], LOGGED, &more])).succeeds();
        let found = heads(&place, name).remove(0).1;
        assert_eq!(first.get_or_insert(found.clone()), &found, "{name}");
    }
}

#[test]
fn a_killed_run_that_clips_heads_ends_with_the_same_bytes() {
    let place = Place::new();
    let more = ["--steps", "150", "--set", "train.checkpoint_every=7", "--log-to", "tensorboard"];
    place.train(&with(&[&more, CLIPPED, &["--out", "calm"]])).succeeds();
    for step in [1, 40, 111] {
        let mut child = place.spawn_train(&with(&[&more, CLIPPED, &["--out", "run"]]));
        place.wait_for_step("run", step, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.train(&with(&[&more, CLIPPED, &["--out", "run"]])).succeeds();
    assert_eq!(place.weights("run", 150), place.weights("calm", 150));
    assert_eq!(place.timeless_events("run"), place.timeless_events("calm"));
    assert!(heads(&place, "run").iter().any(|(.., clipped)| *clipped > Some(0)));
    assert_eq!(heads(&place, "run").len(), 150);
    assert!(names_in(&place.path("run")).iter().any(|name| name.contains("tfevents")));
}

#[test]
fn models_whose_logits_it_cannot_bound_are_refused_before_training() {
    let place = Place::new();
    let set = |key: &'static str| ["--set", key];
    let clip = set("optimizer.qk_clip=100");
    let refused = |more: &[&str], fragments: &[&str]| {
        place.train(&with(&[&["--steps", "2", "--out", "run"], &clip, more])).fails(2, fragments);
        assert!(!place.path("run").exists(), "{more:?}");
    };
    refused(&["--model", "qwen3-tiny"], &["`optimizer.qk_clip` is 100", "no effect", "model.qk_norm"]);
    refused(&set("model.qk_norm=full_width"), &["no effect"]);
    refused(&set("train.lora.rank=2"), &["`optimizer.qk_clip` is 100", "blocks.0.attn.wq.weight", "frozen"]);
    refused(&["--freeze", "blocks.0.attn.wk"], &["blocks.0.attn.wk.weight", "frozen"]);
    refused(&set("optimizer.wrapper.kind=schedule_free"), &["`optimizer.qk_clip` is 100", "schedule_free"]);
    refused(&set("optimizer.qk_clip=-1"), &["`optimizer.qk_clip` is -1"]);
    refused(&set("optimizer.qk_clpi=1"), &["did you mean `optimizer.qk_clip`?"]);
    refused(&set("train.logits_evry=1"), &["did you mean `train.logits_every`?"]);
    for key in ["optimizer.qk_clip=100", "train.logits_every=1"] {
        let mlp = ["train", "--model", "mlp", "--steps", "2", "--out", "run", "--set", key];
        place.run(&mlp).fails(2, &[key.split('=').next().unwrap(), "a perceptron has no attention"]);
    }
    // What is normalised can still be logged, and other layers may be frozen.
    place
        .train(&with(&[&["--model", "qwen3-tiny", "--set", "model.kv_heads=1", "--steps", "1", "--out", "a"], LOGGED]))
        .succeeds();
    place.train(&with(&[&["--steps", "1", "--freeze", "blocks.0.attn.wv", "--out", "b"], &clip])).succeeds();
}
