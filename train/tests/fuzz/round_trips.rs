//! Settings come back exactly from what is written, for every kind, every key and numbers of every size.

use polaron::{LayerwiseConfig, OptimizerConfig};
use polaron_train::networks::registry::NetworkConfig;
use polaron_train::settings::config::Config;
use polaron_train::settings::layers::Layers;
use serde_json::{Map, Value};

use crate::changes::Draws;
use crate::settings::comes_back;

/// Numbers that are easily written with a digit too few.
const NUMBERS: &[f64] = &[
    0.0,
    -0.0,
    5e-324,
    f64::MIN_POSITIVE,
    1e-7,
    0.1 + 0.2,
    1.0 / 3.0,
    0.9999999999999999,
    1.0,
    123_456_789.123_456_78,
    9_007_199_254_740_993.0,
    1e21,
    f64::MAX,
];

/// The values to try in the place of `value`: of its type, allowed or not.
fn others(value: &Value, draws: &mut Draws) -> Vec<Value> {
    let fraction = draws.below(1 << 30) as f64 / f64::from(1 << 30);
    match value {
        Value::Bool(_) => vec![true.into(), false.into()],
        Value::Number(number) if number.is_f64() => {
            NUMBERS.iter().copied().chain([fraction, -fraction]).map(Value::from).collect()
        }
        Value::Number(_) => [0, 1, 2, 7, 1 << 40, i64::MAX].map(Value::from).to_vec(),
        _ => vec![value.clone()],
    }
}

/// Whether it comes back from JSON and TOML as the same, to the last bit.
fn same_in_both(config: &OptimizerConfig) {
    let json = serde_json::to_string(config).unwrap();
    let back: OptimizerConfig = serde_json::from_str(&json).expect(&json);
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    assert_eq!(&back, config);
    let toml = toml::to_string(config).unwrap();
    let back: OptimizerConfig = toml::from_str(&toml).expect(&toml);
    assert_eq!(serde_json::to_string(&back).unwrap(), json, "{toml}");
}

#[test]
fn every_key_of_every_optimizer_comes_back_from_json_and_toml() {
    let (mut draws, mut tried) = (Draws::new(1), 0);
    for kind in OptimizerConfig::KINDS {
        let config = OptimizerConfig::of_kind(kind).unwrap();
        let Value::Object(map) = serde_json::to_value(&config).unwrap() else { unreachable!() };
        for (key, value) in &map {
            for other in others(value, &mut draws) {
                // Values out of range are refused by name; all others come back.
                match config.merge(&Map::from_iter([(key.clone(), other.clone())])) {
                    Ok(config) => same_in_both(&config),
                    Err(error) => assert!(error.to_string().contains(kind), "{kind}: {key} = {other}: {error}"),
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

fn resolve(sets: &[(&str, String)]) -> Result<Config, polaron_train::Error> {
    let sets = sets.iter().map(|(key, raw)| ((*key).to_owned(), raw.clone())).collect();
    Layers { sets, ..Layers::default() }.resolve()
}

#[test]
fn every_preset_with_every_stack_comes_back() {
    for preset in NetworkConfig::presets() {
        for stack in LayerwiseConfig::STACKS {
            let data = if preset == "mlp" { "digits" } else { "shakespeare" };
            let sets =
                [("model.preset", preset.into()), ("optimizer.stack", (*stack).into()), ("data.source", data.into())];
            comes_back(&resolve(&sets).unwrap());
        }
    }
}

#[test]
fn every_key_of_a_run_comes_back_or_is_refused_by_name() {
    let mut draws = Draws::new(2);
    for preset in ["llama-d64", "olmoe-tiny", "mlp"] {
        let given = ("model.preset", preset.to_owned());
        let table = resolve(std::slice::from_ref(&given)).unwrap().to_table().unwrap();
        for (section, keys) in &table {
            for (name, value) in keys.as_table().unwrap() {
                let key = format!("{section}.{name}");
                for other in others(&serde_json::to_value(value).unwrap(), &mut draws) {
                    // `model.d_model` and the like may be refused in the name of another key that must fit.
                    match resolve(&[given.clone(), (&key, other.to_string())]) {
                        Ok(config) => comes_back(&config),
                        Err(error) => assert!(
                            error.to_string().contains(name.as_str()) || section == "model",
                            "{key} = {other}: {error}"
                        ),
                    }
                }
            }
        }
    }
}
