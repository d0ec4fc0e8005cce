//! `polaron export`: weights for other programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, FileError};
use crate::loaded::LoadedRun;
use crate::run_folder::write_atomically;
use crate::tensors;

/// Name and version of the format, in the file's metadata.
const FORMAT: &str = "polaron-weights-1";

/// Writes the weights of `run` to `out`, and with `optimizer_state` the optimizer's buffers beside it. Returns the files.
///
/// # Errors
///
/// [`FileError`] naming the file.
pub fn export(run: &LoadedRun, out: &Path, optimizer_state: bool) -> Result<Vec<PathBuf>, Error> {
    let bytes = tensors::to_bytes(&run.network.exported(), &metadata(run)?)
        .map_err(|error| Error::Usage(format!("the weights cannot be exported: {error}")))?;
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
    }
    write_atomically(out, &bytes)?;
    let mut written = vec![out.to_path_buf()];
    if optimizer_state {
        let beside = out.with_extension("optimizer.safetensors");
        write_atomically(&beside, &run.optimizer)?;
        written.push(beside);
    }
    Ok(written)
}

/// What another program needs to know beside names, shapes and dtypes.
fn metadata(run: &LoadedRun) -> Result<BTreeMap<String, String>, Error> {
    let unstorable = |error: serde_json::Error| Error::Usage(format!("the metadata cannot be exported: {error}"));
    let model = serde_json::to_string(&run.config.model).map_err(unstorable)?;
    let facts = [
        ("format", FORMAT.to_owned()),
        ("preset", run.config.model.preset().to_owned()),
        ("model", model),
        ("step", run.step.to_string()),
        ("layout", "out_in".to_owned()),
    ];
    let mut metadata: BTreeMap<String, String> = facts.map(|(key, value)| (key.to_owned(), value)).into();
    if let Some(tokenizer) = run.network.tokenizer() {
        metadata.insert("vocab_size".into(), tokenizer.vocab_size().to_string());
        let described = serde_json::to_value(tokenizer).map_err(unstorable)?;
        let text = |key: &str| described.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        metadata.insert("tokenizer".into(), text("kind").unwrap_or_default());
        metadata.extend(text("alphabet").map(|alphabet| ("alphabet".to_owned(), alphabet)));
    }
    Ok(metadata)
}
