//! `polaron export`: weights and optimizer states for other programs.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, FileError};
use crate::exported_state;
use crate::loaded::LoadedRun;
use crate::run_folder::write_atomically;
use crate::tensors;

/// Name and version of the format of the weights, in the file's metadata.
const WEIGHTS: &str = "polaron-weights-1";
/// The same of the optimizer's states.
const STATES: &str = "polaron-optimizer-states-1";

/// Writes the weights of `run` to `out`, and with `optimizer_state` the optimizer's states beside it. Returns the files.
///
/// # Errors
///
/// [`FileError`] naming the file. Both files are made before the first is written.
pub fn export(run: &LoadedRun, out: &Path, optimizer_state: bool) -> Result<Vec<PathBuf>, Error> {
    check_target(out)?;
    let unstorable = |what: &str, error: &dyn Display| Error::Usage(format!("the {what} cannot be exported: {error}"));
    let common = metadata(run)?;
    let weights = [("format", WEIGHTS.to_owned())].map(|(key, value)| (key.to_owned(), value));
    let weights = common.clone().into_iter().chain(weights).collect();
    let bytes = tensors::to_bytes(&run.network.exported(), &weights).map_err(|error| unstorable("weights", &error))?;
    let mut files = vec![(out.to_path_buf(), bytes)];
    if optimizer_state {
        let (states, facts) = exported_state::of(&run.optimizer, &run.network.parameters())
            .map_err(|error| unstorable("optimizer's states", &error))?;
        let format = BTreeMap::from([("format".to_owned(), STATES.to_owned())]);
        let metadata = common.into_iter().chain(facts).chain(format).collect();
        let bytes = tensors::to_bytes(&states, &metadata).map_err(|error| unstorable("optimizer's states", &error))?;
        files.push((out.with_extension("optimizer.safetensors"), bytes));
    }
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
    }
    let mut written = Vec::new();
    for (path, bytes) in files {
        write_atomically(&path, &bytes)?;
        written.push(path);
    }
    Ok(written)
}

/// Refuses a name that cannot be a file's, before anything is read or made.
fn check_target(out: &Path) -> Result<(), Error> {
    let shown = out.display();
    let example = out.join("model.safetensors");
    if out.is_dir() || out.file_name().is_none() || out.to_string_lossy().ends_with(std::path::is_separator) {
        return Err(Error::Usage(format!(
            "--out `{shown}` is a folder, not a file to write: name one in it, for example --out {}",
            polaron_datasets::quoted(&example)
        )));
    }
    Ok(())
}

/// What another program needs to know beside names, shapes and dtypes; the same in both files.
fn metadata(run: &LoadedRun) -> Result<BTreeMap<String, String>, Error> {
    let unstorable = |error: serde_json::Error| Error::Usage(format!("the metadata cannot be exported: {error}"));
    let model = serde_json::to_string(&run.config.model).map_err(unstorable)?;
    let facts = [
        ("preset", run.config.model.preset().to_owned()),
        ("model", model),
        ("step", run.step.to_string()),
        ("layout", "out_in".to_owned()),
        ("optimizer", run.config.optimizer.stack.to_string()),
    ];
    let mut metadata: BTreeMap<String, String> = facts.map(|(key, value)| (key.to_owned(), value)).into();
    if run.config.model.decoder().is_some_and(|decoder| decoder.experts > 0) {
        metadata.insert("expert_layout".into(), "expert_in_out".into());
    }
    if let Some(tokenizer) = run.network.tokenizer() {
        metadata.insert("vocab_size".into(), tokenizer.vocab_size().to_string());
        let described = serde_json::to_value(tokenizer).map_err(unstorable)?;
        let text = |key: &str| described.get(key).and_then(Value::as_str).map(str::to_owned);
        metadata.insert("tokenizer".into(), text("kind").unwrap_or_default());
        metadata.extend(text("alphabet").map(|alphabet| ("alphabet".to_owned(), alphabet)));
    }
    Ok(metadata)
}
