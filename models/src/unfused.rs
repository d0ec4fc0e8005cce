//! Stands in for the fused layers when their backend is not compiled in: every function gives its inputs back.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::FeedForwardKind;
use crate::attention::{Heads, Windows};

pub(crate) fn norm(
    _centred: bool,
    _eps: f64,
    x: Tensor<2>,
    gain: Tensor<1>,
) -> Result<Tensor<2>, (Tensor<2>, Tensor<1>)> {
    Err((x, gain))
}

pub(crate) fn gated(
    _kind: FeedForwardKind,
    gate: Tensor<2>,
    up: Tensor<2>,
) -> Result<Tensor<2>, (Tensor<2>, Tensor<2>)> {
    Err((gate, up))
}

pub(crate) fn grouped_matmul(
    rows: Tensor<2>,
    weight: Tensor<3>,
    _counts: &[usize],
) -> Result<Tensor<2>, (Tensor<2>, Tensor<3>)> {
    Err((rows, weight))
}

pub(crate) fn grouped_add(
    rows: Tensor<2>,
    bias: Tensor<2>,
    _counts: &[usize],
) -> Result<Tensor<2>, (Tensor<2>, Tensor<2>)> {
    Err((rows, bias))
}

pub(crate) fn gelu(x: Tensor<2>) -> Result<Tensor<2>, Tensor<2>> {
    Err(x)
}

pub(crate) fn matmul(x: Tensor<2>, weight: Tensor<2>, _transposed: bool) -> Result<Tensor<2>, (Tensor<2>, Tensor<2>)> {
    Err((x, weight))
}

pub(crate) fn attention(
    _heads: Heads,
    _windows: Windows,
    inputs: [Tensor<2>; 3],
    _sinks: Option<Tensor<1>>,
) -> Result<Tensor<2>, [Tensor<2>; 3]> {
    Err(inputs)
}

pub(crate) fn joint_attention(_heads: Heads, _windows: Windows, qkv: Tensor<2>) -> Result<Tensor<2>, Tensor<2>> {
    Err(qkv)
}

pub(crate) fn cross_entropy(logits: Tensor<2>, _targets: &Tensor<1, Int>) -> Result<Tensor<1>, Tensor<2>> {
    Err(logits)
}

pub(crate) fn rotary(
    x: Tensor<2>,
    _cos: &Arc<[f32]>,
    _sin: &Arc<[f32]>,
    _context: usize,
    _head_dim: usize,
) -> Result<Tensor<2>, Tensor<2>> {
    Err(x)
}
