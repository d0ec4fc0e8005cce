//! What a wrapper keeps, detached from any device.

use std::collections::BTreeMap;

use burn::tensor::TensorData;

use super::WrapperError;

/// The state of one wrapper; [`LayerwiseRecord`](crate::LayerwiseRecord) stores it with the states of the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WrapperRecord {
    /// Kind of the wrapper.
    pub(crate) kind: String,
    /// Copies by `<parameter path>.<name>`, in the shape of the parameter.
    pub(crate) tensors: BTreeMap<String, TensorData>,
    /// Counters, and the bits of 64-bit floats, by name.
    pub(crate) numbers: BTreeMap<String, u64>,
}

impl WrapperRecord {
    /// Kind of the wrapper that wrote it.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its copies, by `<parameter path>.<name>`.
    pub fn tensors(&self) -> &BTreeMap<String, TensorData> {
        &self.tensors
    }

    /// A record of something outside this crate: its copies by `<parameter path>.<name>`, stored beside the states of the rules.
    pub fn new(kind: &str, tensors: BTreeMap<String, TensorData>) -> Self {
        Self { kind: kind.into(), tensors, numbers: BTreeMap::new() }
    }

    /// Takes the copies out.
    pub fn into_tensors(self) -> BTreeMap<String, TensorData> {
        self.tensors
    }

    pub(super) fn of(kind: &str, numbers: &[(&str, u64)]) -> Self {
        let numbers = numbers.iter().map(|(name, number)| ((*name).to_string(), *number)).collect();
        Self { kind: kind.into(), tensors: BTreeMap::new(), numbers }
    }

    /// Refuses a record of another wrapper.
    pub(super) fn check_kind(&self, kind: &str) -> Result<(), WrapperError> {
        if self.kind == kind {
            return Ok(());
        }
        Err(WrapperError::Kind { was: self.kind.clone(), is: kind.into() })
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, WrapperError> {
        let missing = || WrapperError::Missing { kind: self.kind.clone(), name: format!("\"{name}\"") };
        self.numbers.get(name).copied().ok_or_else(missing)
    }

    /// To be called when everything was taken out: a copy that is left fits nothing.
    pub(super) fn check_empty(&self) -> Result<(), WrapperError> {
        match self.tensors.keys().next() {
            Some(name) => Err(WrapperError::Unknown { kind: self.kind.clone(), name: name.clone() }),
            None => Ok(()),
        }
    }
}
