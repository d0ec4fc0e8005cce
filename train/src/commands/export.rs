//! `polaron export`: weights and optimizer states for other programs, or a whole model for `transformers`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::run_args::RunArgs;
use super::{exported_folder, exported_state};
use crate::error::{EXIT_DONE, Error, FileError};
use crate::host::progress::print;
use crate::run::loaded::LoadedRun;
use crate::store::files::{write_atomically, write_folder};
use crate::store::tensors;
use crate::store::weights::Purpose;

/// Arguments of `polaron export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// What to write.
    #[arg(long, value_enum, default_value_t = Format::Safetensors)]
    pub format: Format,
    /// File to write, an existing one is replaced; with `--format hf` a folder, new or empty.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Also write the optimizer states, to FILE.optimizer.safetensors, with the names and the layout of their weights. The weights
    /// are then the trained ones, also where averages of them were validated.
    #[arg(long)]
    pub optimizer_state: bool,
}

/// For which programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One file of weights with the names that the documentation of polaron-models lists.
    Safetensors,
    /// A folder with weights, configuration and tokenizer that Hugging Face's transformers loads.
    Hf,
}

/// Exports, and prints the paths of the files.
///
/// # Errors
///
/// A run that cannot be read, files that cannot be written.
pub fn run(args: &ExportArgs) -> Result<u8, Error> {
    if args.format == Format::Hf {
        return to_folder(args);
    }
    // States belong to the trained weights: a run continues from both.
    let purpose = Purpose::of(args.optimizer_state);
    let run = args.run.load_for(purpose)?;
    for path in export(&run, &args.out, args.optimizer_state)? {
        print(&format!("wrote {} (step {})\n", path.display(), run.step));
    }
    Ok(EXIT_DONE)
}

fn to_folder(args: &ExportArgs) -> Result<u8, Error> {
    if args.optimizer_state {
        let advice = "export a second time without --format, to a file";
        return Err(Error::Usage(format!("--format hf has no place for optimizer states: {advice}")));
    }
    check_folder(&args.out)?;
    let run = args.run.load()?;
    let folder = exported_folder::of(&run)?;
    write_folder(&args.out, &folder.files)?;
    print(&format!("wrote {} (step {}, {})\n", args.out.display(), run.step, folder.class));
    Ok(EXIT_DONE)
}

/// Refuses a path that holds something, before anything is read.
fn check_folder(out: &Path) -> Result<(), Error> {
    let first = std::fs::read_dir(out).map(|mut entries| entries.next());
    let problem = match first {
        Ok(Some(_)) => "is not empty",
        Err(_) if out.exists() => "is a file, but --format hf writes a folder",
        _ if out.file_name().is_none() => "cannot be made",
        _ => return Ok(()),
    };
    Err(Error::Usage(format!("--out `{}` {problem}: name a new folder", out.display())))
}

/// Name and version of the format of the weights, in the file's metadata.
const WEIGHTS: &str = "polaron-weights-1";
/// The same for the optimizer states.
const STATES: &str = "polaron-optimizer-states-1";

/// Writes the weights of `run` to `out`, and with `optimizer_state` the optimizer states next to it. Returns the files.
///
/// # Errors
///
/// [`FileError`] naming the file. Both files are built in memory before the first is written.
fn export(run: &LoadedRun, out: &Path, optimizer_state: bool) -> Result<Vec<PathBuf>, Error> {
    check_target(out)?;
    if optimizer_state && run.optimizer.is_empty() {
        let path = run.path.display();
        return Err(Error::Usage(format!(
            "`{path}` holds no optimizer states, only weights: leave out --optimizer-state"
        )));
    }
    let unstorable = |what: &str, error: &dyn Display| Error::Usage(format!("the {what} cannot be exported: {error}"));
    let common = metadata(run)?;
    let weights = [("format", WEIGHTS.to_owned())].map(|(key, value)| (key.to_owned(), value));
    let weights = common.clone().into_iter().chain(weights).collect();
    let bytes = tensors::to_bytes(&run.merged().exported(), &weights).map_err(|error| unstorable("weights", &error))?;
    let mut files = vec![(out.to_path_buf(), bytes)];
    if optimizer_state {
        let (states, facts) = exported_state::of(&run.optimizer, &run.network.parameters())
            .map_err(|error| unstorable("optimizer states", &error))?;
        let format = BTreeMap::from([("format".to_owned(), STATES.to_owned())]);
        let metadata = common.into_iter().chain(facts).chain(format).collect();
        let bytes = tensors::to_bytes(&states, &metadata).map_err(|error| unstorable("optimizer states", &error))?;
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

/// Refuses a path that cannot name a file, before anything is written.
fn check_target(out: &Path) -> Result<(), Error> {
    let shown = out.display();
    let example = out.join("model.safetensors");
    if out.is_dir() || out.file_name().is_none() || out.to_string_lossy().ends_with(std::path::is_separator) {
        return Err(Error::Usage(format!(
            "--out `{shown}` is a folder, not a file: name a file in it, for example --out {}",
            polaron_datasets::quoted(&example)
        )));
    }
    Ok(())
}

/// What another program needs to know besides names, shapes and dtypes; the same in both files.
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
    let facts = run.config.model.export_facts();
    metadata.extend(facts.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    if let Some(tokenizer) = &run.tokenizer {
        metadata.insert("vocab_size".into(), tokenizer.vocab_size().to_string());
        let described = serde_json::to_value(tokenizer).map_err(unstorable)?;
        let text = |key: &str| described.get(key).and_then(Value::as_str).map(str::to_owned);
        metadata.insert("tokenizer".into(), text("kind").unwrap_or_default());
        metadata.extend(text("alphabet").map(|alphabet| ("alphabet".to_owned(), alphabet)));
    }
    Ok(metadata)
}
