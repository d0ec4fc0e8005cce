//! Trained weights in a folder, with what belongs to them: read to start another run, to generate text, to export.

use std::path::{Path, PathBuf};

use polaron_datasets::{Tokenizer, TokenizerKind};
use polaron_models::NamedTensor;
use toml::{Table, Value};

use super::checkpoint::{Store, TrainerState};
use super::huggingface;
use super::run_folder::RunFolder;
use crate::error::{CheckpointError, ConfigError, Error, FolderError, WeightsError};
use crate::host::progress::say;
use crate::networks::decoder::tokenizer_sha256;
use crate::networks::family::Family;
use crate::networks::registry::ForFamily;
use crate::settings::config::Config;
use crate::settings::given_model::{GivenModel, INIT, INIT_SHA256, INIT_STEP};
use crate::settings::layers::Layers;

/// What holds weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder that `polaron train` wrote.
    Run,
    /// A folder of Hugging Face's `transformers`.
    HuggingFace,
}

/// Which weights of a checkpoint, where those that are validated are others than the trained ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To use them: those that were validated.
    #[default]
    Evaluation,
    /// To train on: the trained ones.
    Training,
}

impl Purpose {
    /// That of the weights to start from: a run that is continued takes the trained ones.
    pub fn of(continues: bool) -> Self {
        if continues { Self::Training } else { Self::Evaluation }
    }
}

/// What holds the weights in the folder `path`.
///
/// # Errors
///
/// [`FolderError::NoWeights`]; [`WeightsError::Hub`] for what looks like the name of a model that is elsewhere.
pub fn kind_of(path: &Path) -> Result<Kind, Error> {
    if RunFolder::existing(path).is_ok() {
        return Ok(Kind::Run);
    }
    if huggingface::Folder::is_at(path) {
        return Ok(Kind::HuggingFace);
    }
    match hub_name(path) {
        Some((name, folder)) => Err(WeightsError::Hub { name, folder }.into()),
        None => Err(FolderError::NoWeights { path: path.into() }.into()),
    }
}

/// The path as the name `owner/model` of a model on the Hugging Face hub, with the second part; None if it cannot be one, or if
/// a folder of the owner's name is here.
fn hub_name(path: &Path) -> Option<(String, String)> {
    let (owner, model) = path.to_str()?.split_once('/')?;
    let word = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
    };
    (word(owner) && word(model) && !Path::new(owner).exists()).then(|| (format!("{owner}/{model}"), model.to_owned()))
}

/// Trained weights, and what belongs to them.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The folder they were read from.
    pub path: PathBuf,
    /// The configuration they were trained with.
    pub config: Config,
    /// Number of steps they were trained for.
    pub step: u64,
    /// SHA-256 of the file that holds them, in hexadecimal.
    pub sha256: String,
    /// The weights, by path.
    pub tensors: Vec<NamedTensor>,
    /// The tokenizer of their text, if there is one.
    pub tokenizer: Option<Tokenizer>,
    /// The optimizer record as safetensors bytes.
    pub optimizer: Vec<u8>,
    /// The state of their training.
    pub trainer: TrainerState,
    /// What the user should know about them.
    pub notes: Vec<String>,
}

impl Weights {
    /// Reads the weights in the folder `path`: those of a run at a step for some purpose, where None means its newest undamaged
    /// checkpoint, or those of a folder of Hugging Face's `transformers`, which has no steps.
    ///
    /// # Errors
    ///
    /// Neither in the folder, no such checkpoint (the message lists those that exist), a damaged file.
    pub fn read(path: &Path, step: Option<u64>, purpose: Purpose) -> Result<Self, Error> {
        match kind_of(path)? {
            Kind::Run => Self::of_run(path, step, purpose),
            Kind::HuggingFace => Self::of_huggingface(path, step.unwrap_or_default()),
        }
    }

