//! What a run leaves behind: checkpoints, weights, optimizer records, events.

use std::path::Path;

use burn::tensor::Device;
use polaron::{Layerwise, LayerwiseOptimizer, LayerwiseRecord, Roles};
use polaron_models::{MlpConfig, NamedTensor, load_named, to_named};
use polaron_train::report;
use polaron_train::store::checkpoint::{Checkpoint, Store, TrainerState};
use polaron_train::store::metrics::{self, Metrics};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{fuzz, text, words};
use crate::settings::resolved;

/// The perceptron of two units whose checkpoint is in the corpus.
fn network() -> polaron_models::Mlp {
    let mut config = MlpConfig::default();
    (config.width, config.depth) = (2, 1);
    config.init(64, 10, 1, &Device::flex()).unwrap()
}

fn optimizer() -> LayerwiseOptimizer {
    Layerwise::muon().hints(network().roles()).build(&network()).unwrap()
}

fn checkpoint() -> Checkpoint {
    let optimizer = optimizer().to_record().to_safetensors().unwrap();
    let trainer = TrainerState { step: 2, tokens: 16, data_sha256: "ab".into(), ..TrainerState::default() };
    Checkpoint { model: to_named(&network()), evaluation: None, optimizer, trainer }
}

fn same(weights: &[NamedTensor], others: &[NamedTensor]) -> bool {
    let find = |name: &str| others.iter().find(|tensor| tensor.name == name);
    weights.len() == others.len()
        && weights.iter().all(|one| find(&one.name).is_some_and(|other| other.data.as_bytes() == one.data.as_bytes()))
}

/// A folder of checkpoints in which one file of the only one is replaced. `honest`: the marker is true to the new file.
fn load_changed(folder: &Path, name: &str, bytes: &[u8], honest: bool) -> Result<Checkpoint, String> {
    let store = Store::new(folder.join("checkpoints"));
    store.write(&checkpoint(), 1).unwrap();
    std::fs::write(store.folder(2).join(name), bytes).unwrap();
    if honest {
        let marker = store.folder(2).join("complete.json");
        let mut value: Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
        value["files"][name] = json!({ "bytes": bytes.len(), "sha256": hex::encode(Sha256::digest(bytes)) });
        std::fs::write(marker, value.to_string()).unwrap();
    }
    let _ = store.newest_good(|_| ());
    store.load(2).map_err(|error| {
        assert!(error.to_string().contains("step-000002"), "{error}");
        words(error)
    })
}

#[test]
fn a_marker_is_refused_in_words_or_leads_to_the_same_checkpoint() {
    fuzz("marker", 300, |folder, bytes| {
        // The corpus file stands for the marker itself, whose checksums depend on what is written here.
        let store = Store::new(folder.join("checkpoints"));
        store.write(&checkpoint(), 1).unwrap();
        let whole = std::fs::read_to_string(store.folder(2).join("complete.json")).unwrap();
        let value: Value = serde_json::from_str(&whole).unwrap();
        let mut marker = text(bytes)?.to_owned();
        for name in ["model", "optimizer", "trainer"] {
            let file = value["files"].as_object().unwrap().iter().find(|(file, _)| file.starts_with(name)).unwrap().1;
            marker = marker.replace(&format!("{name}_bytes"), &file["bytes"].to_string());
            marker = marker.replace(&format!("{name}_sha256"), file["sha256"].as_str().unwrap());
        }
        let loaded = load_changed(folder, "complete.json", marker.as_bytes(), false)?;
        assert_eq!(loaded.trainer, checkpoint().trainer);
        assert!(same(&loaded.model, &checkpoint().model) && loaded.optimizer == checkpoint().optimizer);
        Ok(())
    });
}

#[test]
fn a_trainer_state_is_refused_in_words_or_sound() {
    fuzz("trainer", 300, |folder, bytes| {
        let dishonest = load_changed(folder, "trainer.json", bytes, false);
        assert!(dishonest.is_err() || dishonest.unwrap().trainer == checkpoint().trainer);
        let loaded = load_changed(folder, "trainer.json", bytes, true)?;
        assert_eq!(loaded.trainer.step, 2);
        Ok(())
    });
}

#[test]
fn weights_are_refused_in_words_or_fit_the_model() {
    fuzz("weights", 300, |folder, bytes| {
        let loaded = load_changed(folder, "model.safetensors", bytes, true)?;
        let model = load_named(network(), loaded.model.clone(), &Device::flex()).map_err(words)?;
        assert!(same(&to_named(&model), &loaded.model));
        Ok(())
    });
}

#[test]
fn an_optimizer_record_is_refused_in_words_or_comes_back() {
    fuzz("record", 300, |_, bytes| {
        let record = LayerwiseRecord::from_safetensors(bytes).map_err(words)?;
        let written = record.to_safetensors().unwrap();
        let again = LayerwiseRecord::from_safetensors(&written).unwrap();
        assert_eq!(again.to_safetensors().unwrap(), written);
        optimizer().load_record(record, &Device::flex()).map_err(words)
    });
}

/// A run whose events are the input: read, drawn on a page, and cut for going on.
#[test]
fn events_are_left_out_or_drawn() {
    fuzz("metrics", 300, |folder, bytes| {
        let config = folder.join("config.toml");
        if !config.exists() {
            std::fs::write(folder.join("plan.txt"), "role    optimizer").unwrap();
            std::fs::write(&config, resolved(toml::Table::new(), Vec::new())?.to_toml().map_err(words)?).unwrap();
        }
        let path = folder.join("metrics.jsonl");
        std::fs::write(&path, bytes).unwrap();
        let events = metrics::read(&path).map_err(words)?;
        let page = report::page(&[folder.to_owned()], None);
        let (_, kept) = Metrics::resume(&path, 2).map_err(words)?;
        assert!(kept.len() <= events.len() && kept.iter().all(|event| event.step() <= 2));
        page.map(drop).map_err(words)
    });
}
