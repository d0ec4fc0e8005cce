//! Rules: what makes one optimizer different from another. One file each.

pub mod adamw;
pub mod muon;
pub mod sgd;

pub use adamw::{AdamW, AdamWConfig};
pub use muon::{Muon, MuonConfig};
pub use sgd::{Sgd, SgdConfig};

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
