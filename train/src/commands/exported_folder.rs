//! A run as a folder that Hugging Face's `transformers` loads: configuration, weights, tokenizer.

use std::collections::BTreeMap;

use polaron_datasets::Tokenizer;
use polaron_models::{LanguageModel, huggingface, to_named};
use serde_json::{Value, json};

use crate::error::{Error, WeightsError};
use crate::run::loaded::LoadedRun;
use crate::store::tensors;

/// The folder of a run.
pub struct ForeignFolder {
    /// The model class of `transformers`.
    pub class: String,
    /// Names and contents of the files.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// Makes the files of a run in memory.
///
/// # Errors
///
/// A network that writes no text, a model that no class of `transformers` can express.
pub fn of(run: &LoadedRun) -> Result<ForeignFolder, Error> {
    let network = run.merged();
    let Some(model) = network.as_any().downcast_ref::<LanguageModel>() else {
        let noun = run.config.model.noun();
        return Err(Error::Usage(format!(
            "--format hf is for decoders, and this run holds a {noun}: leave the flag out, then its weights are written as safetensors"
        )));
    };
    let Some(tokenizer) = run.tokenizer.as_ref().filter(|tokenizer| tokenizer.has_text()) else {
        let (path, what) = (run.path.clone(), "other programs could not use the model".into());
        return Err(WeightsError::NoTokenizer { path, what }.into());
    };
    let (config, vocab_size) = (model.config(), model.vocab_size());
    let described = huggingface::write_config(config, vocab_size, tokenizer.end_of_text())?;
    let class = described.pointer("/architectures/0").and_then(Value::as_str).unwrap_or_default().to_owned();
    let weights = huggingface::to_foreign(config, vocab_size, &to_named(model))?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = tensors::to_bytes(&weights, &metadata)
        .map_err(|error| Error::Usage(format!("the weights cannot be exported: {error}")))?;
    let files = vec![
        ("config.json", pretty(&described)),
        ("generation_config.json", pretty(&generation(tokenizer))),
        ("model.safetensors", weights),
        ("tokenizer.json", pretty(&tokenizer.published())),
        ("tokenizer_config.json", pretty(&tokenizer_config(tokenizer, model.context()))),
    ];
    Ok(ForeignFolder { class, files })
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn generation(tokenizer: &Tokenizer) -> Value {
    json!({ "bos_token_id": null, "eos_token_id": tokenizer.end_of_text(), "pad_token_id": null })
}

/// What is not in `tokenizer.json`. Nothing may be tidied up in decoded text.
fn tokenizer_config(tokenizer: &Tokenizer, context: usize) -> Value {
    let mut described = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
    });
    for (key, name) in ["eos_token", "unk_token"].into_iter().zip(tokenizer.special_names()) {
        if let Some(name) = name {
            described[key] = name.into();
        }
    }
    described
}
