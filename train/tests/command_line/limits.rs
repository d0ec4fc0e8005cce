//! Sizes that no machine holds, and numbers at the ends of their ranges: an error with the key, no allocation, no panic.

use crate::support::{Place, names_in};

const LARGEST: &str = "9223372036854775807";

/// No model of these tests takes a second of its time or a gigabyte; the process is stopped if one tries.
#[track_caller]
fn refused(place: &Place, arguments: &[&str], fragments: &[&str]) {
    let before = names_in(&place.path(""));
    let said = place.run(arguments).fails(2, fragments);
    assert_eq!(said.out, "", "results of a command that failed");
    assert_eq!(names_in(&place.path("")), before, "something was written");
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_that_fits_no_machine_is_refused_with_figures_and_keys() {
    let place = Place::new();
    let wide = ["--set", "model.d_model=1000000", "--data", "text.txt", "--out", "run"];
    let fragments = ["at least ", "TB of memory", "weights", "available", "lower `model.d_model` (1000000)"];
    refused(&place, &[&["train"], &wide[..]].concat(), &fragments);
    refused(&place, &[&["compare"], &wide[..]].concat(), &fragments);
    refused(&place, &[&["compare", "--dry-run"], &wide[..4]].concat(), &fragments);
    place.write("c.toml", b"[model]\nd_model = 1000000\n[data]\nsource = \"text.txt\"\n");
    refused(&place, &["inspect", "c.toml"], &["TB of memory", "`model.d_model` (1000000)"]);
    refused(&place, &["inspect", "llama-d64", "--vocab", "1000000000000"], &["vocabulary (1000000000000)"]);
    let mlp = ["train", "--model", "mlp", "--set", "model.width=10000000", "--out", "run"];
    refused(&place, &mlp, &["TB of memory", "`model.width` (10000000)"]);
}

#[cfg(target_os = "linux")]
#[test]
fn every_size_at_its_largest_is_refused_by_name() {
    let place = Place::new();
    let train = ["train", "--data", "text.txt", "--out", "run"];
    for (key, set, fragment) in [
        ("d_model", LARGEST, "d_model"),
        ("d_model", "4611686018427387904", "model.d_model"),
        ("hidden", LARGEST, "model.hidden"),
        ("layers", "1000000000000", "model.layers"),
        ("layers", LARGEST, "model.layers"),
        ("context", LARGEST, "context"),
        ("head_dim", "4611686018427387904", "model.head_dim"),
        ("heads", LARGEST, "heads"),
        ("kv_heads", LARGEST, "kv_heads"),
        ("top_k", LARGEST, "top_k"),
    ] {
        refused(&place, &[&train[..], &["--set", &format!("model.{key}={set}")]].concat(), &[fragment]);
    }
    let experts = format!("model.experts={LARGEST}");
    refused(&place, &[&train[..], &["--model", "olmoe-tiny", "--set", &experts]].concat(), &["model.experts"]);
    for (key, more) in [("train.batch", None), ("train.batch", Some("train.accumulation"))] {
        let sets = [Some(key), more].into_iter().flatten().map(|key| format!("{key}={LARGEST}")).collect::<Vec<_>>();
        let flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        refused(&place, &[&train[..], &flags].concat(), &["train.batch"]);
    }
    for key in ["width", "depth"] {
        let set = format!("model.{key}={LARGEST}");
        refused(&place, &["train", "--model", "mlp", "--set", &set, "--out", "run"], &[&format!("model.{key}")]);
    }
}

#[test]
fn every_size_of_zero_is_refused_by_name() {
    let place = Place::new();
    for key in [
        "model.d_model",
        "model.layers",
        "model.heads",
        "model.context",
        "model.hidden",
        "model.sliding_window",
        "model.full_every",
        "model.base_width",
        "train.batch",
        "train.accumulation",
        "train.steps",
        "train.keep",
        "train.log_every",
    ] {
        let name = key.trim_start_matches("model.");
        let arguments = ["train", "--data", "text.txt", "--out", "run", "--set", &format!("{key}=0")];
        refused(&place, &arguments, &[&format!("{name}` is 0")]);
    }
}

#[test]
fn seeds_work_in_their_whole_range_and_are_refused_beyond() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "1", "--seed", LARGEST]).succeeds();
    place.train(&["--out", "run", "--steps", "1", "--seed", LARGEST]).succeeds();
    place.train(&["run/config.toml", "--out", "again"]).succeeds();
    assert_eq!(place.weights("run", 1), place.weights("again", 1));
    for seed in ["0", LARGEST, "18446744073709551615"] {
        place.run(&["generate", "run", "--prompt", "The", "--tokens", "3", "--seed", seed]).succeeds();
    }
    let beyond = "9223372036854775808";
    for flag in ["--seed", "--data-seed"] {
        refused(&place, &["train", flag, beyond], &[flag, beyond, "from 0 to 9223372036854775807"]);
        let key = format!("`train.{}` is -1", flag.trim_start_matches("--").replace('-', "_"));
        refused(&place, &["train", flag, "-1"], &[&key, "negative"]);
    }
    for seed in ["-1", "18446744073709551616", "1.5", "one"] {
        refused(
            &place,
            &["generate", "run", "--prompt", "The", "--seed", seed],
            &["--seed", seed, "whole number from 0 to"],
        );
    }
    let set = format!("train.seed={beyond}");
    refused(&place, &["train", "--set", &set], &["`train.seed`", "from 0 to 9223372036854775807"]);
    place.write("plan.toml", format!("[compare]\nfirst_seed = {LARGEST}\n").as_bytes());
    refused(&place, &["compare", "plan.toml"], &["`compare.first_seed`", LARGEST, "begin lower"]);
}

