//! Layers as single passes with hand-written gradients, for Burn's CPU backend.
//!
//! Burn runs a softmax, a norm or a gated product as five to fifteen operations with their gradients, each a pass over
//! memory, and its exponential is a scalar call. On a CPU these passes cost more than the matrix products. The kernels
//! here do each forward and each backward in one pass, in vector code, on all threads, and enter the autodiff graph as
//! one node. Every function gives its inputs back (`Err`) where it cannot serve them: the caller then takes Burn's
//! operations, which compute the same.

mod grouped;
mod kernels;
mod math;
mod tape;

use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::FeedForwardKind;
use grouped::{GroupedAddKernel, GroupedMatmulKernel};
use kernels::{
    CausalSoftmaxKernel, ClampedGlu, CrossEntropyKernel, GatedKernel, GeGlu, GeluKernel, NormKernel, RotaryKernel,
    SinkSoftmaxKernel, SwiGlu,
};
use tape::{Kernel, apply};

/// Norm of the lines of `x`, `[tokens, features]`, times `gain`; `centred` subtracts the mean first.
pub(crate) fn norm(
    centred: bool,
    eps: f64,
    x: Tensor<2>,
    gain: Tensor<1>,
) -> Result<Tensor<2>, (Tensor<2>, Tensor<1>)> {
    binary(NormKernel { centred, eps: eps as f32 }, x, gain)
}

/// The gated nonlinearity of a kind that has a gate.
pub(crate) fn gated(
    kind: FeedForwardKind,
    gate: Tensor<2>,
    up: Tensor<2>,
) -> Result<Tensor<2>, (Tensor<2>, Tensor<2>)> {
    match kind {
        FeedForwardKind::Gelu => Err((gate, up)),
        FeedForwardKind::SwiGlu => binary(GatedKernel(SwiGlu), gate, up),
        FeedForwardKind::GeGlu => binary(GatedKernel(GeGlu), gate, up),
        FeedForwardKind::ClampedGlu => binary(GatedKernel(ClampedGlu), gate, up),
    }
}

/// The product of every expert's rows, `counts` of them each, with its slice of `weight`, `[experts, d_in, d_out]`.
pub(crate) fn grouped_matmul(
    rows: Tensor<2>,
    weight: Tensor<3>,
    counts: &[usize],
) -> Result<Tensor<2>, (Tensor<2>, Tensor<3>)> {
    binary(GroupedMatmulKernel { counts: counts.to_vec() }, rows, weight)
}

/// Every expert's line of `bias`, `[experts, d_out]`, added to its rows, `counts` of them each.
pub(crate) fn grouped_add(
    rows: Tensor<2>,
    bias: Tensor<2>,
    counts: &[usize],
) -> Result<Tensor<2>, (Tensor<2>, Tensor<2>)> {
    binary(GroupedAddKernel { counts: counts.to_vec() }, rows, bias)
}

/// Exact GELU.
pub(crate) fn gelu(x: Tensor<2>) -> Result<Tensor<2>, Tensor<2>> {
    unary(GeluKernel, x)
}

/// Causal softmax of `scores · scale`, `[batch, heads, context, context]`; queries see the last `window` keys.
pub(crate) fn causal_softmax(scores: Tensor<4>, scale: f64, window: Option<usize>) -> Result<Tensor<4>, Tensor<4>> {
    if !is_square(&scores) {
        return Err(scores);
    }
    unary(CausalSoftmaxKernel { scale: scale as f32, window: window.unwrap_or(usize::MAX) }, scores)
}

/// The same with a sink for every head, `[heads]`, that takes part in the softmax and is left out again.
pub(crate) fn sink_softmax(
    scores: Tensor<4>,
    sinks: Tensor<1>,
    scale: f64,
    window: Option<usize>,
) -> Result<Tensor<4>, (Tensor<4>, Tensor<1>)> {
    if !is_square(&scores) {
        return Err((scores, sinks));
    }
    binary(SinkSoftmaxKernel { scale: scale as f32, window: window.unwrap_or(usize::MAX) }, scores, sinks)
}

/// Whether there are as many queries as keys, as the kernels expect.
fn is_square(scores: &Tensor<4>) -> bool {
    let [_, _, queries, keys] = scores.dims();
    queries == keys
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

type Given<const A: usize, const B: usize> = (Tensor<A>, Tensor<B>);

fn binary<K: Kernel<2>, const A: usize, const B: usize>(
    kernel: K,
    a: Tensor<A>,
    b: Tensor<B>,
) -> Result<Tensor<A>, Given<A, B>> {
    match apply(kernel, [a.into_dispatch(), b.into_dispatch()]) {
        Ok(value) => Ok(Tensor::from_dispatch(value)),
        Err([a, b]) => Err((Tensor::from_dispatch(a), Tensor::from_dispatch(b))),
    }
}
