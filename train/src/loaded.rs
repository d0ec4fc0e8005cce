//! A run read back from its folder: for generating, exporting and inspecting.

use std::path::Path;

use burn::tensor::Device;
use polaron_datasets::Tokenizer;
use polaron_models::{
    LanguageModel, Mlp, ModelError, NamedTensor, ParameterInfo, load_named, parameter_table, to_exported,
};

use crate::checkpoint::{CheckpointError, Store};
use crate::config::Config;
use crate::device;
use crate::error::Error;
use crate::estimate::{self, Brought, Purpose};
use crate::network::NetworkConfig;
use crate::progress::say;
use crate::run_folder::{FolderError, RunFolder};
use crate::train::tokenizer_sha256;
use crate::workers::Workers;

/// The model of a run at one checkpoint, on a plain device.
#[derive(Debug)]
pub struct LoadedRun {
    /// The run's configuration.
    pub config: Config,
    /// Steps that the weights have seen.
    pub step: u64,
    /// The weights, and what it takes to use them.
    pub network: LoadedNetwork,
    /// The optimizer record as safetensors bytes.
    pub optimizer: Vec<u8>,
    /// Where the model lives.
    pub device: Device,
    /// Where the operations of this device are best begun.
    pub worker: Workers,
}

/// A trained model.
#[derive(Debug)]
pub enum LoadedNetwork {
    /// A decoder with the run's tokenizer.
    Decoder(Box<LanguageModel>, Tokenizer),
    /// A perceptron.
    Mlp(Mlp),
}

impl LoadedNetwork {
    /// The weights as other programs expect them.
    pub fn exported(&self) -> Vec<NamedTensor> {
        match self {
            Self::Decoder(model, _) => to_exported(model.as_ref()),
            Self::Mlp(model) => to_exported(model),
        }
    }

    /// Path, shape and exported name of every parameter.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        match self {
            Self::Decoder(model, _) => parameter_table(model.as_ref()),
            Self::Mlp(model) => parameter_table(model),
        }
    }

    /// The run's tokenizer, where it has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match self {
            Self::Decoder(_, tokenizer) => Some(tokenizer),
            Self::Mlp(_) => None,
        }
    }
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
        let store = Store::new(folder.checkpoints());
        let checkpoint = match options.step {
            Some(step) => store.load(step)?,
            None => store
                .newest_good(|damage| say(&format!("warning: {damage}")))?
                .ok_or_else(|| CheckpointError::NoneYet { path: folder.checkpoints() })?,
        };
        device::set_threads(options.threads);
        let name = options.device.as_deref().unwrap_or(device::default_name());
        let device = device::open(name)?;
        let worker = Workers::new(usize::from(device::find(name)?.on_host))?;
        let network = match &config.model {
            NetworkConfig::Decoder(decoder) => {
                let tokenizer = folder.tokenizer()?;
                let trained_with = &checkpoint.trainer.tokenizer_sha256;
                if !trained_with.is_empty() && *trained_with != tokenizer_sha256(&tokenizer)? {
                    return Err(FolderError::OtherTokenizer { path: folder.tokenizer_file() }.into());
                }
                estimate::check(&config, name, Brought::Vocabulary(tokenizer.vocab_size()), Purpose::Look)?;
                let fresh = decoder.init(tokenizer.vocab_size(), config.train.seed, &device)?;
                let model = load_named(fresh, checkpoint.model, &device)?;
                LoadedNetwork::Decoder(Box::new(model), tokenizer)
            }
            NetworkConfig::Mlp(mlp) => {
                let [inputs, outputs] = ends(&checkpoint.model)?;
                estimate::check(&config, name, Brought::Images { features: inputs, classes: outputs }, Purpose::Look)?;
                let fresh = mlp.init(inputs, outputs, config.train.seed, &device)?;
                LoadedNetwork::Mlp(load_named(fresh, checkpoint.model, &device)?)
            }
        };
        Ok(Self { config, step: checkpoint.trainer.step, network, optimizer: checkpoint.optimizer, device, worker })
    }
}

/// Numbers of inputs and outputs of a stored perceptron, which its data brought.
fn ends(stored: &[NamedTensor]) -> Result<[usize; 2], ModelError> {
    let size = |name: &str, axis: usize| {
        let found = stored.iter().find(|tensor| tensor.name == name);
        let size = found.and_then(|tensor| tensor.data.shape().to_vec().get(axis).copied());
        size.ok_or_else(|| ModelError::MissingTensor { name: name.into(), expected: Vec::new(), hint: String::new() })
    };
    Ok([size("layers.0.weight", 0)?, size("head.weight", 1)?])
}
