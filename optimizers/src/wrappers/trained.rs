//! The trained parameters of a module, and copies of them.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};

use super::{WrapperError, WrapperRecord};
use crate::visit::{Form, Paths, Walk, map_outside_graph};

/// The parameters of a module that a wrapper keeps copies of, by their paths.
#[derive(Clone, Debug)]
pub struct Trained {
    names: Vec<String>,
    forms: Vec<Form>,
    paths: Paths,
}

impl Trained {
    /// The float parameters of a module on whose path (field names joined by dots) `is_trained` holds. Leave out what the
    /// optimizer does not update: frozen parameters, running statistics.
    /// [`LayerwiseOptimizer::trained`](crate::LayerwiseOptimizer::trained) knows those of its plan.
    pub fn of<M: Module>(module: &M, is_trained: impl Fn(&str) -> bool) -> Self {
        let mut found = Found::default();
        module.visit(&mut found);
        let (names, forms): (Vec<_>, Vec<_>) = found.found.into_iter().filter(|(path, _)| is_trained(path)).unzip();
        let paths = Paths::new(names.iter().map(String::as_str));
        Self { names, forms, paths }
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.forms.iter().map(|form| form.shape.iter().product::<usize>()).sum()
    }

    /// Number of tensors.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The values of a module.
    pub(crate) fn copies<M: Module>(&self, module: &M) -> Result<Copies, WrapperError> {
        let mut copies = Copies::of(self);
        self.read(module, |number, values| copies.put(number, values))?;
        Ok(copies)
    }

    /// The gradients of a module's parameters; none for a parameter without a gradient.
    pub(crate) fn gradients<M: Module>(&self, module: &M, grads: &GradientsParams) -> Result<Copies, WrapperError> {
        let mut visitor = Gradients { each: Each::new(self), grads, found: Copies::of(self) };
        module.visit(&mut visitor);
        let Gradients { each, found, .. } = visitor;
        each.outcome().map(|()| found)
    }

    /// Passes number and values of every trained parameter to `f`.
    pub(super) fn read<M: Module>(&self, module: &M, f: impl FnMut(usize, Tensor<1>)) -> Result<(), WrapperError> {
        let mut reader = Read { each: Each::new(self), f };
        module.visit(&mut reader);
        reader.each.outcome()
    }

    /// Moves every mean of weights by a share of the way to those of the module; one that does not exist yet begins there.
    pub(super) fn approach<M: Module>(&self, module: &M, means: &mut Copies, share: f64) -> Result<(), WrapperError> {
        self.read(module, |number, weights| {
            let next = match means.take(number) {
                Some(mean) => mean * (1.0 - share) + weights * share,
                None => weights,
            };
            means.put(number, next);
        })
    }

    /// Replaces every trained parameter by what `f` makes of its number and values, outside of the autodiff graph.
    pub(crate) fn change<M: Module>(
        &self,
        module: M,
        f: impl FnMut(usize, Tensor<1>) -> Tensor<1>,
    ) -> Result<M, WrapperError> {
        let mut changer = Change { each: Each::new(self), f };
        let module = module.map(&mut changer);
        changer.each.outcome().map(|()| module)
    }

    /// Adds copies to a record, under this name. Waits for the device.
    pub(super) fn write(&self, name: &str, copies: &Copies, record: &mut WrapperRecord) {
        for ((path, form), copy) in self.names.iter().zip(&self.forms).zip(&copies.0) {
            let Some(data) = copy.clone().map(Tensor::into_data) else { continue };
            let data = TensorData::from_bytes_vec(data.as_bytes().to_vec(), form.shape.clone(), data.dtype());
            record.tensors.insert(format!("{path}.{name}"), data);
        }
    }

    /// Takes copies out of a record: those of all trained parameters, or of none.
    pub(super) fn load(&self, name: &str, record: &mut WrapperRecord, device: &Device) -> Result<Copies, WrapperError> {
        let mut copies = Copies::of(self);
        let device = device.clone().without_autodiff();
        for (number, (path, form)) in self.names.iter().zip(&self.forms).enumerate() {
            let full_name = format!("{path}.{name}");
            let Some(data) = record.tensors.remove(&full_name) else { continue };
            let dtype = data.dtype();
            let (was, is) = (Form { shape: data.shape().to_vec(), dtype }, form.of_copy());
            if was != is {
                let (kind, was, is) = (record.kind.clone(), was.to_string(), is.to_string());
                return Err(WrapperError::Misfit { kind, name: full_name, was, is });
            }
            let flat = TensorData::from_bytes_vec(data.as_bytes().to_vec(), [data.num_elements()], dtype);
            copies.put(number, Tensor::from_data(flat, (&device, dtype)));
        }
        let missing = copies.0.iter().position(Option::is_none).filter(|_| !copies.is_empty());
        match missing.and_then(|number| self.names.get(number)) {
            Some(path) => {
                Err(WrapperError::Missing { kind: record.kind.clone(), name: format!("{name} of \"{path}\"") })
            }
            None => Ok(copies),
        }
    }
}

