//! A `config.json` as the settings of a decoder.

use serde_json::{Value, json};

use super::class::Class;
use super::classes::{CLASSES, check};
use super::keys::{Keys, refused};
use crate::error::ModelError;
use crate::settings::model::ModelConfig;

/// What a `config.json` says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ForeignConfig {
    /// The decoder; its preset is the one that is most like it, and every key has its own value.
    pub model: ModelConfig,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Keys that are not known, and so were not followed: a program should name them to its user.
    pub ignored: Vec<String>,
}

/// The decoder of a `config.json`. A missing key has the default of its class.
///
/// # Errors
///
/// [`ModelError::ForeignKey`] for the first key whose value the decoder cannot follow; those of [`ModelConfig::validate`];
/// [`ModelError::NoForeignClass`] for sizes that the class itself refuses.
pub fn read_config(json: &Value) -> Result<ForeignConfig, ModelError> {
    let Some(map) = json.as_object() else {
        return Err(refused("config.json", json, "it must be an object with keys and values"));
    };
    let keys = Keys::new(map);
    let class = class_of(&keys)?;
    check_common(&keys, class)?;
    let mut model = (class.read)(&keys, ModelConfig::preset(class.preset)?)?;
    let (key, kinds) = class.activation;
    // The first kind is the default of every class.
    let default = kinds.first().map_or(model.feed_forward, |(_, kind)| *kind);
    model.feed_forward = keys.choice(key, default, kinds)?;
    let vocab_size = keys.size("vocab_size", class.vocab_size)?;
    model.validate()?;
    check(class, &model)?;
    Ok(ForeignConfig { model, vocab_size, ignored: keys.ignored() })
}

fn class_of(keys: &Keys) -> Result<&'static Class, ModelError> {
    const KEY: &str = "model_type";
    let known = || CLASSES.map(|class| class.model_type).join(", ");
    let value = keys.get(KEY).unwrap_or(&Value::Null);
    let class = CLASSES.into_iter().find(|class| value == class.model_type);
    class.ok_or_else(|| refused(KEY, value, &format!("the decoder can only be one of {}", known())))
}

/// Keys that all classes have.
fn check_common(keys: &Keys, class: &Class) -> Result<(), ModelError> {
    if let Some(value) = keys.get("architectures") {
        let names = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if !names.iter().any(|name| name == class.name) {
            return Err(refused("architectures", value, &format!("for this model_type it must name {}", class.name)));
        }
    }
    keys.none(
        "quantization_config",
        "quantised weights cannot be read: give a folder with float32, bfloat16 or float16",
    )?;
    keys.only("is_encoder_decoder", &json!(false), "the decoder has no encoder")?;
    keys.only("pruned_heads", &json!({}), "the decoder has all of its heads")
}
