//! What a module must be for a plan: every parameter at one path, and still the one that the plan was made for.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::LayerwiseError;
use super::walk::{Paths, Walk, paths_of};

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

/// The parameters that a plan was made for, in the order of a visit of the module.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub names: Vec<String>,
    pub forms: Vec<Form>,
    pub paths: Paths,
}

impl Planned {
    /// Every float parameter of a module. Parameters that are still lazy are initialised: before that some show another
    /// shape than they will have.
    ///
    /// # Errors
    /// [`LayerwiseError::Shared`] if several paths lead to one parameter.
    pub fn of<M: Module>(module: &M) -> Result<Self, LayerwiseError> {
        let names = paths_of(module);
        let mut visitor = Forms::default();
        module.visit(&mut visitor);
        let mut paths: BTreeMap<ParamId, Vec<String>> = BTreeMap::new();
        for (id, name) in visitor.ids.iter().zip(&names) {
            paths.entry(*id).or_default().push(name.clone());
        }
        if let Some(paths) = paths.into_values().filter(|paths| paths.len() > 1).min() {
            return Err(LayerwiseError::Shared { paths });
        }
        let paths = Paths::new(names.iter().map(String::as_str));
        Ok(Self { names, forms: visitor.forms, paths })
    }

    /// Checks that the parameters with a gradient are those of the plan, each at one path, and that every gradient fits its
    /// parameter; and that no parameter of the plan is gone.
    ///
    /// # Errors
    /// The first objection, with the path.
    pub fn check_step<M: Module>(&self, module: &M, grads: &GradientsParams) -> Result<(), LayerwiseError> {
        let mut visitor = StepCheck {
            planned: self,
            walk: self.paths.walk(),
            grads,
            owners: BTreeMap::new(),
            visited: 0,
            seen: 0,
            found: Ok(()),
        };
        module.visit(&mut visitor);
        let StepCheck { found, seen, .. } = visitor;
        if let Err((position, objection)) = found {
            let names = paths_of(module);
            return Err(objection.into_error(|position| names[position].clone(), position));
        }
        if seen == self.names.len() {
            return Ok(());
        }
        let there = paths_of(module);
        match self.names.iter().find(|path| !there.contains(path)) {
            Some(path) => Err(LayerwiseError::Gone { path: path.clone() }),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Forms {
    ids: Vec<ParamId>,
    forms: Vec<Form>,
}

impl ModuleVisitor for Forms {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.ids.push(param.id);
        self.forms.push(Form::of(&param.base()));
    }
}

/// What is wrong with a parameter or its gradient; paths are put together only then.
enum Objection {
    NotInPlan,
    /// The position of the parameter with the same id.
    Shared(usize),
    Changed {
        was: String,
        is: String,
    },
    Gradient {
        parameter: String,
        gradient: String,
    },
}

impl Objection {
    fn into_error(self, path: impl Fn(usize) -> String, position: usize) -> LayerwiseError {
        let own = path(position);
        match self {
            Self::NotInPlan => LayerwiseError::NotInPlan { path: own },
            Self::Shared(first) => LayerwiseError::Shared { paths: vec![path(first), own] },
            Self::Changed { was, is } => LayerwiseError::Changed { path: own, was, is },
            Self::Gradient { parameter, gradient } => LayerwiseError::Gradient { path: own, parameter, gradient },
        }
    }
}

struct StepCheck<'a> {
    planned: &'a Planned,
    walk: Walk<'a>,
    grads: &'a GradientsParams,
    /// The positions of the parameters that have a gradient.
    owners: BTreeMap<ParamId, usize>,
    visited: usize,
    /// How many parameters of the plan were met.
    seen: usize,
    found: Result<(), (usize, Objection)>,
}

impl ModuleVisitor for StepCheck<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.walk.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let position = self.visited;
        self.visited += 1;
        if self.found.is_ok() {
            self.found = self.check(position, param).map_err(|objection| (position, objection));
        }
    }
}

impl StepCheck<'_> {
    fn check<const D: usize>(&mut self, position: usize, param: &Param<Tensor<D>>) -> Result<(), Objection> {
        let planned = self.walk.parameter().map(|number| &self.planned.forms[number]);
        self.seen += usize::from(planned.is_some());
        let gradient = gradient(self.grads, param).map_err(|rank| {
            let parameter = Form::of(&param.base()).to_string();
            let gradient = rank.map_or("another rank".into(), |shape| format!("{shape:?}"));
            Objection::Gradient { parameter, gradient }
        })?;
        let Some(gradient) = gradient else {
            return Ok(());
        };
        if let Some(first) = self.owners.insert(param.id, position) {
            return Err(Objection::Shared(first));
        }
        let Some(planned) = planned else {
            return Err(Objection::NotInPlan);
        };
        let parameter = param.base();
        let (form, its) = (Form::of(&parameter), Form::of(&gradient));
        if (&planned.shape, planned.working_dtype()) != (&form.shape, form.working_dtype()) {
            return Err(Objection::Changed { was: planned.to_string(), is: form.to_string() });
        }
        if !form.takes(&its) {
            return Err(Objection::Gradient { parameter: form.to_string(), gradient: its.to_string() });
        }
        if parameter.device() != gradient.device() {
            let [parameter, gradient] = [parameter.device(), gradient.device()].map(|device| format!("{device:?}"));
            return Err(Objection::Gradient { parameter, gradient });
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
