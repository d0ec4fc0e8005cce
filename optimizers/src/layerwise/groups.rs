//! Groups: parameters with the same rule, settings, learning rate, schedule, shape and element type, which are stepped as one stack.
//! For entrywise rules the shape may differ: the parameters become one row.
//!
//! On a GPU a kernel launch costs the same for one small matrix as for sixteen. In host memory there is no such cost, and
//! the parameters of a group are stepped one by one (docs/PERFORMANCE.md); there both ways are bit-identical.

use burn::optim::DynState;
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{DType, Device, Tensor};

use super::course::{Course, When};
use super::{AnyOptimizer, PlanEntry};
use crate::matrix::{LayoutError, Reading};
#[cfg(feature = "exact")]
use crate::rule::Energy;
use crate::rule::{At, Decay, Extent, Memory, Pipeline, Rates};
use crate::rules::OptimizerConfig;
use crate::visit::Form;

/// When parameters of a group are stepped as one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stacking {
    /// Except in host memory.
    #[default]
    OnDevices,
    /// Whenever they are on one device.
    Always,
    /// One by one.
    Never,
}

/// Parameters that are stepped in the same way.
#[derive(Clone)]
pub(crate) struct Group {
    /// Numbers of the parameters.
    pub members: Vec<usize>,
    /// The settings that they share; `None` for a rule without a configuration.
    settings: Option<OptimizerConfig>,
    lr: f64,
    course: Course,
    pub states: States,
}

/// How a group is stepped, and its memories.
#[derive(Clone)]
pub(crate) enum States {
    /// A rule of this crate.
    Rule { pipeline: Pipeline, places: Places, dtype: DType, memories: Memories },
    /// Another Burn optimizer, of one parameter.
    Other { optimizer: AnyOptimizer, rank: usize, state: Option<DynState> },
}

/// The memories of the members.
#[derive(Clone)]
pub(crate) enum Memories {
    Apart(Vec<Option<Memory>>),
    Stacked(Memory),
}

/// How the members are read, and thus their places in the stack, and how they decay.
#[derive(Clone)]
pub(crate) struct Places(pub Vec<Place>);

/// The place of one member.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub reading: Reading,
    decay: Decay,
    stream: u64,
}

impl Places {
    fn axis(&self) -> usize {
        self.0[0].reading.stack_axis()
    }

    /// Start and length of every member along the axis of the stack, and the length of the stack.
    fn spans(&self) -> impl Iterator<Item = [usize; 3]> {
        let axis = self.axis();
        let total = self.0.iter().map(|place| place.reading.stored[axis]).sum();
        self.0.iter().scan(0, move |start, place| {
            let length = place.reading.stored[axis];
            let span = [*start, length, total];
            *start += length;
            Some(span)
        })
    }

    /// The decays of the parts of the stack; neighbours with the same decay are one part.
    fn decays(&self) -> Vec<(usize, Decay)> {
        let axis = self.axis();
        let mut decays: Vec<(usize, Decay)> = Vec::new();
        for Place { reading, decay, .. } in &self.0 {
            match decays.last_mut() {
                Some((length, last)) if last == decay => *length += reading.stored[axis],
                _ => decays.push((reading.stored[axis], *decay)),
            }
        }
        decays
    }

    /// The memories of all members from that of their stack.
    fn parts(&self, memory: &Memory) -> Vec<Option<Memory>> {
        self.spans().map(|span| Some(memory.part(self.axis(), span))).collect()
    }
}

impl Memories {
    /// Joins them to one stack, if all members have taken the same number of steps; returns whether they are one now.
    fn gather(&mut self, places: &Places) -> bool {
        let Self::Apart(memories) = self else { return true };
        if memories.iter().all(Option::is_none) {
            *self = Self::Stacked(Memory::default());
        } else if memories.iter().all(Option::is_some) {
            match Memory::stack(memories.drain(..).flatten().collect(), places.axis()) {
                Ok(stacked) => *self = Self::Stacked(stacked),
                Err(apart) => *memories = apart.into_iter().map(Some).collect(),
            }
        }
        matches!(self, Self::Stacked(_))
    }

