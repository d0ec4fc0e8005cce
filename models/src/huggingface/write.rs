//! The settings of a decoder as a `config.json`.

use serde_json::{Map, Value, json};

use super::class::{ALWAYS_FREE, Class};
use super::classes::CLASSES;
use crate::error::ModelError;
use crate::settings::model::ModelConfig;

/// The `config.json` of a decoder with `vocab_size` tokens, of which `end_of_text` ends a text.
///
/// # Errors
///
/// [`ModelError::NoForeignClass`] names the first key that the nearest class cannot follow.
pub fn write_config(config: &ModelConfig, vocab_size: usize, end_of_text: Option<u32>) -> Result<Value, ModelError> {
    let class = class_for(config)?;
    let (activation, kinds) = class.activation;
    let kind = kinds.iter().find(|(_, kind)| *kind == config.feed_forward).map(|(name, _)| *name);
    let mut map = Map::new();
    let general = [
        ("architectures", json!([class.name])),
        ("model_type", json!(class.model_type)),
        ("dtype", json!("float32")),
        ("torch_dtype", json!("float32")),
        ("vocab_size", json!(vocab_size)),
        ("bos_token_id", Value::Null),
        ("eos_token_id", json!(end_of_text)),
        ("pad_token_id", Value::Null),
        (activation, json!(kind)),
    ];
    map.extend(general.map(|(key, value)| (key.to_owned(), value)));
    map.extend((class.write)(config));
    Ok(Value::Object(map))
}

/// The class that can be this decoder.
///
/// # Errors
///
/// [`ModelError::NoForeignClass`].
pub(super) fn class_for(config: &ModelConfig) -> Result<&'static Class, ModelError> {
    let nearest = CLASSES.into_iter().find(|class| (class.resembles)(config));
    let class = nearest.unwrap_or(CLASSES[CLASSES.len() - 1]);
    check(class, config)?;
    Ok(class)
}

/// Keys that a class cannot follow have the values of its preset.
fn check(class: &'static Class, config: &ModelConfig) -> Result<(), ModelError> {
    let preset = ModelConfig::preset(class.preset)?;
    let refused = |key: &str, value: String, rule: String| {
        Err(ModelError::NoForeignClass { class: class.name, key: key.into(), value, rule })
    };
    let [Ok(Value::Object(found)), Ok(Value::Object(needed))] = [config, &preset].map(serde_json::to_value) else {
        return refused("model", String::from("unknown"), String::from("its keys cannot be listed"));
    };
    let free = |key: &str| ALWAYS_FREE.contains(&key) || class.free.contains(&key);
    for (key, value) in found.iter().filter(|(key, _)| !free(key)) {
        let needed = needed.get(key).unwrap_or(&Value::Null);
        if value != needed {
            return refused(key, value.to_string(), format!("it needs {needed}"));
        }
    }
    let (_, kinds) = class.activation;
    if !kinds.iter().any(|(_, kind)| *kind == config.feed_forward) {
        let value = found.get("feed_forward").map(Value::to_string).unwrap_or_default();
        return refused("feed_forward", value, "it has no such nonlinearity".into());
    }
    match (class.unmet)(config) {
        Some((key, value, rule)) => refused(key, value, rule),
        None => Ok(()),
    }
}
