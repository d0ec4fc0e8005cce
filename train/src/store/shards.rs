//! The safetensors files of a model, read one tensor at a time: a model may be larger than half of the memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use polaron_models::huggingface::{Import, Wanted};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use crate::error::{Error, FileError, Problem, WeightsError};

/// Length of the number that stands before the header.
const LENGTH: usize = 8;
/// No header is longer; a larger number is not a length.
const LONGEST_HEADER: u64 = 100_000_000;

/// One file, whose header was read and fits its length.
#[derive(Debug)]
pub struct Shard {
    /// Its path.
    pub path: PathBuf,
    header: Metadata,
    /// The bytes before the first tensor.
    front: Vec<u8>,
}

impl Shard {
    /// Reads the header of a file.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Damaged`] for a file that is not of this format, or truncated.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let unreadable = |error: std::io::Error| damaged(path, error);
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut front = vec![0; LENGTH];
        file.read_exact(&mut front).map_err(unreadable)?;
        let header = front.iter().rev().fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
        if header > LONGEST_HEADER.min(length) {
            return Err(damaged(path, format!("its header would have {header} bytes")));
        }
        front.resize(LENGTH + header as usize, 0);
        let text = front.get_mut(LENGTH..).unwrap_or_default();
        file.read_exact(text).map_err(unreadable)?;
        let header: Metadata = serde_json::from_slice(text).map_err(|error| damaged(path, error))?;
        let expected = front.len() as u64 + header.data_len() as u64;
        if length != expected {
            return Err(damaged(path, format!("it has {length} bytes instead of {expected}")));
        }
        Ok(Self { path: path.into(), header, front })
    }

    /// Names and shapes of its tensors, in the order of the file.
    pub fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let shape = |name: String| Some((self.header.info(&name)?.shape.clone(), name));
        self.header.offset_keys().into_iter().filter_map(shape).map(|(shape, name)| (name, shape))
    }

    /// Whether it has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// The types of its elements.
    pub fn dtypes(&self) -> impl Iterator<Item = String> {
        self.header.tensors().into_values().map(|info| format!("{:?}", info.dtype))
    }

    /// Length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.front.len() as u64 + self.header.data_len() as u64
    }

    /// Reads the file from its front to its end: all of it into `hasher`, and every tensor that becomes part of the model into
    /// `import`.
    ///
    /// # Errors
    ///
    /// [`FileError`]; [`WeightsError`] for a tensor that does not fit, or with elements of another type.
    pub fn read(&self, hasher: &mut Sha256, import: &mut Import) -> Result<(), Error> {
        let unreadable = |error| FileError::at("read", &self.path)(error);
        let misfit = |source| WeightsError::Model { path: self.path.clone(), source: Box::new(source) };
        let mut file = BufReader::new(File::open(&self.path).map_err(unreadable)?);
        let mut front = vec![0; self.front.len()];
        file.read_exact(&mut front).map_err(unreadable)?;
        hasher.update(&front);
        for name in self.header.offset_keys() {
            let Some(info) = self.header.info(&name) else { continue };
            let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
            file.read_exact(&mut bytes).map_err(unreadable)?;
            hasher.update(&bytes);
            if import.wants(&name, &info.shape).map_err(misfit)? == Wanted::Yes {
                let data = TensorData::from_bytes_vec(bytes, info.shape.clone(), self.dtype(&name, info.dtype)?);
                import.add(&name, &data).map_err(misfit)?;
            }
        }
        Ok(())
    }

    fn dtype(&self, tensor: &str, dtype: Dtype) -> Result<DType, WeightsError> {
        match dtype {
            Dtype::F32 => Ok(DType::F32),
            Dtype::F16 => Ok(DType::F16),
            Dtype::BF16 => Ok(DType::BF16),
            other => {
                Err(WeightsError::Dtype { path: self.path.clone(), tensor: tensor.into(), dtype: format!("{other:?}") })
            }
        }
    }
}

/// The error about a file that is not as it must be.
pub fn damaged(path: &Path, problem: impl Into<Problem>) -> WeightsError {
    WeightsError::Damaged { path: path.into(), source: problem.into() }
}
