//! Is an optimizer correct? Checks for `polaron`'s optimizers, for Burn's own and for yours.
//!
//! * [`contract`]: the promises of every optimizer (records, resuming, zero and extreme gradients, …), as a check for any of
//!   them.
//! * [`vectors`]: reference vectors, what every kind must compute step by step, and a runner for them.
//! * [`inspect`]: the symmetries of updates, their effect on singular values, spectra of weights.
//! * [`tasks`]: problems with known answers.
//!
//! ```
//! use burn::tensor::Device;
//! use polaron::OptimizerConfig;
//! use polaron_verify::{contract, vectors};
//!
//! contract::check_config(&OptimizerConfig::of_kind("muon")?, &Device::flex())?;
//! assert!(vectors::BUILT_IN.iter().any(|(name, _)| *name == "muon"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod contract;
pub mod inspect;
pub mod tasks;
pub mod vectors;
