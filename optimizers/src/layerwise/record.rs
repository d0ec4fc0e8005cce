//! The states of a layerwise optimizer as named tensors: safetensors bytes and back.
//!
//! Tensors are called `<parameter path>.<buffer>`, for example
//! `blocks.0.attn.wq.weight.momentum`, with the shape and layout of the parameter. Scalars, the list of
//! parameters with their shapes and the name of the optimizer of each are JSON in the header's metadata.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;
use burn_pack::Scalar;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{LayerwiseError, RecordError};
use crate::tensor_file;
use crate::wrappers::WrapperRecord;

/// States of a [`LayerwiseOptimizer`](super::LayerwiseOptimizer), detached from any device.
#[derive(Clone, Debug, Default)]
pub struct LayerwiseRecord {
    /// Buffers by name; the dtype is the one they were computed in.
    pub(crate) tensors: BTreeMap<String, TensorData>,
    /// Counters by name.
    pub(crate) scalars: BTreeMap<String, Scalar>,
    /// The optimizer of every parameter of the plan.
    pub(crate) optimizers: BTreeMap<String, String>,
    /// The shape of every parameter of the plan; empty in records of earlier versions.
    pub(crate) shapes: BTreeMap<String, Vec<usize>>,
    /// The names of every parameter's buffers, if they do not follow from the names of the tensors.
    pub(crate) memories: BTreeMap<String, String>,
    /// Parameters that had a gradient, and thus have a state.
    pub(crate) with_state: BTreeSet<String>,
    /// The states of wrappers, by kind.
    pub(crate) wrappers: BTreeMap<String, WrapperRecord>,
}

const FORMAT: &str = "polaron-optimizer";
const VERSION: &str = "2";
/// The first version had numbers instead of names, and one buffer `memory` for what a rule keeps besides the momentum.
const VERSIONS: [&str; 2] = ["1", VERSION];

impl LayerwiseRecord {
    /// The buffers by name, for example to export them.
    pub fn tensors(&self) -> &BTreeMap<String, TensorData> {
        &self.tensors
    }

    /// Adds the state of a wrapper that is not part of the optimizer, such as a
    /// [`WeightAverage`](crate::wrappers::WeightAverage): its copies are stored as `<parameter path>.<kind>.<name>`.
    pub fn add_wrapper(&mut self, record: WrapperRecord) {
        self.wrappers.insert(record.kind.clone(), record);
    }

    /// Takes out the state of a wrapper of this kind, which is then no longer loaded with the optimizer.
    pub fn take_wrapper(&mut self, kind: &str) -> Option<WrapperRecord> {
        self.wrappers.remove(kind)
    }

