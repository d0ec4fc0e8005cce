//! Frozen parameters and adapters of low rank: what is trained, what is kept, and what leaves the program.

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use crate::support::{Place, names_in};

/// Four steps, and no sample text.
const SHORT: &[&str] = &["--out", "run", "--steps", "4", "--set", "train.sample_tokens=0"];
const TIED: &[&str] = &["--model", "gemma3-tiny", "--set", "model.tied_head=true"];
/// Adapters of which only the second factors are trained, in a new basis every two steps.
const REFACTORED: &[&str] =
    &["--set", "train.lora.rank=4", "--set", "train.lora.refactor_every=2", "--freeze", "**.lora.a"];
const LORA: &[&str] = &["--set", "train.lora.rank=4"];

fn train(place: &Place, more: &[&str]) -> crate::support::Said {
    place.train(&[SHORT, more].concat())
}

fn tensors(place: &Place, name: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = place.read(name);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect()
}

fn weights(place: &Place, step: u64) -> BTreeMap<String, Vec<u8>> {
    tensors(place, &format!("run/checkpoints/step-{step:06}/model.safetensors"))
}

/// The parameters that four steps changed, and those that have a state.
fn trained(place: &Place) -> (Vec<String>, Vec<String>) {
    let (before, after) = (weights(place, 0), weights(place, 4));
    assert!(before.keys().eq(after.keys()));
    let changed =
        after.iter().filter(|(name, values)| before[*name] != **values).map(|(name, _)| name.clone()).collect();
    let states = tensors(place, "run/checkpoints/step-000004/optimizer.safetensors");
    let mut owners: Vec<String> = states.into_keys().map(|name| name.rsplit_once('.').unwrap().0.to_owned()).collect();
    owners.dedup();
    (changed, owners)
}

