//! Every wrong input: one clear line, exit code 2, and nothing written.

use crate::support::{Place, names_in};

/// Trains with the thumbnail settings and `arguments`; nothing may appear in the folder.
#[track_caller]
fn refused(place: &Place, arguments: &[&str], fragments: &[&str]) {
    let before = names_in(&place.path(""));
    let said = place.train(&[arguments, &["--out", "run"]].concat()).fails(2, fragments);
    assert_eq!(said.out, "", "results of a command that failed");
    assert_eq!(names_in(&place.path("")), before, "something was written");
}

#[test]
fn a_missing_an_empty_and_a_short_text_are_refused() {
    let place = Place::new();
    refused(&place, &["--data", "nowhere.txt"], &["nowhere.txt"]);
    refused(&place, &["--data", "shakespear"], &["shakespear", "did you mean `shakespeare`?"]);
    place.write("empty.txt", b"");
    refused(&place, &["--data", "empty.txt"], &["empty.txt", "is empty"]);
    place.write("short.txt", b"Only one line of text.\n");
    refused(&place, &["--data", "short.txt"], &["short.txt", "validation split", "3 tokens", "needs 17"]);
    refused(&place, &["--data", "."], &["is a folder"]);
}

#[test]
fn invalid_utf8_is_refused_with_its_offset() {
    let place = Place::new();
    place.write("latin1.txt", b"caf\xe9 and more");
    refused(&place, &["--data", "latin1.txt"], &["latin1.txt", "not valid UTF-8", "offset 3"]);
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    let place = Place::new();
    refused(&place, &["--set", "train.stesp=3"], &["`train.stesp`", "--set", "did you mean `train.steps`?"]);
    place.write("c.toml", b"[optimizer]\nweight_decai = 0.1\n");
    let fragments = ["`optimizer.weight_decai`", "c.toml", "did you mean `optimizer.weight_decay`?"];
    refused(&place, &["c.toml"], &fragments);
    refused(&place, &["--set", "optimizer.matrix.momentun=0.9"], &["momentun", "momentum"]);
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    let place = Place::new();
    refused(&place, &["--set", "train.steps=many"], &["`train.steps`", "a whole number", "many"]);
    refused(&place, &["--set", "optimizer.lr=fast"], &["`optimizer.lr`", "a number", "fast"]);
    place.write("c.toml", b"[train]\nsteps = 2.5\n");
    refused(&place, &["c.toml"], &["`train.steps`", "a whole number", "2.5", "c.toml"]);
}

#[test]
fn a_width_is_not_accounted_for_twice() {
    let place = Place::new();
    let mup = ["--set", "model.parametrization=mup"];
    let twice = ["--set", "optimizer.matrix.scale=match_rms_adamw"];
    let fragments = ["`model.parametrization` is mup", "blocks.0.attn.wq.weight", "match_rms_adamw", "scale=original"];
    refused(&place, &[mup, twice].concat(), &fragments);
    // It is the default of this rule.
    refused(&place, &[mup, ["--optimizer", "muon_eq"]].concat(), &fragments);
    let once = ["--set", "optimizer.matrix.scale=original", "--steps", "1", "--out", "run"];
    place.train(&[mup.as_slice(), &["--optimizer", "muon_eq"], &once].concat()).succeeds();
}

#[test]
fn with_mup_every_stack_follows_the_width_or_is_refused_with_what_would() {
    let place = Place::new();
    let mup = ["--set", "model.parametrization=mup", "--set", "model.base_width=8", "--steps", "1"];
    for stack in ["muon", "adamw", "adamuon", "normuon", "kaon", "regularized_muon", "random_spectrum"] {
        place.train(&[mup.as_slice(), &["--optimizer", stack, "--out", stack]].concat()).succeeds();
    }
    // twice the base width: Muon's rate stays, AdaMuon's is divided by the root of 2, AdamW's of hidden matrices by 2
    let plan = |stack: &str| String::from_utf8_lossy(&place.read(&format!("{stack}/plan.txt"))).into_owned();
    assert!(plan("muon").contains("  0.02 "), "{}", plan("muon"));
    assert!(plan("adamuon").contains("  0.00707106"), "{}", plan("adamuon"));
    assert!(plan("adamw").contains("  0.0005 "), "{}", plan("adamw"));
    for stack in ["sgd", "symmetric", "scion", "freon", "row_norm", "spectral", "hybrid", "ssd", "polar_grad"] {
        let fragments = ["`model.parametrization` is mup", "no width rule is known", "choose"];
        refused(&place, &[mup.as_slice(), &["--optimizer", stack]].concat(), &fragments);
    }
}

