//! Weights as safetensors bytes and back.

use std::collections::BTreeMap;

use polaron::tensor_file::{self, TensorFileError};
use polaron_models::NamedTensor;

/// Writes weights and metadata as a safetensors file in memory; the same weights give the same bytes.
///
/// # Errors
///
/// For a dtype that cannot be stored, naming the tensor.
pub fn to_bytes(tensors: &[NamedTensor], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, TensorFileError> {
    tensor_file::to_bytes(tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.data)), metadata)
}

/// Passes the same file to `write`, part after part.
///
/// # Errors
///
/// As [`to_bytes`].
pub fn write(tensors: &[NamedTensor], write: &mut dyn FnMut(&[u8])) -> Result<(), TensorFileError> {
    let tensors = tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.data));
    tensor_file::write(tensors, &BTreeMap::new(), write)
}

/// Reads the weights of a safetensors file in memory, ordered by name.
///
/// # Errors
///
/// When the bytes are not a valid safetensors file.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<NamedTensor>, TensorFileError> {
    let (tensors, _) = tensor_file::from_bytes(bytes)?;
    Ok(tensors.into_iter().map(|(name, data)| NamedTensor { name, data }).collect())
}

/// The name of the first tensor that holds a NaN or an infinity.
pub fn first_non_finite(tensors: &[NamedTensor]) -> Option<&str> {
    let finite = |tensor: &&NamedTensor| tensor.data.iter::<f64>().all(f64::is_finite);
    tensors.iter().find(|tensor| !finite(tensor)).map(|tensor| tensor.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn tensor(name: &str, values: Vec<f32>) -> NamedTensor {
        let shape = [values.len()];
        NamedTensor { name: name.into(), data: TensorData::new(values, shape) }
    }

    #[test]
    fn weights_come_back_bit_by_bit_and_ordered_by_name() {
        let bytes =
            to_bytes(&[tensor("b", vec![1.0, -0.0]), tensor("a", vec![f32::MIN_POSITIVE])], &BTreeMap::new()).unwrap();
        let back = from_bytes(&bytes).unwrap();
        assert_eq!((back[0].name.as_str(), back[1].name.as_str()), ("a", "b"));
        assert_eq!(back[1].data.as_bytes(), tensor("b", vec![1.0, -0.0]).data.as_bytes());
    }

    #[test]
    fn the_first_tensor_that_is_not_finite_is_named() {
        assert_eq!(first_non_finite(&[tensor("ok", vec![0.0])]), None);
        assert_eq!(first_non_finite(&[tensor("ok", vec![0.0]), tensor("bad", vec![f32::NAN])]), Some("bad"));
    }
}
