//! A folder of Hugging Face's `transformers`: `config.json`, `tokenizer.json`, and weights in one or several safetensors files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use polaron_datasets::Tokenizer;
use polaron_models::huggingface::{Import, read_config};
use polaron_models::{ModelConfig, ModelError, NamedTensor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::shards::{Shard, damaged};
use crate::error::{ConfigError, Error, FileError, WeightsError, bytes};
use crate::settings::config::Config;
use crate::settings::given_model::GivenModel;
use crate::settings::layers::Layers;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Weights in the form of pickled Python objects, which is refused.
const PICKLED: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Such a folder, of which everything but the weights was read, and the weights were checked by name and shape.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    model: ModelConfig,
    shards: Vec<Shard>,
    /// Its tokenizer, if it has one.
    pub tokenizer: Option<Tokenizer>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Folder {
    /// Whether there is such a folder at the path.
    pub fn is_at(path: &Path) -> bool {
        path.join(CONFIG).is_file()
    }

    /// Reads configuration and tokenizer, and checks names and shapes of the weights.
    ///
    /// # Errors
    ///
    /// The first problem found: an unknown class or key, a missing or damaged file, a tensor too many or too few.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = path.join(CONFIG);
        let read = read_config(&json(&file)?).map_err(in_file(&file))?;
        let shards = find(path)?;
        let import = Import::new(&read.model, read.vocab_size).map_err(in_file(&file))?;
        let tensors: Vec<(String, Vec<usize>)> = shards.iter().flat_map(Shard::shapes).collect();
        import.check(tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))).map_err(in_file(path))?;
        let mut notes = Vec::new();
        if !read.ignored.is_empty() {
            notes.push(format!("`{}` has keys that were not followed: {}", file.display(), read.ignored.join(", ")));
        }
        let tokenizer = tokenizer(path, read.vocab_size, &mut notes)?;
        // Its own table of embeddings may be larger than the tokenizer is.
        let mut model = read.model;
        model.vocab_size = read.vocab_size;
        Ok(Self { path: path.into(), model, shards, tokenizer, notes })
    }

    /// The defaults with the model of the folder.
    ///
    /// # Errors
    ///
    /// Those of [`Layers::resolve`].
    pub fn config(&self) -> Result<Config, Error> {
        let keys = toml::Table::try_from(&self.model).map_err(ConfigError::misfit)?;
        let tokenizer = self.tokenizer.as_ref().map(Tokenizer::kind);
        Layers { model: Some(GivenModel { path: self.path.clone(), keys, tokenizer }), ..Layers::default() }.resolve()
    }

    /// Number, size and element types of the files.
    pub fn describe(&self) -> String {
        let dtypes: BTreeSet<String> = self.shards.iter().flat_map(Shard::dtypes).collect();
        let size: u64 = self.shards.iter().map(Shard::bytes).sum();
        let files = if self.shards.len() == 1 { "file" } else { "files" };
        let dtypes = dtypes.into_iter().collect::<Vec<_>>().join(", ");
        format!("{} safetensors {files}, {}, {dtypes}", self.shards.len(), bytes(size as f64))
    }

    /// Reads the weights, file after file, as float32. Returns them with the SHA-256 of the files one after the other.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, elements of another type than float32, float16 or bfloat16.
    pub fn read(&self) -> Result<(Vec<NamedTensor>, String), Error> {
        let mut import = Import::new(&self.model, self.model.vocab_size).map_err(in_file(&self.path))?;
        let mut hasher = Sha256::new();
        for shard in &self.shards {
            shard.read(&mut hasher, &mut import)?;
        }
        Ok((import.finish().map_err(in_file(&self.path))?, hex::encode(hasher.finalize())))
    }
}

fn in_file(path: &Path) -> impl Fn(ModelError) -> WeightsError + '_ {
    |source| WeightsError::Model { path: path.into(), source: Box::new(source) }
}

