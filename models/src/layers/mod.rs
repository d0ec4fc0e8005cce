//! The layers of models: each chooses between its fused kernel and Burn's operations.

pub(crate) mod attention;
pub(crate) mod cache;
pub(crate) mod experts;
pub(crate) mod feed_forward;
mod kept;
pub(crate) mod linear;
pub(crate) mod lora;
pub(crate) mod loss;
mod mask;
pub(crate) mod norm;
pub(crate) mod positions;
mod rotary;
pub(crate) mod router;
pub(crate) mod routing;
