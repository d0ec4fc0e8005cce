//! What a run computes and leaves behind.

use crate::support::{Place, names_in};

fn floats(events: &[serde_json::Value], event: &str, field: &str) -> Vec<f64> {
    let matching = events.iter().filter(|e| e["event"] == event);
    matching.map(|e| e[field].as_f64().unwrap()).collect()
}

#[test]
fn a_run_leaves_a_complete_folder_and_learns() {
    let place = Place::new();
    let said = place.train(&["--out", "run", "--steps", "60", "--set", "train.valid_every=30"]).succeeds();
    assert_eq!(
        names_in(&place.path("run")),
        [
            "checkpoints",
            "config.toml",
            "machines.jsonl",
            "metrics.jsonl",
            "plan.txt",
            "report.html",
            "run.lock",
            "tokenizer.json"
        ]
    );
    assert_eq!(names_in(&place.path("run/checkpoints")), ["step-000000", "step-000060"]);
    assert_eq!(
        names_in(&place.path("run/checkpoints/step-000060")),
        ["complete.json", "model.safetensors", "optimizer.safetensors", "trainer.json"]
    );
    let events = place.events("run");
    assert_eq!(floats(&events, "train", "step"), (1..=60).map(f64::from).collect::<Vec<_>>());
    assert_eq!(floats(&events, "train", "tokens")[59], 60.0 * 4.0 * 16.0);
    assert_eq!(floats(&events, "valid", "step"), [30.0, 60.0]);
    let losses = floats(&events, "train", "loss");
    assert!(losses[59] < 0.9 * losses[0], "{losses:?}");
    let end = events.last().unwrap();
    assert_eq!((end["event"].as_str(), end["status"].as_str()), (Some("end"), Some("finished")));
    assert_eq!(end["valid_loss"].as_f64(), Some(floats(&events, "valid", "loss")[1]));
    for fragment in
        ["validation loss", "tokens/s", "optimizer", "run folder       run", "polaron generate run", "sample"]
    {
        assert!(said.out.contains(fragment), "{fragment:?} is not in {}", said.out);
    }
    for fragment in ["parameters", "validation tokens", "muon", "2 threads", "run folder run", "step 60/60"] {
        assert!(said.err.contains(fragment), "{fragment:?} is not in {}", said.err);
    }
}

#[test]
fn validation_can_begin_before_the_first_step() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "2", "--set", "train.valid_at_start=true"]).succeeds();
    let events = place.events("run");
    assert_eq!(floats(&events, "valid", "step"), [0.0, 2.0]);
    // Small initial weights predict every character of the vocabulary about equally.
    let vocabulary = {
        let mut text = place.read("text.txt");
        text.sort_unstable();
        text.dedup();
        text.len() as f64
    };
    assert!((floats(&events, "valid", "loss")[0] - vocabulary.ln()).abs() < 0.1, "{events:?}");
}

#[test]
fn a_stored_configuration_repeats_its_run() {
    let place = Place::new();
    place.train(&["--out", "a", "--steps", "12", "--optimizer", "adamw", "--seed", "5"]).succeeds();
    place.run(&["train", "a/config.toml", "--out", "b"]).succeeds();
    assert_eq!(place.weights("a", 12), place.weights("b", 12));
    assert_eq!(place.read("a/config.toml"), place.read("b/config.toml"));
    assert_eq!(place.timeless_events("a"), place.timeless_events("b"));
}

#[test]
fn another_seed_gives_other_weights_and_another_data_seed_other_batches() {
    let place = Place::new();
    for (out, seed, data_seed) in [("a", "1", "2"), ("b", "3", "2"), ("c", "1", "4")] {
        place.train(&["--out", out, "--steps", "2", "--seed", seed, "--data-seed", data_seed]).succeeds();
    }
    assert_ne!(place.weights("a", 0), place.weights("b", 0));
    assert_eq!(place.weights("a", 0), place.weights("c", 0));
    assert_ne!(place.weights("a", 2), place.weights("c", 2));
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let place = Place::new();
    // Heavy ball with a plain step: the update is linear in the gradient, so rounding stays rounding.
    let settings = ["--steps", "3", "--optimizer", "sgd", "--set", "optimizer.lr=0.05"];
    for (out, parts) in [("whole", "train.accumulation=1"), ("parts", "train.accumulation=4")] {
        place.train(&[settings.as_slice(), &["--out", out, "--set", parts]].concat()).succeeds();
    }
    let (whole, parts) = (place.events("whole"), place.events("parts"));
    for field in ["loss", "grad_norm"] {
        for (a, b) in floats(&whole, "train", field).iter().zip(floats(&parts, "train", field)) {
            // Only the order of f32 sums over 64 tokens differs: a few units in the last place (6e-8 relative each).
            assert!((a - b).abs() <= 4e-6 * a.abs(), "{field}: {a} and {b}");
        }
    }
    assert_ne!(place.weights("whole", 0), place.weights("whole", 3));
}

#[test]
fn recomputed_activations_change_no_byte_and_may_be_turned_on_in_the_middle_of_a_run() {
    let place = Place::new();
    let balanced = ["--model", "olmoe-tiny", "--set", "model.aux_load_balance=0.01", "--set", "model.aux_z=0.001"];
    let tied = ["--model", "gemma3-tiny", "--set", "model.tied_head=true", "--set", "train.accumulation=2"];
    for (name, model) in [("balanced", &balanced[..]), ("tied", &tied[..])] {
        let train = |out: &str, more: &[&str]| {
            place.train(&[model, &["--out", &format!("{name}-{out}"), "--steps", "4"], more].concat())
        };
        train("kept", &[]).succeeds();
        train("recomputed", &["--set", "train.recompute=true"]).succeeds();
        let weights = |out: &str| place.weights(&format!("{name}-{out}"), 4);
        assert_eq!(weights("kept"), weights("recomputed"), "{name}");
        assert_eq!(
            place.timeless_events(&format!("{name}-kept")),
            place.timeless_events(&format!("{name}-recomputed")),
            "{name}"
        );
        let again = train("kept", &["--set", "train.recompute=true"]).succeeds();
        assert!(again.err.contains("already finished"), "{again:?}");
    }
    let mlp = ["train", "--model", "mlp", "--set", "train.recompute=true", "--out", "mlp"];
    place.run(&mlp).fails(2, &["`train.recompute` is true", "a perceptron keeps its activations"]);
}

