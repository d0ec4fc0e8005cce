//! Layers as single passes with hand-written gradients, for Burn's CPU backend.
//!
//! Burn runs a softmax, a norm or a gated product as five to fifteen operations with their gradients, each a pass over
//! memory, and its exponential is a scalar call. On a CPU these passes cost more than the matrix products. The kernels
//! here do each forward and each backward in one pass, in vector code, on all threads, and enter the autodiff graph as
//! one node. Every function gives its inputs back (`Err`) where it cannot serve them: the caller then takes Burn's
//! operations, which compute the same.

mod attention;
mod grouped;
mod kernels;
mod math;
mod product;
mod softmax;
mod tape;

use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::FeedForwardKind;
use crate::attention::{Heads, Windows};
use attention::AttentionKernel;
use grouped::{GroupedAddKernel, GroupedMatmulKernel};
use kernels::{ClampedGlu, CrossEntropyKernel, GatedKernel, GeGlu, GeluKernel, NormKernel, RotaryKernel, SwiGlu};
use product::MatmulKernel;
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

/// `x`, `[tokens, d_in]`, times `weight`: `[d_in, d_out]`, or `[d_out, d_in]` if it is `transposed`.
pub(crate) fn matmul(x: Tensor<2>, weight: Tensor<2>, transposed: bool) -> Result<Tensor<2>, (Tensor<2>, Tensor<2>)> {
    binary(MatmulKernel { transposed }, x, weight)
}

/// Attention of windows to themselves: queries, `[tokens, heads · head_dim]`, keys and values, `[tokens, kv_heads ·
/// head_dim]`.
pub(crate) fn attention(
    heads: Heads,
    windows: Windows,
    [query, key, value]: [Tensor<2>; 3],
    sinks: Option<Tensor<1>>,
) -> Result<Tensor<2>, [Tensor<2>; 3]> {
    let kernel = attention_kernel(heads, windows);
    let inputs = [query, key, value].map(Tensor::into_dispatch);
    match sinks {
        None => apply(kernel, inputs).map(Tensor::from_dispatch).map_err(|inputs| inputs.map(Tensor::from_dispatch)),
        Some(sinks) => {
            let [query, key, value] = inputs;
            let done = apply(kernel, [query, key, value, sinks.into_dispatch()]);
            done.map(Tensor::from_dispatch)
                .map_err(|[query, key, value, _]| [query, key, value].map(Tensor::from_dispatch))
        }
    }
}

/// The same of queries, keys and values that are one tensor, `[tokens, (heads + 2 · kv_heads) · head_dim]`.
pub(crate) fn joint_attention(heads: Heads, windows: Windows, qkv: Tensor<2>) -> Result<Tensor<2>, Tensor<2>> {
    unary(attention_kernel(heads, windows), qkv)
}

fn attention_kernel(heads: Heads, windows: Windows) -> AttentionKernel {
    let Heads { heads, kv_heads, head_dim, scale, window } = heads;
    let (window, context) = (window.unwrap_or(usize::MAX), windows.context);
    AttentionKernel { heads, kv_heads, head_dim, context, window, scale: scale as f32 }
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