    /// Splits them into one for every member.
    fn scatter(&mut self, places: &Places) {
        if let Self::Stacked(memory) = self {
            *self = Self::Apart(places.parts(memory));
        }
    }
}

impl Group {
    /// A group with one parameter.
    ///
    /// # Errors
    /// If the rule cannot read a parameter of this shape.
    pub fn new(number: usize, optimizer: &AnyOptimizer, entry: &PlanEntry, form: &Form) -> Result<Self, LayoutError> {
        let states = match &optimizer.rule {
            Some(pipeline) => {
                let reading = pipeline.reading(&form.shape)?;
                let places = Places(vec![Place { reading, decay: pipeline.decay(), stream: pipeline.stream() }]);
                let memories = Memories::Apart(vec![None]);
                States::Rule { pipeline: pipeline.clone(), places, dtype: form.dtype, memories }
            }
            None => States::Other { optimizer: optimizer.clone(), rank: form.shape.len(), state: None },
        };
        // Parts of a row may decay differently.
        let settings = entry
            .config()
            .map(|settings| if settings.is_matrix_rule() { settings.clone() } else { settings.without_decay() });
        Ok(Self { members: vec![number], settings, lr: entry.lr, course: entry.course(), states })
    }

    /// Adds the parameter of another group, if both are stepped in the same way.
    pub fn join(&mut self, other: &Self) -> bool {
        let (
            States::Rule { pipeline, places, dtype, memories },
            States::Rule { pipeline: its, places: Places(read), dtype: of, .. },
        ) = (&mut self.states, &other.states)
        else {
            return false;
        };
        // A projection is that of one parameter.
        if pipeline.projection().is_some() || its.projection().is_some() {
            return false;
        }
        let same_rule = match (&self.settings, &other.settings) {
            (Some(settings), Some(of)) => settings == of,
            _ => pipeline.is_same(its),
        };
        let alike = same_rule
            && (self.lr, self.course) == (other.lr, other.course)
            && dtype == of
            && stacks(pipeline, &places.0[0].reading, &read[0].reading);
        if alike {
            // Next to those with the same decay.
            let alike = places.0.iter().rposition(|place| place.decay == read[0].decay);
            let at = alike.map_or(self.members.len(), |last| last + 1);
            self.members.splice(at..at, other.members.iter().copied());
            places.0.splice(at..at, read.iter().copied());
            *memories = Memories::Apart(vec![None; self.members.len()]);
        }
        alike
    }

    /// The learning rate at this moment.
    pub fn lr_at(&self, when: &When) -> f64 {
        self.course.factor(when) * self.lr
    }

    /// The energy of all members after a step at this moment; 0 for a rule that has none.
    #[cfg(feature = "exact")]
    pub fn energy(&self, when: &When) -> Energy {
        let smoothing = self.settings.as_ref().and_then(OptimizerConfig::smoothing);
        let (Some(smoothing), States::Rule { pipeline, .. }) = (smoothing, &self.states) else {
            return Energy::default();
        };
        let (lr, momentum) = (self.lr_at(when), self.course.momentum(when));
        let known =
            self.places().iter().zip(self.memories()).filter_map(|(place, memory)| Some((place.reading, memory?)));
        known.map(|(reading, memory)| pipeline.energy(smoothing, &reading, &memory, lr, momentum)).sum()
    }

    /// Ends the weight decay of a rule of this crate.
    pub fn drop_decay(&mut self) {
        if let States::Rule { pipeline, places, .. } = &mut self.states {
            *pipeline = pipeline.clone().with_decay(Decay::default());
            places.0.iter_mut().for_each(|place| place.decay = Decay::default());
        }
    }

