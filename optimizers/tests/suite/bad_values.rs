//! Numbers that are not valid are refused when the configuration is read or built, with the key and its range.
//!
//! The keys come from the settings themselves.

use polaron::OptimizerConfig;
use polaron::matrix::Placement;
use serde_json::{Map, Value, json};

/// What a configuration in TOML is refused with; none if it builds.
fn refusal(config: &toml::Table) -> Option<String> {
    let text = toml::to_string(config).expect("TOML");
    match toml::from_str::<OptimizerConfig>(&text) {
        Ok(config) => config.build(Placement::default()).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn table(kind: &str, keys: &[(&str, toml::Value)]) -> toml::Table {
    let mut table = toml::Table::from_iter([("kind".to_string(), toml::Value::from(kind))]);
    table.extend(keys.iter().map(|(key, value)| (key.to_string(), value.clone())));
    table
}

/// Numbers that no key allows.
fn bad_numbers() -> [toml::Value; 6] {
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.5, 1e300, -1e300].map(toml::Value::from)
}

fn is_number(value: &Value) -> bool {
    value.is_number() || value.as_array().is_some_and(|parts| parts.iter().all(is_number))
}

#[test]
fn a_number_that_no_key_allows_is_refused_with_its_key() {
    for kind in OptimizerConfig::KINDS {
        for (key, values) in OptimizerConfig::choices(kind).expect("the kind exists") {
            if !values.iter().any(is_number) {
                continue;
            }
            for bad in bad_numbers() {
                let error =
                    refusal(&table(kind, &[(key, bad.clone())])).unwrap_or_else(|| panic!("{kind}.{key} = {bad}"));
                assert!(error.contains(key), "{kind}.{key} = {bad}: {error}");
            }
        }
    }
}

#[test]
fn a_number_that_no_method_allows_is_refused_with_its_key() {
    for kind in OptimizerConfig::KINDS {
        for (key, values) in OptimizerConfig::choices(kind).expect("the kind exists") {
            for method in values.iter().filter(|value| value.is_object()) {
                // with all the keys that the method has
                let base = OptimizerConfig::of_kind(kind).expect("the kind exists");
                let keys = match (*kind, key) {
                    ("scion", "norm_control") => vec![("constrained", false.into()), (key, method.clone())],
                    ("soap", "norm_control") => vec![("weight_decay", 0.0.into()), (key, method.clone())],
                    // It refuses them, whatever their numbers.
                    ("muown", "norm_control" | "second_moment") => continue,
                    _ => vec![(key, method.clone())],
                };
                let keys = keys.into_iter().map(|(key, value): (&str, Value)| (key.to_string(), value));
                let base = base.merge(&Map::from_iter(keys)).expect("a choice");
                let whole = serde_json::to_value(base).expect("JSON")[key].clone();
                let whole = toml::Table::try_from(&whole).expect("TOML");
                for (inner, value) in whole.iter().filter(|(_, value)| value.is_float() || value.is_integer()) {
                    for bad in bad_numbers() {
                        let mut method = whole.clone();
                        method.insert(inner.clone(), bad.clone());
                        let error = refusal(&table(kind, &[(key, method.into())]))
                            .unwrap_or_else(|| panic!("{kind}.{key}.{inner} = {bad}, was {value}"));
                        assert!(error.contains(inner.as_str()), "{kind}.{key}.{inner} = {bad}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_message_says_key_range_and_value() {
    let refused = |config: Value, fragments: &[&str]| {
        let config: OptimizerConfig = serde_json::from_value(config).expect("of the right types");
        let error = config.build(Placement::default()).expect_err("out of range").to_string();
        assert!(fragments.iter().all(|fragment| error.contains(fragment)), "{error}");
    };
    refused(json!({"kind": "muon", "momentum": 1.5}), &["muon.momentum", "[0, 1)", "1.5"]);
    refused(json!({"kind": "adamw", "beta2": 1.0}), &["adamw.beta2", "[0, 1)", "got 1"]);
    refused(json!({"kind": "adamw", "weight_decay": -1.0}), &["adamw.weight_decay", "from 0", "-1"]);
    refused(json!({"kind": "adamw", "eps": -1e-8}), &["adamw.eps", "from 0"]);
    refused(json!({"kind": "sgd", "momentum": -0.1}), &["sgd.momentum", "[0, 1)", "-0.1"]);
    refused(json!({"kind": "muon_eq", "exponent": 0.5}), &["muon_eq.exponent", "from -1 to 0", "0.5"]);
    refused(json!({"kind": "muon_eq", "clip": 0.5}), &["muon_eq.clip", "from 1", "0.5"]);
    refused(json!({"kind": "muon_eq", "phase": 0}), &["muon_eq.phase", "from 1", "got 0"]);
    refused(json!({"kind": "kaon", "steps": 0}), &["kaon.steps", "from 1 to 99", "got 0"]);
    refused(json!({"kind": "kaon", "steps": 1_000_000_000}), &["kaon.steps", "from 1 to 99"]);
    refused(json!({"kind": "freon", "steps": 21}), &["freon.steps", "from 1 to 20", "21"]);
    refused(json!({"kind": "freon", "c": [1, 0]}), &["freon.c", "from 0 to 1"]);
    refused(json!({"kind": "freon", "c": [0, 0]}), &["freon.c", "from 0 to 1"]);
    refused(json!({"kind": "freon", "c": -0.5}), &["freon.c", "from 0 to 1", "-0.5"]);
    refused(json!({"kind": "freon", "ridge": 0.0, "method": "rational"}), &["freon.ridge", "rational"]);
    refused(json!({"kind": "scion", "radius": -1.0}), &["scion.radius", "from 0", "-1"]);
    refused(json!({"kind": "random_spectrum", "low": 2.0}), &["random_spectrum.low", "from 0 to 1.5", "2"]);
    refused(json!({"kind": "spectral", "alpha": 3.0}), &["spectral.alpha", "from 0 to 2", "3"]);
    let polar = |polar: Value| json!({"kind": "muon", "polar": polar});
    refused(polar(json!({"method": "newton_schulz", "steps": 0})), &["muon.polar.steps", "from 1 to 99", "got 0"]);
    refused(polar(json!({"method": "polar_express", "steps": 1_000_000_000})), &["muon.polar.steps", "from 1 to 99"]);
    refused(polar(json!({"method": "minimax", "steps": 5})), &["muon.polar.steps", "from 3 to 4", "got 5"]);
    refused(json!({"kind": "muon_eq", "iterations": 0}), &["muon_eq.iterations", "from 1 to 99", "got 0"]);
    refused(json!({"kind": "muon_eq", "iterations": 2, "equilibrate": "both"}), &["muon_eq.iterations", "must be 1"]);
    refused(json!({"kind": "muon_eq", "damping": 0.25}), &["muon_eq.damping", "iterations = 2"]);
    refused(polar(json!({"method": "newton_schulz", "eps": -1.0})), &["muon.polar.eps", "from 0", "-1"]);
    refused(polar(json!({"method": "svd", "rcond": 1.0})), &["muon.polar.rcond", "[0, 1)"]);
    refused(polar(json!({"method": "polynomial", "coefficients": []})), &["muon.polar.coefficients", "at least one"]);
    refused(
        polar(json!({"method": "polynomial", "coefficients": [[1e300, 1.0, 1.0]]})),
        &["muon.polar.coefficients", "outside [0, 2]"],
    );
    refused(
        polar(json!({"method": "polynomial", "coefficients": [[2.0, -1.5, 0.5]], "norm_factor": 0.5})),
        &["muon.polar.norm_factor", "from 1"],
    );
    let gram = json!({"kind": "hybrid", "polar": {"method": "gram_polar_express", "steps": 0}});
    refused(gram, &["hybrid.polar.steps", "from 1 to 99", "got 0"]);
}

#[test]
fn an_optional_number_is_not_taken_for_left_out_when_it_is_none() {
    for bad in ["nan", "inf", "-inf"] {
        let text = format!("kind = \"muon_eq\"\nclip = {bad}\n");
        let error = toml::from_str::<OptimizerConfig>(&text).expect_err("no number").to_string();
        assert!(error.contains("clip") && error.contains("finite"), "{error}");
    }
}

#[test]
fn blocks_that_cannot_be_cut_are_refused() {
    use polaron::matrix::Axis;
    for count in [0, 3, 100] {
        let placement = Placement::default().with_blocks(Axis::Output, count);
        let error = placement.check(&[6, 8]).expect_err("3 does not divide 8").to_string();
        assert!(error.contains(&format!("{count} blocks")) && error.contains("8 output features"), "{error}");
    }
}
