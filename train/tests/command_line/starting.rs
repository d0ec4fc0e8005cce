//! Runs that start from trained weights, or continue another run in a new folder.

use crate::support::Place;

/// Losses of the validations, by step.
fn validations(place: &Place, run: &str) -> Vec<(u64, f64)> {
    let events = place.events(run);
    let valid = events.iter().filter(|event| event["event"] == "valid");
    valid.map(|event| (event["step"].as_u64().unwrap(), event["loss"].as_f64().unwrap())).collect()
}

fn config(place: &Place, run: &str) -> toml::Table {
    toml::from_str(&String::from_utf8(place.read(&format!("{run}/config.toml"))).unwrap()).unwrap()
}

fn checkpoint(place: &Place, run: &str, step: u64) -> [Vec<u8>; 2] {
    ["model", "optimizer"].map(|file| place.read(&format!("{run}/checkpoints/step-{step:06}/{file}.safetensors")))
}

#[test]
fn a_run_from_trained_weights_begins_where_they_ended() {
    let place = Place::new();
    place.train(&["--steps", "30", "--out", "first"]).succeeds();
    let said = place.train(&["--steps", "5", "--init", "first", "--out", "second", "--lr", "0.001"]).succeeds();
    assert!(said.err.contains("weights    those of step 30 of"), "{said:?}");
    let (before, after) = (validations(&place, "first"), validations(&place, "second"));
    assert_eq!(after[0], (0, before.last().unwrap().1), "the first validation is that of the given weights");
    assert_eq!(place.weights("second", 0), place.weights("first", 30));
    assert_ne!(place.weights("second", 5), place.weights("first", 30));
    // By its name the folder says where it comes from, and its page says it too.
    place.train(&["--steps", "2", "--init", "first"]).succeeds();
    let page = place.read("runs/llama-d64-muon-s1-from-first/report.html");
    assert!(String::from_utf8(page).unwrap().contains("First weights: those of step 30 of"));
}

#[test]
fn an_earlier_checkpoint_can_be_taken_and_a_missing_one_is_refused_with_those_that_exist() {
    let place = Place::new();
    place.train(&["--steps", "20", "--out", "first", "--set", "train.checkpoint_every=10"]).succeeds();
    place.train(&["--steps", "2", "--init", "first", "--init-step", "10", "--out", "second"]).succeeds();
    assert_eq!(place.weights("second", 0), place.weights("first", 10));
    let missing = place.train(&["--steps", "2", "--init", "first", "--init-step", "11", "--out", "third"]);
    missing.fails(2, &["no checkpoint of step 11", "0, 10, 20"]);
    place
        .train(&["--steps", "2", "--init", "first", "--init-step", "0"])
        .fails(2, &["--init-step", "no trained weights"]);
    for key in ["train.init_step=2", "train.init_sha256=ab", "train.init_continues=true"] {
        place
            .train(&["--steps", "2", "--set", key, "--out", "third"])
            .fails(2, &["no weights to start from are named"]);
    }
    place
        .train(&["--steps", "2", "--init", "nowhere", "--out", "third"])
        .fails(2, &["`nowhere` is neither a run folder"]);
    assert!(!place.path("third").exists());
}

#[test]
fn the_model_of_the_weights_decides_and_a_contradiction_is_refused_with_both_values() {
    let place = Place::new();
    place.train(&["--steps", "2", "--out", "first", "--set", "model.rope_base=500"]).succeeds();
    let base = ["train", "--data", "text.txt", "--threads", "2", "--steps", "2", "--init", "first"];
    let with = |more: &[&str]| place.run(&[&base, more].concat());
    with(&["--set", "model.layers=3", "--set", "model.rope_base=7", "--out", "second"])
        .fails(2, &["`layers` is 1 there and 3 now", "`rope_base` is 500.0 there and 7.0 now", "first"]);
    with(&["--set", "model.preset=mlp", "--out", "second"])
        .fails(2, &["`preset` is \"llama-d64\" there and \"mlp\" now"]);
    with(&["--set", "model.context=17", "--out", "second"]).fails(2, &["`context` is 16 there and 17 now"]);
    with(&["--set", "model.context=8", "--out", "second"]).succeeds();
    assert_eq!(config(&place, "second")["model"]["context"].as_integer(), Some(8));
    assert_eq!(config(&place, "second")["model"]["rope_base"].as_float(), Some(500.0));
    // Learned positions are weights of the context.
    place.train(&["--steps", "2", "--out", "gpt", "--model", "nanogpt-char"]).succeeds();
    let base = ["train", "--data", "text.txt", "--steps", "2", "--init", "gpt", "--out", "third"];
    place.run(&[&base[..], &["--set", "model.context=8"]].concat()).fails(2, &["`context` is 16 there and 8 now"]);
    assert!(!place.path("third").exists());
}

