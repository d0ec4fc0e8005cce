//! Generating, exporting, inspecting, listing.

use polaron_verify::tasks::{TASKS, Task};
use safetensors::SafeTensors;

use crate::support::Place;

fn trained(steps: &str) -> Place {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", steps]).succeeds();
    place
}

#[test]
fn generated_text_depends_on_the_seed_alone() {
    let place = trained("5");
    let text = |seed: &str| {
        let arguments = ["generate", "run", "--prompt", "The ", "--tokens", "60", "--temperature", "2", "--seed", seed];
        place.run(&arguments).succeeds().out
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
    // Prompt, 60 characters, line end.
    assert_eq!(text("1").chars().count(), 4 + 60 + 1);
    assert!(text("1").starts_with("The "));
}

#[test]
fn temperature_zero_and_one_candidate_are_greedy() {
    let place = trained("5");
    let base = ["generate", "run", "--prompt", "The ", "--tokens", "40"];
    let with = |more: &[&str]| place.run(&[base.as_slice(), more].concat()).succeeds().out;
    assert_eq!(with(&["--temperature", "0"]), with(&["--temperature", "3", "--top-k", "1", "--seed", "9"]));
}

#[test]
fn bad_prompts_and_settings_of_generate_are_refused() {
    let place = trained("2");
    place.run(&["generate", "run", "--prompt", "The \u{e9}"]).fails(2, &["'\u{e9}'", "offset 4"]);
    place.run(&["generate", "run", "--prompt", "T", "--temperature", "-1"]).fails(2, &["--temperature"]);
    place.run(&["generate", "run", "--prompt", "T", "--step", "1"]).fails(2, &["step 1", "0, 2"]);
    place.run(&["generate", "run", "--prompt", "", "--tokens", "4"]).succeeds();
}

#[test]
fn exported_weights_can_be_read_and_say_what_they_are() {
    let place = trained("4");
    place.run(&["export", "run", "--step", "0", "--out", "zero.safetensors"]).succeeds();
    place.run(&["export", "run", "--out", "last.safetensors", "--optimizer-state"]).succeeds();
    place.run(&["export", "run", "--step", "3", "--out", "x.safetensors"]).fails(2, &["step 3", "0, 4"]);
    let (zero, last) = (place.read("zero.safetensors"), place.read("last.safetensors"));
    let (_, header) = SafeTensors::read_metadata(&last).unwrap();
    let metadata = header.metadata().clone().unwrap();
    for (key, value) in [("format", "polaron-weights-1"), ("preset", "llama-d64"), ("step", "4"), ("layout", "out_in")]
    {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    let alphabet = metadata.get("alphabet").unwrap();
    assert!(alphabet.starts_with("\n .T"), "{alphabet:?}");
    let (zero, last) = (SafeTensors::deserialize(&zero).unwrap(), SafeTensors::deserialize(&last).unwrap());
    let up = last.tensor("blocks.0.mlp.up.weight").unwrap();
    assert_eq!(up.shape(), [64, 16], "output axis first");
    assert_ne!(up.data(), zero.tensor("blocks.0.mlp.up.weight").unwrap().data());
    let state = place.read("last.optimizer.safetensors");
    assert!(!SafeTensors::deserialize(&state).unwrap().is_empty());
    // The same export is the same file.
    place.run(&["export", "run", "--out", "again.safetensors"]).succeeds();
    assert_eq!(place.read("again.safetensors"), place.read("last.safetensors"));
}

#[test]
fn presets_have_their_published_sizes() {
    let place = Place::new();
    for (preset, parameters, hidden) in [
        ("nanogpt-char", "804,096", "786,432"),
        ("llama-d64", "221,888", "212,992"),
        ("llama-d128", "869,760", "851,968"),
        ("llama-d256", "4,853,504", "4,816,896"),
    ] {
        let out = place.run(&["inspect", preset]).succeeds().out;
        let line = |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("parameters").ends_with(parameters), "{out}");
        assert!(line("in hidden matrices").ends_with(hidden), "{out}");
        assert!(out.contains("covered"), "{out}");
    }
}

#[test]
fn runs_and_configurations_can_be_inspected() {
    let place = trained("3");
    let run = place.run(&["inspect", "run"]).succeeds().out;
    for fragment in ["finished, step 3 of 3", "steps 0, 3", "validation", "blocks.0.mlp.up.weight", "muon"] {
        assert!(run.contains(fragment), "{fragment:?} is not in {run}");
    }
    let config = place.run(&["inspect", "run/config.toml"]).succeeds().out;
    assert!(run.starts_with(&config), "{config}");
}

#[test]
fn lists_name_what_there_is() {
    let place = Place::new();
    for (what, names) in [
        ("optimizers", vec!["sgd", "adamw", "muon"]),
        ("stacks", vec!["muon", "adamw", "sgd"]),
        ("models", vec!["nanogpt-char", "llama-d64", "llama-d128", "llama-d256"]),
        ("datasets", vec!["shakespeare"]),
        ("devices", vec!["flex", "ndarray", "wgpu, vulkan", "cuda"]),
    ] {
        let out = place.run(&["list", what]).succeeds().out;
        assert!(names.iter().all(|name| out.contains(name)), "{what}: {out}");
    }
}

#[test]
fn the_symmetries_of_every_optimizer_are_measured() {
    let place = Place::new();
    let out = place.run(&["list", "optimizers", "--symmetry"]).succeeds().out;
    let row = |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {out}"));
    assert_eq!(row("muon ").matches(" ok").count(), 5, "{out}");
    assert_eq!(row("adamw").matches(" ok").count(), 2, "{out}");
    assert_eq!(row("row_norm centred ").matches(" ok").count(), 5, "{out}");
    place.run(&["list", "models", "--symmetry"]).fails(2, &["polaron list optimizers --symmetry"]);
    let spectra = place.run(&["list", "optimizers", "--spectrum"]).succeeds().out;
    for kind in polaron::OptimizerConfig::KINDS {
        let mapped = spectra.lines().find_map(|line| line.strip_prefix(&format!("{kind:20}")));
        let mapped = mapped.unwrap_or_else(|| panic!("{kind}: {spectra}"));
        assert!(
            mapped.split_whitespace().any(|value| value.parse() != Ok(0.0)) && !mapped.contains("-0.0000"),
            "{mapped}"
        );
    }
}

#[test]
fn every_optimizer_is_a_stack_of_its_name() {
    let place = Place::new();
    for kind in polaron::OptimizerConfig::KINDS {
        let run = place.train(&["--steps", "1", "--optimizer", kind, "--out", kind]);
        assert_eq!(run.code, Some(0), "{kind}: {}", run.err);
        let plan = String::from_utf8(place.read(&format!("{kind}/plan.txt"))).unwrap();
        assert!(plan.contains(kind), "{plan}");
    }
}

#[test]
fn help_and_version_are_results() {
    let place = Place::new();
    assert!(place.run(&["--help"]).succeeds().out.contains("generate"));
    assert!(place.run(&["--version"]).succeeds().out.starts_with("polaron "));
}

#[test]
fn a_run_of_a_device_that_is_not_compiled_in_can_be_read() {
    let place = trained("2");
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    place.write("run/config.toml", config.replace("name = \"flex\"", "name = \"cuda\"").as_bytes());
    place.run(&["generate", "run", "--prompt", "The", "--tokens", "3"]).succeeds();
    place.run(&["export", "run", "--out", "x.safetensors"]).succeeds();
}

/// Each in its short form, but for three that know no optimizer and take up to half a minute.
#[test]
fn tasks_meet_their_criteria_and_run_the_given_optimizer_or_refuse_it() {
    let place = Place::new();
    for Task { name, takes_none, .. } in TASKS {
        let given = ["task", name, "--quick", "--optimizer", "normuon"];
        if let Some(reason) = takes_none {
            place.run(&given).fails(2, &[&format!("the task {name} takes no optimizer: {reason}")]);
        }
        if !["lr_transfer", "spike", "xor"].contains(name) {
            let said = place.run(if takes_none.is_some() { &given[..3] } else { &given });
            assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
            assert!(said.out.contains(" ok "), "{}", said.out);
            assert_eq!(said.out.contains("normuon"), takes_none.is_none(), "{}", said.out);
        }
    }
}

#[test]
fn a_task_and_its_optimizer_are_checked_before_it_runs() {
    let place = Place::new();
    let own = place.run(&["task", "nonsmooth", "--optimizer", "kaon", "--lr", "0.1"]).succeeds().out;
    assert!(own.contains("kaon, lr 0.1"), "{own}");
    place.run(&["task", "nonsmoth"]).fails(2, &["did you mean `nonsmooth`?"]);
    place.run(&["task", "nonsmooth", "--lr", "0.1"]).fails(2, &["--optimizer"]);
}
