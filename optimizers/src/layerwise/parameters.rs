//! The float parameters of a module, and the roles that follow from their owners.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use super::inference::{Inferred, Owned, infer, is_running_statistic};
use crate::visit::Form;

/// A float parameter of a module, as found by a visit of the module.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterInfo {
    /// Field names joined by dots, for example `blocks.3.attn.wq.weight`.
    pub path: String,
    /// Type of the module that owns the field, for example `Struct:Linear`.
    pub owner: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Role and placement by the type of its owner.
    pub(super) inferred: Option<Inferred>,
}

impl ParameterInfo {
    /// Every float parameter of a module, in the order of its fields; without the running statistics of Burn's `BatchNorm`,
    /// which are not trained.
    pub fn of_module<M: Module>(module: &M) -> Vec<Self> {
        let visit = Visit::of(module);
        let shapes: BTreeMap<&str, &[usize]> =
            visit.found.iter().map(|found| (found.path.as_str(), found.form.shape.as_slice())).collect();
        visit.found.iter().filter_map(|found| Self::new(found, &visit.fields, &shapes)).collect()
    }

    fn new(found: &Found, fields: &BTreeMap<String, Vec<String>>, shapes: &BTreeMap<&str, &[usize]>) -> Option<Self> {
        let Found { path, fields: stack, form, .. } = found;
        let (last, holders) = match stack.split_last() {
            Some(((field, owner), holders)) => ((field.as_str(), owner.as_str()), holders),
            None => (("", ""), [].as_slice()),
        };
        let module = joined(holders);
        let bias = if module.is_empty() { "bias".into() } else { format!("{module}.bias") };
        let owned = Owned {
            owner: last.1,
            field: last.0,
            fields: fields.get(&module).map_or(&[], Vec::as_slice),
            shape: &form.shape,
            bias: shapes.get(bias.as_str()).map(|shape| shape.iter().product()),
            held_by: holders.last().map(|(field, owner)| (field.as_str(), owner.as_str())),
        };
        if is_running_statistic(&owned) {
            return None;
        }
        let (owner, shape) = (last.1.to_string(), form.shape.clone());
        Some(Self { path: path.clone(), owner, shape, inferred: infer(&owned) })
    }
}

/// A float parameter of any kind.
pub(crate) struct Found {
    pub path: String,
    pub id: ParamId,
    pub form: Form,
    /// Field and owner, from the root.
    fields: Vec<(String, String)>,
}

/// All float parameters of a module, in the order of a visit. Parameters that are still lazy are initialised: before that
/// some show another shape than they will have.
pub(crate) fn float_parameters<M: Module>(module: &M) -> Vec<Found> {
    Visit::of(module).found
}

/// Their paths: for messages.
pub(crate) fn paths_of<M: Module>(module: &M) -> Vec<String> {
    float_parameters(module).into_iter().map(|found| found.path).collect()
}

#[derive(Default)]
struct Visit {
    stack: Vec<(String, String)>,
    found: Vec<Found>,
    /// The fields of every module, by its path.
    fields: BTreeMap<String, Vec<String>>,
}

impl Visit {
    fn of<M: Module>(module: &M) -> Self {
        let mut visit = Self::default();
        module.visit(&mut visit);
        visit
    }
}

impl ModuleVisitor for Visit {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.fields.entry(joined(&self.stack)).or_default().push(name.to_string());
        self.stack.push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (path, fields) = (joined(&self.stack), self.stack.clone());
        self.found.push(Found { path, id: param.id, form: Form::of(&param.base()), fields });
    }
}

fn joined(stack: &[(String, String)]) -> String {
    stack.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
}
