//! A whole step: momentum, rule, shape scale, decay, in an order that is data, as a Burn optimizer.

use std::sync::Arc;

use burn::optim::{ModuleOptimizer, Optimizer};
use burn::tensor::{DType, Device, Tensor};

use super::memory::MOMENTUM;
use super::preconditioner::GRADIENT_MOMENT;
use super::{
    Decay, DecayForm, Kept, Memory, Momentum, NormControl, Preconditioner, Projection, Rates, Rule, Scale, Stage,
    State, Update,
};
use crate::matrix::{Layout, LayoutError, Placement, Reading, Section};
use crate::setting::ConfigError;

/// The order of momentum and rule in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The rule works on the momentum of gradients.
    #[default]
    MomentumFirst,
    /// The rule works on gradients; the momentum averages its directions.
    RuleFirst,
}

impl Order {
    /// The name of the momentum in records: an average of gradients cannot be used as one of directions.
    fn buffer(self) -> &'static str {
        match self {
            Order::MomentumFirst => MOMENTUM,
            Order::RuleFirst => "direction_momentum",
        }
    }
}

/// A [`Rule`] with momentum, shape scale, weight decay and placement: a `burn::optim::Optimizer` on matrices `[d_in,
/// d_out]` and stacks `[E, d_in, d_out]`, or on parameters of any rank if the rule is entrywise.
///
/// # Panics
/// The step of a matrix rule panics on a parameter that is not a matrix; [`Layerwise`](crate::Layerwise) finds that
/// before training and names the parameter.
#[derive(Clone, Debug)]
pub struct Pipeline {
    rule: Arc<dyn Rule>,
    order: Order,
    momentum: Option<Momentum>,
    preconditioner: Option<Preconditioner>,
    scale: Scale,
    norm_control: Option<NormControl>,
    decay: Decay,
    placement: Placement,
    /// Of its only parameter.
    projection: Option<Projection>,
    /// Of its parameter, if it has only one with a known path; see [`Stage::streams`].
    stream: u64,
}

/// An option of a step in words.
pub(crate) struct StepOption {
    /// For plans.
    pub label: String,
    /// What it changes.
    pub formula: String,
    /// Operations that it adds.
    pub cost: &'static str,
}

/// What all parameters of a stack share in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub rates: Rates,
    /// The momentum of this step, if it is not that of the rule.
    pub momentum: Option<f64>,
    /// The decay of each part of a row of entries, with its length; one for a stack of matrices.
    pub decays: &'a [(usize, Decay)],
    /// Share of the training that is done.
    pub progress: f64,
    /// The stream of every parameter in the stack, see [`Stage::streams`].
    pub streams: &'a [u64],
    /// What the step leaves as it is, of a stack of one parameter.
    pub projection: Option<&'a Projection>,
}

impl Pipeline {
    /// Momentum 0.95 (average), no scale, no decay, stored `[d_in, d_out]`, no blocks.
    pub fn new(rule: impl Rule) -> Self {
        Self {
            rule: Arc::new(rule),
            order: Order::MomentumFirst,
            momentum: Some(Momentum::default()),
            preconditioner: None,
            scale: Scale::None,
            norm_control: None,
            decay: Decay::default(),
            placement: Placement::default(),
            projection: None,
            stream: 0,
        }
    }

    /// Sets the order of momentum and rule.
    #[must_use]
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets the momentum.
    #[must_use]
    pub fn with_momentum(mut self, momentum: Momentum) -> Self {
        self.momentum = Some(momentum);
        self
    }

    /// Removes the momentum: the rule works on gradients and keeps what it needs itself.
    #[must_use]
    pub fn without_momentum(mut self) -> Self {
        self.momentum = None;
        self
    }

    /// Sets the factor by the shape.
    #[must_use]
    pub fn with_scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Sets what the input of the rule is divided by; none by default.
    #[must_use]
    pub fn with_preconditioner(mut self, preconditioner: impl Into<Option<Preconditioner>>) -> Self {
        self.preconditioner = preconditioner.into();
        self
    }

