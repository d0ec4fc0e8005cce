//! Functions of one matrix or a stack of them. Nothing here knows what an optimizer is.

mod layout;
mod norms;
mod polar;

pub use layout::{Axis, Blocks, Layout, LayoutError, Matrix, Placement};
pub use norms::frobenius_norm;
pub use polar::{NEWTON_SCHULZ, POLAR_EXPRESS, POLAR_EXPRESS_LIMIT, Polar, polar_polynomial, polar_svd, scalar_map};
