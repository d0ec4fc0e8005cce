//! Rules: what makes one optimizer different from another. One file each.

pub mod adamuon;
pub mod adamw;
pub mod error_feedback_muon;
pub mod freon;
pub mod hybrid;
pub mod kaon;
pub mod muon;
pub mod muon_eq;
pub mod normuon;
pub mod polar_grad;
pub mod random_spectrum;
pub mod regularized_muon;
pub mod row_norm;
pub mod scion;
pub mod sgd;
pub mod spectral;
pub mod ssd;

pub use adamuon::{AdaMuon, AdaMuonConfig};
pub use adamw::{AdamW, AdamWConfig};
pub use error_feedback_muon::{ErrorFeedbackMuon, ErrorFeedbackMuonConfig};
pub use freon::{Freon, FreonConfig};
pub use hybrid::{Hybrid, HybridConfig};
pub use kaon::{Kaon, KaonConfig};
pub use muon::{Muon, MuonConfig};
pub use muon_eq::{MuonEq, MuonEqConfig};
pub use normuon::{NorMuon, NorMuonConfig};
pub use polar_grad::{PolarGrad, PolarGradConfig};
pub use random_spectrum::{RandomSpectrum, RandomSpectrumConfig};
pub use regularized_muon::{RegularizedMuon, RegularizedMuonConfig};
pub use row_norm::{RowNorm, RowNormConfig};
pub use scion::{Scion, ScionConfig};
pub use sgd::{Sgd, SgdConfig};
pub use spectral::{Spectral, SpectralConfig};
pub use ssd::{Ssd, SsdConfig};

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::matrix::Matrix;

/// A rule on matrices: momentum in, update direction out.
///
/// Everything else (momentum, shape scale, weight decay, layout, blocks, state and its record) is
/// added by [`MatrixOptimizer`](crate::step::MatrixOptimizer). This is what you implement for a rule of your own.
///
/// ```
/// use polaron::{direction::Direction, matrix::Matrix, step::MatrixOptimizer};
///
/// /// The sign of every entry.
/// #[derive(Clone, Debug)]
/// struct Sign;
///
/// impl Direction for Sign {
///     fn direction(&self, momentum: Matrix) -> Matrix {
///         momentum.map(|m| m.sign())
///     }
/// }
///
/// let optimizer = MatrixOptimizer::new(Sign); // implements `burn::optim::Optimizer`
/// # let _ = optimizer;
/// ```
pub trait Direction: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The update direction of every matrix of the stack, before shape scale and learning rate.
    ///
    /// A zero matrix must give a finite result.
    fn direction(&self, momentum: Matrix) -> Matrix;
}

/// Where in training a step is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepInfo {
    /// Number of the step, from 1.
    pub number: u64,
    /// Learning rate of the step, schedule included.
    pub lr: f64,
}

/// A rule that also remembers something of its own, or looks at the step.
///
/// Every [`Direction`] is one that does neither.
///
/// ```
/// use burn::tensor::Tensor;
/// use polaron::direction::{StatefulDirection, StepInfo};
/// use polaron::matrix::Matrix;
///
/// /// The sum of the last two momenta.
/// #[derive(Clone, Debug)]
/// struct Twice;
///
/// impl StatefulDirection for Twice {
///     fn advance(&self, m: Matrix, _: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>) {
///         let now = m.tensor().clone();
///         let direction = m.map(|m| memory.map_or(m.clone(), |last| last + m));
///         (direction, Some(now))
///     }
/// }
/// ```
pub trait StatefulDirection: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The update direction of every matrix of the stack, before shape scale and learning rate, and
    /// what to remember until the next step.
    ///
    /// The memory is a stack like the momentum's, `[batch, ., .]`; axes may have size 1. It is part
    /// of the state, so it is saved and resumed with it. The first step has none.
    fn advance(&self, momentum: Matrix, at: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>);
}

impl<R: Direction> StatefulDirection for R {
    fn advance(&self, momentum: Matrix, _at: StepInfo, _memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>) {
        (self.direction(momentum), None)
    }
}

/// The memory of the last step, which must have the shape of this step's.
///
/// # Panics
/// If it has not: a record was loaded into an optimizer with other blocks or another axis. Broadcasting would
/// go on with wrong numbers.
fn matching(memory: Option<Tensor<3>>, like: &Tensor<3>) -> Option<Tensor<3>> {
    if let Some(memory) = &memory {
        let (was, is) = (memory.dims(), like.dims());
        assert!(was == is, "the record was written with other blocks or another axis: memory {was:?}, now {is:?}");
    }
    memory
}

/// Any rule behind one type, so that the code around it is compiled once.
#[derive(Clone, Debug)]
pub struct SharedDirection(Arc<dyn Erased>);

trait Erased: std::fmt::Debug + Send + Sync {
    fn advance_erased(&self, momentum: Matrix, at: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>);
}

impl<R: StatefulDirection> Erased for R {
    fn advance_erased(&self, momentum: Matrix, at: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>) {
        self.advance(momentum, at, memory)
    }
}

impl SharedDirection {
    /// Wraps a rule.
    pub fn new(rule: impl StatefulDirection) -> Self {
        Self(Arc::new(rule))
    }
}

impl StatefulDirection for SharedDirection {
    fn advance(&self, momentum: Matrix, at: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>) {
        self.0.advance_erased(momentum, at, memory)
    }
}
