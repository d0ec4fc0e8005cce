//! Checks of a module against its plan: every parameter has one path, and is still the one that the plan was made for.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::LayerwiseError;
use super::parameters::{float_parameters, paths_of};
use crate::visit::{Form, Paths, Walk, follow};

/// The parameters that a plan was made for, in the order of a visit of the module.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub names: Vec<String>,
    pub forms: Vec<Form>,
    pub paths: Paths,
}

impl Planned {
    /// Every float parameter of a module.
    ///
    /// # Errors
    /// [`LayerwiseError::Shared`] if several paths lead to one parameter.
    pub fn of<M: Module>(module: &M) -> Result<Self, LayerwiseError> {
        let mut owners: BTreeMap<ParamId, Vec<String>> = BTreeMap::new();
        let (mut names, mut forms) = (Vec::new(), Vec::new());
        for found in float_parameters(module) {
            owners.entry(found.id).or_default().push(found.path.clone());
            names.push(found.path);
            forms.push(found.form);
        }
        if let Some(paths) = owners.into_values().filter(|paths| paths.len() > 1).min() {
            return Err(LayerwiseError::Shared { paths });
        }
        let paths = Paths::new(names.iter().map(String::as_str));
        Ok(Self { names, forms, paths })
    }

    /// Checks that the parameters with a gradient are those of the plan, each at one path, that every gradient fits its
    /// parameter, and that no parameter of the plan is missing.
    ///
    /// # Errors
    /// The first problem, with the path.
    pub fn check_step<M: Module>(&self, module: &M, grads: &GradientsParams) -> Result<(), LayerwiseError> {
        let visit = |names: &[String]| {
            let (walk, owners) = (self.paths.walk(), BTreeMap::new());
            let mut visitor =
                StepCheck { planned: self, names, walk, grads, owners, visited: 0, seen: 0, found: Ok(()) };
            module.visit(&mut visitor);
            visitor.found.map(|()| visitor.seen)
        };
        // Paths take time to put together, so only a message gets them: by a second visit.
        let Ok(seen) = visit(&[]) else { return visit(&paths_of(module)).map(drop) };
        if seen == self.names.len() {
            return Ok(());
        }
        let there = paths_of(module);
        match self.names.iter().find(|path| !there.contains(path)) {
            Some(path) => Err(LayerwiseError::changed(path, "of the plan is not in the model")),
            None => Ok(()),
        }
    }
}

struct StepCheck<'a> {
    planned: &'a Planned,
    /// The paths of all parameters, or none.
    names: &'a [String],
    walk: Walk<'a>,
    grads: &'a GradientsParams,
    /// The positions of the parameters that have a gradient.
    owners: BTreeMap<ParamId, usize>,
    visited: usize,
    /// How many parameters of the plan were visited.
    seen: usize,
    found: Result<(), LayerwiseError>,
}

impl ModuleVisitor for StepCheck<'_> {
    follow!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let position = self.visited;
        self.visited += 1;
        if self.found.is_ok() {
            self.found = self.check(position, param);
        }
    }
}

impl StepCheck<'_> {
    fn check<const D: usize>(&mut self, position: usize, param: &Param<Tensor<D>>) -> Result<(), LayerwiseError> {
        let path = |position: usize| self.names.get(position).cloned().unwrap_or_default();
        let misfit = |parameter: &dyn ToString, gradient: &dyn ToString| {
            let (parameter, gradient) = (parameter.to_string(), gradient.to_string());
            LayerwiseError::Gradient { path: path(position), parameter, gradient }
        };
        let planned = self.walk.parameter().map(|number| &self.planned.forms[number]);
        self.seen += usize::from(planned.is_some());
        let gradient = gradient(self.grads, param).map_err(|rank| {
            let shape = rank.map_or("another rank".into(), |shape| format!("{shape:?}"));
            misfit(&Form::of(&param.base()), &shape)
        })?;
        let Some(gradient) = gradient else {
            return Ok(());
        };
        if let Some(first) = self.owners.insert(param.id, position) {
            return Err(LayerwiseError::Shared { paths: vec![path(first), path(position)] });
        }
        let Some(planned) = planned else {
            return Err(LayerwiseError::changed(&path(position), "is not in the plan"));
        };
        let parameter = param.base();
        let (form, its) = (Form::of(&parameter), Form::of(&gradient));
        if (&planned.shape, planned.working_dtype()) != (&form.shape, form.working_dtype()) {
            return Err(LayerwiseError::changed(&path(position), format!("was {planned} and is now {form}")));
        }
        if !form.takes(&its) {
            return Err(misfit(&form, &its));
        }
        if parameter.device() != gradient.device() {
            let [parameter, gradient] = [parameter.device(), gradient.device()].map(|device| format!("{device:?}"));
            return Err(misfit(&parameter, &gradient));
        }
        Ok(())
    }
}

/// The gradient of a parameter. `Err` if it has another rank, with its shape if that can be found.
///
/// Burn reports a wrong rank only by a panic.
#[allow(clippy::type_complexity, reason = "both sides may be absent")]
fn gradient<const D: usize>(
    grads: &GradientsParams,
    param: &Param<Tensor<D>>,
) -> Result<Option<Tensor<D>>, Option<Vec<usize>>> {
    let id = param.id;
    catch_unwind(AssertUnwindSafe(|| grads.get::<D>(id))).map_err(|_| {
        let of_rank: [fn(&GradientsParams, ParamId) -> Option<Vec<usize>>; 4] =
            [shape_of::<1>, shape_of::<2>, shape_of::<3>, shape_of::<4>];
        of_rank.iter().find_map(|shape| catch_unwind(AssertUnwindSafe(|| shape(grads, id))).ok().flatten())
    })
}

fn shape_of<const D: usize>(grads: &GradientsParams, id: ParamId) -> Option<Vec<usize>> {
    grads.get::<D>(id).map(|gradient| gradient.dims().to_vec())
}