/// Numbers kept for the trained parameters: flat, in f32 or f64; none at first.
#[derive(Clone, Debug)]
pub(crate) struct Copies(Vec<Option<Tensor<1>>>);

impl Copies {
    /// No copies yet of these parameters.
    pub fn of(trained: &Trained) -> Self {
        Self(vec![None; trained.names.len()])
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Those that exist, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Tensor<1>)> {
        self.0.iter().enumerate().filter_map(|(number, copy)| Some((number, copy.as_ref()?)))
    }

    pub fn get(&self, number: usize) -> Option<Tensor<1>> {
        self.0[number].clone()
    }

    /// Removes a copy, so that it can be changed in place.
    pub fn take(&mut self, number: usize) -> Option<Tensor<1>> {
        self.0[number].take()
    }

    pub fn put(&mut self, number: usize, values: Tensor<1>) {
        self.0[number] = Some(values);
    }
}

/// Paths and forms of all float parameters.
#[derive(Default)]
struct Found {
    stack: Vec<String>,
    found: Vec<(String, Form)>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.stack.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.stack.join("."), Form::of(&param.base())));
    }
}

/// A visit of all trained parameters, which must all be there in their shapes.
struct Each<'a> {
    trained: &'a Trained,
    walk: Walk<'a>,
    seen: Vec<bool>,
    changed: Option<WrapperError>,
}

impl<'a> Each<'a> {
    fn new(trained: &'a Trained) -> Self {
        Self { trained, walk: trained.paths.walk(), seen: vec![false; trained.names.len()], changed: None }
    }

    /// The number of the current parameter, if it is trained and as it was.
    fn number<const D: usize>(&mut self, values: &Tensor<D>) -> Option<usize> {
        let number = self.walk.parameter()?;
        self.seen[number] = true;
        let (was, is) = (&self.trained.forms[number], Form::of(values));
        if was.of_copy() != is.of_copy() {
            let (path, change) = (self.trained.names[number].clone(), format!("was {was} and is now {is}"));
            self.changed.get_or_insert(WrapperError::Changed { path, change });
            return None;
        }
        Some(number)
    }

    fn outcome(self) -> Result<(), WrapperError> {
        let gone = self.seen.iter().position(|seen| !seen).map(|number| self.trained.names[number].clone());
        match (self.changed, gone) {
            (Some(changed), _) => Err(changed),
            (None, Some(path)) => Err(WrapperError::Changed { path, change: "is not in the model".into() }),
            (None, None) => Ok(()),
        }
    }
}

/// The values of a parameter in the type that copies have.
fn wide<const D: usize>(values: Tensor<D>) -> Tensor<1> {
    let (dtype, wide) = (values.dtype(), Form::of(&values).working_dtype());
    let flat = values.reshape([-1]);
    if wide == dtype { flat } else { flat.cast(wide) }
}

struct Read<'a, F> {
    each: Each<'a>,
    f: F,
}

impl<F: FnMut(usize, Tensor<1>)> ModuleVisitor for Read<'_, F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.each.walk.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.each.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.base();
        if let Some(number) = self.each.number(&values) {
            (self.f)(number, wide(values.inner()));
        }
    }
}

struct Gradients<'a> {
    each: Each<'a>,
    grads: &'a GradientsParams,
    found: Copies,
}

impl ModuleVisitor for Gradients<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.each.walk.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.each.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let number = self.each.number(&param.base());
        if let (Some(number), Some(gradient)) = (number, self.grads.get::<D>(param.id)) {
            self.found.put(number, wide(gradient));
        }
    }
}

struct Change<'a, F> {
    each: Each<'a>,
    f: F,
}

impl<F: FnMut(usize, Tensor<1>) -> Tensor<1>> ModuleMapper for Change<'_, F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.each.walk.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.each.walk.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(number) = self.each.number(&param.base()) else { return param };
        let (id, values, mapper) = param.consume();
        let values = map_outside_graph(values, |values| {
            let (shape, dtype) = (values.dims(), values.dtype());
            let changed = (self.f)(number, wide(values));
            let changed = if changed.dtype() == dtype { changed } else { changed.cast(dtype) };
            changed.reshape(shape)
        });
        Param::from_mapped_value(id, values, mapper)
    }
}