#[test]
fn another_text_is_encoded_with_the_tokenizer_of_the_weights() {
    let place = Place::new();
    place.train(&["--steps", "2", "--out", "first"]).succeeds();
    place.write("other.txt", "the sailor mocks\n".repeat(200).as_bytes());
    place.write("foreign.txt", "the s\u{e9}lor m\u{f6}cks\n".repeat(200).as_bytes());
    let with = |data: &str, out: &str| {
        place.run(&["train", "--steps", "2", "--init", "first", "--data", data, "--out", out, "--threads", "1"])
    };
    with("other.txt", "second").succeeds();
    assert_eq!(place.read("second/tokenizer.json"), place.read("first/tokenizer.json"));
    with("foreign.txt", "third").fails(2, &["foreign.txt`", "'\u{e9}'", "tokenizer of the weights"]);
    let said = place.train(&["--steps", "2", "--init", "first", "--out", "third", "--set", "data.tokenizer=byte"]);
    said.fails(2, &["`data.tokenizer` is byte", "is char"]);
    // Packed data have their own tokenizer, which must be the same.
    for tokenizer in ["char", "first/tokenizer.json"] {
        let out = format!("packed-{}", tokenizer.len());
        place.run(&["data", "pack", "text.txt", "--tokenizer", tokenizer, "--out", &out]).succeeds();
    }
    with("packed-4", "fourth").succeeds();
    with("packed-20", "fifth").succeeds();
    place.run(&["data", "pack", "other.txt", "--tokenizer", "char", "--out", "narrow"]).succeeds();
    with("narrow", "third").fails(2, &["narrow` was packed with another tokenizer (char", "char, "]);
    place.run(&["data", "pack", "text.txt", "--tokenizer", "byte", "--out", "bytes"]).succeeds();
    with("bytes", "third").fails(2, &["(byte, 256 tokens)"]);
    assert!(!place.path("third").exists());
}

#[test]
fn a_run_from_trained_weights_goes_on_without_them_and_is_never_repeated_with_others() {
    let place = Place::new();
    place.train(&["--steps", "10", "--out", "first"]).succeeds();
    let from = ["--steps", "6", "--init", "first", "--set", "train.checkpoint_every=3"];
    place.train(&[&from[..], &["--out", "calm"]].concat()).succeeds();
    place.train(&[&from[..], &["--out", "run"]].concat()).succeeds();
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000006")).unwrap();
    std::fs::rename(place.path("first"), place.path("gone")).unwrap();
    place.run(&["train", "--resume", "run"]).succeeds();
    assert_eq!(checkpoint(&place, "run", 6), checkpoint(&place, "calm", 6));
    assert_eq!(place.timeless_events("run"), place.timeless_events("calm"));
    // Its configuration repeats it, if the weights are still the same.
    let repeat = ["train", "calm/config.toml", "--out", "again"];
    place.run(&repeat).fails(2, &["first` is neither a run folder"]);
    std::fs::rename(place.path("gone"), place.path("first")).unwrap();
    place.run(&repeat).succeeds();
    assert_eq!(checkpoint(&place, "again", 6), checkpoint(&place, "calm", 6));
    std::fs::remove_dir_all(place.path("first")).unwrap();
    place.train(&["--steps", "10", "--out", "first", "--seed", "9"]).succeeds();
    std::fs::remove_dir_all(place.path("again")).unwrap();
    place.run(&repeat).fails(2, &["step 10", "train.init_sha256"]);
    assert!(!place.path("again").exists());
    place.train(&[&from[..], &["--out", "calm"]].concat()).fails(2, &["`train.init_sha256` is"]);
}

#[test]
fn a_perceptron_starts_from_trained_weights_too() {
    let place = Place::new();
    let base = ["train", "--model", "mlp", "--threads", "2", "--set", "model.width=8"];
    place.run(&[&base[..], &["--steps", "5", "--out", "first"]].concat()).succeeds();
    place.run(&["train", "--steps", "2", "--init", "first", "--data", "digits", "--out", "second"]).succeeds();
    assert_eq!(place.weights("second", 0), place.weights("first", 5));
}