    /// Sets how steps depend on the norms of weights and update; not at all by default. An entrywise rule then works on
    /// matrices only. With [`NormControl::Hyperball`] weights do not decay.
    #[must_use]
    pub fn with_norm_control(mut self, control: impl Into<Option<NormControl>>) -> Self {
        self.norm_control = control.into();
        self
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn with_decay(mut self, decay: Decay) -> Self {
        self.decay = decay;
        self
    }

    /// Sets how the parameters are stored and which blocks they consist of.
    #[must_use]
    pub fn with_placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets which directions of its only parameter stay as they are; none by default. An entrywise rule then works on a matrix
    /// only. [`Pipeline::check`] says whether they fit a parameter.
    #[must_use]
    pub fn with_projection(mut self, projection: impl Into<Option<Projection>>) -> Self {
        self.projection = projection.into();
        self
    }

    /// Which directions of its only parameter stay as they are.
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }

    /// Sets the stream of its only parameter.
    pub(crate) fn with_stream(mut self, stream: u64) -> Self {
        self.stream = stream;
        self
    }

    /// The stream of its only parameter.
    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// The factor by the shape.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The momentum; `None` for a rule that works on gradients.
    pub fn momentum(&self) -> Option<Momentum> {
        self.momentum.filter(|momentum| momentum.factor != 0.0)
    }

    /// The weight decay.
    pub fn decay(&self) -> Decay {
        self.decay
    }

    /// How steps depend on the norms of weights and update.
    pub fn norm_control(&self) -> Option<NormControl> {
        self.norm_control
    }

    /// Whether it works on matrices, rather than on entries.
    pub fn is_matrix_rule(&self) -> bool {
        !self.is_entrywise() || self.norm_control.is_some() || self.projection.is_some()
    }

    /// Whether its rule works on entries, with or without a norm that is controlled.
    pub(crate) fn is_entrywise(&self) -> bool {
        self.rule.is_entrywise()
    }

    /// All buffers kept between steps.
    pub fn memories(&self) -> Vec<Kept> {
        let momentum = self.momentum().map(|_| Kept::entries(self.order.buffer()));
        let moment = self.preconditioner.map(|_| Kept::entries(GRADIENT_MOMENT));
        momentum.into_iter().chain(moment).chain(self.rule.memories()).collect()
    }

    /// Whether nothing is kept between steps but a momentum.
    pub(crate) fn keeps_only_momentum(&self) -> bool {
        self.memories().iter().all(|kept| kept.name == self.order.buffer())
    }

    /// The optimizer of a whole module; a matrix rule needs a module that has only matrices and stacks of them.
    #[must_use]
    pub fn init(&self) -> ModuleOptimizer {
        self.clone().into()
    }

    /// The options that every rule has and that this step uses, in words.
    pub(crate) fn options(&self) -> Vec<StepOption> {
        let moment = self.preconditioner.map(|preconditioner| StepOption {
            label: format!("second_moment {}", preconditioner.beta),
            formula: preconditioner.formula(),
            cost: " + 7 mn",
        });
        let norm = self.norm_control.map(|control| StepOption {
            label: control.label(),
            formula: control.formula(),
            cost: control.cost(),
        });
        let independent = self.decay.form == DecayForm::Independent && self.decay.rate != 0.0;
        let decay = independent.then(|| StepOption {
            label: "independent decay".into(),
            formula: "W ← (1 - f wd) W - lr U, f the factor of the schedule".into(),
            cost: "",
        });
        [moment, norm, decay].into_iter().flatten().collect()
    }

