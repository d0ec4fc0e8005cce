//! The coordinate check of muP: the effect of one update on activations is the same at every width.

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::matrix::Placement;
use polaron::{OptimizerConfig, Role};
use polaron_common::splitmix64;
use serde_json::{Map, Value};

const SEED: u64 = 7;
const BASE: usize = 64;
/// Tokens of a hidden layer's batch; embeddings and heads have few, so that their common part is larger than their noise.
const TOKENS: usize = 32;
const FEW_TOKENS: usize = 4;
const VOCABULARY: usize = 96;

/// Numbers of about normal distribution and size 1.
fn normal(shape: [usize; 2], seed: u64) -> Tensor<2> {
    let uniform = |i: u64| (splitmix64(SEED << 48 | seed << 32 | i) >> 11) as f64 / (1_u64 << 53) as f64;
    let entry = |i: u64| (0..4).map(|k| uniform(4 * i + k) - 0.5).sum::<f64>() * 3f64.sqrt();
    let values: Vec<f64> = (0..(shape[0] * shape[1]) as u64).map(entry).collect();
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(DType::F32), (&Device::flex(), DType::F32))
}

fn rms(x: Tensor<2>) -> f64 {
    x.square().mean().sqrt().into_scalar::<f64>()
}

/// The effect of one update, computed from inputs and gradients of outputs, on the outputs for these inputs; logits are
/// divided by the width.
fn change(config: &OptimizerConfig, role: Role, width: usize) -> Result<f64, &'static str> {
    let m = width as f64 / BASE as f64;
    let (inputs, outputs) = match role {
        Role::Embedding => (VOCABULARY, width),
        Role::Head => (width, VOCABULARY),
        Role::Router => (width, 8),
        _ => (width, width),
    };
    let tokens = if role == Role::Hidden { TOKENS } else { FEW_TOKENS };
    let x = match role {
        // one row of the table for each token
        Role::Embedding => Tensor::<2>::eye(VOCABULARY, &Device::flex()).narrow(0, 0, tokens),
        _ => normal([tokens, inputs], 1),
    };
    let gradient = x.clone().transpose().matmul(normal([tokens, outputs], 2)) / width as f64;
    let lr = m.powf(-config.width_exponent(role, [outputs, inputs])?);
    let optimizer = config.build(Placement::default()).expect("valid");
    let (after, _) = optimizer.step(lr, gradient.zeros_like(), gradient, None);
    let logits = if role == Role::Head { m } else { 1.0 };
    Ok(rms(x.matmul(after)) / logits)
}

/// The defaults of a kind, and each of its keys changed to each of its values.
fn settings(kind: &str) -> Vec<OptimizerConfig> {
    let base = OptimizerConfig::of_kind(kind).expect("the kind exists");
    let choices = OptimizerConfig::choices(kind).expect("the kind exists");
    let changed = choices.into_iter().flat_map(|(key, values)| {
        let merge = |value| base.merge(&Map::from_iter([(key.to_string(), value)])).ok();
        values.into_iter().filter_map(merge).collect::<Vec<_>>()
    });
    std::iter::once(base.clone()).chain(changed.collect::<Vec<_>>()).collect()
}

fn assert_flat(config: &OptimizerConfig, role: Role, widths: &[usize]) -> bool {
    let changes: Result<Vec<f64>, &str> = widths.iter().map(|width| change(config, role, *width)).collect();
    match changes {
        Ok(changes) => {
            let mean = changes.iter().sum::<f64>() / changes.len() as f64;
            let flat = changes.iter().all(|change| (change - mean).abs() <= 0.15 * mean);
            assert!(flat, "{config:?}, {role}, widths {widths:?}, seed {SEED}: {changes:?}");
            true
        }
        Err(reason) => {
            assert!(reason.contains("choose") || reason.contains("set ") || reason.contains("use "), "{reason}");
            false
        }
    }
}

#[test]
fn a_hidden_layer_changes_as_much_at_every_width_or_the_setting_is_refused() {
    let mut accepted = Vec::new();
    // AdamW's width rule is about the common part of tokens; the test of the models shows it.
    for kind in OptimizerConfig::KINDS.iter().filter(|kind| **kind != "adamw") {
        for (index, config) in settings(kind).iter().enumerate() {
            let widths: &[usize] = if index == 0 { &[64, 128, 256, 512] } else { &[64, 256] };
            if assert_flat(config, Role::Hidden, widths) && index == 0 {
                accepted.push(*kind);
            }
        }
    }
    let expected = ["muon", "normuon", "adamuon", "soap_muon", "regularized_muon", "kaon", "random_spectrum", "scion"];
    assert_eq!(accepted, expected);
}

#[test]
fn the_edges_change_as_much_at_every_width() {
    let configured = |text: &str| -> OptimizerConfig { serde_json::from_str(text).expect("valid") };
    for (text, role) in [
        (r#"{"kind": "adamw"}"#, Role::Embedding),
        (r#"{"kind": "adamw"}"#, Role::Head),
        (r#"{"kind": "adamw"}"#, Role::Router),
        (r#"{"kind": "row_norm", "axis": "input"}"#, Role::Embedding),
        (r#"{"kind": "row_norm"}"#, Role::Head),
        (r#"{"kind": "row_norm"}"#, Role::Router),
        (r#"{"kind": "scion", "lmo": "input_norm"}"#, Role::Embedding),
        (r#"{"kind": "scion", "lmo": "sign", "constrained": false}"#, Role::Head),
        (r#"{"kind": "muon", "scale": "none"}"#, Role::Embedding),
    ] {
        assert!(assert_flat(&configured(text), role, &[64, 128, 256, 512]), "{text} {role}");
    }
}

#[test]
fn exponents_are_those_of_the_width_rules() {
    let exponent = |text: &str, role| {
        serde_json::from_str::<OptimizerConfig>(text).expect("valid").width_exponent(role, [128, 128])
    };
    for (text, role, want) in [
        (r#"{"kind": "adamw"}"#, Role::Up, 1.0),
        (r#"{"kind": "adamw"}"#, Role::Router, 1.0),
        (r#"{"kind": "adamw"}"#, Role::Head, 0.0),
        (r#"{"kind": "adamw"}"#, Role::TiedEmbedding, 0.0),
        (r#"{"kind": "row_norm"}"#, Role::Head, -0.5),
        (r#"{"kind": "row_norm"}"#, Role::Router, 0.5),
        (r#"{"kind": "row_norm", "axis": "input"}"#, Role::Embedding, -0.5),
        (r#"{"kind": "row_norm", "axis": "input"}"#, Role::TiedEmbedding, -0.5),
        (r#"{"kind": "adamuon"}"#, Role::Down, 0.5),
        (r#"{"kind": "hybrid", "alpha": 0.0}"#, Role::Gate, 0.0),
        (r#"{"kind": "freon", "c": 0.5}"#, Role::Gate, 0.0),
    ] {
        assert_eq!(exponent(text, role), Ok(want), "{text} {role}");
    }
    let none: Vec<Value> = serde_json::from_str(
        r#"[{"kind": "sgd"}, {"kind": "ssd"}, {"kind": "polar_grad"}, {"kind": "error_feedback_muon"}, {"kind": "spectral"},
            {"kind": "hybrid"}, {"kind": "freon"}, {"kind": "row_norm"}, {"kind": "muon_eq"},
            {"kind": "normuon", "rescale": "rms"}, {"kind": "muon", "scale": "match_rms_adamw"}]"#,
    )
    .expect("JSON");
    for config in none {
        assert!(exponent(&config.to_string(), Role::Up).is_err(), "{config}");
    }
}
