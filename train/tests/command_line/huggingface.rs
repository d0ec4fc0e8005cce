//! Models that `transformers` initialised (`benches/peers/huggingface_init.py`), as folders that the program reads.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use polaron_models::LanguageModel;
use polaron_train::run::loaded::{LoadOptions, LoadedRun};
use serde_json::Value;

use crate::support::{Place, names_in};

const NAMES: [&str; 9] =
    ["gpt2", "gpt2-f16", "llama", "llama-sharded", "llama-bf16", "qwen3", "gemma3", "olmoe", "gpt_oss"];

/// Copies a model into the place, with a text that its tokenizer knows.
fn bring(place: &Place, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/command_line/huggingface").join(name);
    std::fs::create_dir(place.path(name)).unwrap();
    for file in names_in(&from) {
        std::fs::copy(from.join(&file), place.path(&format!("{name}/{file}"))).unwrap();
    }
    place.write("small.txt", "the king greets a sailor, and the fool mocks\n".repeat(60).as_bytes());
}

fn json(place: &Place, path: &str) -> Value {
    serde_json::from_slice(&place.read(path)).unwrap()
}

fn change(place: &Place, path: &str, change: impl FnOnce(&mut Value)) {
    let mut value = json(place, path);
    change(&mut value);
    place.write(path, value.to_string().as_bytes());
}

fn start(place: &Place, model: &str, more: &[&str]) -> crate::support::Said {
    let base = ["train", "--init", model, "--data", "small.txt", "--threads", "2", "--set", "train.sample_tokens=0"];
    place.run(&[&base, more].concat())
}

#[test]
fn logits_are_those_of_transformers() {
    for name in NAMES {
        let place = Place::new();
        bring(&place, name);
        let golden = json(&place, &format!("{name}/logits.json"));
        let numbers =
            |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().filter_map(Value::as_f64).collect() };
        let tokens: Vec<i32> = numbers(&golden["tokens"]).iter().map(|token| *token as i32).collect();
        let expected: Vec<f64> = golden["logits"].as_array().unwrap().iter().flat_map(numbers).collect();
        let run = LoadedRun::open(&place.path(name), &LoadOptions::default()).unwrap();
        let model = run.network.as_any().downcast_ref::<LanguageModel>().unwrap();
        let length = tokens.len();
        let input = Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, length]), &run.device);
        let logits: Vec<f32> = model.forward(input).into_data().try_to_vec().unwrap();
        assert_eq!(logits.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let off = logits.iter().zip(&expected).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
        eprintln!("{name}: {:.1e}", off / largest);
        assert!(off <= 1e-4 * largest, "{name}: {off} of {largest}");
    }
}

#[test]
fn every_class_can_be_looked_at_trained_exported_and_continue_a_prompt() {
    for name in NAMES {
        let place = Place::new();
        bring(&place, name);
        let said = place.run(&["inspect", name]).succeeds();
        assert!(said.out.contains("safetensors file") && said.out.contains("30 tokens"), "{name}: {said:?}");
        let said = place.run(&["generate", name, "--prompt", "the ", "--tokens", "9"]).succeeds();
        assert!(said.out.starts_with("the "), "{name}: {said:?}");
        let said = place.run(&["eval", name, "--data", "small.txt"]).succeeds();
        assert!(said.out.contains("nats per token"), "{name}: {said:?}");
        place.run(&["export", name, "--out", "out.safetensors"]).succeeds();
        place.run(&["export", name, "--format", "hf", "--out", "again"]).succeeds();
        let said = start(&place, name, &["--steps", "2", "--out", "run"]).succeeds();
        assert!(said.err.contains("weights    those of step 0 of"), "{name}: {said:?}");
        assert!(said.err.contains("step 0/2  validation loss"), "{name}: {said:?}");
        place.run(&["generate", "run", "--prompt", "the ", "--tokens", "9"]).succeeds();
        // What is written as a folder of transformers is the same model to the bit.
        start(&place, "again", &["--steps", "1", "--out", "from-again"]).succeeds();
        assert_eq!(place.weights("from-again", 0), place.weights("run", 0), "{name}");
        std::fs::remove_dir_all(place.path(name)).unwrap();
        std::fs::remove_dir_all(place.path("run/checkpoints/step-000002")).unwrap();
        place.run(&["train", "--resume", "run"]).succeeds();
    }
}

