//! A run read back from its folder: for generating, exporting and inspecting.

use std::path::Path;

use burn::tensor::Device;
use polaron_datasets::Tokenizer;
use polaron_models::{LanguageModel, load_named};

use crate::checkpoint::{CheckpointError, Store};
use crate::config::Config;
use crate::device;
use crate::error::Error;
use crate::progress::say;
use crate::run_folder::{FolderError, RunFolder};
use crate::train::tokenizer_sha256;

/// The model of a run at one checkpoint, on a plain device.
#[derive(Debug)]
pub struct LoadedRun {
    /// The run's configuration.
    pub config: Config,
    /// The run's tokenizer.
    pub tokenizer: Tokenizer,
    /// Steps that the weights have seen.
    pub step: u64,
    /// The weights.
    pub model: LanguageModel,
    /// The optimizer record as safetensors bytes.
    pub optimizer: Vec<u8>,
    /// Where the model lives.
    pub device: Device,
}

/// Where and on what a run is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The step of the checkpoint; None is the newest good one.
    pub step: Option<u64>,
    /// Device name; None is the default device, whatever the run was trained on.
    pub device: Option<String>,
    /// CPU threads; 0 is all.
    pub threads: usize,
}

impl LoadedRun {
    /// Reads the run in the folder `path`. A training process may go on writing into it meanwhile.
    ///
    /// # Errors
    ///
    /// No run there, no such checkpoint (with those that exist), a damaged file, an unusable device.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let folder = RunFolder::existing(path)?;
        let config = folder.config()?;
        let tokenizer = folder.tokenizer()?;
        let store = Store::new(folder.checkpoints());
        let checkpoint = match options.step {
            Some(step) => store.load(step)?,
            None => store
                .newest_good(|damage| say(&format!("warning: {damage}")))?
                .ok_or_else(|| CheckpointError::NoneYet { path: folder.checkpoints() })?,
        };
        let trained_with = &checkpoint.trainer.tokenizer_sha256;
        if !trained_with.is_empty() && *trained_with != tokenizer_sha256(&tokenizer)? {
            return Err(FolderError::OtherTokenizer { path: folder.tokenizer_file() }.into());
        }
        device::set_threads(options.threads);
        let device = device::open(options.device.as_deref().unwrap_or(device::default_name()))?;
        let fresh = config.model.init(tokenizer.vocab_size(), config.train.seed, &device)?;
        let model = load_named(fresh, checkpoint.model, &device)?;
        Ok(Self { config, tokenizer, step: checkpoint.trainer.step, model, optimizer: checkpoint.optimizer, device })
    }
}
