//! The settings of a decoder as a `config.json`.

use serde_json::{Map, Value, json};

use super::classes::class_for;
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