    /// Writes a safetensors file in memory.
    ///
    /// # Errors
    /// If a buffer has a dtype that safetensors does not know.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, LayerwiseError> {
        let mut bytes = Vec::new();
        self.write_safetensors(&mut |part| bytes.extend_from_slice(part))?;
        Ok(bytes)
    }

    /// Passes the same file to `write`, part after part: a large record need not be in memory twice.
    ///
    /// # Errors
    /// As [`to_safetensors`](Self::to_safetensors).
    pub fn write_safetensors(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), LayerwiseError> {
        let scalars: BTreeMap<&String, Value> =
            self.scalars.iter().map(|(name, scalar)| (name, scalar_to_json(scalar))).collect();
        let mut metadata = BTreeMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("version".to_string(), VERSION.to_string()),
            ("scalars".to_string(), json!(scalars).to_string()),
            ("optimizers".to_string(), json!(self.optimizers).to_string()),
            ("shapes".to_string(), json!(self.shapes).to_string()),
            ("memories".to_string(), json!(self.memories).to_string()),
            ("with_state".to_string(), json!(self.with_state).to_string()),
        ]);
        if !self.wrappers.is_empty() {
            let numbers: BTreeMap<&String, &BTreeMap<String, u64>> =
                self.wrappers.iter().map(|(kind, record)| (kind, &record.numbers)).collect();
            metadata.insert("wrappers".to_string(), json!(numbers).to_string());
        }
        let copies: BTreeMap<String, &TensorData> = self.wrappers.values().flat_map(stored).collect();
        let copies = copies.iter().map(|(name, data)| (name.as_str(), *data));
        let tensors = self.tensors.iter().map(|(name, data)| (name.as_str(), data)).chain(copies);
        tensor_file::write(tensors, &metadata, write).map_err(|error| RecordError::from(error).into())
    }

    /// Reads a safetensors file in memory.
    ///
    /// # Errors
    /// If the bytes are not a safetensors file, or not one that [`to_safetensors`](Self::to_safetensors) wrote.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, LayerwiseError> {
        let (mut tensors, metadata) = tensor_file::from_bytes(bytes).map_err(RecordError::from)?;
        let text = |key: &str| metadata.get(key).map(String::as_str).unwrap_or_default();
        if text("format") != FORMAT || !VERSIONS.contains(&text("version")) {
            let (format, version) = (text("format").to_string(), text("version").to_string());
            let expected = format!("{FORMAT} file of version {}", VERSIONS.join(" or "));
            return Err(RecordError::Version { expected, format, version }.into());
        }
        let scalars: BTreeMap<String, Value> = part("scalars", text("scalars"))?;
        let scalar = |(name, value): (String, Value)| match scalar_from_json(&value) {
            Some(scalar) => Ok((name, scalar)),
            None => Err(RecordError::Part { part: format!("scalar {name}"), message: value.to_string() }),
        };
        let wrappers: BTreeMap<String, BTreeMap<String, u64>> = later_part("wrappers", text("wrappers"))?;
        let wrapper = |(kind, numbers): (String, _)| {
            let copies = taken_out(&mut tensors, &kind);
            (kind.clone(), WrapperRecord { kind, tensors: copies, numbers })
        };
        Ok(Self {
            wrappers: wrappers.into_iter().map(wrapper).collect(),
            tensors,
            scalars: scalars.into_iter().map(scalar).collect::<Result<_, _>>()?,
            optimizers: part("optimizers", text("optimizers"))?,
            shapes: later_part("shapes", text("shapes"))?,
            memories: later_part("memories", text("memories"))?,
            with_state: part("with_state", text("with_state"))?,
        })
    }
}

/// The copies of a wrapper under the names that they have in a file: `<parameter path>.<kind>.<name>`.
fn stored(record: &WrapperRecord) -> impl Iterator<Item = (String, &TensorData)> {
    record.tensors.iter().map(|(name, data)| {
        let (path, name) = name.rsplit_once('.').unwrap_or_default();
        (format!("{path}.{}.{name}", record.kind), data)
    })
}

/// Removes the copies of a wrapper from the tensors of a file, and gives them their own names.
fn taken_out(tensors: &mut BTreeMap<String, TensorData>, kind: &str) -> BTreeMap<String, TensorData> {
    let own = |full: &String| {
        let (path, name) = full.rsplit_once('.')?;
        let path = path.strip_suffix(kind)?.strip_suffix('.')?;
        Some((full.clone(), format!("{path}.{name}")))
    };
    let names: Vec<(String, String)> = tensors.keys().filter_map(own).collect();
    names.into_iter().filter_map(|(full, own)| Some((own, tensors.remove(&full)?))).collect()
}

fn part<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, RecordError> {
    serde_json::from_str(text).map_err(|error| RecordError::Part { part: name.to_string(), message: error.to_string() })
}

/// A part that records of earlier versions do not have.
fn later_part<T: DeserializeOwned + Default>(name: &str, text: &str) -> Result<T, RecordError> {
    if text.is_empty() { Ok(T::default()) } else { part(name, text) }
}

fn scalar_to_json(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Int(value) => json!({ "int": value }),
        Scalar::UInt(value) => json!({ "uint": value }),
        Scalar::Float(value) => json!({ "float_bits": value.to_bits() }),
        Scalar::Bool(value) => json!({ "bool": value }),
    }
}

fn scalar_from_json(value: &Value) -> Option<Scalar> {
    let (kind, value) = value.as_object()?.iter().next()?;
    match kind.as_str() {
        "int" => value.as_i64().map(Scalar::Int),
        "uint" => value.as_u64().map(Scalar::UInt),
        "float_bits" => value.as_u64().map(|bits| Scalar::Float(f64::from_bits(bits))),
        "bool" => value.as_bool().map(Scalar::Bool),
        _ => None,
    }
}
