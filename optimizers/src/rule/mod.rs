//! What all rules share: the trait of a rule and its input, named memories, momentum, shape scale, weight decay, the order
//! of a step as data, and the only implementation of Burn's `Optimizer`.

#[cfg(feature = "exact")]
mod bases;
mod coefficients;
mod decay;
#[cfg(feature = "exact")]
mod energy;
mod form;
mod gain;
mod kind;
mod memory;
mod moments;
mod momentum;
mod norm_control;
mod one_sided;
mod pipeline;
mod polar;
mod preconditioner;
mod projection;
mod scale;
mod second_moment;
mod settings;
#[cfg(feature = "exact")]
mod smoothing;
mod stage;

#[cfg(feature = "exact")]
pub(crate) use bases::{Bases, Learning};
pub use coefficients::{CoefficientList, Coefficients};
pub use decay::{Decay, DecayForm, Rates};
#[cfg(feature = "exact")]
pub use energy::Energy;
pub use form::MomentumForm;
pub use gain::Gain;
pub(crate) use kind::{About, Kind, follows_gradient, follows_rank, state_in_words};
pub use kind::{Cost, Description, ExactTarget, StackRow, SymmetryRow};
pub(crate) use memory::NAMES;
pub use memory::{Extent, Kept, Memory, State};
pub(crate) use moments::{Moments, debias};
pub use momentum::Momentum;
pub use norm_control::NormControl;
pub use one_sided::OneSided;
pub(crate) use pipeline::{At, in_working_precision};
pub use pipeline::{Order, Pipeline};
pub use polar::Polar;
pub(crate) use polar::check_exact;
pub use preconditioner::Preconditioner;
pub use projection::Projection;
pub use scale::Scale;
pub(crate) use second_moment::SecondMoment;
pub(crate) use settings::kind_settings;
#[cfg(feature = "exact")]
pub(crate) use smoothing::Smoothing;
pub use stage::{Direction, Rule, Stage, Update};
