//! The trait of a rule: it reads a stage of a step and returns a direction.

use burn::tensor::Tensor;

use super::{Decay, Kept, Memory, Rates};
use crate::matrix::Matrix;

/// The input of a rule in one step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stage {
    /// The matrices to work on: the momentum, or the gradient if the rule comes first or there is no momentum. A stack,
    /// with those of several parameters one after another; for an entrywise rule `[parameters, 1, entries]`.
    pub matrix: Matrix,
    /// The gradient before the momentum, if [`Rule::reads_gradient`].
    pub gradient: Option<Matrix>,
    /// The weights before the step, if [`Rule::reads_weights`].
    pub weights: Option<Matrix>,
    /// Number of the step, from 1.
    pub number: u64,
    /// Learning rate of the step, schedule included.
    pub lr: f64,
    /// The factor of the schedule that is part of it; 1 without a schedule.
    pub factor: f64,
    /// The momentum of the step if it follows a course, for a rule that keeps its own.
    pub momentum: Option<f64>,
    /// Share of the training that is done, from 0 to 1; 0 if the caller does not set it.
    pub progress: f64,
    /// Number of parameters in the stack.
    pub parameters: usize,
    /// For each of these parameters a number that follows from its path in a plan, for rules that draw numbers; 0 for a step
    /// that was built without a plan.
    pub streams: Vec<u64>,
}

impl Stage {
    /// The first step of one parameter, with learning rate 1.
    pub fn new(matrix: Matrix) -> Self {
        Self {
            matrix,
            gradient: None,
            weights: None,
            number: 1,
            lr: 1.0,
            factor: 1.0,
            momentum: None,
            progress: 0.0,
            parameters: 1,
            streams: vec![0],
        }
    }

    /// Sets the number of the step.
    #[must_use]
    pub fn with_number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// Sets the learning rate.
    #[must_use]
    pub fn with_lr(mut self, lr: f64) -> Self {
        self.lr = lr;
        self
    }
}

/// The output of a rule.
#[derive(Clone, Debug)]
pub struct Update {
    /// The direction of every matrix, before shape scale and learning rate.
    pub direction: Matrix,
    /// A factor for every matrix, `[matrices, 1, 1]`, applied at the end: if the momentum averages directions, the factor
    /// is not part of the average.
    pub size: Option<Tensor<3>>,
}

impl From<Matrix> for Update {
    fn from(direction: Matrix) -> Self {
        Self { direction, size: None }
    }
}

/// A rule: the part in which optimizers differ.
///
/// Everything else (momentum, shape scale, weight decay, layouts, experts, blocks, state and its record) is added by
/// [`Pipeline`](super::Pipeline). A rule that is a function of one matrix implements [`Direction`] instead.
///
/// ```
/// use polaron::rule::{Kept, Memory, Pipeline, Rule, Stage, Update};
///
/// /// The sum of the last two momenta.
/// #[derive(Debug)]
/// struct Twice;
///
/// impl Rule for Twice {
///     fn advance(&self, stage: Stage, memory: &mut Memory) -> Update {
///         let now = stage.matrix.tensor().clone();
///         let last = memory.take("last", now.dims());
///         memory.keep("last", now);
///         stage.matrix.map(|m| last.map_or(m.clone(), |last| last + m)).into()
///     }
///
///     fn memories(&self) -> Vec<Kept> {
///         vec![Kept::entries("last")]
///     }
/// }
///
/// let optimizer = Pipeline::new(Twice); // implements `burn::optim::Optimizer`
/// # let _ = optimizer;
/// ```
pub trait Rule: std::fmt::Debug + Send + Sync + 'static {
    /// The direction of every matrix of the stack; each matrix must be processed independently. A zero matrix must give a
    /// finite result.
    fn advance(&self, stage: Stage, memory: &mut Memory) -> Update;

    /// The buffers that the rule keeps between steps, other than the momentum.
    fn memories(&self) -> Vec<Kept> {
        Vec::new()
    }

    /// Whether [`Stage::gradient`] is needed.
    fn reads_gradient(&self) -> bool {
        false
    }

    /// Whether [`Stage::weights`] are needed.
    fn reads_weights(&self) -> bool {
        false
    }

    /// Whether the weights decay after the update, `(1 - lr wd) (W - lr U)`, rather than before it.
    fn decays_after(&self) -> bool {
        false
    }

    /// Whether in a step of this number the direction is not one, but the weights after the step: nothing else changes them,
    /// no shape scale and no decay. For a rule that keeps the weights in another form, or leaves them as they are.
    fn sets_weights(&self, _step: u64) -> bool {
        false
    }

    /// Whether entries are processed independently, so that parameters of any rank can be stepped.
    fn is_entrywise(&self) -> bool {
        false
    }

    /// Whether a matrix rule also steps vectors, read as matrices from one input.
    fn takes_vectors(&self) -> bool {
        false
    }

    /// Weights scaled onto the surface of the norm ball in which the rule keeps them; zero stays zero. `None` for a rule
    /// without a ball.
    fn onto_ball(&self, _weights: Matrix) -> Option<Matrix> {
        None
    }

    /// The whole step of an entrywise rule in one pass over memory, if the tensors allow it, with bit-identical results:
    /// returns the weights after it. Otherwise returns weights and gradient, and changes nothing. `memory` already counts
    /// this step.
    #[allow(clippy::result_large_err, reason = "an `Err` returns the arguments, it is not a failure")]
    fn step_in_place(
        &self,
        weights: Tensor<3>,
        gradient: Tensor<3>,
        _memory: &mut Memory,
        _decay: Decay,
        _rates: Rates,
    ) -> Result<Tensor<3>, (Tensor<3>, Tensor<3>)> {
        Err((weights, gradient))
    }
}

/// A rule that is a function of one matrix, from momentum to direction.
///
/// ```
/// use polaron::{matrix::Matrix, rule::{Direction, Pipeline}};
///
/// /// The sign of every entry.
/// #[derive(Debug)]
/// struct Sign;
///
/// impl Direction for Sign {
///     fn direction(&self, momentum: Matrix) -> Matrix {
///         momentum.map(|m| m.sign())
///     }
/// }
///
/// let optimizer = Pipeline::new(Sign); // implements `burn::optim::Optimizer`
/// # let _ = optimizer;
/// ```
pub trait Direction: std::fmt::Debug + Send + Sync + 'static {
    /// The direction of every matrix of the stack, before shape scale and learning rate.
    ///
    /// A zero matrix must give a finite result.
    fn direction(&self, momentum: Matrix) -> Matrix;
}

impl<R: Direction> Rule for R {
    fn advance(&self, stage: Stage, _memory: &mut Memory) -> Update {
        self.direction(stage.matrix).into()
    }
}
