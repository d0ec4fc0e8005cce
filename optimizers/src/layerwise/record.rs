//! The states of a layerwise optimizer as named tensors: safetensors bytes and back.
//!
//! Tensors are called `<parameter path>.<buffer>`, for example
//! `blocks.0.attn.wq.weight.momentum`, shaped and stored like the parameter. Scalars, the list of
//! parameters with their shapes and the name of each one's optimizer are JSON in the header's metadata.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;
use burn_pack::Scalar;
use serde_json::{Value, json};

use super::LayerwiseError;
use crate::tensor_file;

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
    /// Parameters that had a gradient, and so a state.
    pub(crate) with_state: BTreeSet<String>,
}

const FORMAT: &str = "polaron-optimizer";
const VERSION: &str = "1";

impl LayerwiseRecord {
    /// The buffers by name, for example to export them.
    pub fn tensors(&self) -> &BTreeMap<String, TensorData> {
        &self.tensors
    }

    /// As a safetensors file in memory.
    ///
    /// # Errors
    /// If a buffer has a dtype that safetensors does not know.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, LayerwiseError> {
        let scalars: BTreeMap<&String, Value> =
            self.scalars.iter().map(|(name, scalar)| (name, scalar_to_json(scalar))).collect();
        let metadata = BTreeMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("version".to_string(), VERSION.to_string()),
            ("scalars".to_string(), json!(scalars).to_string()),
            ("optimizers".to_string(), json!(self.optimizers).to_string()),
            ("shapes".to_string(), json!(self.shapes).to_string()),
            ("with_state".to_string(), json!(self.with_state).to_string()),
        ]);
        let tensors = self.tensors.iter().map(|(name, data)| (name.as_str(), data));
        tensor_file::to_bytes(tensors, &metadata).map_err(LayerwiseError::Record)
    }

    /// From a safetensors file in memory.
    ///
    /// # Errors
    /// If the bytes are no safetensors file, or not one that [`to_safetensors`](Self::to_safetensors) wrote.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, LayerwiseError> {
        let fail = |message: String| LayerwiseError::Record(message);
        let (tensors, metadata) = tensor_file::from_bytes(bytes).map_err(fail)?;
        let text = |key: &str| metadata.get(key).map(String::as_str).unwrap_or_default();
        if (text("format"), text("version")) != (FORMAT, VERSION) {
            return Err(fail(format!(
                "it is not a {FORMAT} file of version {VERSION} but \"{}\" of version \"{}\"",
                text("format"),
                text("version")
            )));
        }
        let broken = |key: &'static str| {
            move |error: serde_json::Error| LayerwiseError::Record(format!("its {key} cannot be read: {error}"))
        };
        let scalars: BTreeMap<String, Value> = serde_json::from_str(text("scalars")).map_err(broken("scalars"))?;
        Ok(Self {
            tensors,
            scalars: scalars
                .into_iter()
                .map(|(name, value)| match scalar_from_json(&value) {
                    Some(scalar) => Ok((name, scalar)),
                    None => Err(fail(format!("its scalar {name} cannot be read: {value}"))),
                })
                .collect::<Result<_, _>>()?,
            optimizers: serde_json::from_str(text("optimizers")).map_err(broken("optimizers"))?,
            shapes: match text("shapes") {
                "" => BTreeMap::new(),
                shapes => serde_json::from_str(shapes).map_err(broken("shapes"))?,
            },
            with_state: serde_json::from_str(text("with_state")).map_err(broken("with_state"))?,
        })
    }
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
