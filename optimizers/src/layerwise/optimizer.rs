//! The optimizer that users hold: every parameter's optimizer and state, and the global-norm clip.

use burn::module::Module;
use burn::optim::GradientsParams;

use super::ball::OntoBalls;
use super::check::Planned;
use super::course::When;
use super::exchange::{Collect, PutBack, Way};
use super::groups::{Group, ParameterUpdate, Stacking, States};
use super::{HeadLogits, LayerwiseError, Plan, QkClipError, first_non_finite, frozen, gradients};
use crate::visit::Paths;
use crate::wrappers::{Moment, Trained, Wrap, Wrapper};

/// An optimizer with a rule for every parameter of one module, built by [`Layerwise`](crate::Layerwise).
///
/// Parameters are identified by their paths, so it keeps working after loading weights, which changes Burn's parameter ids.
#[derive(Clone)]
pub struct LayerwiseOptimizer {
    pub(super) plan: Plan,
    /// The parameters when the plan was made.
    pub(super) planned: Planned,
    /// Those of them that are frozen.
    pub(super) frozen: Paths,
    pub(super) groups: Vec<Group>,
    /// How every parameter is taken out of the module, by its number.
    ways: Vec<Way>,
    clip: Option<f64>,
    qk_clip: Option<f64>,
    progress: f64,
    /// The number of the next step, from 0, and of all steps, if it was set.
    position: Option<(u64, u64)>,
    stacking: Stacking,
    pub(super) wrapper: Option<Wrapper>,
}

impl LayerwiseOptimizer {
    /// The thresholds of `clip` and `qk_clip` were checked.
    pub(crate) fn new(
        plan: Plan,
        groups: Vec<Group>,
        planned: Planned,
        clip: Option<f64>,
        qk_clip: Option<f64>,
    ) -> Self {
        let mut ways = vec![Way::Left; planned.names.len()];
        for group in &groups {
            group.members.iter().for_each(|number| ways[*number] = Way::Whole);
            for (number, place) in group.members.iter().zip(group.places()) {
                ways[*number] = Way::Stack(place.reading);
            }
        }
        let frozen = plan.entries().iter().filter(|entry| entry.is_frozen());
        let frozen = Paths::new(frozen.map(|entry| entry.path.as_str()));
        let (progress, position, stacking, wrapper) = (0.0, None, Stacking::default(), None);
        Self { plan, planned, frozen, groups, ways, clip, qk_clip, progress, position, stacking, wrapper }
    }

    /// The same with a wrapper around its steps.
    pub(crate) fn with_wrapper(mut self, wrapper: Option<Wrapper>) -> Self {
        self.wrapper = wrapper;
        self
    }

    /// Sets when parameters with the same rule, settings, learning rate, schedule, shape and element type are stepped as one stack.
    /// The result is the same up to rounding, and bit-identical in host memory; on other devices a step takes far fewer
    /// launches.
    #[must_use]
    pub fn with_stacking(mut self, stacking: Stacking) -> Self {
        self.stacking = stacking;
        self
    }

    /// The rule of every parameter; can be printed.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Sets how much of the training is done, from 0 to 1, for rules that change during training. It stays until it is set
    /// again, and is 0 at the start.
    ///
    /// # Errors
    /// If the share is not from 0 to 1.
    pub fn set_progress(&mut self, share: f64) -> Result<(), LayerwiseError> {
        if !(0.0..=1.0).contains(&share) {
            let (what, rule) = ("the share of the training that is done".to_string(), "from 0 to 1");
            return Err(LayerwiseError::Number { what, rule, value: share });
        }
        self.progress = share;
        Ok(())
    }

    /// Sets which step the next one is, from 0, and how many the training has. Schedules of its own
    /// ([`Layerwise::schedule`](crate::Layerwise::schedule)) need it before every step. Sets the share of the training that is
    /// done as well ([`set_progress`](Self::set_progress)). Steps after the last one are as at the end of the schedules.
    ///
    /// # Errors
    /// If the training has no steps.
    pub fn set_step(&mut self, step: u64, steps: u64) -> Result<(), LayerwiseError> {
        if steps == 0 {
            let (what, rule) = ("the number of steps of the training".to_string(), "at least 1");
            return Err(LayerwiseError::Number { what, rule, value: 0.0 });
        }
        self.set_progress((step as f64 / steps as f64).min(1.0))?;
        self.position = Some((step, steps));
        Ok(())
    }

