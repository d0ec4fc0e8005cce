//! The model classes of `transformers` that the decoder can be. A new one is a file of this folder and a line in the list.

mod gemma3;
mod gpt2;
mod gpt_oss;
mod llama;
mod olmoe;
mod qwen3;

use serde_json::Value;

use super::class::{ALWAYS_FREE, Class};
use crate::error::ModelError;
use crate::settings::model::ModelConfig;

/// All classes. A model belongs to the first that it resembles.
pub(super) static CLASSES: [&Class; 6] =
    [&gpt2::CLASS, &gpt_oss::CLASS, &olmoe::CLASS, &gemma3::CLASS, &qwen3::CLASS, &llama::CLASS];

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
pub(super) fn check(class: &'static Class, config: &ModelConfig) -> Result<(), ModelError> {
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