#[test]
fn shards_are_the_model_of_one_file() {
    let place = Place::new();
    for name in ["llama", "llama-sharded"] {
        bring(&place, name);
        start(&place, name, &["--steps", "1", "--out", &format!("from-{name}")]).succeeds();
    }
    assert_eq!(place.weights("from-llama", 0), place.weights("from-llama-sharded", 0));
}

#[test]
fn a_table_of_embeddings_with_more_rows_than_tokens_is_used_as_it_is() {
    let place = Place::new();
    bring(&place, "llama");
    change(&place, "llama/tokenizer.json", |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.retain(|_, token| token.as_u64().unwrap() < 28);
        tokenizer["model"]["unk_token"] = "z".into();
    });
    let said =
        place.run(&["generate", "llama", "--prompt", "the ", "--tokens", "200", "--temperature", "9"]).succeeds();
    assert!(said.err.contains("the embedding has 30 rows, the tokenizer 28 tokens"), "{said:?}");
    place.write("small.txt", "the king greets a sailor ".repeat(90).as_bytes());
    start(&place, "llama", &["--steps", "1", "--out", "run"]).succeeds();
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    assert!(config.contains("vocab_size = 30"), "{config}");
    place.run(&["generate", "run", "--prompt", "the "]).succeeds();
    assert!(place.run(&["inspect", "run"]).succeeds().out.contains("vocabulary 30"));
}

#[test]
fn an_added_token_without_a_row_is_left_out() {
    let place = Place::new();
    bring(&place, "llama");
    change(&place, "llama/tokenizer.json", |tokenizer| {
        let token = serde_json::json!({
            "id": 30, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
        });
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
        tokenizer["model"]["vocab"]["<image>"] = 30.into();
    });
    let said = place.run(&["generate", "llama", "--prompt", "the ", "--tokens", "9"]).succeeds();
    assert!(said.err.contains("30 rows") && said.err.contains("<image>"), "{said:?}");
    start(&place, "llama", &["--steps", "1", "--out", "run"]).succeeds();
}

/// Spoils the model, and expects one line with all fragments from every command that reads it, and nothing left behind.
#[track_caller]
fn refused(name: &str, spoil: impl FnOnce(&Place), fragments: &[&str]) {
    let place = Place::new();
    bring(&place, name);
    spoil(&place);
    let before = names_in(&place.path(""));
    place.run(&["inspect", name]).fails(2, fragments);
    place.run(&["generate", name, "--prompt", "a"]).fails(2, fragments);
    place.run(&["export", name, "--out", "out.safetensors"]).fails(2, fragments);
    start(&place, name, &["--steps", "1", "--out", "run"]).fails(2, fragments);
    assert_eq!(names_in(&place.path("")), before);
}