#[test]
fn a_comparison_does_not_start_from_trained_weights() {
    let place = Place::new();
    place.train(&["--steps", "2", "--out", "first"]).succeeds();
    let said = place.run(&["compare", "--set", "train.init=first", "--out", "comparison"]);
    said.fails(2, &["`train.init` is first", "only `polaron train`"]);
    assert!(!place.path("comparison").exists());
}

const WSD: &[&str] = &[
    "--set",
    "schedule.kind=wsd",
    "--set",
    "train.checkpoint_every=10",
    "--set",
    "train.valid_every=10",
    "--set",
    "train.keep=9",
];

fn wsd(place: &Place, more: &[&str]) {
    place.train(&[WSD, more].concat()).succeeds();
}

#[test]
fn a_branch_of_a_trunk_is_to_the_byte_the_run_of_its_length() {
    let place = Place::new();
    wsd(&place, &["--steps", "60", "--out", "trunk"]);
    let trunk = place.timeless_events("trunk");
    for (from, steps) in [("10", 20_u64), ("30", 40)] {
        let (whole, branch) = (format!("whole-{steps}"), format!("trunk-to{steps}"));
        let steps_text = steps.to_string();
        wsd(&place, &["--steps", &steps_text, "--out", &whole]);
        let said = place.run(&["train", "--extend", "trunk", "--from-step", from, "--steps", &steps_text]).succeeds();
        assert!(said.err.contains(&format!("those of step {from} of")), "{said:?}");
        assert_eq!(checkpoint(&place, &branch, steps), checkpoint(&place, &whole, steps));
        assert_eq!(place.timeless_events(&branch), place.timeless_events(&whole));
        let train = &config(&place, &branch)["train"];
        assert_eq!(train["init_step"].as_integer(), Some(from.parse().unwrap()));
        assert!(train["init"].as_str().unwrap().ends_with("trunk"), "{train}");
    }
    assert_eq!(place.timeless_events("trunk"), trunk, "the trunk is as before");
}

#[test]
fn a_finished_run_with_a_constant_rate_goes_on_as_if_it_had_been_longer() {
    let place = Place::new();
    let constant = ["--set", "schedule.kind=constant", "--set", "train.valid_every=10", "--optimizer", "adamw"];
    let train = |more: &[&str]| place.train(&[&constant, more].concat()).succeeds();
    train(&["--steps", "20", "--out", "short"]);
    train(&["--steps", "35", "--out", "long"]);
    place.run(&["train", "--extend", "short", "--steps", "35"]).succeeds();
    assert_eq!(checkpoint(&place, "short-to35", 35), checkpoint(&place, "long", 35));
    assert_eq!(place.events("short-to35").last().unwrap()["tokens"], place.events("long").last().unwrap()["tokens"]);
    // And an extension can be extended.
    place.run(&["train", "--extend", "short-to35", "--steps", "40", "--out", "longer"]).succeeds();
    train(&["--steps", "40", "--out", "longest"]);
    assert_eq!(checkpoint(&place, "longer", 40), checkpoint(&place, "longest", 40));
}

#[test]
fn a_kept_schedule_stays_at_its_end() {
    let place = Place::new();
    place.train(&["--steps", "20", "--out", "run"]).succeeds();
    place.run(&["train", "--extend", "run", "--steps", "24", "--keep-schedule", "--out", "kept"]).succeeds();
    place.run(&["train", "--extend", "kept", "--steps", "26", "--keep-schedule", "--out", "more"]).succeeds();
    let rates: Vec<f64> =
        place.events("more").iter().filter(|e| e["event"] == "train").filter_map(|e| e["lr"].as_f64()).collect();
    assert_eq!(rates.len(), 26);
    let end = 0.1 * rates.iter().copied().fold(0.0, f64::max);
    assert!(rates[20..].iter().all(|lr| (lr - end).abs() < 1e-12), "{rates:?}");
    // By the new length the rate rises again, which is said.
    let said = place.run(&["train", "--extend", "run", "--steps", "40"]).succeeds();
    assert!(said.err.contains("note: the learning rate goes from"), "{said:?}");
}

/// A file with schedules for part of the parameters and of the momentum.
const OWN_SCHEDULES: &str = "[schedule]\nkind = 'wsd'\n[[schedule.rule]]\noptimizer = 'adamw'\nkind = 'power'\nwarmup = 2\n\
     decay_fraction = 0.5\n[[schedule.rule]]\nmatch = 'blocks.*.attn.wo'\nmin_factor = 0.0\n\
     [schedule.momentum]\nwarmup = 6\ncooldown = 7\n";