#[test]
fn a_finished_run_says_so_and_stays_as_it_is() {
    let place = Place::new();
    let first = place.train(&["--out", "run", "--steps", "4"]).succeeds();
    let metrics = place.read("run/metrics.jsonl");
    let again = place.train(&["--out", "run", "--steps", "4"]).succeeds();
    assert!(again.err.contains("already finished") && again.err.contains("run"), "{again:?}");
    let loss = |out: &str| out.lines().find(|line| line.starts_with("validation loss")).map(String::from);
    assert_eq!(loss(&again.out), loss(&first.out));
    assert_eq!(place.read("run/metrics.jsonl"), metrics);
}

#[test]
fn a_folder_with_another_configuration_is_refused_with_both_values() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "4"]).succeeds();
    let (weights, config) = (place.weights("run", 4), place.read("run/config.toml"));
    let said = place.train(&["--out", "run", "--steps", "5", "--lr", "0.5"]);
    said.fails(
        2,
        &["another configuration", "`train.steps` is 4 there and 5 now", "`optimizer.lr` is 0.02 there and 0.5 now"],
    );
    place.train(&["--out", "run", "--steps", "4", "--resume", "never"]).fails(2, &["--resume never"]);
    assert_eq!((place.weights("run", 4), place.read("run/config.toml")), (weights, config));
    // What changes the report alone is no other configuration.
    place.train(&["--out", "run", "--steps", "4", "--set", "train.log_every=3"]).succeeds();
}

#[test]
fn a_default_folder_is_named_after_model_optimizer_and_seed() {
    let place = Place::new();
    let said = place.train(&["--steps", "2", "--seed", "9", "--optimizer", "sgd"]).succeeds();
    assert!(place.path("runs/llama-d64-sgd-s9/config.toml").is_file());
    assert!(said.err.contains("runs/llama-d64-sgd-s9"), "{said:?}");
}

#[test]
fn every_model_and_stack_trains() {
    let place = Place::new();
    let old = ["nanogpt-char", "llama-d64", "llama-d128", "llama-d256"];
    for model in old.into_iter().chain(["qwen3-tiny", "gemma3-tiny", "olmoe-tiny", "gpt-oss-tiny"]) {
        for stack in ["muon", "adamw", "sgd", "symmetric"] {
            let out = format!("{model}-{stack}");
            place.train(&["--model", model, "--optimizer", stack, "--steps", "3", "--out", &out]).succeeds();
        }
    }
}

#[test]
fn a_mixture_of_experts_reports_what_its_routers_did() {
    let place = Place::new();
    let balance = ["--set", "model.aux_load_balance=0.01", "--set", "model.experts=4", "--set", "model.top_k=2"];
    let said = place.train(&[&["--model", "olmoe-tiny", "--steps", "3", "--out", "run"], &balance[..]].concat());
    assert!(said.succeeds().out.contains("router load CV"));
    let events = place.events("run");
    let router = &events.iter().find(|event| event["event"] == "valid").unwrap()["router"];
    let load_cv = router["load_cv"].as_f64().unwrap();
    // Between balance and all tokens at the same two of four experts.
    assert!((0.0..=1.0).contains(&load_cv), "{router}");
    assert_eq!(router["layers"].as_array().unwrap().len(), 1);
    let said = place.train(&["--steps", "3", "--out", "dense"]).succeeds();
    assert!(!said.out.contains("router"), "{said:?}");
    assert!(place.events("dense").iter().all(|event| event.get("router").is_none()));
}

#[test]
fn a_run_that_leaves_the_finite_numbers_stops_before_the_update() {
    let place = Place::new();
    let settings = ["--optimizer", "sgd", "--set", "optimizer.clip=0", "--set", "schedule.kind=constant"];
    let more = ["--lr", "1e30", "--steps", "50", "--out", "run"];
    let said = place.train(&[settings.as_slice(), &more].concat());
    let said = said.fails(1, &["diverged at step", "is intact"]);
    assert!(said.err.contains("weight") || said.err.contains("gain"), "names no parameter: {said:?}");
    let end = place.events("run").pop().unwrap();
    assert_eq!(end["status"].as_str(), Some("diverged"), "{end}");
    assert!(end["reason"].as_str().is_some_and(|reason| reason.contains("diverged at step")), "{end}");
    assert_eq!(names_in(&place.path("run/checkpoints")), ["step-000000"]);
    let out = place.run(&["generate", "run", "--prompt", "The", "--tokens", "5"]).succeeds().out;
    assert!(out.starts_with("The"), "{out}");
}

#[test]
fn the_byte_tokenizer_knows_every_text() {
    let place = Place::new();
    place.write(
        "any.txt",
        "Zw\u{f6}lf Boxk\u{e4}mpfer jagen Viktor \u{fc}ber den gro\u{df}en Deich.\n".repeat(40).as_bytes(),
    );
    let settings = ["--data", "any.txt", "--set", "data.tokenizer=byte", "--steps", "3", "--out", "run"];
    place.train(&settings).succeeds();
    place.run(&["generate", "run", "--prompt", "\u{65e5}\u{672c}", "--tokens", "8"]).succeeds();
}
