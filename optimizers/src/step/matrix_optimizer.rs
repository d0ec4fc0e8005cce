//! A rule on matrices as a Burn optimizer.

use burn::optim::{ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

use super::{Decay, Momentum, Scale, State, in_working_precision};
use crate::direction::{SharedDirection, StatefulDirection, StepInfo};
use crate::matrix::Placement;

/// A [`Direction`](crate::direction::Direction) with momentum, shape scale, weight decay and placement: a `burn::optim::Optimizer`
/// on matrices `[d_in, d_out]` and stacks `[E, d_in, d_out]`.
///
/// # Panics
/// The step panics on a parameter that is no matrix; [`Layerwise`](crate::Layerwise) finds that out
/// before training and says which parameter it is.
#[derive(Clone, Debug)]
pub struct MatrixOptimizer<R: StatefulDirection> {
    rule: R,
    momentum: Momentum,
    scale: Scale,
    decay: Decay,
    placement: Placement,
}

impl<R: StatefulDirection> MatrixOptimizer<R> {
    /// Momentum 0.95 (average), no scale, no decay, stored `[d_in, d_out]` in one piece.
    pub fn new(rule: R) -> Self {
        Self {
            rule,
            momentum: Momentum::default(),
            scale: Scale::None,
            decay: Decay::default(),
            placement: Placement::default(),
        }
    }

    /// Sets the momentum.
    pub fn with_momentum(mut self, momentum: Momentum) -> Self {
        self.momentum = momentum;
        self
    }

    /// Sets the factor by the shape.
    pub fn with_scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Sets the weight decay.
    pub fn with_decay(mut self, decay: Decay) -> Self {
        self.decay = decay;
        self
    }

    /// Says how the parameters are stored and which blocks they consist of.
    pub fn with_placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// The same optimizer with its rule behind one type.
    pub fn shared(self) -> MatrixOptimizer<SharedDirection> {
        let Self { rule, momentum, scale, decay, placement } = self;
        MatrixOptimizer { rule: SharedDirection::new(rule), momentum, scale, decay, placement }
    }

    /// The optimizer of a module that has only matrices and stacks of them.
    pub fn init(&self) -> ModuleOptimizer {
        self.clone().into()
    }

    /// `scale · direction` in the parameter's own shape, and the rule's memory.
    fn scaled_direction<const D: usize>(
        &self,
        momentum: Tensor<D>,
        at: StepInfo,
        memory: Option<Tensor<3>>,
    ) -> (Tensor<D>, Option<Tensor<3>>) {
        let shape = momentum.dims();
        let matrix = self.placement.split(momentum);
        let factor = self.scale.factor(matrix.outputs(), matrix.inputs());
        let (direction, memory) = self.rule.advance(matrix, at, memory);
        let direction = self.placement.join(direction, shape);
        (if factor == 1.0 { direction } else { direction * factor }, memory)
    }
}

impl<R: StatefulDirection> Optimizer for MatrixOptimizer<R> {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        in_working_precision(tensor, grad, |tensor, grad| {
            let state = State::of(state, &tensor);
            let memory = state.as_ref().and_then(|state| state.memory.clone());
            let (momentum, state) = self.momentum.advance(grad, state);
            let at = StepInfo { number: state.step, lr };
            let (update, memory) = self.scaled_direction(momentum, at, memory);
            (self.decay.update(tensor, update, lr), Some(State { memory, ..state }))
        })
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.to_device(device)
    }
}