#[test]
fn frozen_parameters_keep_their_bytes_and_have_no_state() {
    let place = Place::new();
    for more in [&["--threads", "1"][..], &[], &["--set", "train.accumulation=2"], TIED] {
        let tiny = ["--set", "model.kv_heads=0", "--set", "model.head_dim=8"];
        let said = train(&place, &[&["--freeze", "embed*", "--freeze", "blocks.*.attn"], &tiny[..], more].concat());
        let said = said.succeeds();
        assert!(said.err.contains("of them frozen"), "{}", said.err);
        let (changed, owners) = trained(&place);
        let free = |name: &&String| !name.starts_with("embed") && !name.contains(".attn.");
        assert!(weights(&place, 4).keys().filter(free).eq(&changed), "{more:?}: {changed:?}");
        assert!(owners.iter().all(|name| free(&name)), "{more:?}: {owners:?}");
        let plan = String::from_utf8(place.read("run/plan.txt")).unwrap();
        let tied = more == TIED;
        let line = if tied { "frozen, as embedding and as head" } else { "frozen" };
        assert!(plan.contains(line) && plan.contains("are trained and"), "{plan}");
        let config = String::from_utf8(place.read("run/config.toml")).unwrap();
        assert!(config.contains("freeze = [\"embed*\", \"blocks.*.attn\"]"), "{config}");
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn a_run_goes_on_only_with_the_parameters_that_it_froze() {
    let place = Place::new();
    train(&place, &["--freeze", "embed*"]).succeeds();
    assert!(train(&place, &["--freeze", "embed*"]).succeeds().err.contains("already finished"));
    train(&place, &[]).fails(2, &["`train.freeze` is [\"embed*\"] there and [] now"]);
    train(&place, LORA).fails(2, &["`train.lora.rank` is absent there and 4 now"]);
}

#[test]
fn what_cannot_be_frozen_is_refused() {
    let place = Place::new();
    let before = names_in(&place.path(""));
    for (more, fragments) in [
        (&["--freeze", "embd*"][..], &["freeze(\"embd*\") matches no parameter", "did you mean `embed`?"][..]),
        (&["--freeze", "**"], &["every parameter is frozen"]),
        (&["--freeze", "/(/"], &["pattern \"/(/\" is not valid"]),
        (&["--set", "train.freeze=embed"], &["`train.freeze`", "an array", "embed"]),
        (&["--set", "train.freeze=[1]"], &["string"]),
    ] {
        train(&place, more).fails(2, fragments);
    }
    assert_eq!(names_in(&place.path("")), before, "something was written");
}

#[test]
fn adapters_are_trained_alone_and_leave_merged() {
    let place = Place::new();
    for more in [&["--optimizer", "muon"][..], &["--optimizer", "adamw"], &["--model", "nanogpt-char"]] {
        let said = train(&place, &[LORA, more].concat()).succeeds();
        assert!(said.err.contains("beside initial weights"), "{}", said.err);
        let (changed, owners) = trained(&place);
        let factor = |name: &&String| name.contains(".lora.");
        assert!(weights(&place, 4).keys().filter(factor).eq(&changed), "{more:?}: {changed:?}");
        assert!(!owners.is_empty() && owners.iter().all(|name| factor(&name)), "{more:?}: {owners:?}");
        let plan = String::from_utf8(place.read("run/plan.txt")).unwrap();
        assert!(plan.contains("lora_a") && plan.contains("lora_b") && plan.contains("frozen"), "{plan}");

        place.run(&["export", "run", "--out", "w.safetensors", "--optimizer-state"]).succeeds();
        place.run(&["export", "run", "--step", "0", "--out", "base.safetensors"]).succeeds();
        let (merged, base) = (tensors(&place, "w.safetensors"), tensors(&place, "base.safetensors"));
        assert!(merged.keys().eq(base.keys()) && !merged.keys().any(|name| name.contains("lora")), "{more:?}");
        let moved: Vec<&String> = merged.keys().filter(|name| merged[*name] != base[*name]).collect();
        assert!(!moved.is_empty() && moved.iter().all(|name| name.contains(".attn.w") || name.contains(".attn.qkv")));
        let states = tensors(&place, "w.optimizer.safetensors");
        assert!(states.keys().all(|name| factor(&name)), "{more:?}: {:?}", states.keys());

        place.run(&["export", "run", "--format", "hf", "--out", "hf"]).succeeds();
        let foreign = tensors(&place, "hf/model.safetensors");
        assert!(!foreign.keys().any(|name| name.contains("lora")), "{more:?}: {:?}", foreign.keys());
        let down = |tensors: &BTreeMap<String, Vec<u8>>, end: &str| {
            tensors.iter().find(|(name, _)| name.ends_with(end)).map(|(_, values)| values.clone())
        };
        // The same adapted weight; GPT-2's is transposed.
        let foreign = down(&foreign, "layers.0.self_attn.o_proj.weight");
        assert!(foreign.is_none() || foreign == down(&merged, "blocks.0.attn.wo.weight"), "{more:?}");
        std::fs::remove_dir_all(place.path("hf")).unwrap();

        place.run(&["generate", "run", "--prompt", "The ", "--tokens", "5"]).succeeds();
        let said = place.run(&["inspect", "run"]).succeeds();
        assert!(said.out.contains("trained") && said.out.contains("are frozen"), "{}", said.out);
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn adapters_have_defaults_that_the_run_writes_down() {
    let place = Place::new();
    place.write("c.toml", b"[train.lora]\nmatch = [\"mlp.*\", \"head\"]\n");
    place.train(&[&["c.toml"], SHORT].concat()).succeeds();
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    assert!(config.contains("[train.lora]\nrank = 8\nalpha = 16.0\nmatch = [\"mlp.*\", \"head\"]"), "{config}");
    let names: Vec<String> = weights(&place, 4).into_keys().filter(|name| name.contains("lora")).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    place.train(&[&["run/config.toml", "--out", "again"][..]].concat()).succeeds();
    assert_eq!(place.weights("again", 4), place.weights("run", 4));
}

#[test]
fn adapters_that_cannot_exist_are_refused() {
    let place = Place::new();
    let before = names_in(&place.path(""));
    let set = |key: &str| -> Vec<String> { vec!["--set".into(), format!("train.lora.{key}")] };
    for (more, fragments) in [
        (set("rank=0"), &["`lora.rank` is 0"][..]),
        (set("rank=17"), &["`lora.rank` = 17", "blocks.0.attn.wq", "16 x 16", "choose at most 16"]),
        (set("rank=-1"), &["`train.lora.rank`", "must not be negative"]),
        (set("alpha=nan"), &["`lora.alpha` is NaN"]),
        (set("alpha=0"), &["`lora.alpha` is 0"]),
        (set("match=[]"), &["`lora.match` is empty"]),
        (set("match=[\"atn.*\"]"), &["`atn.*` matches no projection", "did you mean `attn."]),
        (set("match=attn"), &["`train.lora.match`", "an array"]),
        (set("rnk=4"), &["`train.lora.rnk`", "did you mean `train.lora.rank`?"]),
        (vec!["--set".into(), "train.lora=4".into()], &["`train.lora`", "a section"]),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        train(&place, &more).fails(2, fragments);
    }
    let factor = "--freeze=blocks.0.attn.wq.lora.b";
    train(&place, &[LORA, &[factor]].concat())
        .fails(2, &["`train.freeze`", "wq.lora.b", "first factors", "train.lora.match"]);
    train(&place, &set("refactor_every=2").iter().map(String::as_str).collect::<Vec<_>>())
        .fails(2, &["`train.lora.refactor_every`", "wq.lora.a`, which is trained", "--freeze '**.lora.a'"]);
    let spectra = [REFACTORED, &["--set", "train.spectra_every=2"]].concat();
    train(&place, &spectra).fails(2, &["`train.spectra_every`", "train.lora.refactor_every"]);
    assert_eq!(names_in(&place.path("")), before, "something was written");
}

#[test]
fn adapters_begin_beside_the_weights_of_a_run_and_end_in_those_of_the_next() {
    let place = Place::new();
    let quiet = ["--set", "train.sample_tokens=0", "--threads", "2"];
    let go_on = |arguments: &[&str]| place.run(&[&["train"], arguments, &quiet].concat());
    let start = |arguments: &[&str]| go_on(&[arguments, &["--data", "text.txt"]].concat());
    train(&place, &[]).succeeds();
    // From trained weights, which the first validation shows: the adapters change nothing yet.
    let said = start(&["--init", "run", "--out", "tuned", "--steps", "4", "--set", "train.lora.rank=2"]).succeeds();
    assert!(!said.err.contains("beside initial weights"), "{}", said.err);
    let losses = |run: &str| -> Vec<f64> {
        let events = place.events(run);
        events.iter().filter(|event| event["event"] == "valid").map(|event| event["loss"].as_f64().unwrap()).collect()
    };
    assert_eq!(losses("tuned")[0], *losses("run").last().unwrap());
    let last = "checkpoints/step-000004/model.safetensors";
    let (base, tuned) = (tensors(&place, &format!("run/{last}")), tensors(&place, &format!("tuned/{last}")));
    assert!(base.iter().all(|(name, values)| tuned[name] == *values), "the base moved");

    // Another run begins with the merged weights.
    start(&["--init", "tuned", "--out", "next", "--steps", "1"]).succeeds();
    let apart = losses("next")[0] - losses("tuned").last().unwrap();
    assert!(apart.abs() < 1e-5, "{apart}");
    assert!(
        !tensors(&place, "next/checkpoints/step-000000/model.safetensors").keys().any(|name| name.contains("lora"))
    );

    // A run with adapters is extended with them, and with no others.
    go_on(&["--extend", "tuned", "--out", "longer", "--steps", "6"]).succeeds();
    let longer = tensors(&place, "longer/checkpoints/step-000006/model.safetensors");
    assert!(longer.keys().eq(tuned.keys()) && longer["blocks.0.attn.wq.lora.b"] != tuned["blocks.0.attn.wq.lora.b"]);
    go_on(&["--extend", "tuned", "--out", "other", "--steps", "6", "--set", "train.lora.rank=3"])
        .fails(2, &["`train.lora` is not that of `", "tuned`, but", "--init"]);
    go_on(&["--extend", "run", "--out", "other", "--steps", "6", "--freeze", "head"])
        .fails(2, &["\"head.weight\" was updated by adamw and is now frozen"]);
    assert!(!place.path("other").exists());
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]])).collect()
}

