//! The kernels as functions of Burn's tensors, and whether they apply.

use std::sync::{Arc, OnceLock};

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::activations::{ClampedGlu, ExactGelu, GatedKernel, GeGlu, GeluKernel, SwiGlu, TanhGelu};
use super::cross_entropy::CrossEntropyKernel;
use super::grouped::{GroupedAddKernel, GroupedMatmulKernel};
use super::head_loss::HeadLossKernel;
use super::heads::AttentionKernel;
use super::norm::NormKernel;
use super::product::MatmulKernel;
use super::rotary::RotaryKernel;
use super::tape::{Access, Kernel, apply};
use crate::settings::choices::FeedForwardKind;
use crate::shapes::{Angles, Heads, LargestLogits, Windows};

/// Whether the kernels apply to the inputs of a call: all must be 32-bit floats on Burn's CPU backend, and either all or none
/// of them part of an autodiff graph, which must not recompute activations (gradient checkpointing). Reads no values, so it
/// never waits for a device.
pub(crate) fn serve(inputs: &[&dyn Input]) -> bool {
    let mut accesses = inputs.iter().map(|input| Access::to(&input.dispatch()));
    let first = accesses.next().flatten();
    first.is_some() && accesses.all(|access| access == first)
}

/// A tensor with any number of axes.
pub(crate) trait Input {
    /// The same tensor, sharing its memory.
    fn dispatch(&self) -> DispatchTensor;
}

impl<const D: usize> Input for Tensor<D> {
    fn dispatch(&self) -> DispatchTensor {
        self.clone().into_dispatch()
    }
}

/// Norm of the lines of `x`, `[tokens, features]`, times `gain`; `centred` subtracts the mean first.
pub(crate) fn norm(centred: bool, eps: f64, x: Tensor<2>, gain: Tensor<1>) -> Tensor<2> {
    binary(NormKernel { centred, eps: eps as f32 }, x, gain)
}

/// The gated nonlinearity of a kind that has a gate.
pub(crate) fn gated(kind: FeedForwardKind, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match kind {
        FeedForwardKind::Gelu | FeedForwardKind::GeluTanh => unreachable!("GELU has no gate"),
        FeedForwardKind::SwiGlu => binary(GatedKernel(SwiGlu), gate, up),
        FeedForwardKind::GeGlu => binary(GatedKernel(GeGlu), gate, up),
        FeedForwardKind::ClampedGlu => binary(GatedKernel(ClampedGlu), gate, up),
    }
}

/// The product of every expert's rows, whose numbers are `counts`, with its slice of `weight`, `[experts, d_in, d_out]`.
pub(crate) fn grouped_matmul(rows: Tensor<2>, weight: Tensor<3>, counts: &[usize]) -> Tensor<2> {
    binary(GroupedMatmulKernel { counts: counts.to_vec() }, rows, weight)
}

/// The rows of every expert, whose numbers are `counts`, plus its line of `bias`, `[experts, d_out]`.
pub(crate) fn grouped_add(rows: Tensor<2>, bias: Tensor<2>, counts: &[usize]) -> Tensor<2> {
    binary(GroupedAddKernel { counts: counts.to_vec() }, rows, bias)
}

/// GELU: exact, or by its tanh approximation.
pub(crate) fn gelu(by_tanh: bool, x: Tensor<2>) -> Tensor<2> {
    if by_tanh { unary(GeluKernel(TanhGelu), x) } else { unary(GeluKernel(ExactGelu), x) }
}

/// `x`, `[tokens, d_in]`, times `weight`: `[d_in, d_out]`, or `[d_out, d_in]` if it is `transposed`.
pub(crate) fn matmul(x: Tensor<2>, weight: Tensor<2>, transposed: bool) -> Tensor<2> {
    binary(MatmulKernel { transposed }, x, weight)
}

/// Self-attention in every window: queries, `[tokens, heads · head_dim]`, keys and values, `[tokens, kv_heads ·
/// head_dim]`. The largest logit of every head is added to `logits`.
pub(crate) fn attention(
    heads: Heads,
    windows: Windows,
    inputs: [Tensor<2>; 3],
    sinks: Option<Tensor<1>>,
    logits: Option<&mut LargestLogits>,
) -> Tensor<2> {
    let device = inputs[0].device();
    measured(heads, windows, &device, logits, |kernel| {
        let [query, key, value] = inputs.map(Tensor::into_dispatch);
        Tensor::from_dispatch(match sinks {
            None => apply(kernel, [query, key, value]),
            Some(sinks) => apply(kernel, [query, key, value, sinks.into_dispatch()]),
        })
    })
}

