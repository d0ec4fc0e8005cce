//! The keys of a `config.json`, with their types and the defaults of their class.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// Keys that change nothing of what a trained model computes: names, training, generation, output.
const WITHOUT_EFFECT: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initial_context_length",
    "initializer_range",
    "is_decoder",
    "label2id",
    "model_type",
    "n_ctx",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "predict_special_tokens",
    "pretraining_tp",
    "problem_type",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "return_dict",
    "router_aux_loss_coef",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unsloth_version",
    "use_cache",
];

/// A `config.json`, which remembers which of its keys were read.
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, read: RefCell::default() }
    }

    /// The value of a key as it is; `null` counts as missing.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.into());
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there with the value `null`.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// A width or a length.
    pub fn size(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        /// Far more than any in use; products of a few of them still fit.
        const LARGEST: usize = 1 << 31;
        self.up_to(key, default, LARGEST)
    }

    /// A number of layers or experts, for each of which there are tensors.
    pub fn count(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        /// Far more than any in use.
        const MOST: usize = 1000;
        self.up_to(key, default, MOST)
    }

    fn up_to(&self, key: &str, default: usize, largest: usize) -> Result<usize, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        let fits = size.filter(|size| (1..=largest).contains(size));
        fits.ok_or_else(|| refused(key, value, &format!("it must be a whole number from 1 to {largest}")))
    }

    pub fn number(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| refused(key, value, "it must be a number"))
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| refused(key, value, "it must be true or false"))
    }

    /// Checks that a key, if it is there, has the only value that the decoder knows.
    pub fn only(&self, key: &str, known: &Value, rule: &str) -> Result<(), ModelError> {
        match self.get(key) {
            Some(value) if value != known && value.as_f64().is_none_or(|number| known.as_f64() != Some(number)) => {
                Err(refused(key, value, rule))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a key is missing or `null`.
    pub fn none(&self, key: &str, rule: &str) -> Result<(), ModelError> {
        self.get(key).map_or(Ok(()), |value| Err(refused(key, value, rule)))
    }

    /// The choice that the text of a key names, by its position in `names`.
    pub fn choice<T: Copy>(&self, key: &str, default: T, names: &[(&str, T)]) -> Result<T, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = names.iter().find(|(name, _)| value.as_str() == Some(name));
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let known = names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            refused(key, value, &format!("the decoder knows only {known}"))
        })
    }

    /// Keys that nothing has read and that may change what the model computes.
    pub fn ignored(&self) -> Vec<String> {
        let read = self.read.borrow();
        let known = |key: &str| read.contains(key) || WITHOUT_EFFECT.contains(&key);
        let rest = self.map.iter().filter(|(key, value)| !value.is_null() && !known(key));
        rest.map(|(key, _)| key.clone()).collect()
    }
}

/// The error for a key whose value the decoder cannot follow.
pub(super) fn refused(key: &str, value: &Value, rule: &str) -> ModelError {
    /// Longer values are cut.
    const LONGEST: usize = 120;
    let text = value.to_string();
    let shown: String = text.chars().take(LONGEST).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    ModelError::ForeignKey { key: key.into(), value: format!("{shown}{cut}"), rule: rule.into() }
}