    /// The parameters of a module that this optimizer trains, for a wrapper around it.
    pub fn trained<M: Module>(&self, module: &M) -> Trained {
        self.plan.trained(module)
    }

    /// The model at which the gradient of the next step is to be taken, where a wrapper is set
    /// ([`Layerwise::wrapper`](crate::Layerwise::wrapper)): to be called before every forward pass of training, with the factor of
    /// that step. Without a wrapper, the model as it is.
    ///
    /// # Errors
    /// If the model is no longer the one that the plan was made for.
    pub fn before_forward<M: Module>(&mut self, factor: f64, module: M) -> Result<M, LayerwiseError> {
        let moment = self.moment(factor);
        match &mut self.wrapper {
            Some(wrapper) => Ok(wrapper.before_forward(module, moment)?),
            None => Ok(module),
        }
    }

    /// Whether a wrapper has weights to evaluate that are others than the trained ones.
    pub fn has_evaluation_weights(&self) -> bool {
        self.wrapper.as_ref().is_some_and(Wrapper::has_evaluation_weights)
    }

    /// The weights to evaluate and to use, given the trained ones: with some wrappers, averages of them.
    ///
    /// # Errors
    /// If the model is no longer the one that the plan was made for.
    pub fn evaluation_weights<M: Module>(&self, module: M) -> Result<M, LayerwiseError> {
        match &self.wrapper {
            Some(wrapper) => Ok(wrapper.evaluation_weights(module)?),
            None => Ok(module),
        }
    }

    /// The same without wrapper and weight decay.
    pub(super) fn bare(&self) -> Self {
        let mut bare = Self { wrapper: None, ..self.clone() };
        bare.groups.iter_mut().for_each(Group::drop_decay);
        bare
    }

    /// The groups, and when the next step is, with this factor.
    pub(super) fn groups_at(&self, factor: f64) -> (&[Group], When) {
        (&self.groups, self.when(factor, self.position.unwrap_or_default()))
    }

    /// [`apply`](Self::apply), with an error where that panics.
    pub(super) fn try_update<M: Module>(
        &mut self,
        factor: f64,
        module: M,
        grads: GradientsParams,
    ) -> Result<M, LayerwiseError> {
        self.check(factor, &module, &grads)?;
        self.update(factor, module, grads, |_| {}, Ok)
    }

    fn when(&self, factor: f64, position: (u64, u64)) -> When {
        When { factor, progress: self.progress, position }
    }

    fn moment(&self, factor: f64) -> Moment {
        Moment { factor, progress: self.progress }
    }

    /// Clips, then updates: every learning rate is multiplied by `factor`, the schedule's value for this step, except those
    /// with a schedule of their own.
    ///
    /// Parameters without a gradient are unchanged.
    ///
    /// # Panics
    /// If [`try_step`](Self::try_step) returns an error, with its message.
    pub fn step<M: Module>(&mut self, factor: f64, module: M, grads: GradientsParams) -> M {
        or_panic(self.try_step(factor, module, grads))
    }

    /// The same as [`step`](Self::step), but returns an error instead of a panic. States and plan are then unchanged.
    ///
    /// # Errors
    /// If the factor is negative or not finite, the model is no longer the one that the plan was made for, a gradient has
    /// another shape, element type or device than its parameter, or a gradient holds a NaN or an infinity; and if the plan has
    /// schedules of its own and [`set_step`](Self::set_step) was not called since the last step.
    pub fn try_step<M: Module>(&mut self, factor: f64, module: M, grads: GradientsParams) -> Result<M, LayerwiseError> {
        self.check(factor, &module, &grads)?;
        let (grads, norm) = self.clip_checked(&module, grads);
        if !norm.is_finite()
            && let Some(path) = first_non_finite(&module, &grads)
        {
            return Err(LayerwiseError::NotFinite { path });
        }
        self.update(factor, module, grads, |_| {}, Ok)
    }

