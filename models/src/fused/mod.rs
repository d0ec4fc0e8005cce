//! Layers as single passes with hand-written gradients, for Burn's CPU backend.
//!
//! Burn runs a softmax, a norm or a gated product, with its gradient, as five to fifteen operations; each is a pass over memory,
//! and its exponential is a scalar call. On a CPU these passes cost more than the matrix products. The kernels here do each
//! forward and each backward in one pass, in vector code, on all threads, and are one node of the autodiff graph. A layer first
//! asks whether they apply to its tensors ([`serve`]); otherwise it uses Burn's operations, which compute the same.

mod activations;
mod attend;
mod attend_back;
mod attention;
mod calls;
mod cross_entropy;
mod grouped;
mod head_loss;
mod heads;
mod math;
mod norm;
mod product;
mod rotary;
mod run;
mod softmax;
mod tape;

pub(crate) use calls::{
    attention, cross_entropy, gated, gelu, grouped_add, grouped_matmul, head_loss, joint_attention, matmul, norm,
    rotary, serve,
};
pub use product::tune_products;
