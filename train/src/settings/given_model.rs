//! The weights that a run starts from, as its configuration names them, and their model, which decides all of `[model]`.

use std::path::PathBuf;

use polaron_datasets::TokenizerKind;
use toml::{Table, Value};

use crate::error::ConfigError;
use crate::settings::merge;

/// The key of the folder whose weights a run starts from.
pub const INIT: &str = "train.init";
/// The key of the checkpoint there.
pub const INIT_STEP: &str = "train.init_step";
/// The key of the checksum of those weights.
pub const INIT_SHA256: &str = "train.init_sha256";
/// The key that says whether that run is continued.
pub const INIT_CONTINUES: &str = "train.init_continues";

/// The key of the length that the schedule is computed for.
pub const SCHEDULE_STEPS: &str = "train.schedule_steps";

/// The model of weights that a run starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenModel {
    /// The folder that holds the weights.
    pub path: PathBuf,
    /// Every key of `[model]`.
    pub keys: Table,
    /// The kind of its tokenizer; None without one.
    pub tokenizer: Option<TokenizerKind>,
}

/// Keys of a model that may differ from those of the weights: they change the loss of training alone.
const FREE: &[&str] = &["aux_load_balance", "aux_z"];

impl GivenModel {
    /// The kind of tokenizer for a text, where `asked` stands in the configuration; None if the model has none.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`] if another one was asked for.
    pub fn tokenizer_for(&self, asked: TokenizerKind) -> Result<Option<TokenizerKind>, ConfigError> {
        let Some(theirs) = self.tokenizer else { return Ok(None) };
        let rule = format!("the tokenizer of `{}` is {theirs}: leave the key out", self.path.display());
        ConfigError::ensure([TokenizerKind::Auto, theirs].contains(&asked), "data.tokenizer", asked, &rule)?;
        Ok(Some(theirs))
    }

    /// Gives a configuration whose vocabulary follows from the tokenizer the size of that of the weights.
    pub fn fill_vocabulary(&self, config: &mut Table) {
        const KEY: &str = "vocab_size";
        let model = config.get_mut("model").and_then(Value::as_table_mut);
        if let Some((size, theirs)) = model.and_then(|model| model.get_mut(KEY)).zip(self.keys.get(KEY))
            && size.as_integer() == Some(0)
        {
            *size = theirs.clone();
        }
    }

    /// Checks that a configuration, as a table, has this model. The context may be shorter where no weight depends on it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OtherModel`] with every key that differs.
    pub fn check(&self, config: &Table) -> Result<(), ConfigError> {
        let empty = Table::new();
        let now = config.get("model").and_then(Value::as_table).unwrap_or(&empty);
        let rotary = now.get("position").and_then(Value::as_str) == Some("rotary");
        let number = |table: &Table| table.get("context").and_then(Value::as_integer);
        let shorter = rotary && number(now) < number(&self.keys);
        let ignored: Vec<&str> = FREE.iter().copied().chain(shorter.then_some("context")).collect();
        let differences = merge::differences(&self.keys, now, &ignored);
        if differences.is_empty() {
            return Ok(());
        }
        Err(ConfigError::OtherModel { path: self.path.clone(), differences })
    }
}