#[test]
fn a_model_that_is_not_whole_is_refused() {
    let cut = |place: &Place, file: &str| {
        let bytes = place.read(file);
        place.write(file, &bytes[..bytes.len() - 5]);
    };
    let remove = |place: &Place, file: &str| std::fs::remove_file(place.path(file)).unwrap();
    refused("llama", |place| cut(place, "llama/model.safetensors"), &["llama/model.safetensors", "bytes instead of"]);
    refused("llama", |place| place.write("llama/model.safetensors", b"x"), &["llama/model.safetensors", "damaged"]);
    refused("llama", |place| remove(place, "llama/model.safetensors"), &["neither model.safetensors nor"]);
    let second = "model-00002-of-00003.safetensors";
    let path = format!("llama-sharded/{second}");
    refused(
        "llama-sharded",
        |place| remove(place, &path),
        &["model.safetensors.index.json", second, "not in its folder"],
    );
    refused("llama-sharded", |place| cut(place, &path), &[second, "bytes instead of"]);
    let index = "llama-sharded/model.safetensors.index.json";
    let moved = |place: &Place| {
        change(place, index, |index| {
            for file in index["weight_map"].as_object_mut().unwrap().values_mut() {
                *file = second.into();
            }
        });
    };
    refused("llama-sharded", moved, &[second, "has no tensor"]);
    refused("llama-sharded", |place| place.write(index, b"{}"), &["no weight_map"]);
    let pickled = |place: &Place| {
        remove(place, "llama/model.safetensors");
        place.write("llama/pytorch_model.bin", b"PK");
    };
    refused("llama", pickled, &["pytorch_model.bin", "pickled", "save_pretrained"]);
}

#[test]
fn what_a_decoder_cannot_be_is_refused() {
    let key = |key: &'static str, value: Value| {
        move |place: &Place| change(place, "llama/config.json", |config| config[key] = value)
    };
    refused("llama", key("model_type", "mamba".into()), &["`model_type`", "mamba", "config.json"]);
    refused("llama", key("hidden_act", "relu".into()), &["`hidden_act`", "relu"]);
    refused("llama", key("num_hidden_layers", 3.into()), &["model.layers.2", "missing"]);
    refused("llama", key("vocab_size", 31.into()), &["must have [31, 16]"]);
    refused("llama", |place| place.write("llama/config.json", b"{"), &["config.json", "damaged"]);
    let larger = |place: &Place| {
        change(place, "llama/tokenizer.json", |tokenizer| tokenizer["model"]["vocab"]["#"] = 30.into());
    };
    refused("llama", larger, &["tokenizer.json", "31 tokens", "30 rows"]);
}

#[test]
fn a_model_without_a_tokenizer_trains_on_packed_tokens_alone() {
    let place = Place::new();
    bring(&place, "llama");
    place.run(&["data", "pack", "small.txt", "--tokenizer", "llama/tokenizer.json", "--out", "packed"]).succeeds();
    place.run(&["data", "pack", "small.txt", "--tokenizer", "byte", "--out", "bytes"]).succeeds();
    std::fs::remove_file(place.path("llama/tokenizer.json")).unwrap();
    place.run(&["inspect", "llama"]).succeeds();
    place.run(&["generate", "llama", "--prompt", "a"]).fails(2, &["no tokenizer.json", "AutoTokenizer"]);
    start(&place, "llama", &["--steps", "1", "--out", "run"]).fails(2, &["no tokenizer.json", "small.txt"]);
    start(&place, "llama", &["--steps", "1", "--out", "run", "--data", "bytes"])
        .fails(2, &["`model.vocab_size` is 30"]);
    assert!(!place.path("run").exists());
    let said = start(&place, "llama", &["--steps", "1", "--out", "run", "--data", "packed"]).succeeds();
    assert!(said.err.contains("cannot be compared"), "{said:?}");
}

#[test]
fn the_name_of_a_model_elsewhere_says_how_to_get_it() {
    let place = Place::new();
    let (name, command) = ("meta-llama/Llama-3.2-1B", "hf download meta-llama/Llama-3.2-1B --local-dir Llama-3.2-1B");
    place.run(&["inspect", name]).fails(2, &[command]);
    place.run(&["generate", name, "--prompt", "a"]).fails(2, &[command]);
    place.train(&["--init", name]).fails(2, &[command]);
    std::fs::create_dir(place.path("runs")).unwrap();
    place.run(&["generate", "runs/first", "--prompt", "a"]).fails(2, &["`runs/first` is neither a run folder"]);
}
