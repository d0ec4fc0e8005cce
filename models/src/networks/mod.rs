//! Whole models, made of layers.

pub(crate) mod block;
pub(crate) mod decoder;
pub(crate) mod lora;
pub(crate) mod mlp;
mod recompute;
mod roles;
