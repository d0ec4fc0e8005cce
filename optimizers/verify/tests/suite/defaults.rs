//! `defaults.json`, with which other programs read the reference vectors, says what the library says.

use std::collections::BTreeSet;

use burn::tensor::{DType, Device, Tensor};
use polaron::OptimizerConfig;
use polaron::matrix::{Layout, Matrix};
use polaron::rule::{NormControl, Polar, Preconditioner};
use serde_json::{Map, Value, json};

fn defaults() -> Value {
    serde_json::from_str(include_str!("../../defaults.json")).expect("JSON")
}

fn section(name: &str) -> Map<String, Value> {
    defaults()[name].as_object().expect("an object").clone()
}

#[test]
fn the_defaults_of_every_kind_are_those_that_a_case_means() {
    let kinds = section("kinds");
    assert_eq!(
        kinds.keys().collect::<BTreeSet<_>>(),
        OptimizerConfig::KINDS.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().iter().collect()
    );
    for (kind, keys) in kinds {
        let keys = keys.as_object().expect("an object");
        let names: BTreeSet<&str> = keys.keys().map(String::as_str).collect();
        let known = OptimizerConfig::choices(&kind).expect("a kind");
        assert_eq!(names, known.iter().map(|(name, _)| *name).collect(), "{kind}");
        let mut said: Map<String, Value> = keys.clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        said.insert("kind".into(), kind.clone().into());
        let mut meant = json!({"kind": kind});
        if let Some(target) = OptimizerConfig::exact_target(&kind) {
            meant[target.key] = target.exact;
        }
        let read = |value: Value| serde_json::from_value::<OptimizerConfig>(value).expect("an optimizer");
        assert_eq!(read(said.into()), read(meant), "{kind}");
    }
}

#[test]
fn the_defaults_of_the_methods_are_those_of_the_library() {
    for (method, keys) in section("polar") {
        let list = (method == "polynomial").then(|| ("coefficients".to_string(), json!("quintic")));
        let bare: Map<String, Value> = [("method".to_string(), json!(method))].into_iter().chain(list).collect();
        let full: Map<String, Value> =
            bare.clone().into_iter().chain(keys.as_object().expect("an object").clone()).collect();
        let read = |keys: Map<String, Value>| serde_json::from_value::<Polar>(keys.into()).expect("a method");
        assert_eq!(read(full.clone()), read(bare), "{method}");
        let mut written = serde_json::to_value(read(full.clone())).expect("JSON");
        written.as_object_mut().expect("an object").retain(|key, _| key != "norm_factor");
        assert_eq!(written, Value::from(full), "{method}");
    }
    for (method, keys) in section("norm_control") {
        let read: NormControl = serde_json::from_value(json!({"method": method})).expect("a method");
        let mut full = keys.as_object().expect("an object").clone();
        full.insert("method".into(), method.into());
        assert_eq!(serde_json::to_value(read).expect("JSON"), Value::from(full));
    }
    let read: Preconditioner = serde_json::from_value(json!({})).expect("defaults");
    assert_eq!(serde_json::to_value(read).expect("JSON"), defaults()["second_moment"]);
}

#[test]
fn the_lists_of_coefficients_are_those_of_the_library() {
    for (name, rows) in section("coefficients") {
        let method = match name.as_str() {
            "newton_schulz" | "polar_express" => json!({"method": name, "steps": 8, "eps": 0.0}),
            "minimax3" | "minimax4" => json!({"method": "minimax", "steps": rows.as_array().map(Vec::len)}),
            "converged" => json!({"method": name}),
            _ => json!({"method": "polynomial", "coefficients": name, "eps": 0.0}),
        };
        let polar: Polar = serde_json::from_value(method).expect("a method");
        let rows: Vec<[f64; 3]> = serde_json::from_value(rows).expect("rows");
        // The last row repeats.
        let repeated = (0..polar.schedule().len()).map(|step| rows[step.min(rows.len() - 1)]);
        assert_eq!(polar.schedule(), repeated.clone().collect::<Vec<_>>(), "{name}");
        // The matrix of one entry 1, whose norm is 1, shows the factor.
        let one = Tensor::<3>::ones([1, 1, 1], (&Device::flex(), DType::F64));
        let got: f64 = polar.apply(Matrix::new(one, Layout::OutIn)).into_tensor().into_scalar();
        let factor = defaults()["norm_factor"].get(&name).map_or(1.0, |factor| factor.as_f64().expect("a number"));
        let wanted = repeated.fold(1.0 / factor, |x, [a, b, c]| a * x + b * x.powi(3) + c * x.powi(5));
        assert!((got - wanted).abs() < 1e-12, "{name}: {got} for {wanted}");
    }
}