fn json(path: &Path) -> Result<Value, Error> {
    let bytes = std::fs::read(path).map_err(FileError::at("read", path))?;
    Ok(serde_json::from_slice(&bytes).map_err(|error| damaged(path, error))?)
}

/// The files of the weights, in the order of their names.
fn find(path: &Path) -> Result<Vec<Shard>, Error> {
    let (single, index) = (path.join(WEIGHTS), path.join(INDEX));
    if single.is_file() {
        return Ok(vec![Shard::open(&single)?]);
    }
    if index.is_file() {
        return listed(path, &index);
    }
    let pickled = PICKLED.iter().map(|name| path.join(name)).find(|file| file.is_file());
    Err(match pickled {
        Some(file) => WeightsError::Pickled { path: file, folder: path.into() },
        None => WeightsError::None { path: path.into() },
    }
    .into())
}

/// The files that an index names, with all the tensors that it names in them.
fn listed(path: &Path, index: &Path) -> Result<Vec<Shard>, Error> {
    let json = json(index)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| damaged(index, "it has no weight_map"))?;
    let named = map.iter().map(|(tensor, file)| Some((tensor.as_str(), file.as_str()?)));
    let named: Vec<(&str, &str)> =
        named.collect::<Option<_>>().ok_or_else(|| damaged(index, "its weight_map has a file that is no text"))?;
    let files: BTreeSet<&str> = named.iter().map(|(_, file)| *file).collect();
    let mut shards = Vec::new();
    for file in files {
        if Path::new(file).components().count() != 1 || !path.join(file).is_file() {
            return Err(WeightsError::NoFile { index: index.into(), file: file.into() }.into());
        }
        let shard = Shard::open(&path.join(file))?;
        if let Some((tensor, _)) = named.iter().find(|(tensor, other)| *other == file && !shard.has(tensor)) {
            return Err(WeightsError::NoTensor { path: shard.path, tensor: (*tensor).into() }.into());
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn tokenizer(path: &Path, rows: usize, notes: &mut Vec<String>) -> Result<Option<Tokenizer>, Error> {
    let file = path.join(TOKENIZER);
    if !file.is_file() {
        return Ok(None);
    }
    let mut tokenizer = Tokenizer::from_file(&file)?;
    if tokenizer.vocab_size() > rows {
        let (fitting, left_out) = without_added(&file, rows)?;
        if fitting.vocab_size() > rows {
            return Err(WeightsError::Vocabulary { path: file, tokens: tokenizer.vocab_size(), rows }.into());
        }
        let named = left_out.join(", ");
        notes.push(format!("the embedding has {rows} rows, none for these added tokens, which are left out: {named}"));
        tokenizer = fitting;
    }
    let tokens = tokenizer.vocab_size();
    if tokens < rows {
        notes
            .push(format!("the embedding has {rows} rows, the tokenizer {tokens} tokens: the other rows are not used"));
    }
    Ok(Some(tokenizer))
}

/// The tokenizer of a file without the tokens that were added to its vocabulary beyond the rows of the embedding, such as those that
/// stand for images; with the names of those tokens.
fn without_added(file: &Path, rows: usize) -> Result<(Tokenizer, Vec<String>), Error> {
    let mut value = json(file)?;
    let mut names = Vec::new();
    if let Some(added) = value.get_mut("added_tokens").and_then(Value::as_array_mut) {
        added.retain(|token| {
            let beyond = token.get("id").and_then(Value::as_u64).is_some_and(|id| id >= rows as u64);
            names.extend(token.get("content").and_then(Value::as_str).filter(|_| beyond).map(String::from));
            !beyond
        });
    }
    if let Some(vocabulary) = value.pointer_mut("/model/vocab").and_then(Value::as_object_mut) {
        vocabulary.retain(|token, _| !names.contains(token));
    }
    Ok((Tokenizer::try_from(value)?, names))
}