    /// A training process may keep writing into the folder meanwhile.
    fn of_run(path: &Path, step: Option<u64>, purpose: Purpose) -> Result<Self, Error> {
        let folder = RunFolder::existing(path)?;
        let config = folder.config()?;
        let store = Store::new(folder.checkpoints());
        let checkpoint = match step {
            Some(step) => store.load(step)?,
            None => store
                .newest_good(|damage| say(&format!("warning: {damage}")))?
                .ok_or_else(|| CheckpointError::NoneYet { path: folder.checkpoints() })?,
        };
        let tokenizer = if config.model.is_text() { Some(folder.tokenizer()?) } else { None };
        let trained_with = &checkpoint.trainer.tokenizer_sha256;
        if let Some(tokenizer) = tokenizer.as_ref().filter(|_| !trained_with.is_empty())
            && *trained_with != tokenizer_sha256(tokenizer)?
        {
            return Err(FolderError::OtherTokenizer { path: folder.tokenizer_file() }.into());
        }
        let step = checkpoint.trainer.step;
        let averaged = checkpoint.evaluation.filter(|_| purpose == Purpose::Evaluation);
        let shown = path.display();
        let note =
            format!("these are the averaged weights of `{shown}`, which were validated, and not the trained ones");
        Ok(Self {
            path: path.into(),
            config,
            step,
            sha256: store.weights_sha256(step, averaged.is_some())?,
            notes: averaged.iter().map(|_| note.clone()).collect(),
            tensors: averaged.unwrap_or(checkpoint.model),
            tokenizer,
            optimizer: checkpoint.optimizer,
            trainer: checkpoint.trainer,
        })
    }

    fn of_huggingface(path: &Path, step: u64) -> Result<Self, Error> {
        if step > 0 {
            return Err(WeightsError::Step { path: path.into(), step }.into());
        }
        let folder = huggingface::Folder::open(path)?;
        let (tensors, sha256) = folder.read()?;
        Ok(Self {
            path: path.into(),
            config: folder.config()?,
            step,
            sha256,
            tensors,
            tokenizer: folder.tokenizer,
            optimizer: Vec::new(),
            trainer: TrainerState::default(),
            notes: folder.notes,
        })
    }

    /// Their model, as the configuration of a run that starts from them has it: with the size of its vocabulary.
    ///
    /// # Errors
    ///
    /// When the tensors are not those of the model.
    pub fn model(&self) -> Result<GivenModel, Error> {
        let mut keys = Table::try_from(&self.config.model).map_err(ConfigError::misfit)?;
        let rows = self.config.model.with(Rows(self))?;
        if let Some(key) = keys.get_mut("vocab_size") {
            *key = Value::Integer(i64::try_from(rows).map_err(ConfigError::misfit)?);
        }
        // A vocabulary from a file may be smaller than any that is learnt here.
        let writable = |kind: TokenizerKind| kind.to_string().parse().unwrap_or(TokenizerKind::File);
        let tokenizer = self.tokenizer.as_ref().map(|tokenizer| writable(tokenizer.kind()));
        Ok(GivenModel { path: self.path.clone(), keys, tokenizer })
    }

    /// Checks that they are the ones that a configuration names, and that it has their model.
    ///
    /// # Errors
    ///
    /// [`FolderError::OtherWeights`] with both checksums, [`ConfigError::OtherModel`] with every key that differs.
    pub fn check(&self, config: &Config) -> Result<(), Error> {
        let named = &config.train.init_sha256;
        if self.sha256 != *named {
            let (path, named, now) = (self.path.clone(), named.clone(), self.sha256.clone());
            return Err(FolderError::OtherWeights { path, step: self.step, named, now }.into());
        }
        Ok(self.model()?.check(&config.to_table()?)?)
    }
}

/// The rows of the embedding table, for a model that has one.
struct Rows<'a>(&'a Weights);

impl ForFamily for Rows<'_> {
    type Output = Result<usize, Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        Ok(settings.stored_sizes(&self.0.tensors, self.0.tokenizer.as_ref())?.inputs)
    }
}

/// Resolves layers that may name weights to start from: their model takes the place of the preset. Weights of a resolved
/// configuration are not read.
///
/// # Errors
///
/// Those of [`Weights::read`] and of [`Layers::resolve`].
pub fn resolve(mut layers: Layers) -> Result<Config, Error> {
    let Some(path) = layers.text(INIT)?.filter(|path| !path.is_empty()) else { return layers.resolve() };
    if layers.is_resolved(INIT, INIT_SHA256) {
        return layers.resolve();
    }
    // Other programs store no steps: 0 means the newest.
    let step = layers.number(INIT_STEP).and_then(|step| u64::try_from(step).ok()).filter(|step| *step > 0);
    let weights = Weights::read(Path::new(&path), step, Purpose::of(layers.continues()))?;
    weights.notes.iter().for_each(|note| say(&format!("note: {note}")));
    let step = i64::try_from(weights.step).map_err(ConfigError::misfit)?;
    layers.flags.push(("--init", INIT_STEP, Value::Integer(step)));
    layers.flags.push(("--init", INIT_SHA256, Value::String(weights.sha256.clone())));
    layers.model = Some(weights.model()?);
    layers.resolve()
}