#[test]
fn schedules_of_its_own_are_extended_and_kept_like_the_main_one() {
    let place = Place::new();
    place.write("own.toml", OWN_SCHEDULES.as_bytes());
    let own = |more: &[&str]| {
        let every = ["own.toml", "--set", "train.checkpoint_every=10", "--set", "train.keep=9"];
        place.train(&[every.as_slice(), &["--set", "train.valid_every=10"], more].concat()).succeeds()
    };
    let said = own(&["--steps", "30", "--out", "trunk"]);
    assert!(said.err.contains("of adamw: constant, then the share"), "{said:?}");
    let plan = String::from_utf8(place.read("trunk/plan.txt")).unwrap();
    assert!(plan.contains("schedule") && plan.contains("momentum of"), "{plan}");
    own(&["--steps", "20", "--out", "whole"]);
    place.run(&["train", "--extend", "trunk", "--from-step", "10", "--steps", "20"]).succeeds();
    assert_eq!(checkpoint(&place, "trunk-to20", 20), checkpoint(&place, "whole", 20));
    assert_eq!(place.timeless_events("trunk-to20"), place.timeless_events("whole"));
    place.run(&["train", "--extend", "whole", "--steps", "24", "--keep-schedule", "--out", "kept"]).succeeds();
    let events = place.events("kept");
    let train: Vec<_> = events.iter().filter(|event| event["event"] == "train").collect();
    assert_eq!(train.len(), 24);
    let factor = |step: usize, of: &str| train[step]["factors"][of].as_f64().unwrap();
    assert_eq!([factor(0, "adamw"), factor(5, "adamw")], [0.5, 1.0]);
    for (step, event) in train.iter().enumerate().skip(20) {
        assert_eq!((factor(step, "adamw"), factor(step, "blocks.*.attn.wo")), (0.1, 0.0));
        assert_eq!(event["momentum"].as_f64(), Some(0.85));
    }
    let said = place.run(&["train", "--extend", "whole", "--steps", "40", "--out", "longer"]).succeeds();
    assert!(said.err.contains("note: the learning rate of adamw goes from"), "{said:?}");
}

#[test]
fn an_extension_that_was_killed_ends_with_the_same_bytes() {
    let place = Place::new();
    wsd(&place, &["--steps", "20", "--out", "run"]);
    let command = |out| ["train", "--extend", "run", "--steps", "600", "--out", out];
    place.run(&command("calm")).succeeds();
    let mut child = place.command(&command("killed")).stderr(std::process::Stdio::null()).spawn().unwrap();
    place.wait_for_step("killed", 120, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000000")).unwrap();
    let said = place.run(&command("killed")).succeeds();
    assert!(said.err.contains("resuming `killed`"), "{said:?}");
    assert_eq!(checkpoint(&place, "killed", 600), checkpoint(&place, "calm", 600));
    assert_eq!(place.timeless_events("killed"), place.timeless_events("calm"));
}

#[test]
fn an_extension_that_cannot_be_is_refused() {
    let place = Place::new();
    place.train(&["--steps", "20", "--out", "run"]).succeeds();
    let extend = |more: &[&str]| place.run(&[&["train", "--extend", "run", "--out", "new"], more].concat());
    extend(&["--steps", "20"]).fails(2, &["`train.steps` is 20", "already at step 20"]);
    extend(&["--steps", "30", "--set", "model.layers=2"]).fails(2, &["`layers` is 1 there and 2 now"]);
    extend(&["--steps", "30", "--from-step", "7"]).fails(2, &["no checkpoint of step 7"]);
    extend(&["--steps", "30", "--resume", "run"]).fails(2, &["--extend run begins a new run"]);
    extend(&["--steps", "30", "--optimizer", "adamw"]).fails(2, &["optimizer"]);
    assert_ne!(extend(&[]).code, Some(0), "it needs a length");
    let mut text = place.read("text.txt");
    text.rotate_left(1);
    place.write("text.txt", &text);
    extend(&["--steps", "30"]).fails(2, &["text.txt", "have changed"]);
    assert!(!place.path("new").exists());
    place.write("other.txt", &text);
    extend(&["--steps", "24", "--data", "other.txt"]).succeeds();
    assert_eq!(place.events("new").last().unwrap()["step"].as_u64(), Some(24));
}
