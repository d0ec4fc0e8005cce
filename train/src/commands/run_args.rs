//! Arguments shared by the commands that load a run.

use std::path::PathBuf;

use clap::Args;

use super::usage;
use crate::error::Error;
use crate::run::loaded::{LoadOptions, LoadedRun};
use crate::store::weights::Purpose;

/// Which run, at which step, and on which device.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Folder that `polaron train` wrote, or one of Hugging Face with config.json, model.safetensors and tokenizer.json.
    #[arg(value_name = "RUN|DIR")]
    pub run: PathBuf,
    /// Checkpoint to use. [default: the newest]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::whole)]
    pub step: Option<u64>,
    /// Device; see `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// CPU threads; 0 means all.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = usage::count)]
    pub threads: usize,
}

impl RunArgs {
    /// Reads the run.
    ///
    /// # Errors
    ///
    /// Those of [`LoadedRun::open`].
    pub fn load(&self) -> Result<LoadedRun, Error> {
        self.load_for(Purpose::Evaluation)
    }

    /// The same with its weights for this purpose.
    ///
    /// # Errors
    ///
    /// Those of [`LoadedRun::open`].
    pub fn load_for(&self, purpose: Purpose) -> Result<LoadedRun, Error> {
        let options = LoadOptions { step: self.step, device: self.device.clone(), threads: self.threads, purpose };
        LoadedRun::open(&self.run, &options)
    }
}
