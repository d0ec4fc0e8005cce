//! The only room that names a backend: what Burn's CPU backend can do in place, in host memory.
//!
//! Every function returns its tensors unchanged if they are not plain tensors of that backend, and always without the
//! feature `flex`; the caller then uses Burn's operations.

mod iteration;
#[cfg(feature = "flex")]
mod passes;
#[cfg(feature = "flex")]
mod polar;
#[cfg(feature = "flex")]
mod power;
#[cfg(feature = "flex")]
mod stack;
#[cfg(not(feature = "flex"))]
mod without;

pub(crate) use iteration::{Iteration, LEAST_SUM};
pub use iteration::{Norm, Normalisation};
#[cfg(feature = "flex")]
pub(crate) use passes::{in_place, is_here};
#[cfg(feature = "flex")]
pub(crate) use polar::iterate;
#[cfg(feature = "flex")]
pub(crate) use power::inverse_power;
#[cfg(not(feature = "flex"))]
pub(crate) use without::{in_place, inverse_power, is_here, iterate};
