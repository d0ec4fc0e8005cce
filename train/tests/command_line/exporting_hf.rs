//! `polaron export --format hf`: the folder that `transformers` loads. `benches/peers/huggingface.py` loads it there.

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Place, names_in};

const FILES: [&str; 5] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

fn json_of(place: &Place, file: &str) -> Value {
    serde_json::from_slice(&place.read(file)).unwrap()
}

/// Trains a step with more settings and exports it to `hf`.
fn exported(more: &[&str]) -> Place {
    let place = Place::new();
    place.train(&[&["--out", "run", "--steps", "1"], more].concat()).succeeds();
    place.run(&["export", "run", "--format", "hf", "--out", "hf"]).succeeds();
    place
}

#[test]
fn a_folder_holds_the_model_under_the_names_of_its_class() {
    for (more, class, tensor, shape) in [
        (&["--model", "nanogpt-char"][..], "GPT2LMHeadModel", "transformer.h.0.attn.c_attn.weight", &[16, 48][..]),
        (&["--model", "llama-d64"], "LlamaForCausalLM", "model.layers.0.self_attn.q_proj.weight", &[16, 16]),
        (
            &["--model", "olmoe-tiny", "--set", "model.experts=3", "--set", "model.top_k=2", "--set", "model.hidden=6"],
            "OlmoeForCausalLM",
            "model.layers.0.mlp.experts.2.gate_proj.weight",
            &[6, 16],
        ),
    ] {
        let place = exported(more);
        assert_eq!(names_in(&place.path("hf")), FILES, "nothing but the files");
        let config = json_of(&place, "hf/config.json");
        assert_eq!(config["architectures"], json!([class]));
        let bytes = place.read("hf/model.safetensors");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor(tensor).unwrap().shape(), shape, "{class}");
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    }
}

#[test]
fn weights_are_those_of_the_run_with_their_axes_as_the_class_has_them() {
    let place = exported(&["--model", "llama-d64"]);
    let values = |file: &str, name: &str| -> Vec<f32> {
        let bytes = place.read(file);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    place.run(&["export", "run", "--out", "plain.safetensors"]).succeeds();
    for (theirs, ours) in [
        ("model.embed_tokens.weight", "embed.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blocks.0.mlp.down.weight"),
        ("model.layers.0.post_attention_layernorm.weight", "blocks.0.norm2.weight"),
        ("lm_head.weight", "head.weight"),
    ] {
        assert_eq!(values("hf/model.safetensors", theirs), values("plain.safetensors", ours), "{theirs}");
    }
}

#[test]
fn every_tokenizer_is_written_as_the_library_reads_it() {
    let bpe = ["--model", "llama-d64", "--set", "data.tokenizer=bpe:300"];
    let place = exported(&["--model", "llama-d64"]);
    let vocabulary = json_of(&place, "hf/tokenizer.json").pointer("/model/vocab").unwrap().clone();
    assert_eq!((&vocabulary["\n"], &vocabulary[" "], &vocabulary["."]), (&json!(0), &json!(1), &json!(2)));
    assert_eq!(json_of(&place, "hf/config.json")["eos_token_id"], Value::Null);
    let place = exported(&["--model", "llama-d64", "--set", "data.tokenizer=byte"]);
    let vocabulary = json_of(&place, "hf/tokenizer.json").pointer("/model/vocab").unwrap().clone();
    assert_eq!(
        (&vocabulary["a"], &vocabulary["\u{120}"], &vocabulary["\u{10a}"]),
        (&json!(97), &json!(32), &json!(10))
    );
    let place = exported(&bpe);
    let described = json_of(&place, "hf/tokenizer_config.json");
    assert_eq!((&described["eos_token"], &described["model_max_length"]), (&json!("<|endoftext|>"), &json!(16)));
    for file in ["hf/config.json", "hf/generation_config.json"] {
        assert_eq!(json_of(&place, file)["eos_token_id"], json!(0), "{file}");
    }
    assert_eq!(json_of(&place, "hf/tokenizer.json"), json_of(&place, "run/tokenizer.json"));
}

#[test]
fn what_cannot_be_a_folder_of_transformers_is_refused_and_nothing_is_written() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "1", "--model", "llama-d64"]).succeeds();
    place.train(&["--out", "mup", "--steps", "1", "--set", "model.parametrization=mup"]).succeeds();
    place.run(&["train", "--model", "mlp", "--steps", "1", "--out", "mlp", "--set", "model.width=4"]).succeeds();
    std::fs::create_dir(place.path("full")).unwrap();
    place.write("full/note.txt", b"mine");
    let before = names_in(&place.path(""));
    let export = |run: &str, out: &str| place.run(&["export", run, "--format", "hf", "--out", out]);
    export("run", "full").fails(2, &["`full` is not empty"]);
    export("run", "text.txt").fails(2, &["`text.txt` is a file"]);
    export("run", "text.txt/hf").fails(2, &["a file is where a folder is needed"]);
    export("run", "..").fails(2, &["not empty"]);
    export("mup", "hf").fails(2, &["LlamaForCausalLM", "`parametrization` is \"mup\""]);
    export("mlp", "hf").fails(2, &["holds a perceptron"]);
    export("nothing", "hf").fails(2, &["nothing"]);
    let both = ["export", "run", "--format", "hf", "--optimizer-state", "--out", "hf"];
    place.run(&both).fails(2, &["no place for optimizer states"]);
    place.run(&["export", "run", "--format", "gguf", "--out", "hf"]).fails(2, &["gguf", "safetensors, hf"]);
    assert_eq!(names_in(&place.path("")), before, "something was written");
    std::fs::create_dir(place.path("empty")).unwrap();
    export("run", "empty").succeeds();
    export("run", "a/b/hf").succeeds();
    assert_eq!(names_in(&place.path("empty")), FILES);
    assert_eq!(names_in(&place.path("a/b")), ["hf"]);
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let place = exported(&["--model", "llama-d64"]);
    place.run(&["export", "run", "--format", "hf", "--out", "again"]).succeeds();
    for file in FILES {
        assert_eq!(place.read(&format!("hf/{file}")), place.read(&format!("again/{file}")), "{file}");
    }
}
