//! Layers as single passes with hand-written gradients, for Burn's CPU backend.
//!
//! Burn runs a softmax, a norm or a gated product as five to fifteen operations with their gradients, each a pass over
//! memory, and its exponential is a scalar call. On a CPU these passes cost more than the matrix products. The kernels
//! here do each forward and each backward in one pass, in vector code, on all threads, and enter the autodiff graph as
//! one node. Every function gives its inputs back (`Err`) where it cannot serve them: the caller then takes Burn's
//! operations, which compute the same.

mod kernels;
mod math;
mod tape;

use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::NormKind;
use kernels::{CausalSoftmaxKernel, CrossEntropyKernel, GeluKernel, NormKernel, RotaryKernel, SwiGluKernel};
use tape::{Kernel, apply};

/// Norm of the lines of `x`, `[tokens, d_model]`, times `gain`.
pub(crate) fn norm(kind: NormKind, x: Tensor<2>, gain: Tensor<1>) -> Result<Tensor<2>, (Tensor<2>, Tensor<1>)> {
    match apply(NormKernel { kind }, [x.into_dispatch(), gain.into_dispatch()]) {
        Ok(value) => Ok(Tensor::from_dispatch(value)),
        Err([x, gain]) => Err((Tensor::from_dispatch(x), Tensor::from_dispatch(gain))),
    }
}

/// `silu(gate) · up`.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Result<Tensor<2>, (Tensor<2>, Tensor<2>)> {
    match apply(SwiGluKernel, [gate.into_dispatch(), up.into_dispatch()]) {
        Ok(value) => Ok(Tensor::from_dispatch(value)),
        Err([gate, up]) => Err((Tensor::from_dispatch(gate), Tensor::from_dispatch(up))),
    }
}

/// Exact GELU.
pub(crate) fn gelu(x: Tensor<2>) -> Result<Tensor<2>, Tensor<2>> {
    unary(GeluKernel, x)
}

/// Causal softmax of `scores · scale`, `[batch, heads, context, context]`.
pub(crate) fn causal_softmax(scores: Tensor<4>, scale: f64) -> Result<Tensor<4>, Tensor<4>> {
    unary(CausalSoftmaxKernel { scale: scale as f32 }, scores)
}

/// Mean cross-entropy of `logits`, `[tokens, vocab]`, against `targets`, `[tokens]`.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: &Tensor<1, Int>) -> Result<Tensor<1>, Tensor<2>> {
    let targets = targets.to_data().iter::<i64>().collect();
    match apply(CrossEntropyKernel { targets }, [logits.into_dispatch()]) {
        Ok(value) => Ok(Tensor::from_dispatch(value)),
        Err([logits]) => Err(Tensor::from_dispatch(logits)),
    }
}

/// Rotary positions on `x`, `[batch · context, heads · head_dim]`; tables `[context, head_dim / 2]`.
pub(crate) fn rotary(
    x: Tensor<2>,
    cos: &Arc<[f32]>,
    sin: &Arc<[f32]>,
    context: usize,
    head_dim: usize,
) -> Result<Tensor<2>, Tensor<2>> {
    unary(RotaryKernel { cos: cos.clone(), sin: sin.clone(), context, head_dim }, x)
}

fn unary<K: Kernel<1>, const D: usize>(kernel: K, x: Tensor<D>) -> Result<Tensor<D>, Tensor<D>> {
    match apply(kernel, [x.into_dispatch()]) {
        Ok(value) => Ok(Tensor::from_dispatch(value)),
        Err([x]) => Err(Tensor::from_dispatch(x)),
    }
}
