//! What users hold: every parameter's optimizer and state, and the global-norm clip.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{DynOptimizer, DynState, GradientsParams, StateSink, StateSource};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{Device, Tensor};

use super::check::{Form, check_step};
use super::fit::read_state;
use super::{AnyOptimizer, HeadLogits, LayerwiseError, LayerwiseRecord, Plan, first_non_finite, gradients};

/// One parameter's optimizer, learning rate and state.
#[derive(Clone)]
pub(crate) struct Entry {
    optimizer: AnyOptimizer,
    lr: f64,
    rank: usize,
    state: Option<DynState>,
}

impl Entry {
    pub fn new(optimizer: AnyOptimizer, lr: f64, rank: usize) -> Self {
        Self { optimizer, lr, rank, state: None }
    }

    fn update(&mut self, lr: f64, Taken { tensor, grad, device, .. }: Taken) -> BridgeTensor {
        let state = self.state.take().map(|state| self.optimizer.to_device_dyn(state, &device));
        let (updated, state) = self.optimizer.step_dyn(self.rank, lr, tensor, grad, state);
        self.state = state;
        updated
    }
}

/// An optimizer with a rule for every parameter of one module, built by [`Layerwise`](crate::Layerwise).
///
/// Parameters are known by their paths, so loading weights (which changes Burn's parameter ids)
/// does not confuse it.
#[derive(Clone)]
pub struct LayerwiseOptimizer {
    plan: Plan,
    entries: BTreeMap<String, Entry>,
    /// What the parameters were when the plan was made.
    forms: BTreeMap<String, Form>,
    clip: Option<f64>,
    qk_clip: Option<f64>,
}

impl LayerwiseOptimizer {
    /// Nothing is clipped.
    pub(crate) fn new(plan: Plan, entries: BTreeMap<String, Entry>, forms: BTreeMap<String, Form>) -> Self {
        Self { plan, entries, forms, clip: None, qk_clip: None }
    }

    pub(crate) fn with_clip(mut self, threshold: Option<f64>) -> Self {
        self.clip = threshold;
        self
    }

    pub(crate) fn with_qk_clip(mut self, threshold: Option<f64>) -> Self {
        self.qk_clip = threshold;
        self
    }

    /// Which parameter gets which rule; print it.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Clips, then updates: every learning rate is multiplied by `factor`, the schedule's value of this step.
    ///
    /// Parameters without a gradient stay as they are.
    ///
    /// # Panics
    /// Where [`try_step`](Self::try_step) has an error, with its sentence.
    pub fn step<M: Module>(&mut self, factor: f64, module: M, grads: GradientsParams) -> M {
        or_panic(self.try_step(factor, module, grads))
    }

    /// As [`step`](Self::step), with an error where that panics. Neither states nor plan have changed then.
    ///
    /// # Errors
    /// If the factor is negative or not finite, the model is no longer the one that the plan was made for, a gradient has
    /// another shape, element type or device than its parameter, or a gradient holds a NaN or an infinity.
    pub fn try_step<M: Module>(&mut self, factor: f64, module: M, grads: GradientsParams) -> Result<M, LayerwiseError> {
        self.check(factor, &module, &grads)?;
        let (grads, norm) = self.clip_checked(&module, grads);
        if !norm.is_finite()
            && let Some(path) = first_non_finite(&module, &grads)
        {
            return Err(LayerwiseError::NotFinite { path });
        }
        Ok(self.update(factor, module, grads, |_| {}))
    }

    /// Scales all gradients so that their common norm is at most the threshold; returns the norm
    /// before that. Without a threshold it only measures.
    ///
    /// The factor is `threshold / (norm + 1e-6)`, as in `torch.nn.utils.clip_grad_norm_`. Gradients in half precision are
    /// measured and scaled in f32, and stay f32. A norm that is not finite says that a gradient holds a NaN or an
    /// infinity ([`first_non_finite`] finds it); nothing is scaled then.
    ///
    /// # Panics
    /// If the module is no longer the one that the plan was made for, or a gradient does not fit its parameter.
    pub fn clip<M: Module>(&self, module: &M, grads: GradientsParams) -> (GradientsParams, f64) {
        or_panic(check_step(module, &grads, &self.forms));
        self.clip_checked(module, grads)
    }

    fn clip_checked<M: Module>(&self, module: &M, grads: GradientsParams) -> (GradientsParams, f64) {
        let norm = gradients::global_norm(module, &grads);
        match self.clip {
            Some(threshold) if norm > threshold && norm.is_finite() => {
                (gradients::scale(module, grads, threshold / (norm + 1e-6)), norm)
            }
            _ => (grads, norm),
        }
    }