    /// How the members are read, for a rule of this crate.
    pub fn places(&self) -> &[Place] {
        match &self.states {
            States::Rule { places, .. } => &places.0,
            States::Other { .. } => &[],
        }
    }

    /// The memories of the members, for a rule of this crate.
    pub fn memories(&self) -> Vec<Option<Memory>> {
        match &self.states {
            States::Rule { memories: Memories::Apart(memories), .. } => memories.clone(),
            States::Rule { memories: Memories::Stacked(memory), places, .. } => places.parts(memory),
            States::Other { .. } => Vec::new(),
        }
    }

    /// The work of a step: one piece for the stack, or one for every member that has a gradient.
    pub fn work<'a>(
        &'a mut self,
        when: &When,
        stacking: Stacking,
        taken: &mut [Option<Taken>],
    ) -> Vec<ParameterUpdate<'a>> {
        let factor = self.course.factor(when);
        let (rates, members) = (Rates { lr: factor * self.lr, factor }, &self.members);
        let (momentum, progress) = (self.course.momentum(when), when.progress);
        match &mut self.states {
            States::Other { optimizer, rank, state } => {
                let Some(taken) = taken[members[0]].take() else { return Vec::new() };
                let piece = Piece::Other { optimizer, rank: *rank, lr: rates.lr, state };
                vec![ParameterUpdate::new(piece, vec![(members[0], taken)])]
            }
            States::Rule { pipeline, places, memories, .. } => {
                if members.iter().all(|number| taken[*number].is_none()) {
                    return Vec::new();
                }
                if !(can_stack(members, taken, stacking) && memories.gather(places)) {
                    memories.scatter(places);
                }
                let piece = |memory, places: &'a [Place], taken| {
                    ParameterUpdate::new(Piece::Rule { pipeline, places, memory, rates, momentum, progress }, taken)
                };
                let places: &'a [Place] = &places.0;
                match memories {
                    Memories::Stacked(memory) => {
                        let all = members.iter().filter_map(|number| Some((*number, taken[*number].take()?))).collect();
                        vec![piece(memory, places, all)]
                    }
                    Memories::Apart(memories) => {
                        let one = |((number, place), memory): ((&usize, &'a Place), &'a mut Option<Memory>)| {
                            let taken = vec![(*number, taken[*number].take()?)];
                            Some(piece(memory.get_or_insert_default(), std::slice::from_ref(place), taken))
                        };
                        members.iter().zip(places).zip(memories).filter_map(one).collect()
                    }
                }
            }
        }
    }
}

/// Whether parameters that are read like this can be stacked. A row of entries can only be split again if every buffer has
/// a number for every entry.
fn stacks(pipeline: &Pipeline, reading: &Reading, other: &Reading) -> bool {
    let all_entries = || pipeline.memories().iter().all(|kept| kept.extent == Extent::Entries);
    reading.stacks_with(other) && (pipeline.is_matrix_rule() || all_entries())
}

/// Whether all members have a gradient, are on one device on which stacking helps, and have gradients of one element type.
fn can_stack(members: &[usize], taken: &[Option<Taken>], stacking: Stacking) -> bool {
    let form = |number: &usize| {
        let taken = taken[*number].as_ref()?;
        let helps = match stacking {
            Stacking::OnDevices => !taken.on_host,
            Stacking::Always => true,
            Stacking::Never => false,
        };
        helps.then(|| (taken.device.clone(), taken.gradient_dtype))
    };
    let first = members.first().and_then(form);
    members.len() > 1 && first.is_some() && members.iter().all(|number| form(number) == first)
}

/// A parameter taken out of its module, without its autodiff graph, and its gradient; in the shape in which its rule reads
/// them.
pub(crate) struct Taken {
    pub weights: BridgeTensor,
    pub gradient: BridgeTensor,
    pub device: Device,
    pub gradient_dtype: DType,
    /// Whether it is in host memory.
    pub on_host: bool,
    pub elements: usize,
}

