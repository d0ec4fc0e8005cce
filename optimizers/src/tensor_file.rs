//! Named tensors as safetensors bytes: the same bytes for the same tensors.
//!
//! The safetensors crate writes metadata in the order of a hash map, which differs from process to
//! process; files that are compared byte by byte need a fixed order, so the header is written here.
//! Files are read by the crate, which checks everything.

use std::collections::BTreeMap;

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use thiserror::Error;

/// Why tensors cannot be written to a file or read from it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorFileError {
    /// A tensor with an element type that cannot be stored.
    #[error("tensor \"{name}\" has the dtype {dtype}, which cannot be stored: it must be f64, f32, f16 or bf16")]
    Dtype {
        /// Its name.
        name: String,
        /// Its element type.
        dtype: String,
    },
    /// Bytes that are not a safetensors file.
    #[error("{message}")]
    Damaged {
        /// The message of the parser.
        message: String,
    },
}

/// The header is padded to a multiple of this, as the format recommends.
const ALIGNMENT: usize = 8;

const DTYPES: [(DType, Dtype, &str); 4] = [
    (DType::F64, Dtype::F64, "F64"),
    (DType::F32, Dtype::F32, "F32"),
    (DType::F16, Dtype::F16, "F16"),
    (DType::BF16, Dtype::BF16, "BF16"),
];

/// Writes float tensors and metadata as a safetensors file in memory; see [`write()`].
///
/// # Errors
/// Those of [`write()`].
pub fn to_bytes<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a TensorData)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, TensorFileError> {
    let mut bytes = Vec::new();
    write(tensors, metadata, &mut |part| bytes.extend_from_slice(part))?;
    Ok(bytes)
}

/// Passes a safetensors file of float tensors and metadata to `write`, part after part.
///
/// Tensors are ordered by the size of their element, then by name.
///
/// # Errors
/// If the dtype of a tensor is not f64, f32, f16 or bf16; nothing has been written then.
pub fn write<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a TensorData)>,
    metadata: &BTreeMap<String, String>,
    write: &mut dyn FnMut(&[u8]),
) -> Result<(), TensorFileError> {
    let mut ordered: Vec<(&str, &TensorData)> = tensors.into_iter().collect();
    ordered.sort_by(|(a, x), (b, y)| y.dtype().size().cmp(&x.dtype().size()).then_with(|| a.cmp(b)));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut offset = 0;
    for (name, data) in &ordered {
        let known = DTYPES.iter().find(|(dtype, ..)| *dtype == data.dtype());
        let Some((.., dtype)) = known else {
            return Err(TensorFileError::Dtype { name: name.to_string(), dtype: format!("{:?}", data.dtype()) });
        };
        let end = offset + data.as_bytes().len();
        let shape = data.shape().to_vec();
        header.insert((*name).to_string(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] }));
        offset = end;
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(ALIGNMENT) - text.len()));
    write(&(text.len() as u64).to_le_bytes());
    write(text.as_bytes());
    ordered.iter().for_each(|(_, data)| write(data.as_bytes()));
    Ok(())
}

/// Tensors and metadata, each by name.
pub type Contents = (BTreeMap<String, TensorData>, BTreeMap<String, String>);

/// Reads a safetensors file in memory.
///
/// # Errors
/// If the bytes are not a safetensors file or a tensor does not have a float dtype.
pub fn from_bytes(bytes: &[u8]) -> Result<Contents, TensorFileError> {
    let damaged = |error: safetensors::SafeTensorError| TensorFileError::Damaged { message: error.to_string() };
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let known = DTYPES.iter().find(|(_, dtype, _)| *dtype == view.dtype());
        let Some((dtype, ..)) = known else {
            return Err(TensorFileError::Dtype { name: name.to_string(), dtype: format!("{:?}", view.dtype()) });
        };
        let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), *dtype);
        tensors.insert(name.to_string(), data);
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((tensors, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<(&'static str, TensorData)> {
        vec![
            ("b", TensorData::new(vec![1.0_f32, f32::MIN_POSITIVE, -0.0, 4.0], [2, 2])),
            ("a.w", TensorData::new(vec![5.0_f64, 6.0], [1, 2])),
        ]
    }

    fn written(tensors: &[(&'static str, TensorData)]) -> Vec<u8> {
        let metadata = BTreeMap::from([("step", "3"), ("alphabet", "a\"\n\u{e9}")].map(|(k, v)| (k.into(), v.into())));
        to_bytes(tensors.iter().map(|(name, data)| (*name, data)), &metadata).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_bit_by_bit() {
        let (tensors, metadata) = from_bytes(&written(&two())).unwrap();
        for (name, data) in two() {
            assert_eq!(tensors[name], data);
        }
        assert_eq!(metadata["alphabet"], "a\"\n\u{e9}");
    }

    #[test]
    fn the_same_tensors_give_the_same_bytes_in_any_order() {
        let mut turned = two();
        turned.reverse();
        assert_eq!(written(&two()), written(&turned));
    }

    #[test]
    fn bytes_that_are_cut_off_are_refused() {
        let bytes = written(&two());
        assert!(from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(from_bytes(b"").is_err());
    }
}