#[test]
fn values_outside_their_range_are_refused() {
    let place = Place::new();
    for lr in ["-1", "NaN", "inf"] {
        refused(&place, &["--lr", lr], &["`optimizer.lr`"]);
    }
    refused(&place, &["--steps", "0"], &["`train.steps` is 0", "at least 1"]);
    refused(&place, &["--steps", "-5"], &["`train.steps` is -5", "negative"]);
    refused(&place, &["--set", "train.batch=0"], &["`train.batch` is 0"]);
    refused(&place, &["--set", "train.accumulation=3"], &["`train.accumulation` is 3", "divide"]);
    refused(&place, &["--set", "data.valid_fraction=1.0"], &["`data.valid_fraction` is 1"]);
    refused(&place, &["--set", "schedule.min_factor=2"], &["`schedule.min_factor` is 2"]);
    refused(&place, &["--set", "train.keep=0"], &["`train.keep` is 0"]);
}

#[test]
fn a_model_that_does_not_fit_together_is_refused() {
    let place = Place::new();
    refused(&place, &["--set", "model.heads=3"], &["16", "3", "heads"]);
    refused(&place, &["--set", "model.layers=0"], &["layers"]);
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    let place = Place::new();
    refused(&place, &["--model", "nanogpt-chr"], &["nanogpt-chr", "did you mean `nanogpt-char`?"]);
    refused(&place, &["--optimizer", "moun"], &["moun", "did you mean `muon`?"]);
    refused(&place, &["--device", "flexx"], &["flexx", "did you mean `flex`?", "ndarray, wgpu, cuda"]);
    refused(&place, &["--set", "schedule.kind=cosin"], &["cosin", "did you mean `cosine`?"]);
}

#[test]
fn a_device_that_is_not_compiled_in_says_how_to_build_it() {
    let place = Place::new();
    let listed = place.run(&["list", "devices"]).succeeds().out;
    for device in ["ndarray", "wgpu", "cuda"] {
        let missing = listed.lines().any(|line| line.starts_with(device) && line.contains("not compiled in"));
        if missing {
            let command = format!("cargo build --release -p polaron-train --features {device}");
            refused(&place, &["--device", device], &["not compiled", &command]);
        }
    }
}

#[test]
fn a_rule_that_matches_nothing_is_refused() {
    let place = Place::new();
    place.write("c.toml", b"[[optimizer.rule]]\nmatch = \"nothing.*\"\nkind = \"sgd\"\nlr = 0.1\n");
    refused(&place, &["c.toml"], &["nothing.*", "matches no parameter"]);
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused() {
    let place = Place::new();
    refused(&place, &["missing.toml"], &["missing.toml", "cannot read the configuration"]);
    place.write("c.toml", b"[train]\nsteps = = 3\n");
    refused(&place, &["c.toml"], &["c.toml", "line 2, column 9"]);
    place.write("b.toml", b"[train]\nname = \"\xff\"\n");
    refused(&place, &["b.toml"], &["b.toml", "UTF-8"]);
    place.run(&["trian"]).fails(2, &["`trian`", "did you mean `polaron train`?"]);
    place.run(&["llama-d64"]).fails(2, &["--model llama-d64"]);
}

#[test]
fn bad_usage_is_one_line() {
    let place = Place::new();
    refused(&place, &["--set", "steps"], &["`--set steps` has no `=`"]);
    refused(&place, &["--stepz", "3"], &["--stepz"]);
    refused(&place, &["--steps", "many"], &["many", "--steps"]);
    place.run(&["list", "optimisers"]).fails(2, &["optimisers"]);
    place.run(&["generate"]).fails(2, &["--prompt"]);
    place.run(&["list", "models", "--log", "a=b=c"]).fails(2, &["log filter"]);
}

#[test]
fn a_run_folder_that_cannot_be_used_is_refused() {
    let place = Place::new();
    place.train(&["--out", "text.txt"]).fails(2, &["text.txt", "choose another"]);
    std::fs::create_dir(place.path("other")).unwrap();
    place.write("other/notes.txt", b"mine");
    place.train(&["--out", "other"]).fails(2, &["other", "holds no run"]);
    assert_eq!(names_in(&place.path("other")), ["notes.txt"]);
    place.train(&["--resume", "other"]).fails(2, &["is not a run folder"]);
    place.train(&["--resume", "a", "--out", "b"]).fails(2, &["a"]);
}

/// Root may write anywhere but into /proc, where no folder can be made.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    Place::new().train(&["--out", "/proc/run"]).fails(2, &["cannot create the run folder", "/proc/run"]);
}

#[test]
fn commands_on_a_run_that_is_not_there_are_refused() {
    let place = Place::new();
    place.run(&["generate", "nowhere", "--prompt", "x"]).fails(2, &["nowhere", "is neither a run folder"]);
    place.run(&["export", ".", "--out", "x.safetensors"]).fails(2, &["is neither a run folder"]);
    place.run(&["inspect", "nanogpt"]).fails(2, &["nanogpt", "did you mean `nanogpt-char`?"]);
}
