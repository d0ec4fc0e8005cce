//! Why weights of other programs cannot be read.

use std::path::PathBuf;

use polaron_datasets::quoted;
use polaron_models::ModelError;

use super::file::{Problem, one_line};

/// Why weights of other programs cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The name of a model on the Hugging Face hub, where a folder is needed.
    #[error(
        "`{name}` is not a folder here, and polaron downloads nothing: get the model with `hf download {name} --local-dir {folder}`, then give the folder {folder}"
    )]
    Hub {
        /// The name.
        name: String,
        /// A folder for it.
        folder: String,
    },
    /// The folder has no weights.
    #[error("`{}` has a config.json, but neither model.safetensors nor model.safetensors.index.json: give a folder with the whole model", path.display())]
    None {
        /// The folder.
        path: PathBuf,
    },
    /// The weights are pickled.
    #[error("the weights `{}` are pickled, and reading them could run any program: write them as safetensors with `{}`", path.display(), conversion(folder))]
    Pickled {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// A file is not what its name says.
    #[error("`{}` is damaged or incomplete ({}): download it again", path.display(), one_line(&source.to_string()))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Problem,
    },
    /// A file that the index names is not there.
    #[error("`{}` names the file {file}, which is not in its folder: download it too", index.display())]
    NoFile {
        /// The index.
        index: PathBuf,
        /// The missing file.
        file: String,
    },
    /// A file has not the tensors that the index names.
    #[error("`{}` has no tensor `{tensor}`, which model.safetensors.index.json names there: download both files again", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The missing tensor.
        tensor: String,
    },
    /// A tensor has elements that cannot be read.
    #[error("the tensor `{tensor}` of `{}` has elements of type {dtype}: only float32, float16 and bfloat16 can be read", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type of its elements.
        dtype: String,
    },
    /// The configuration or the tensors cannot become a model.
    #[error("`{}`: {source}", path.display())]
    Model {
        /// The folder or the file.
        path: PathBuf,
        /// Why not; boxed, because every result of the program would be as large.
        source: Box<ModelError>,
    },
    /// The tokenizer has tokens that the model does not.
    #[error("the tokenizer `{}` has {tokens} tokens, but the embedding of the model has only {rows} rows: put the tokenizer of this model there", path.display())]
    Vocabulary {
        /// The tokenizer.
        path: PathBuf,
        /// The number of its tokens.
        tokens: usize,
        /// The number of rows.
        rows: usize,
    },
    /// There is no tokenizer, but one is needed.
    #[error("`{}` has no tokenizer.json, without which {what}: put that file there; `{}` writes it from the other forms", path.display(), tokenizer_command(path))]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
        /// What cannot be done.
        what: String,
    },
    /// A step of a folder that has only one.
    #[error("`{}` holds the weights of one moment, not checkpoints: leave out the step {step}", path.display())]
    Step {
        /// The folder.
        path: PathBuf,
        /// The step.
        step: u64,
    },
}

/// The command that writes pickled weights as safetensors.
fn conversion(folder: &std::path::Path) -> String {
    let folder = quoted(folder);
    format!(
        "python -c 'import sys; from transformers import AutoModelForCausalLM as M; M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])' {folder}"
    )
}

/// The command that writes a tokenizer.json.
fn tokenizer_command(folder: &std::path::Path) -> String {
    let folder = quoted(folder);
    format!(
        "python -c 'import sys; from transformers import AutoTokenizer as T; T.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])' {folder}"
    )
}
