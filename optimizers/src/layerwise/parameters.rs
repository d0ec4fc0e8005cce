//! The float parameters of a module, and what their owners say about them.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::inference::{Inferred, Owned, infer, is_running_statistic};

/// A float parameter of a module, as a visit of the module finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterInfo {
    /// Field names joined by dots, for example `blocks.3.attn.wq.weight`.
    pub path: String,
    /// Type of the module that owns the field, for example `Struct:Linear`.
    pub owner: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// What its owner says about it.
    pub(super) inferred: Option<Inferred>,
}

impl ParameterInfo {
    /// Every float parameter of a module, in the order of its fields; without the running statistics of Burn's `BatchNorm`,
    /// which are not trained.
    pub fn of_module<M: Module>(module: &M) -> Vec<Self> {
        let mut visitor = Collector::default();
        module.visit(&mut visitor);
        visitor.finish()
    }
}

#[derive(Default)]
struct Collector {
    stack: Vec<(String, String)>,
    found: Vec<Found>,
    /// The fields that every module holds, by its path.
    fields: BTreeMap<String, Vec<String>>,
}

struct Found {
    /// Field and owner, from the root.
    stack: Vec<(String, String)>,
    shape: Vec<usize>,
}

fn joined(stack: &[(String, String)]) -> String {
    stack.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
}

impl Collector {
    fn finish(self) -> Vec<ParameterInfo> {
        let shapes: BTreeMap<String, &[usize]> =
            self.found.iter().map(|found| (joined(&found.stack), found.shape.as_slice())).collect();
        self.found.iter().filter_map(|found| self.parameter(found, &shapes)).collect()
    }

    fn parameter(&self, found: &Found, shapes: &BTreeMap<String, &[usize]>) -> Option<ParameterInfo> {
        let path = joined(&found.stack);
        let (last, holders) = match found.stack.split_last() {
            Some(((field, owner), holders)) => ((field.as_str(), owner.as_str()), holders),
            None => (("", ""), [].as_slice()),
        };
        let module = joined(holders);
        let sibling = |field: &str| if module.is_empty() { field.to_string() } else { format!("{module}.{field}") };
        let owned = Owned {
            owner: last.1,
            field: last.0,
            fields: self.fields.get(&module).map_or(&[], Vec::as_slice),
            shape: &found.shape,
            bias: shapes.get(&sibling("bias")).map(|shape| shape.iter().product()),
            held_by: holders.last().map(|(field, owner)| (field.as_str(), owner.as_str())),
        };
        let inferred = infer(&owned);
        let info = || ParameterInfo { path, owner: last.1.to_string(), shape: found.shape.clone(), inferred };
        (!is_running_statistic(&owned)).then(info)
    }
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.fields.entry(joined(&self.stack)).or_default().push(name.to_string());
        self.stack.push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Initialised: some parameters show another shape as long as they are lazy.
        self.found.push(Found { stack: self.stack.clone(), shape: param.base().dims().to_vec() });
    }
}