enum Piece<'a> {
    Rule {
        pipeline: &'a Pipeline,
        places: &'a [Place],
        memory: &'a mut Memory,
        rates: Rates,
        momentum: Option<f64>,
        progress: f64,
    },
    Other {
        optimizer: &'a AnyOptimizer,
        rank: usize,
        lr: f64,
        state: &'a mut Option<DynState>,
    },
}

/// The update of one parameter in one step, or of several that are stepped as one stack; can be run on any thread.
pub struct ParameterUpdate<'a> {
    piece: Piece<'a>,
    elements: usize,
    waiting: Vec<(usize, Taken)>,
    updated: Vec<(usize, BridgeTensor)>,
}

impl<'a> ParameterUpdate<'a> {
    fn new(piece: Piece<'a>, waiting: Vec<(usize, Taken)>) -> Self {
        let elements = waiting.iter().map(|(_, taken)| taken.elements).sum();
        Self { piece, elements, waiting, updated: Vec::new() }
    }

    /// Number of elements of the parameters: a hint for distributing the work.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Runs the update; does nothing if it has run before.
    pub fn run(&mut self) {
        let Some(device) = self.waiting.first().map(|(_, taken)| taken.device.clone()) else { return };
        let waiting = std::mem::take(&mut self.waiting);
        match &mut self.piece {
            Piece::Other { optimizer, rank, lr, state } => {
                for (number, taken) in waiting {
                    let optimizer = &optimizer.optimizer;
                    let old = state.take().map(|state| optimizer.to_device_dyn(state, &device));
                    let (updated, new) = optimizer.step_dyn(*rank, *lr, taken.weights, taken.gradient, old);
                    **state = new;
                    self.updated.push((number, updated));
                }
            }
            Piece::Rule { pipeline, places, memory, rates, momentum, progress } => {
                **memory = std::mem::take(*memory).on_device(&device);
                let places = Places(places.to_vec());
                let decays = places.decays();
                let streams: Vec<u64> = places.0.iter().map(|place| place.stream).collect();
                let (rates, momentum, progress) = (*rates, *momentum, *progress);
                let projection = pipeline.projection();
                let at = At { rates, momentum, decays: &decays, progress, streams: &streams, projection };
                self.updated = step_stack(pipeline, &places, memory, at, waiting);
            }
        }
    }

    pub(crate) fn finish(mut self) -> Vec<(usize, BridgeTensor)> {
        self.run();
        self.updated
    }
}

impl std::fmt::Debug for ParameterUpdate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParameterUpdate({} elements)", self.elements)
    }
}

/// Steps the parameters as one stack.
fn step_stack(
    pipeline: &Pipeline,
    places: &Places,
    memory: &mut Memory,
    at: At<'_>,
    waiting: Vec<(usize, Taken)>,
) -> Vec<(usize, BridgeTensor)> {
    let (axis, reading) = (places.axis(), &places.0[0].reading);
    let numbers: Vec<usize> = waiting.iter().map(|(number, _)| *number).collect();
    let (weights, gradients) = waiting.into_iter().map(|(_, taken)| (taken.weights, taken.gradient)).unzip();
    let updated = pipeline.advance(reading, stacked(weights, axis), stacked(gradients, axis), memory, at);
    if let [number] = numbers[..] {
        return vec![(number, updated.into_bridge())];
    }
    let part = |(number, [start, length, _]): (usize, [usize; 3])| {
        (number, updated.clone().narrow(axis, start, length).into_bridge())
    };
    numbers.into_iter().zip(places.spans()).map(part).collect()
}

/// A single tensor is returned unchanged: it is not shared, so it can be changed in place.
fn stacked(tensors: Vec<BridgeTensor>, axis: usize) -> Tensor<3> {
    let mut tensors: Vec<Tensor<3>> = tensors.into_iter().map(Tensor::from_bridge).collect();
    match tensors.len() {
        1 => tensors.remove(0),
        _ => Tensor::cat(tensors, axis),
    }
}