    /// Refuses options that do not go together, for a kind of this name.
    pub(crate) fn check_options(&self, kind: &str) -> Result<(), ConfigError> {
        let Decay { rate, form, .. } = self.decay;
        if form == DecayForm::Independent && rate > 1.0 {
            let message = format!("must be at most 1 with decay = \"independent\", the share of a step, got {rate}");
            return Err(ConfigError::value(format!("{kind}.weight_decay"), message));
        }
        if self.norm_control == Some(NormControl::Hyperball) && rate != 0.0 {
            let message =
                format!("must be 0 with the norm_control hyperball, which keeps the norm of the weights; got {rate}");
            return Err(ConfigError::value(format!("{kind}.weight_decay"), message));
        }
        Ok(())
    }

    /// Whether two steps are the same, as far as this can be known without comparing rules.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rule, &other.rule)
            && (self.order, self.momentum, self.scale, self.decay, self.placement)
                == (other.order, other.momentum, other.scale, other.decay, other.placement)
            && (self.preconditioner, self.norm_control) == (other.preconditioner, other.norm_control)
            && self.projection == other.projection
    }

    /// How a parameter of this shape is read.
    pub(crate) fn reading(&self, shape: &[usize]) -> Result<Reading, LayoutError> {
        match shape {
            _ if !self.is_matrix_rule() => Ok(Reading::entries(shape)),
            [outputs] if self.rule.takes_vectors() => {
                Placement { layout: Layout::InOut, ..self.placement }.reading(&[1, *outputs])
            }
            _ => self.placement.reading(shape),
        }
    }

    /// Refuses a parameter of a shape that the rule cannot step.
    ///
    /// # Errors
    /// As [`Placement::check`], unless the rule is entrywise, or is one for vectors and this is one. [`LayoutError::Projection`] if
    /// the directions that are to stay as they are do not fit.
    pub fn check(&self, shape: &[usize]) -> Result<(), LayoutError> {
        let reading = self.reading(shape)?;
        let Some(projection) = &self.projection else { return Ok(()) };
        let fits = projection.check(&reading, self.norm_control);
        fits.map_err(|message| LayoutError::Projection { message, shape: shape.to_vec() })
    }

    /// The weights scaled onto the norm ball of the rule; `None` if it has none.
    pub(crate) fn onto_ball<const D: usize>(&self, weights: Tensor<D>, reading: &Reading) -> Option<Tensor<D>> {
        let (shape, dtype) = (weights.dims(), weights.dtype());
        let exact = if matches!(dtype, DType::F16 | DType::BF16) { weights.cast(DType::F32) } else { weights };
        Some(self.stack_onto_ball(exact.reshape(reading.stored), reading)?.reshape(shape).cast(dtype))
    }

    fn stack_onto_ball(&self, stack: Tensor<3>, reading: &Reading) -> Option<Tensor<3>> {
        let sections = reading.sections();
        if sections.is_empty() {
            return Some(reading.join(self.rule.onto_ball(reading.split(stack))?));
        }
        let scaled = |section: &Section| self.stack_onto_ball(section.of(&stack), &section.reading);
        let scaled = sections.iter().map(scaled).collect::<Option<Vec<_>>>()?;
        Some(Tensor::cat(scaled, sections[0].dim))
    }

    /// The weights of a stack of parameters after a step; updates the memory.
    pub(crate) fn advance(
        &self,
        reading: &Reading,
        weights: Tensor<3>,
        gradient: Tensor<3>,
        memory: &mut Memory,
        at: At<'_>,
    ) -> Tensor<3> {
        let Some(projection) = at.projection else { return self.advance_all(reading, weights, gradient, memory, at) };
        let decay = if projection.preserves() { 0.0 } else { self.decay.share(at.rates) };
        in_working_precision(weights, gradient, |weights, gradient| {
            let step = |free, gradient| self.advance_all(reading, free, gradient, memory, at);
            projection.step(reading, weights, gradient, decay, step)
        })
    }

    /// [`advance`](Self::advance) where all of the weights may change. A projection of `at` acts on the update alone.
    fn advance_all(
        &self,
        reading: &Reading,
        weights: Tensor<3>,
        gradient: Tensor<3>,
        memory: &mut Memory,
        at: At<'_>,
    ) -> Tensor<3> {
        let sections = reading.sections();
        if !sections.is_empty() {
            return self.advance_sections(&sections, weights, gradient, memory, at);
        }
        memory.step += 1;
        memory.fit(weights.dims());
        self.adopt_first_version(reading, memory);
        in_working_precision(weights, gradient, |weights, gradient| {
            memory.like = Some(weights.dims());
            let is_plain = self.preconditioner.is_none() && self.norm_control.is_none() && at.projection.is_none();
            let (weights, gradient) = match at.decays {
                [(_, decay)] if is_plain => {
                    match self.rule.step_in_place(weights, gradient, memory, *decay, at.rates) {
                        Ok(done) => return done,
                        Err(given) => given,
                    }
                }
                _ => (weights, gradient),
            };
            let update = self.update(reading, &weights, gradient, memory, at);
            let update = match at.projection {
                Some(projection) if !self.rule.sets_weights(memory.step) => projection.apply(reading, update),
                _ => update,
            };
            match (self.norm_control, at.decays) {
                _ if self.rule.sets_weights(memory.step) => update,
                (Some(control), [(_, decay)]) => {
                    let [weights, update] = [weights, update].map(|stack| reading.split(stack));
                    reading.join(weights.map(|weights| control.step(weights, update.into_tensor(), *decay, at.rates)))
                }
                (None, [(_, decay)]) if self.rule.decays_after() => {
                    decay.kept(weights - update.clone() * at.rates.lr, &update, at.rates)
                }
                _ => decayed(weights, update, at),
            }
        })
    }

    /// The weights after a step on every section as on a parameter of its own.
    fn advance_sections(
        &self,
        sections: &[Section],
        weights: Tensor<3>,
        gradient: Tensor<3>,
        memory: &mut Memory,
        at: At<'_>,
    ) -> Tensor<3> {
        let mut memories = memory.sections(sections.len());
        // What mixes the sections acts on all of them together, after the step.
        let across = at.projection.and_then(|projection| projection.across(sections[0].axis));
        let at = At { projection: across.as_ref(), ..at };
        let step = |(section, memory): (&Section, &mut Memory)| {
            self.advance_all(&section.reading, section.of(&weights), section.of(&gradient), memory, at)
        };
        let updated = sections.iter().zip(&mut memories).map(step).collect();
        memory.join_sections(memories);
        Tensor::cat(updated, sections[0].dim)
    }

    /// The update that is multiplied by the learning rate, or the weights after the step if the rule sets them.
    fn update(
        &self,
        reading: &Reading,
        weights: &Tensor<3>,
        gradient: Tensor<3>,
        memory: &mut Memory,
        at: At<'_>,
    ) -> Tensor<3> {
        let split = |stack: Tensor<3>| reading.split(stack);
        let seen = self.rule.reads_gradient().then(|| split(gradient.clone()));
        let raw = self.preconditioner.map(|preconditioner| (preconditioner, gradient.clone()));
        let first = match self.order {
            Order::MomentumFirst => self.averaged(gradient, memory, at),
            Order::RuleFirst => gradient,
        };
        let first = match raw {
            Some((preconditioner, gradient)) => preconditioner.divide(first, gradient, memory),
            None => first,
        };
        let stage = Stage {
            gradient: seen,
            weights: self.rule.reads_weights().then(|| split(weights.clone())),
            number: memory.step,
            lr: at.rates.lr,
            factor: at.rates.factor,
            momentum: at.momentum,
            progress: at.progress,
            parameters: at.streams.len(),
            streams: at.streams.to_vec(),
            ..Stage::new(split(first))
        };
        let factor = self.scale.factor(stage.matrix.outputs(), stage.matrix.inputs());
        memory.like = self.rule.is_entrywise().then(|| weights.dims());
        let Update { direction, size } = self.rule.advance(stage, memory);
        if self.rule.sets_weights(memory.step) {
            return reading.join(direction);
        }
        let direction = match self.order {
            Order::MomentumFirst => direction,
            Order::RuleFirst => split(self.averaged(reading.join(direction), memory, at)),
        };
        let sized = match size {
            Some(size) => direction.map(|direction| direction * size),
            None => direction,
        };
        let joined = reading.join(sized);
        if factor == 1.0 { joined } else { joined * factor }
    }

    fn averaged(&self, stack: Tensor<3>, memory: &mut Memory, at: At<'_>) -> Tensor<3> {
        let Some(momentum) = self.momentum else { return stack };
        memory.like = Some(stack.dims());
        momentum.advance(at.momentum, self.order.buffer(), stack, memory)
    }

    /// Renames the buffer of a record of the first version.
    pub(crate) fn adopt_first_version(&self, reading: &Reading, memory: &mut Memory) {
        if !reading.sections().is_empty() {
            return; // The first version had no parts of different sizes.
        }
        let Some(buffer) = memory.take_first_version() else { return };
        match (self.order, self.rule.memories().first()) {
            // It was the average of the directions, stored as matrices.
            (Order::RuleFirst, _) => {
                let matrices = reading.split(Tensor::zeros(reading.stored, &buffer.device()));
                let fits = matrices.tensor().dims() == buffer.dims();
                memory.like = fits.then_some(reading.stored);
                let joined = if fits { reading.join(matrices.map(|_| buffer)) } else { buffer };
                memory.keep(self.order.buffer(), joined);
            }
            (Order::MomentumFirst, Some(kept)) => {
                memory.like = None;
                memory.keep(kept.name, buffer);
            }
            (Order::MomentumFirst, None) => {}
        }
    }
}

