//! Functions of one matrix or a stack of them. Nothing here knows what an optimizer is.

mod exact;
#[cfg(feature = "flex")]
mod host;
mod layout;
mod norms;
mod one_sided;
mod polar;
mod rational;

pub use exact::map_singular_values;
pub(crate) use exact::{Scaled, map_on_host};
pub use layout::{Axis, Blocks, Layout, LayoutError, Matrix, Placement};
pub use norms::{EpsMode, center, frobenius_norm, inner_product, normalize_units, unit_norms, unit_sums};
pub(crate) use norms::{InRange, divide_or_zero, hypotenuse, power, sign};
pub use one_sided::OneSided;
pub(crate) use one_sided::identity_like;
pub use polar::{NEWTON_SCHULZ, POLAR_EXPRESS, POLAR_EXPRESS_LIMIT, Polar, polar_polynomial, polar_svd, scalar_map};
pub(crate) use rational::rational_power;
pub use rational::{RationalStep, rational_schedule};