    /// Scales all gradients so that their common norm is at most the threshold; returns the norm
    /// before scaling. Without a threshold, it only measures the norm.
    ///
    /// The factor is `threshold / (norm + 1e-6)`, as in `torch.nn.utils.clip_grad_norm_`. Gradients in half precision are
    /// measured and scaled in f32, and stay f32. A norm that is not finite means that a gradient holds a NaN or
    /// an infinity ([`first_non_finite`] finds it); nothing is scaled then.
    ///
    /// # Panics
    /// If the module is no longer the one that the plan was made for, or a gradient does not fit its parameter.
    pub fn clip<M: Module>(&self, module: &M, grads: GradientsParams) -> (GradientsParams, f64) {
        or_panic(self.planned.check_step(module, &grads));
        self.clip_checked(module, grads)
    }

    /// The module with the gradients of its frozen parameters turned off, so that a backward pass spends no work on them;
    /// all others are unchanged.
    #[must_use]
    pub fn without_frozen_gradients<M: Module>(&self, module: M) -> M {
        frozen::turn_off(&self.frozen, module)
    }

    fn clip_checked<M: Module>(&self, module: &M, grads: GradientsParams) -> (GradientsParams, f64) {
        let grads = frozen::remove(&self.frozen, module, grads);
        let norm = gradients::global_norm(module, &grads);
        (self.clip_by(module, grads, norm), norm)
    }

    /// The gradients scaled for this norm of all of them.
    pub(super) fn clip_by<M: Module>(&self, module: &M, grads: GradientsParams, norm: f64) -> GradientsParams {
        match self.clip {
            Some(threshold) if norm > threshold && norm.is_finite() => {
                gradients::scale(module, grads, threshold / (norm + 1e-6))
            }
            _ => grads,
        }
    }

    pub(super) fn check<M: Module>(
        &self,
        factor: f64,
        module: &M,
        grads: &GradientsParams,
    ) -> Result<(), LayerwiseError> {
        LayerwiseError::check_rate("the factor of the learning rates", factor)?;
        if self.position.is_none() && self.plan.needs_step() {
            return Err(LayerwiseError::StepUnknown);
        }
        self.planned.check_step(module, grads)
    }

    /// Updates without clipping; see [`LayerwiseOptimizer::step`].
    ///
    /// # Panics
    /// As [`LayerwiseOptimizer::step`], but without the check for gradients that are not finite.
    pub fn apply<M: Module>(&mut self, factor: f64, module: M, grads: GradientsParams) -> M {
        self.apply_with(factor, module, grads, |_| {})
    }

