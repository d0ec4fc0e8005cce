//! The memory of an optimizer, measured on a checkpoint.

use std::path::Path;

use crate::error::FileError;
use crate::store::run_folder::RunFolder;

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
