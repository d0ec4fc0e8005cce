//! Weights by name: for checkpoints, other programs and tables.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use polaron_common::did_you_mean;

use crate::error::ModelError;

/// A tensor with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Path of the parameter, or its exported name.
    pub name: String,
    /// Shape, element type and values, row-major.
    pub data: TensorData,
}

/// One parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParameterInfo {
    /// Field names joined by dots, for example `blocks.0.attn.wq.weight`.
    pub path: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Number of elements.
    pub count: usize,
    /// Name in [`to_exported`].
    pub exported: String,
    /// Whether [`to_exported`] swaps its two axes, `[d_in, d_out]` to `[d_out, d_in]`.
    pub swapped: bool,
}

/// Every parameter of `model` under its path, in the layout in which it is stored: the content
/// of a checkpoint.
#[must_use]
pub fn to_named<M: Module>(model: &M) -> Vec<NamedTensor> {
    visit(model, Form::Stored).0
}

/// Every parameter of `model` under the name and in the layout that other programs expect: the
/// weights of projections as `[d_out, d_in]`, gains of norms as `<norm>.weight`. The crate's front
/// page lists the names.
#[must_use]
pub fn to_exported<M: Module>(model: &M) -> Vec<NamedTensor> {
    visit(model, Form::Exported).0
}

/// Path, shape and size of every parameter, in the order of the model's fields.
#[must_use]
pub fn parameter_table<M: Module>(model: &M) -> Vec<ParameterInfo> {
    visit(model, Form::Table).1
}

/// Replaces the parameters of `model` by `tensors` (made by [`to_named`]), on `device`.
///
/// Every parameter is replaced exactly once; shapes and element types must be those of the model.
/// The parameters keep their ids, and whether they need a gradient, so optimizers and groups made for the model stay valid.
///
/// # Errors
///
/// [`ModelError::MissingTensor`], [`ModelError::ExtraTensor`], [`ModelError::DuplicateTensor`],
/// [`ModelError::WrongShape`], [`ModelError::WrongDtype`]. In case of an error nothing is loaded.
pub fn load_named<M: Module>(model: M, tensors: Vec<NamedTensor>, device: &Device) -> Result<M, ModelError> {
    let mut stored = BTreeMap::new();
    for NamedTensor { name, data } in tensors {
        if stored.contains_key(&name) {
            return Err(ModelError::DuplicateTensor { name });
        }
        stored.insert(name, data);
    }
    let mut check = Check { path: Path::default(), stored: &stored, seen: 0, result: Ok(()) };
    model.visit(&mut check);
    let Check { seen, result, .. } = check;
    result?;
    if seen < stored.len() {
        let table = parameter_table(&model);
        let known = |name: &str| table.iter().any(|info| info.path == name);
        if let Some((name, data)) = stored.iter().find(|(name, _)| !known(name)) {
            let found = data.shape().to_vec();
            return Err(ModelError::ExtraTensor { name: name.clone(), found });
        }
    }
    Ok(model.map(&mut Load { path: Path::default(), stored, device }))
}

/// The current position of a traversal.
#[derive(Default)]
struct Path {
    names: Vec<String>,
    /// Type of the owner of the field that was entered last, for example `Struct:Linear`.
    owners: Vec<String>,
}

impl Path {
    fn enter(&mut self, name: &str, owner: &str) {
        self.names.push(name.into());
        self.owners.push(owner.into());
    }

    fn exit(&mut self) {
        self.names.pop();
        self.owners.pop();
    }

    fn stored_name(&self) -> String {
        self.names.join(".")
    }

    fn owner_is(&self, owner: &str) -> bool {
        self.owners.last().is_some_and(|last| last == owner)
    }

    /// Whether the parameter is the weight of a projection, which other programs expect as `[d_out, d_in]`.
    fn is_swapped(&self, rank: usize) -> bool {
        rank == 2 && self.owner_is("Struct:Linear")
    }

    fn exported_name(&self) -> String {
        match self.names.split_last() {
            Some((field, norm)) if self.owner_is("Struct:Norm") && field == "gain" => {
                format!("{}.weight", norm.join("."))
            }
            _ => self.stored_name(),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Stored,
    Exported,
    Table,
}

fn visit<M: Module>(model: &M, form: Form) -> (Vec<NamedTensor>, Vec<ParameterInfo>) {
    let mut visitor = Collect { path: Path::default(), form, tensors: Vec::new(), table: Vec::new() };
    model.visit(&mut visitor);
    (visitor.tensors, visitor.table)
}

struct Collect {
    path: Path,
    form: Form,
    tensors: Vec<NamedTensor>,
    table: Vec<ParameterInfo>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match self.form {
            Form::Stored => {
                let (name, data) = (self.path.stored_name(), param.val().into_data());
                self.tensors.push(NamedTensor { name, data });
            }
            Form::Exported => {
                let tensor = match self.path.is_swapped(D) {
                    true => param.val().swap_dims(0, 1),
                    false => param.val(),
                };
                let (name, data) = (self.path.exported_name(), tensor.into_data());
                self.tensors.push(NamedTensor { name, data });
            }
            Form::Table => {
                let shape = param.lazy_shape().to_vec();
                let (path, count) = (self.path.stored_name(), shape.iter().product());
                let (exported, swapped) = (self.path.exported_name(), self.path.is_swapped(D));
                self.table.push(ParameterInfo { path, shape, count, exported, swapped });
            }
        }
    }
}

struct Check<'a> {
    path: Path,
    stored: &'a BTreeMap<String, TensorData>,
    seen: usize,
    result: Result<(), ModelError>,
}

impl ModuleVisitor for Check<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_ok() {
            self.seen += 1;
            self.result = check_one(self.path.stored_name(), param, self.stored);
        }
    }
}

fn check_one<const D: usize>(
    name: String,
    param: &Param<Tensor<D>>,
    stored: &BTreeMap<String, TensorData>,
) -> Result<(), ModelError> {
    let expected = param.lazy_shape().to_vec();
    let Some(data) = stored.get(&name) else {
        let hint = did_you_mean(&name, stored.keys().map(String::as_str));
        return Err(ModelError::MissingTensor { name, expected, hint });
    };
    let found = data.shape().to_vec();
    if found != expected {
        return Err(ModelError::WrongShape { name, expected, found });
    }
    let (expected, found) = (param.val().dtype(), data.dtype());
    if found != expected {
        return Err(ModelError::WrongDtype { name, expected, found });
    }
    Ok(())
}

struct Load<'a> {
    path: Path,
    stored: BTreeMap<String, TensorData>,
    device: &'a Device,
}

impl ModuleMapper for Load<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.stored.remove(&self.path.stored_name()) else {
            return param;
        };
        let needs_gradient = param.is_require_grad();
        let (id, _, mapper) = param.consume();
        let dtype = data.dtype();
        let tensor = Tensor::from_data(data, (self.device, dtype));
        // A tensor on a device without autodiff cannot need a gradient; the parameter still remembers that it will once the model
        // is moved to a training device.
        let tensor = tensor.set_require_grad(needs_gradient);
        Param::from_mapped_value(id, tensor, mapper)
    }
}
