//! Exported weights and optimizer states, value by value.

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;

use crate::support::{Place, names_in};

struct Stored {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

impl Stored {
    fn read(place: &Place, name: &str) -> Self {
        let bytes = place.read(name);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        let tensors = file.iter().map(|(name, view)| {
            (name.to_string(), (view.shape().to_vec(), view.data().chunks(4).map(value).collect()))
        });
        let tensors = tensors.collect();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        Self { tensors, metadata: header.metadata().clone().unwrap_or_default() }
    }
}

/// Trains two steps and exports them: the record, the exported states, the exported weights.
fn exported(more: &[&str]) -> [Stored; 3] {
    let place = Place::new();
    place.train(&[&["--out", "run", "--steps", "2", "--seed", "3"], more].concat()).succeeds();
    place.run(&["export", "run", "--out", "w.safetensors", "--optimizer-state"]).succeeds();
    let record = "run/checkpoints/step-000002/optimizer.safetensors";
    [record, "w.optimizer.safetensors", "w.safetensors"].map(|name| Stored::read(&place, name))
}

/// Swaps the last two axes.
fn swapped((shape, values): &(Vec<usize>, Vec<f32>)) -> (Vec<usize>, Vec<f32>) {
    let [.., a, b] = shape[..] else { panic!("{shape:?}") };
    let mut turned = shape.clone();
    let rank = turned.len();
    turned.swap(rank - 2, rank - 1);
    let at = |i: usize| values[i / (a * b) * a * b + i % a * b + i % (a * b) / a];
    (turned, (0..values.len()).map(at).collect())
}

fn is_projection(path: &str) -> bool {
    [".attn.wq.", ".attn.wk.", ".attn.wv.", ".attn.wo.", ".attn.qkv.", ".mlp.", ".router.", "head.", "layers."]
        .iter()
        .any(|part| path.contains(part))
        && path.contains("weight")
}

#[test]
fn states_are_those_of_the_record_in_the_layout_of_the_weights() {
    for more in [
        &["--optimizer", "muon"][..],
        &["--optimizer", "adamw"],
        &["--optimizer", "normuon"],
        &["--optimizer", "error_feedback_muon"],
        &["--model", "nanogpt-char", "--optimizer", "normuon", "--set", "optimizer.matrix.axis=input"],
        &["--model", "olmoe-tiny", "--set", "model.experts=3", "--set", "model.top_k=2", "--set", "model.head_dim=8"],
        &["--model", "gpt-oss-tiny", "--set", "model.experts=3", "--set", "model.head_dim=8", "--optimizer", "adamw"],
    ] {
        let [record, states, weights] = exported(more);
        assert_eq!(states.tensors.len(), record.tensors.len(), "{more:?}");
        for (path, stored) in &record.tensors {
            let name = path.replace(".gain.", ".weight.");
            let found = states.tensors.get(&name).unwrap_or_else(|| panic!("{more:?}: no {name}"));
            let parameter = name.rsplit_once('.').unwrap().0;
            let weight = &weights.tensors[parameter];
            let expected = if is_projection(path) { swapped(stored) } else { stored.clone() };
            assert_eq!(found.1, expected.1, "{more:?}: {name}");
            if found.1.len() == weight.1.len() {
                assert_eq!(found.0, weight.0, "{more:?}: {name} is not shaped like its weight");
            } else {
                assert_eq!(found.0, expected.0, "{more:?}: {name}");
            }
        }
        let up = states.tensors.get("blocks.0.mlp.up.weight.momentum");
        assert!(up.is_none_or(|(shape, _)| shape[1] == 16 && shape[0] > 16), "output axis first: {up:?}");
    }
}

/// Rules that work block by block remember a stack of blocks; other programs get the whole matrix.
#[test]
fn a_memory_in_blocks_is_put_together() {
    let whole = ["--set", "schedule.warmup=0", "--optimizer", "error_feedback_muon"];
    for (axis, wide) in [("output", "blocks.0.mlp.up.weight"), ("input", "blocks.0.mlp.down.weight")] {
        let rule = format!(
            "[[optimizer.rule]]\nmatch = \"{}\"\nkind = \"error_feedback_muon\"\nblocks = {{ axis = \"{axis}\", count = 4 }}\n",
            wide.trim_end_matches(".weight")
        );
        let place = Place::new();
        place.write("c.toml", rule.as_bytes());
        place.train(&[&["c.toml", "--out", "run", "--steps", "1"], &whole[..]].concat()).succeeds();
        place.run(&["export", "run", "--out", "w.safetensors", "--optimizer-state"]).succeeds();
        let record = Stored::read(&place, "run/checkpoints/step-000001/optimizer.safetensors");
        let states = Stored::read(&place, "w.optimizer.safetensors");
        let (stack, values) = &record.tensors[&format!("{wide}.residual")];
        let (shape, found) = &states.tensors[&format!("{wide}.residual")];
        let weight = if axis == "output" { vec![64, 16] } else { vec![16, 64] };
        assert_eq!((stack, shape), (&vec![4, 16, 16], &weight), "{axis}");
        // The stack is [block, input, output].
        for (i, value) in found.iter().enumerate() {
            let (output, input) = (i / weight[1], i % weight[1]);
            let [block, input, output] = match axis {
                "output" => [output / 16, input, output % 16],
                _ => [input / 16, input % 16, output],
            };
            assert_eq!(*value, values[(block * 16 + input) * 16 + output], "{axis} {i}");
        }
    }
}

#[test]
fn both_files_say_what_they_are() {
    let [_, states, weights] = exported(&["--optimizer", "normuon"]);
    for (file, format) in [(&weights, "polaron-weights-1"), (&states, "polaron-optimizer-states-1")] {
        for (key, value) in
            [("format", format), ("layout", "out_in"), ("step", "2"), ("preset", "llama-d64"), ("optimizer", "normuon")]
        {
            assert_eq!(file.metadata.get(key).map(String::as_str), Some(value), "{format}: {key}");
        }
        let model: serde_json::Value = serde_json::from_str(&file.metadata["model"]).unwrap();
        assert_eq!(model["d_model"], 16, "{format}");
        assert!(!file.metadata.contains_key("expert_layout"));
    }
    let json = |key: &str| serde_json::from_str::<serde_json::Value>(&states.metadata[key]).unwrap();
    assert_eq!(json("optimizers")["blocks.0.mlp.up.weight"], "normuon");
    assert_eq!(json("optimizers")["blocks.0.norm1.weight"], "adamw");
    assert_eq!(json("scalars")["blocks.0.norm1.weight.step"], 2);
    let [_, states, weights] = exported(&["--model", "olmoe-tiny", "--set", "model.experts=4"]);
    for file in [states, weights] {
        assert_eq!(file.metadata["expert_layout"], "expert_in_out");
    }
}

#[test]
fn an_export_that_cannot_be_written_says_where_and_writes_nothing() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "1"]).succeeds();
    std::fs::create_dir(place.path("folder")).unwrap();
    let before = names_in(&place.path(""));
    let export = |out: &str| place.run(&["export", "run", "--optimizer-state", "--out", out]);
    export("folder").fails(2, &["--out `folder` is a folder", "folder/model.safetensors"]);
    export("new/").fails(2, &["--out `new/` is a folder"]);
    export("").fails(2, &["--out"]);
    export("text.txt/x.safetensors").fails(2, &["text.txt", "a file is where a folder is needed"]);
    place.run(&["export", "run", "--step", "7", "--out", "x"]).fails(2, &["step 7", "0, 1"]);
    assert_eq!(names_in(&place.path("")), before, "something was written");
    export("a/b/c.safetensors").succeeds();
    assert_eq!(names_in(&place.path("a/b")), ["c.optimizer.safetensors", "c.safetensors"]);
}

#[test]
fn an_unfinished_or_damaged_run_exports_its_newest_good_checkpoint() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "4", "--set", "train.checkpoint_every=2"]).succeeds();
    place.write("run/checkpoints/step-000004/optimizer.safetensors", b"cut");
    let said = place.run(&["export", "run", "--out", "w.safetensors"]).succeeds();
    assert!(said.err.contains("warning") && said.out.contains("(step 2)"), "{said:?}");
    place
        .run(&["export", "run", "--step", "4", "--out", "x.safetensors"])
        .fails(2, &["optimizer.safetensors", "damaged"]);
    std::fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    place.run(&["export", "run", "--out", "x.safetensors"]).fails(2, &["holds no checkpoint yet"]);
}