    /// The same, but passes the updates of the single parameters to `run`, which may run them in any order and on any
    /// threads: they are independent, so the result does not depend on the order. Updates that `run` leaves out are run
    /// afterwards, one after another.
    ///
    /// On a CPU most matrices are too small to be shared among threads, but there are many of them.
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
        or_panic(self.update(factor, module, grads, run, Ok))
    }

    /// Updates the parameters that have a gradient; `share` completes the module with the weights of those that are updated
    /// elsewhere.
    pub(super) fn update<M: Module, E: From<LayerwiseError>>(
        &mut self,
        factor: f64,
        module: M,
        grads: GradientsParams,
        run: impl FnOnce(&mut [ParameterUpdate<'_>]),
        share: impl FnOnce(M) -> Result<M, E>,
    ) -> Result<M, E> {
        let moment = self.moment(factor);
        let module = match &mut self.wrapper {
            Some(wrapper) => wrapper.before_step(module).map_err(LayerwiseError::from)?,
            None => module,
        };
        let taken = self.planned.names.iter().map(|_| None).collect();
        let mut collect = Collect { grads, walk: self.planned.paths.walk(), ways: &self.ways, taken };
        let module = module.map(&mut collect);
        let mut taken = collect.taken;
        let shapes = self.planned.forms.iter().map(|form| form.shape.as_slice()).collect();
        // Only for this step: a number that is left over would be that of another one.
        let position = self.position.take().unwrap_or_default();
        let (when, stacking) = (self.when(factor, position), self.stacking);
        let mut updates: Vec<ParameterUpdate<'_>> =
            self.groups.iter_mut().flat_map(|group| group.work(&when, stacking, &mut taken)).collect();
        run(&mut updates);
        let mut updated: Vec<_> = self.planned.names.iter().map(|_| None).collect();
        for (number, values) in updates.into_iter().flat_map(ParameterUpdate::finish) {
            updated[number] = Some(values);
        }
        let module = module.map(&mut PutBack { walk: self.planned.paths.walk(), ways: &self.ways, shapes, updated });
        let module = share(module)?;
        match &mut self.wrapper {
            Some(wrapper) => Ok(wrapper.after_step(module, moment).map_err(LayerwiseError::from)?),
            None => Ok(module),
        }
    }

    /// To be called before the first step: scales the weights of every parameter with a rule that has a norm ball (`scion`)
    /// onto its surface, so that their norm is the radius. Weights that are zero stay so; parameters that are frozen
    /// or have another rule stay as they are, and so do all states. A second call changes nothing but rounding: the norm is the radius up to
    /// 1e-5 of it.
    ///
    /// ```
    /// use burn::module::Module;
    /// use burn::nn::{Initializer, Linear, LinearConfig};
    /// use burn::tensor::{Device, Tensor};
    /// use polaron::layerwise::{Layerwise, Rule};
    /// use polaron::rules::{ScionConfig, scion::Lmo};
    ///
    /// let config = LinearConfig::new(8, 4).with_bias(false).with_initializer(Initializer::Ones);
    /// let model: Linear = config.init(&Device::flex());
    /// let config = ScionConfig::new().with_lmo(Lmo::PlainSign).with_radius(3.0);
    /// let optimizer = Layerwise::new().rule(Rule::path("weight", config)?).build(&model)?;
    /// let model = optimizer.onto_balls(model)?;
    /// let largest: f32 = model.weight.val().abs().max().into_scalar();
    /// assert!((largest - 3.0).abs() < 1e-5);
    /// # Ok::<(), polaron::layerwise::LayerwiseError>(())
    /// ```
    ///
    /// # Errors
    /// If no parameter has such a rule, or the model is no longer the one that the plan was made for.
    pub fn onto_balls<M: Module>(&self, module: M) -> Result<M, LayerwiseError> {
        self.planned.check_step(&module, &GradientsParams::new())?;
        let mut rules = vec![None; self.planned.names.len()];
        for group in &self.groups {
            let States::Rule { pipeline, .. } = &group.states else { continue };
            for (number, place) in group.members.iter().zip(group.places()) {
                rules[*number] = Some((pipeline, place.reading));
            }
        }
        let Planned { names, forms, paths } = &self.planned;
        let mut scaling = OntoBalls { walk: paths.walk(), rules, names, forms, found: Ok(false) };
        let module = module.map(&mut scaling);
        if scaling.found? { Ok(module) } else { Err(LayerwiseError::NoBall) }
    }

    /// To be called after a step: scales down the attention heads whose logits were above the threshold of
    /// [`Layerwise::qk_clip`](crate::Layerwise::qk_clip), and returns their number. Without a threshold nothing changes.
    ///
    /// # Errors
    /// As [`clip_heads`](super::clip_heads), and if a rule keeps directions of such a projection.
    pub fn clip_heads<M: Module>(&self, module: M, logits: &[HeadLogits]) -> Result<(M, usize), LayerwiseError> {
        let Some(threshold) = self.qk_clip else { return Ok((module, 0)) };
        let holder = |path: &str| path.rsplit_once('.').map(|(holder, _)| holder.to_string()).unwrap_or_default();
        let scaled = |path: &str| logits.iter().any(|layer| [&layer.query, &layer.key].contains(&&holder(path)));
        let mut projected = self.plan.entries().iter().filter(|entry| entry.projection.is_some());
        match projected.find(|entry| scaled(&entry.path)) {
            Some(entry) => Err(QkClipError::Projected { path: entry.path.clone() }.into()),
            None => super::clip_heads(module, logits, threshold),
        }
    }
}

pub(super) fn or_panic<T>(result: Result<T, LayerwiseError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

impl std::fmt::Debug for LayerwiseOptimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerwiseOptimizer({} tensors)", self.plan.entries().len())
    }
}
