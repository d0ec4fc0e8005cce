//! A comparison loaded from its folder.

use std::collections::HashMap;
use std::path::Path;

use super::folder::ComparisonFolder;
use super::judge::results;
use super::outcome::Outcome;
use super::plan::Plan;
use super::results::Results;
use super::runner::Runner;
use crate::error::{Error, FileError};
use crate::store::run_folder::RunFolder;

/// A comparison loaded from its folder, finished or not.
#[derive(Debug)]
pub struct LoadedComparison {
    /// Its plan.
    pub plan: Plan,
    /// The runs that have ended, by name.
    pub ended: HashMap<String, Outcome>,
    /// The results so far.
    pub results: Results,
    /// Number of runs that are still needed, without extensions of grids.
    pub missing: usize,
    /// Fingerprint of the data that the runs saw; None before the first run.
    pub data_sha256: Option<String>,
}

impl LoadedComparison {
    /// Reads the comparison in the folder `path`.
    ///
    /// # Errors
    ///
    /// A damaged plan, runs of other configurations, files that cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = ComparisonFolder::new(path);
        let plan = folder.plan()?;
        let runner = Runner::new(&plan, &folder)?;
        let (missing, data_sha256) = (runner.needed().len(), runner.fingerprint());
        let ended = runner.into_ended();
        let results = results(&plan, &ended, &|run| state_bytes_per_parameter(&folder.run(run)));
        Ok(Self { plan, ended, results, missing, data_sha256 })
    }
}

/// Bytes of optimizer state per parameter, from the sizes in the run's newest checkpoint; None without one.
pub fn state_bytes_per_parameter(run: &Path) -> Option<f64> {
    let store = RunFolder::new(run).store();
    let checkpoint = store.folder(*store.steps().last()?);
    let [model, optimizer] =
        ["model.safetensors", "optimizer.safetensors"].map(|name| tensor_bytes(&checkpoint.join(name)));
    // Weights are stored in four bytes.
    Some(optimizer.ok()? as f64 / (model.ok()? as f64 / 4.0))
}

/// Bytes of tensors in a safetensors file: all but the header and the eight bytes of its length.
fn tensor_bytes(path: &Path) -> Result<u64, FileError> {
    use std::io::Read;
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let mut header = [0; 8];
        file.read_exact(&mut header)?;
        Ok(file.metadata()?.len().saturating_sub(8).saturating_sub(u64::from_le_bytes(header)))
    };
    read().map_err(FileError::at("read", path))
}
