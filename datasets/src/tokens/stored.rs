//! Tokenizers as they are stored.

use serde::Deserialize;
use serde_json::{Value, json};

use super::alphabet::Alphabet;
use super::learned::Learned;
use super::published;
use super::tokenizer::{Inner, Tokenizer};
use crate::errors::DataError;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Stored {
    Char { alphabet: String },
    Byte {},
    None { vocab_size: usize },
}

impl TryFrom<Value> for Tokenizer {
    type Error = DataError;

    fn try_from(value: Value) -> Result<Self, DataError> {
        if published::is_of_bytes(&value) {
            return Ok(Self::byte());
        }
        if let Some(alphabet) = published::characters_in(&value) {
            return Ok(Self { inner: Inner::Char(alphabet) });
        }
        if value.get("model").is_some() {
            return Ok(Self { inner: Inner::Learned(Learned::from_json(&value.to_string())?) });
        }
        let stored: Stored =
            serde_json::from_value(value).map_err(|error| DataError::BadTokenizer { problem: error.into() })?;
        match stored {
            Stored::Char { alphabet } => Ok(Self { inner: Inner::Char(Alphabet::stored(&alphabet)?) }),
            Stored::Byte {} => Ok(Self::byte()),
            Stored::None { vocab_size } => Self::without_text(vocab_size),
        }
    }
}

impl From<Tokenizer> for Value {
    fn from(tokenizer: Tokenizer) -> Self {
        match tokenizer.inner {
            Inner::Char(alphabet) => json!({ "kind": "char", "alphabet": alphabet.to_text() }),
            Inner::Byte => json!({ "kind": "byte" }),
            Inner::Learned(learned) => learned.json().clone(),
            Inner::None(vocab_size) => json!({ "kind": "none", "vocab_size": vocab_size }),
        }
    }
}