/// The same with queries, keys and values in one tensor, `[tokens, (heads + 2 · kv_heads) · head_dim]`.
pub(crate) fn joint_attention(
    heads: Heads,
    windows: Windows,
    qkv: Tensor<2>,
    logits: Option<&mut LargestLogits>,
) -> Tensor<2> {
    let device = qkv.device();
    measured(heads, windows, &device, logits, |kernel| unary(kernel, qkv))
}

/// Attention with a kernel that measures its logits only if they are asked for.
fn measured(
    heads: Heads,
    windows: Windows,
    device: &Device,
    logits: Option<&mut LargestLogits>,
    attend: impl FnOnce(AttentionKernel) -> Tensor<2>,
) -> Tensor<2> {
    let Heads { heads, kv_heads, head_dim, scale, window } = heads;
    let (window, context) = (window.unwrap_or(usize::MAX), windows.context);
    let largest = logits.is_some().then(|| Arc::new(OnceLock::new()));
    let kernel =
        AttentionKernel { heads, kv_heads, head_dim, context, window, scale: scale as f32, largest: largest.clone() };
    let mixed = attend(kernel);
    if let (Some(logits), Some(largest)) = (logits, largest.as_deref().and_then(OnceLock::get)) {
        logits.add(Tensor::from_data(TensorData::new(largest.clone(), [heads]), (device, DType::F32)));
    }
    mixed
}

/// Mean cross-entropy of `scale` times the product of `x`, `[tokens, d_model]`, and the head's `weight`, with `targets`, `[tokens]`;
/// the weight is `[d_model, vocab]`, or `[vocab, d_model]` if it is `transposed`.
pub(crate) fn head_loss(
    x: Tensor<2>,
    weight: Tensor<2>,
    transposed: bool,
    scale: f64,
    targets: &Tensor<1, Int>,
) -> Tensor<1> {
    let tracked = x.device().is_autodiff();
    let wanted = [tracked, tracked && weight.is_require_grad()];
    let targets = targets.to_data().iter::<i64>().collect();
    let kernel = HeadLossKernel { transposed, scale: scale as f32, targets, wanted };
    Tensor::from_dispatch(apply(kernel, [x.into_dispatch(), weight.into_dispatch()]))
}

/// Mean cross-entropy of `logits`, `[tokens, vocab]`, with `targets`, `[tokens]`.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: &Tensor<1, Int>) -> Tensor<1> {
    let targets = targets.to_data().iter::<i64>().collect();
    Tensor::from_dispatch(apply(CrossEntropyKernel { targets }, [logits.into_dispatch()]))
}

/// Rotary positions on `x`, `[batch · context, heads · head_dim]`.
pub(crate) fn rotary(x: Tensor<2>, angles: &Angles, Windows { start, context, .. }: Windows) -> Tensor<2> {
    unary(RotaryKernel { angles: angles.clone(), start, context }, x)
}

fn unary<K: Kernel<1>, const D: usize>(kernel: K, x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(apply(kernel, [x.into_dispatch()]))
}

fn binary<K: Kernel<2>, const A: usize, const B: usize>(kernel: K, a: Tensor<A>, b: Tensor<B>) -> Tensor<A> {
    Tensor::from_dispatch(apply(kernel, [a.into_dispatch(), b.into_dispatch()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(device: &Device, dtype: DType) -> Tensor<2> {
        Tensor::from_data(TensorData::from([[0.5f32, 1.0], [2.0, -1.0]]).convert_dtype(dtype), (device, dtype))
    }

    #[test]
    fn kernels_apply_to_32_bit_floats_on_the_cpu_backend_with_and_without_a_graph() {
        let plain = Device::flex();
        for device in [plain.clone(), plain.autodiff()] {
            let x = matrix(&device, DType::F32);
            assert!(serve(&[&x]) && serve(&[&x, &x.clone().transpose()]));
        }
        let weight = matrix(&Device::flex().autodiff(), DType::F32).require_grad();
        assert!(serve(&[&weight.clone().detach(), &weight]), "a constant of the graph beside a weight");
    }

    #[test]
    fn whether_the_loss_is_fused_is_known_before_its_targets_are_read() {
        let plain = Device::flex();
        let (tracked, recomputed) = (plain.clone().autodiff(), plain.clone().autodiff().gradient_checkpointing());
        for dtype in [DType::F64, DType::F16, DType::BF16] {
            assert!(!serve(&[&matrix(&plain, dtype)]), "{dtype:?}");
            assert!(!serve(&[&matrix(&tracked, dtype)]), "{dtype:?}");
        }
        assert!(!serve(&[&matrix(&recomputed, DType::F32)]));
    }

    #[test]
    fn inputs_of_which_only_some_are_in_a_graph_are_left_to_burn() {
        let [plain, tracked] = [Device::flex(), Device::flex().autodiff()].map(|device| matrix(&device, DType::F32));
        assert!(!serve(&[&plain, &tracked]) && !serve(&[&tracked, &plain]) && !serve(&[]));
    }
}
