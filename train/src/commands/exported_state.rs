//! The optimizer states, with the names and the layout of the exported weights.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use polaron::tensor_file;
use polaron_models::{NamedTensor, ParameterInfo};
use serde_json::{Map, Value};

use crate::run::spectra;

/// The states in an optimizer `record` (safetensors bytes), and its other contents for a file's metadata: the counters
/// (`scalars`) and the kind of each parameter's rule (`optimizers`), as JSON.
///
/// A state is called `<exported name of the weight>.<state>`. One with as many entries as the weight has the shape of the
/// weight; any other keeps a leading axis of matrices, and the order of its last two axes is that of the weight.
///
/// # Errors
///
/// Part of a sentence, if the record does not fit the parameters.
pub fn of(record: &[u8], parameters: &[ParameterInfo]) -> Result<(Vec<NamedTensor>, BTreeMap<String, String>), String> {
    let (tensors, metadata) = tensor_file::from_bytes(record).map_err(|error| error.to_string())?;
    // What the next record of the spectra is compared with is no state of an optimizer.
    let recorded = |name: &str| name.contains(&format!(".{}.", spectra::KIND));
    let states = tensors.into_iter().filter(|(name, _)| !recorded(name)).map(|(name, data)| {
        let (parameter, state) = split(&name, parameters)?;
        Ok(NamedTensor { name: format!("{}{state}", parameter.exported), data: exported(data, parameter) })
    });
    let states = states.collect::<Result<_, String>>()?;
    let mut facts = BTreeMap::new();
    for key in ["optimizers", "scalars"] {
        let text = metadata.get(key).ok_or_else(|| format!("the record has no {key}"))?;
        let known: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let renamed = known.iter().map(|(name, value)| {
            let (parameter, state) = split(name, parameters)?;
            Ok((format!("{}{state}", parameter.exported), plain(value)))
        });
        facts.insert(key.to_owned(), Value::Object(renamed.collect::<Result<_, String>>()?).to_string());
    }
    Ok((states, facts))
}

/// The parameter with which a name of the record begins, and the rest of the name.
fn split<'a, 'b>(name: &'a str, parameters: &'b [ParameterInfo]) -> Result<(&'b ParameterInfo, &'a str), String> {
    let found = parameters.iter().find_map(|parameter| {
        let rest = name.strip_prefix(parameter.path.as_str())?;
        (rest.is_empty() || rest.starts_with('.')).then_some((parameter, rest))
    });
    found.ok_or_else(|| format!("the record holds `{name}`, which belongs to no parameter of the model"))
}

/// A scalar without its type tag.
fn plain(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|tagged| tagged.iter().next()) else { return value.clone() };
    match (kind.as_str(), inner.as_u64()) {
        ("float_bits", Some(bits)) => Value::from(f64::from_bits(bits)),
        _ => inner.clone(),
    }
}

fn exported(data: TensorData, parameter: &ParameterInfo) -> TensorData {
    let whole = data.num_elements() == parameter.count;
    let data = if whole { joined(data, &parameter.shape) } else { data };
    if parameter.swapped { with_axes_swapped(&data) } else { data }
}

/// A state with as many entries as the weight, in the shape of the stored weight. Rules store a stack of the blocks that
/// they cut a matrix into, `[matrices, ., .]`.
fn joined(data: TensorData, shape: &[usize]) -> TensorData {
    let (dtype, stack) = (data.dtype(), data.shape().to_vec());
    let (&[_, first, second], &[.., a, b]) = (stack.as_slice(), shape) else { return data };
    // Blocks cut along the first axis are contiguous in memory; only those cut along the second must be rearranged.
    if first == a && second < b {
        let runs = a * b / second;
        let per_row = b / second;
        let from = |run: usize| {
            let (rest, block) = (run / per_row, run % per_row);
            (rest / a * per_row + block) * a + rest % a
        };
        let experts = data.num_elements() / (a * b);
        let bytes = gathered(data.as_bytes(), second * dtype.size(), (0..experts * runs).map(from));
        return TensorData::from_bytes_vec(bytes, shape.to_vec(), dtype);
    }
    TensorData::from_bytes_vec(data.as_bytes().to_vec(), shape.to_vec(), dtype)
}

/// The last two axes swapped.
fn with_axes_swapped(data: &TensorData) -> TensorData {
    let mut shape = data.shape().to_vec();
    let &[.., a, b] = shape.as_slice() else { return data.clone() };
    let from = |i: usize| i / (a * b) * (a * b) + i % a * b + i % (a * b) / a;
    let bytes = gathered(data.as_bytes(), data.dtype().size(), (0..data.num_elements()).map(from));
    let rank = shape.len();
    shape.swap(rank - 2, rank - 1);
    TensorData::from_bytes_vec(bytes, shape, data.dtype())
}

/// Pieces of `size` bytes, in the order of `places`, which are their indices in `bytes`.
fn gathered(bytes: &[u8], size: usize, places: impl Iterator<Item = usize>) -> Vec<u8> {
    places.flat_map(|place| bytes.iter().skip(place * size).take(size).copied()).collect()
}