    fn check<M: Module>(&self, factor: f64, module: &M, grads: &GradientsParams) -> Result<(), LayerwiseError> {
        LayerwiseError::check_rate("the factor of the learning rates", factor)?;
        check_step(module, grads, &self.forms)
    }

    /// The update alone, without clipping; see [`LayerwiseOptimizer::step`].
    ///
    /// # Panics
    /// As [`LayerwiseOptimizer::step`], but gradients that are not finite are not looked for.
    pub fn apply<M: Module>(&mut self, factor: f64, module: M, grads: GradientsParams) -> M {
        self.apply_with(factor, module, grads, |_| {})
    }

    /// The same, with the updates of the single parameters handed to `run`, which may run them in any order and on any
    /// threads: they do not depend on each other, so neither does the result on the order. What `run` leaves out is run
    /// afterwards, one after the other.
    ///
    /// On a CPU most matrices are too small to be shared out among threads, but there are many of them.
    ///
    /// # Panics
    /// As [`LayerwiseOptimizer::apply`].
    pub fn apply_with<M: Module>(
        &mut self,
        factor: f64,
        module: M,
        grads: GradientsParams,
        run: impl FnOnce(&mut [ParameterUpdate<'_>]),
    ) -> M {
        or_panic(self.check(factor, &module, &grads));
        self.update(factor, module, grads, run)
    }

    fn update<M: Module>(
        &mut self,
        factor: f64,
        module: M,
        grads: GradientsParams,
        run: impl FnOnce(&mut [ParameterUpdate<'_>]),
    ) -> M {
        let mut collect = Collect { grads, path: Vec::new(), taken: BTreeMap::new() };
        let module = module.map(&mut collect);
        let mut taken = collect.taken;
        let mut updates: Vec<ParameterUpdate<'_>> = Vec::with_capacity(taken.len());
        for (path, entry) in &mut self.entries {
            if let Some(taken) = taken.remove(path) {
                let (lr, elements) = (factor * entry.lr, taken.elements);
                updates.push(ParameterUpdate { path, entry, lr, elements, waiting: Some(taken), updated: None });
            }
        }
        run(&mut updates);
        let updated = updates.into_iter().filter_map(ParameterUpdate::finish).collect();
        module.map(&mut PutBack { path: Vec::new(), updated })
    }

    /// After a step: cuts back the attention heads whose logits were above the threshold of
    /// [`Layerwise::qk_clip`](crate::Layerwise::qk_clip), and says how many. Without a threshold nothing changes.
    ///
    /// # Errors
    /// As [`clip_heads`](super::clip_heads).
    pub fn clip_heads<M: Module>(&self, module: M, logits: &[HeadLogits]) -> Result<(M, usize), LayerwiseError> {
        match self.qk_clip {
            Some(threshold) => super::clip_heads(module, logits, threshold),
            None => Ok((module, 0)),
        }
    }

    /// All states, with the names of their parameters.
    pub fn to_record(&self) -> LayerwiseRecord {
        let mut sink = StateSink::default();
        let mut record = LayerwiseRecord::default();
        record.shapes.extend(self.forms.iter().map(|(path, form)| (path.clone(), form.shape.clone())));
        for (path, entry) in &self.entries {
            record.optimizers.insert(path.clone(), entry.optimizer.label().to_string());
            if let Some(state) = &entry.state {
                entry.optimizer.state_flatten(path, state, &mut sink);
                record.with_state.insert(path.clone());
            }
        }
        record.tensors.extend(sink.tensors);
        record.scalars.extend(sink.scalars);
        record
    }

    /// Takes in the states of a record, onto `device`.
    ///
    /// # Errors
    /// If the record was written for other parameters, shapes, element types or optimizers, or a state in it is
    /// incomplete. Nothing is changed then.
    pub fn load_record(&mut self, record: LayerwiseRecord, device: &Device) -> Result<(), LayerwiseError> {
        self.check_coverage(&record)?;
        let names: Vec<String> = record.tensors.keys().cloned().collect();
        let mut source = StateSource::new(record.scalars.into_iter().collect());
        for (name, data) in record.tensors {
            source.insert_tensor(name, data);
        }
        let mut states = BTreeMap::new();
        for path in &record.with_state {
            let (Some(entry), Some(form)) = (self.entries.get(path), self.forms.get(path)) else {
                let message = format!("it has a state of \"{path}\", which the model does not have");
                return Err(LayerwiseError::Record(message));
            };
            states.insert(path.clone(), read_state(&entry.optimizer, path, form, path, &mut source, device)?);
        }
        if let Some(name) = names.iter().find(|name| source.take_tensor("", name).is_some()) {
            return Err(LayerwiseError::Record(format!("it has a buffer \"{name}\", which belongs to no parameter")));
        }
        for (path, entry) in &mut self.entries {
            entry.state = states.remove(path);
        }
        Ok(())
    }

    fn check_coverage(&self, record: &LayerwiseRecord) -> Result<(), LayerwiseError> {
        let fail = |message: String| Err(LayerwiseError::Record(message));
        for (path, entry) in &self.entries {
            match record.optimizers.get(path) {
                None => return fail(format!("it has no parameter \"{path}\"")),
                Some(label) if label != entry.optimizer.label() => {
                    let now = entry.optimizer.label();
                    return fail(format!("\"{path}\" was updated by {label} and is now by {now}"));
                }
                Some(_) => {}
            }
            let forms = (record.shapes.get(path), self.forms.get(path));
            if let (Some(was), Some(Form { shape: is, .. })) = forms
                && was != is
            {
                return fail(format!("\"{path}\" was of shape {was:?} and is now of shape {is:?}"));
            }
        }
        match record.optimizers.keys().find(|path| !self.entries.contains_key(*path)) {
            Some(path) => fail(format!("it has the parameter \"{path}\", which the model does not have")),
            None => Ok(()),
        }
    }
}

fn or_panic<T>(result: Result<T, LayerwiseError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

impl std::fmt::Debug for LayerwiseOptimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerwiseOptimizer({} tensors)", self.entries.len())
    }
}

/// The update of one parameter in one step, to be run on whatever thread.
pub struct ParameterUpdate<'a> {
    path: &'a str,
    entry: &'a mut Entry,
    lr: f64,
    elements: usize,
    waiting: Option<Taken>,
    updated: Option<BridgeTensor>,
}

impl ParameterUpdate<'_> {
    /// Number of elements of the parameter: a hint for sharing out the work.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Runs the update; nothing happens if it has run before.
    pub fn run(&mut self) {
        if let Some(taken) = self.waiting.take() {
            self.updated = Some(self.entry.update(self.lr, taken));
        }
    }

    fn finish(mut self) -> Option<(String, BridgeTensor)> {
        self.run();
        self.updated.map(|updated| (self.path.to_owned(), updated))
    }
}

impl std::fmt::Debug for ParameterUpdate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParameterUpdate({}, {} elements)", self.path, self.elements)
    }
}