impl Optimizer for Pipeline {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        let shape = tensor.dims();
        let reading = self.reading(&shape).unwrap_or_else(|error| panic!("{error}"));
        let mut memory = state.map_or(Memory::default(), |state| state.into_memory(shape));
        let rates = Rates::constant(lr);
        let (decays, streams, projection) = (&[(0, self.decay)], &[self.stream], self.projection.as_ref());
        let at = At { rates, momentum: None, decays, progress: 0.0, streams, projection };
        let stored = reading.stored;
        let weights = self.advance(&reading, tensor.reshape(stored), grad.reshape(stored), &mut memory, at);
        (weights.reshape(shape), Some(State::new(shape, memory)))
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.to_device(device)
    }
}

/// The weights after the update and their decay.
fn decayed(weights: Tensor<3>, update: Tensor<3>, At { rates, decays, .. }: At<'_>) -> Tensor<3> {
    if let [(_, decay)] = decays {
        return decay.update(weights, update, rates);
    }
    let mut start = 0;
    let parts = decays.iter().map(|(length, decay)| {
        let part = |row: &Tensor<3>| row.clone().narrow(2, start, *length);
        let updated = decay.update(part(&weights), part(&update), rates);
        start += length;
        updated
    });
    Tensor::cat(parts.collect(), 2)
}

/// Runs a step in f32 if the parameter is stored in half precision, and unchanged otherwise.
///
/// Sums of squares and slow averages do not fit into half precision; the state stays f32, only the
/// parameter is rounded, once, at the end. A weight beyond the range of its type becomes the largest number of that type.
pub(crate) fn in_working_precision<const D: usize>(
    tensor: Tensor<D>,
    grad: Tensor<D>,
    step: impl FnOnce(Tensor<D>, Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let dtype = tensor.dtype();
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return step(tensor, grad);
    }
    let tensor = step(tensor.cast(DType::F32), grad.cast(DType::F32));
    let largest = if dtype == DType::F16 { 65504.0 } else { LARGEST_BF16 };
    tensor.clamp(-largest, largest).cast(dtype)
}

/// The largest number of bf16; larger numbers of f32 would be rounded to infinity.
const LARGEST_BF16: f64 = 3.3895e38;
