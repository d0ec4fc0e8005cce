//! What a module must be for a plan: every parameter at one path, and still the one that the plan was made for.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::LayerwiseError;

/// Shape and element type of a parameter or a gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Vec<usize>,
    pub dtype: DType,
}

impl Form {
    fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self { shape: tensor.dims().to_vec(), dtype: tensor.dtype() }
    }

    /// The element type that steps compute in.
    pub fn working_dtype(&self) -> DType {
        match self.dtype {
            DType::F16 | DType::BF16 => DType::F32,
            dtype => dtype,
        }
    }

    /// Whether a gradient of that form can be used: in the parameter's element type or the one that steps compute in.
    fn takes(&self, gradient: &Self) -> bool {
        self.shape == gradient.shape && [self.dtype, self.working_dtype()].contains(&gradient.dtype)
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {:?}", self.shape, self.dtype)
    }
}

/// The form of every float parameter of a module, by its path. Parameters that are still lazy are initialised: before
/// that some show another shape than they will have.
///
/// # Errors
/// [`LayerwiseError::Shared`] if several paths lead to one parameter.
pub(crate) fn forms<M: Module>(module: &M) -> Result<BTreeMap<String, Form>, LayerwiseError> {
    let mut visitor = Forms::default();
    module.visit(&mut visitor);
    match visitor.paths.into_values().filter(|paths| paths.len() > 1).min() {
        Some(paths) => Err(LayerwiseError::Shared { paths }),
        None => Ok(visitor.forms),
    }
}

#[derive(Default)]
struct Forms {
    path: Vec<String>,
    forms: BTreeMap<String, Form>,
    paths: BTreeMap<ParamId, Vec<String>>,
}

impl ModuleVisitor for Forms {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        self.paths.entry(param.id).or_default().push(path.clone());
        self.forms.insert(path, Form::of(&param.base()));
    }
}

/// Checks that the parameters with a gradient are those of the plan, each at one path, and that every gradient fits its
/// parameter; and that no parameter of the plan is gone.
///
/// # Errors
/// The first objection, with the path.
pub(crate) fn check_step<M: Module>(
    module: &M,
    grads: &GradientsParams,
    planned: &BTreeMap<String, Form>,
) -> Result<(), LayerwiseError> {
    let mut visitor = StepCheck { path: Vec::new(), grads, planned, owners: BTreeMap::new(), seen: 0, found: Ok(()) };
    module.visit(&mut visitor);
    visitor.found?;
    if visitor.seen == planned.len() {
        return Ok(());
    }
    let mut there = Paths::default();
    module.visit(&mut there);
    match planned.keys().find(|path| !there.found.contains(*path)) {
        Some(path) => Err(LayerwiseError::Gone { path: path.clone() }),
        None => Ok(()),
    }
}

struct StepCheck<'a> {
    path: Vec<String>,
    grads: &'a GradientsParams,
    planned: &'a BTreeMap<String, Form>,
    /// The paths of the parameters that have a gradient.
    owners: BTreeMap<ParamId, String>,
    /// How many parameters of the plan were met.
    seen: usize,
    found: Result<(), LayerwiseError>,
}

impl ModuleVisitor for StepCheck<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_ok() {
            self.found = self.check(self.path.join("."), param);
        }
    }
}

impl StepCheck<'_> {
    fn check<const D: usize>(&mut self, path: String, param: &Param<Tensor<D>>) -> Result<(), LayerwiseError> {
        let planned = self.planned.get(&path);
        self.seen += usize::from(planned.is_some());
        let gradient = gradient(self.grads, param).map_err(|rank| {
            let parameter = Form::of(&param.base()).to_string();
            let gradient = rank.map_or("another rank".into(), |shape| format!("{shape:?}"));
            LayerwiseError::Gradient { path: path.clone(), parameter, gradient }
        })?;
        let Some(gradient) = gradient else {
            return Ok(());
        };
        if let Some(first) = self.owners.insert(param.id, path.clone()) {
            return Err(LayerwiseError::Shared { paths: vec![first, path] });
        }
        let Some(planned) = planned else {
            return Err(LayerwiseError::NotInPlan { path });
        };
        let parameter = param.base();
        let (form, its) = (Form::of(&parameter), Form::of(&gradient));
        if (&planned.shape, planned.working_dtype()) != (&form.shape, form.working_dtype()) {
            return Err(LayerwiseError::Changed { path, was: planned.to_string(), is: form.to_string() });
        }
        if !form.takes(&its) {
            return Err(LayerwiseError::Gradient { path, parameter: form.to_string(), gradient: its.to_string() });
        }
        if parameter.device() != gradient.device() {
            let [parameter, gradient] = [parameter.device(), gradient.device()].map(|device| format!("{device:?}"));
            return Err(LayerwiseError::Gradient { path, parameter, gradient });
        }
        Ok(())
    }
}

/// The gradient of a parameter. `Err` if there is one of another rank, with its shape where that is found out.
///
/// Burn tells the rank of a gradient in no other way than by a panic.
#[allow(clippy::type_complexity, reason = "both sides may be absent")]
fn gradient<const D: usize>(
    grads: &GradientsParams,
    param: &Param<Tensor<D>>,
) -> Result<Option<Tensor<D>>, Option<Vec<usize>>> {
    let id = param.id;
    catch_unwind(AssertUnwindSafe(|| grads.get::<D>(id))).map_err(|_| {
        let shape = |shape: fn(&GradientsParams, ParamId) -> Option<Vec<usize>>| {
            catch_unwind(AssertUnwindSafe(|| shape(grads, id))).ok().flatten()
        };
        shape(shape_of::<1>)
            .or_else(|| shape(shape_of::<2>))
            .or_else(|| shape(shape_of::<3>))
            .or_else(|| shape(shape_of::<4>))
    })
}

fn shape_of<const D: usize>(grads: &GradientsParams, id: ParamId) -> Option<Vec<usize>> {
    grads.get::<D>(id).map(|gradient| gradient.dims().to_vec())
}

/// The paths of a module.
#[derive(Default)]
struct Paths {
    path: Vec<String>,
    found: Vec<String>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.found.push(self.path.join("."));
    }
}