/// A parameter taken out of its module, without its autodiff graph, and its gradient.
struct Taken {
    tensor: BridgeTensor,
    grad: BridgeTensor,
    device: Device,
    elements: usize,
}

/// Takes every parameter that has a gradient out of the module. Nobody else holds it then, so it can be updated in place.
struct Collect {
    grads: GradientsParams,
    path: Vec<String>,
    taken: BTreeMap<String, Taken>,
}

impl ModuleMapper for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(grad) = self.grads.remove::<D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let elements = tensor.shape().num_elements();
        // One element that remembers, until the update is put back, what it takes to be the parameter.
        let place = map_outside_graph(tensor, |tensor| {
            let (device, dtype) = (grad.device(), tensor.dtype());
            let place = Tensor::zeros([1; D], (&device, dtype));
            let (tensor, grad) = (tensor.into_bridge(), grad.into_bridge());
            self.taken.insert(self.path.join("."), Taken { tensor, grad, device, elements });
            place
        });
        Param::from_mapped_value(id, place, mapper)
    }
}

/// Puts the updated parameters back.
struct PutBack {
    path: Vec<String>,
    updated: BTreeMap<String, BridgeTensor>,
}

impl ModuleMapper for PutBack {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(updated) = self.updated.remove(&self.path.join(".")) else {
            return param;
        };
        let (id, place, mapper) = param.consume();
        Param::from_mapped_value(id, map_outside_graph(place, |_| Tensor::from_bridge(updated)), mapper)
    }
}

/// Changes a parameter's values outside the autodiff graph; it stays a parameter.
pub(crate) fn map_outside_graph<const D: usize>(
    tensor: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    // What `Tensor::from_inner` forgets has to be put back.
    let (require_grad, checkpointing) = (tensor.is_require_grad(), tensor.gradient_checkpointing_strategy());
    let mut updated = Tensor::<D>::from_inner(f(tensor.inner()));
    if let Some(strategy) = checkpointing {
        updated = updated.with_gradient_checkpointing_strategy(strategy);
    }
    if require_grad { updated.require_grad() } else { updated }
}