#[test]
fn a_negative_or_broken_number_of_any_flag_names_the_flag() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "1"]).succeeds();
    let generate = ["generate", "run", "--prompt", "The"];
    for (flag, value) in
        [("--tokens", "-1"), ("--top-k", "-1"), ("--threads", "-1"), ("--step", "-1"), ("--top-k", "x")]
    {
        refused(&place, &[&generate[..], &[flag, value]].concat(), &[flag, value, "whole number"]);
    }
    for value in ["-1", "nan", "inf"] {
        let shown = if value == "nan" { "NaN" } else { value };
        refused(&place, &[&generate[..], &["--temperature", value]].concat(), &["`--temperature`", shown]);
    }
    refused(&place, &["inspect", "llama-d64", "--vocab", "-1"], &["--vocab", "whole number"]);
    refused(&place, &["inspect", "llama-d64", "--vocab", "0"], &["vocab"]);
    for set in ["optimizer.weight_decay=-1", "optimizer.matrix.weight_decay=-1", "optimizer.adamw.weight_decay=nan"] {
        let key = set.split('=').next().unwrap().rsplit('.').next().unwrap();
        refused(&place, &["train", "--data", "text.txt", "--out", "new", "--set", set], &[key]);
    }
    // A weight decay below 0 is told its range in words.
    let decay = ["train", "--data", "text.txt", "--out", "new", "--set", "optimizer.matrix.weight_decay=-1"];
    refused(&place, &decay, &["weight_decay", "a number from 0", "got -1"]);
    for arguments in [["train", "--lr", "x"], ["compare", "--lrs", "1,x"], ["compare", "--target", "x"]] {
        refused(&place, &arguments, &[arguments[1], "'x'", "it must be a number"]);
    }
    refused(&place, &["data"], &["polaron data pack", "polaron data info"]);
    for (set, expected) in [
        ("optimizer.lr=0.1.2", "must be a number"),
        ("optimizer.lr=true", "must be a number"),
        ("optimizer.lr=", "must be a number"),
        ("train.steps=1e3", "must be a whole number"),
        ("model.tied_head=1", "must be true or false"),
    ] {
        let key = format!("`{}`", set.split('=').next().unwrap());
        refused(&place, &["train", "--set", set], &[&key, expected, "--set"]);
    }
}

#[test]
fn a_prompt_that_cannot_be_read_is_refused_before_the_training() {
    let place = Place::new();
    let prompt = "train.sample_prompt=The \u{e9} kin \u{2603} \u{e9}";
    let fragments = ["`train.sample_prompt`", "'\u{e9}', '\u{2603}'", "offset 4", "alphabet"];
    refused(&place, &["train", "--data", "text.txt", "--out", "run", "--set", prompt], &fragments);
    refused(&place, &["train", "--model", "mlp", "--out", "run", "--set", "train.sample_prompt=x"], &["perceptron"]);
    let train = ["--out", "run", "--steps", "2"];
    place.train(&[&train[..], &["--set", prompt, "--set", "train.sample_tokens=0"]].concat()).succeeds();
    // Longer than the context of 16: its end is what the model sees.
    let long = ["generate", "run", "--tokens", "2", "--prompt", "The king greets the queen."];
    let said = place.run(&long).succeeds();
    assert!(
        said.err.contains("warning: `--prompt` has 26 tokens, of which the model sees the last 16"),
        "{}",
        said.err
    );
    place.run(&["generate", "run", "--prompt", "a\u{e9}\u{2603}"]).fails(2, &["`--prompt`", "'\u{e9}', '\u{2603}'"]);
}

#[test]
fn words_that_are_no_commands_say_what_there_is() {
    let place = Place::new();
    refused(&place, &["evaluate", "run"], &["`evaluate`", "polaron eval RUN"]);
    refused(&place, &["test"], &["`test`", "polaron eval RUN"]);
    refused(&place, &["validate", "run", "--data", "text.txt"], &["`validate`", "polaron eval RUN"]);
    refused(&place, &["genrate", "run", "--prompt", "x"], &["`genrate`", "did you mean `polaron generate`?"]);
    refused(&place, &["resume", "run"], &["polaron train --resume RUN"]);
}

#[test]
fn a_dry_run_that_fails_names_no_log_that_is_gone() {
    let place = Place::new();
    let arguments = ["compare", "--dry-run", "--data", "text.txt", "--set", "model.context=5000"];
    let said = place.run(&arguments).fails(2, &["context"]);
    assert!(!said.err.contains("its log is"), "{}", said.err);
}