/// Columns of a matrix of this width.
fn columns(matrix: &[f32], width: usize) -> Vec<Vec<f32>> {
    (0..width).map(|column| matrix.iter().skip(column).step_by(width).copied().collect()).collect()
}

fn product(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

#[test]
fn only_second_factors_are_trained_if_the_first_are_frozen() {
    let place = Place::new();
    train(&place, &[LORA, &["--freeze", "**.lora.a"]].concat()).succeeds();
    let (changed, owners) = trained(&place);
    let second = |name: &&String| name.ends_with(".lora.b");
    assert!(weights(&place, 4).keys().filter(second).eq(&changed), "{changed:?}");
    assert!(!owners.is_empty() && owners.iter().all(|name| second(&name)), "{owners:?}");
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    assert!(!config.contains("refactor_every"), "{config}");
}

#[test]
fn refactored_adapters_are_orthonormal_from_the_first_step_on_and_keep_their_space() {
    let place = Place::new();
    for (optimizer, said) in [
        ("muon", "every 2 steps: the momentum of b (muon) turns with it"),
        ("adamw", "every 2 steps: the state of b (adamw) begins anew each time"),
    ] {
        let more =
            [REFACTORED, &["--optimizer", optimizer, "--set", "train.checkpoint_every=1", "--set", "train.keep=9"]]
                .concat();
        let run = train(&place, &more).succeeds();
        assert!(run.err.contains(said), "{}", run.err);
        for name in weights(&place, 0).keys().filter(|name| name.ends_with(".lora.a")) {
            let at = |step: u64| columns(&numbers(&weights(&place, step)[name]), 4);
            let (first, third, last) = (at(0), at(3), at(4));
            for a in [&first, &third, &last] {
                for (i, k) in (0..4).flat_map(|i| (0..4).map(move |k| (i, k))) {
                    let found = product(&a[i], &a[k]);
                    assert!((found - f32::from(u8::from(i == k))).abs() < 1e-6, "{name}: {found}");
                }
            }
            assert!(weights(&place, 2)[name] == weights(&place, 3)[name], "{name} moved between two re-factorisations");
            assert!(third != last && first != last, "{name}");
            // Every last column is within the space of the first ones.
            for column in &last {
                let inside: f32 = first.iter().map(|basis| product(basis, column).powi(2)).sum();
                assert!((inside - 1.0).abs() < 1e-5, "{name}: {inside}");
            }
            // The rows of b are orthogonal, the longest first.
            let b = numbers(&weights(&place, 4)[&name.replace(".lora.a", ".lora.b")]);
            let rows: Vec<&[f32]> = b.chunks(b.len() / 4).collect();
            let lengths: Vec<f32> = rows.iter().map(|row| product(row, row).sqrt()).collect();
            assert!(lengths.is_sorted_by(|a, b| a >= b) && lengths[0] > 0.0, "{name}: {lengths:?}");
            assert!(product(rows[0], rows[1]).abs() < 1e-6 * lengths[0] * lengths[0], "{name}");
        }
        // Muon keeps its momentum over the re-factorisation after the last step, AdamW nothing.
        let states = tensors(&place, "run/checkpoints/step-000004/optimizer.safetensors");
        assert_eq!(states.is_empty(), optimizer == "adamw", "{:?}", states.keys());
        let base = |name: &&String| !name.contains(".lora.");
        let (before, after) = (weights(&place, 0), weights(&place, 4));
        assert!(before.keys().filter(base).all(|name| before[name] == after[name]), "the base moved");
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn muon_learns_the_same_with_and_without_a_new_basis() {
    let place = Place::new();
    let loss = |every: &str, out: &str, more: &[&str]| {
        let every = format!("train.lora.refactor_every={every}");
        let own = ["--out", out, "--steps", "20", "--set", "train.sample_tokens=0", "--set", &every];
        place.train(&[&own[..], LORA, &["--freeze", "**.lora.a"], more].concat()).succeeds();
        let events = place.events(out);
        let valid = events.iter().rev().find(|event| event["event"] == "valid").unwrap();
        valid["loss"].as_f64().unwrap()
    };
    for (at, more) in [
        &["--optimizer", "muon"][..],
        &["--set", "train.average.from=5"],
        &["--set", "optimizer.wrapper.kind=ema_nesterov", "--set", "optimizer.wrapper.prefill=5"],
    ]
    .into_iter()
    .enumerate()
    {
        // A basis at the start only, and one every three steps.
        let [once, often] =
            [("1000", "once"), ("3", "often")].map(|(every, out)| loss(every, &format!("{out}{at}"), more));
        assert!((once - often).abs() < 1e-5, "{more:?}: {once} {often}");
    }
    let [once, often] = [("1000", "a"), ("3", "b")].map(|(every, out)| loss(every, out, &["--optimizer", "adamw"]));
    assert!((once - often).abs() > 1e-5, "{once} {often}");
}

#[test]
fn a_run_with_refactored_adapters_is_extended_without_another_basis_in_between() {
    let place = Place::new();
    train(&place, REFACTORED).succeeds();
    let quiet = ["--set", "train.sample_tokens=0", "--threads", "2"];
    let go_on = |more: &[&str]| place.run(&[&["train", "--extend", "run", "--out", "longer"], more, &quiet].concat());
    go_on(&["--steps", "6", "--keep-schedule"]).succeeds();
    assert_eq!(place.weights("longer", 4), place.weights("run", 4));
    place.run(&["generate", "longer", "--prompt", "The ", "--tokens", "5"]).succeeds();
    train(&place, &[LORA, &["--freeze", "**.lora.a"]].concat())
        .fails(2, &["`train.lora.refactor_every` is 2 there and absent now"]);
}
