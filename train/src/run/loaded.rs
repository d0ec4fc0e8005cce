//! A run loaded from its folder, to generate text or to export it.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use polaron_datasets::Tokenizer;
use polaron_models::{NamedTensor, load_named, merged};

use crate::error::Error;
use crate::host::device;
use crate::host::progress::say;
use crate::host::workers::Workers;
use crate::networks::family::{AnyModel, Family};
use crate::networks::registry::ForFamily;
use crate::run::estimate;
use crate::run::prepare::with_adapters;
use crate::settings::config::Config;
use crate::store::weights::{Purpose, Weights};

/// The model of a run at one checkpoint, on a plain device.
#[derive(Debug)]
pub struct LoadedRun {
    /// Its folder.
    pub path: PathBuf,
    /// The run's configuration.
    pub config: Config,
    /// Number of steps that the weights were trained for.
    pub step: u64,
    /// The weights.
    pub network: Box<dyn AnyModel>,
    /// The run's tokenizer, if it has one.
    pub tokenizer: Option<Tokenizer>,
    /// The optimizer record as safetensors bytes.
    pub optimizer: Vec<u8>,
    /// The device that holds the model.
    pub device: Device,
    /// The worker that starts the operations of this device.
    pub worker: Workers,
}

/// Which checkpoint of a run is loaded, and on which device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The step of the checkpoint; None means the newest undamaged one.
    pub step: Option<u64>,
    /// Device name; None means the default device, whatever the run was trained on.
    pub device: Option<String>,
    /// CPU threads; 0 means all.
    pub threads: usize,
    /// Which of its weights.
    pub purpose: Purpose,
}

impl LoadedRun {
    /// Reads the run in the folder `path`. A training process may keep writing into it meanwhile.
    ///
    /// # Errors
    ///
    /// No run in the folder, no such checkpoint (the message lists those that exist), a damaged file, an unusable device.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let weights = Weights::read(path, options.step, options.purpose)?;
        weights.notes.iter().for_each(|note| say(&format!("note: {note}")));
        device::set_threads(options.threads);
        let name = options.device.as_deref().unwrap_or(device::default_name());
        let device = device::open(name)?;
        let worker = Workers::new(usize::from(device::find(name)?.on_host))?;
        let Weights { config, step, tensors, tokenizer, optimizer, .. } = weights;
        let stored = Stored { config: &config, tensors, tokenizer: tokenizer.as_ref(), name, device: &device };
        let network = config.model.with(stored)?;
        Ok(Self { path: path.into(), config, step, network, tokenizer, optimizer, device, worker })
    }

    /// The network with its adapters, if it has some, merged into its weights: for other programs.
    pub fn merged(&self) -> Box<dyn AnyModel> {
        self.config.model.with(Merge(self.network.as_ref()))
    }
}

/// A model whose adapters are to be merged into its weights.
struct Merge<'a>(&'a dyn AnyModel);

impl ForFamily for Merge<'_> {
    type Output = Box<dyn AnyModel>;

    fn run<F: Family>(self, _settings: &F) -> Self::Output {
        match self.0.as_any().downcast_ref::<F::Network>() {
            Some(network) => Box::new(merged(network.clone())),
            None => unreachable!("a network is of the family of its settings"),
        }
    }
}

/// A stored model, to be loaded by its family.
struct Stored<'a> {
    config: &'a Config,
    tensors: Vec<NamedTensor>,
    tokenizer: Option<&'a Tokenizer>,
    name: &'a str,
    device: &'a Device,
}

impl ForFamily for Stored<'_> {
    type Output = Result<Box<dyn AnyModel>, Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let Self { config, tensors, tokenizer, name, device } = self;
        let sizes = settings.stored_sizes(&tensors, tokenizer)?;
        estimate::check_weights(config, name, sizes)?;
        let fresh = with_adapters(config, settings.init(sizes, config.train.seed, device)?)?;
        Ok(Box::new(load_named(fresh, tensors, device)?))
    }
}
