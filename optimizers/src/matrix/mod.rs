//! Functions of one matrix or a stack of matrices. Nothing here depends on optimizers or configurations.

#[cfg(feature = "exact")]
mod eigenbasis;
#[cfg(feature = "exact")]
mod exact;
#[cfg(not(feature = "exact"))]
#[path = "without_exact.rs"]
mod exact;
#[cfg(feature = "exact")]
mod host;
mod inverse_power;
#[cfg(feature = "exact")]
mod inverse_root;
mod layout;
mod norms;
mod one_sided;
mod placement;
mod polar;
mod reading;
#[cfg(feature = "exact")]
mod refactor;

pub use crate::flex::{Norm, Normalisation};
#[cfg(feature = "exact")]
pub(crate) use eigenbasis::{iterated_basis, noise, singular_bases};
#[cfg(not(feature = "exact"))]
pub(crate) use exact::map_by_rational_power;
pub use exact::map_singular_values;
#[cfg(feature = "exact")]
pub use exact::singular_values;
pub(crate) use inverse_power::inverse_power;
#[cfg(feature = "exact")]
pub(crate) use inverse_root::map_by_rational_power;
#[cfg(feature = "exact")]
pub use inverse_root::{RationalStep, rational_schedule};
pub use layout::{Axis, Blocks, Layout, LayoutError, Matrix};
pub use norms::{EpsMode, center, frobenius_norm, inner_product, normalize_units, unit_norms, unit_sums};
pub(crate) use norms::{InRange, divide_or_zero, hypotenuse, identity_like, power, sign, spectral_norm, with_norm};
pub(crate) use one_sided::{appended_root, coupled_root, gram_root, root_level};
pub use placement::Placement;
pub use polar::{
    CONVERGED, MINIMAX_3, MINIMAX_4, MINIMAX_NORM_FACTOR, NEWTON_SCHULZ, POLAR_EXPRESS, POLAR_EXPRESS_LIMIT,
    polar_polynomial, polar_svd, scalar_map,
};
pub(crate) use polar::{POLAR_EXPRESS_NORM_FACTOR, first_unsafe_value};
pub(crate) use reading::{Reading, Section};
#[cfg(feature = "exact")]
pub use refactor::{Refactored, refactored};
