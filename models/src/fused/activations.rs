//! GELU and the gated nonlinearities: one pass forward, which also computes the derivatives, and one backward.

use std::f32::consts::{FRAC_2_SQRT_PI, SQRT_2};
use std::mem::MaybeUninit;

use super::math::{erf, exp, sigmoid};
use super::product::filled;
use super::run::{TASK, run};
use super::tape::{Buffer, Kernel};
use crate::settings::choices::FeedForwardKind;

/// A gated nonlinearity, per feature.
pub(super) trait Gate: std::fmt::Debug + Clone + Copy + Send + Sync + 'static {
    /// The value, and the derivatives with respect to gate and up.
    fn evaluate(self, gate: f32, up: f32) -> (f32, f32, f32);
}

/// `silu(gate) · up`.
#[derive(Clone, Copy, Debug)]
pub(super) struct SwiGlu;

impl Gate for SwiGlu {
    #[inline(always)]
    fn evaluate(self, gate: f32, up: f32) -> (f32, f32, f32) {
        let sigmoid = sigmoid(gate);
        let silu = gate * sigmoid;
        (silu * up, up * (sigmoid + silu * (1.0 - sigmoid)), silu)
    }
}

/// `gelu(gate) · up` with the tanh approximation of GELU.
#[derive(Clone, Copy, Debug)]
pub(super) struct GeGlu;

/// 2 √(2/π)
const GELU_SLOPE: f32 = FRAC_2_SQRT_PI * SQRT_2;
const GELU_CUBE: f32 = 0.044_715;

impl Gate for GeGlu {
    #[inline(always)]
    fn evaluate(self, gate: f32, up: f32) -> (f32, f32, f32) {
        let (gelu, slope) = TanhGelu.evaluate(gate);
        (gelu * up, up * slope, gelu)
    }
}

/// `g · sigmoid(1.702 g) · (u + 1)` with g = min(gate, 7) and u = up clamped to [-7, 7].
#[derive(Clone, Copy, Debug)]
pub(super) struct ClampedGlu;

impl Gate for ClampedGlu {
    #[inline(always)]
    fn evaluate(self, gate: f32, up: f32) -> (f32, f32, f32) {
        let (g, u) = limited(gate, up);
        let sigmoid = sigmoid(FeedForwardKind::CLAMPED_SLOPE * g);
        let weighted = g * sigmoid;
        let by_gate = (u + 1.0) * (sigmoid + weighted * (1.0 - sigmoid) * FeedForwardKind::CLAMPED_SLOPE);
        // Beyond a limit the gradient is zero.
        (weighted * (u + 1.0), if g == gate { by_gate } else { 0.0 }, if u == up { weighted } else { 0.0 })
    }
}

/// NaN compares false, so a NaN passes through unchanged.
#[inline(always)]
fn limited(gate: f32, up: f32) -> (f32, f32) {
    let gate = if gate > FeedForwardKind::CLAMP { FeedForwardKind::CLAMP } else { gate };
    let up = if up > FeedForwardKind::CLAMP { FeedForwardKind::CLAMP } else { up };
    (gate, if up < -FeedForwardKind::CLAMP { -FeedForwardKind::CLAMP } else { up })
}

/// A gated nonlinearity: inputs gate and up, of one shape. Forward overwrites them with the derivatives.
#[derive(Debug)]
pub(super) struct GatedKernel<G>(pub G);

impl<G: Gate> Kernel<2> for GatedKernel<G> {
    fn forward(&self, [mut gate, mut up]: [Buffer; 2]) -> (Buffer, Vec<Buffer>) {
        let kind = self.0;
        let shape = gate.shape();
        let length = gate.values().len();
        assert_eq!(length, up.values().len(), "gate and up must have one shape");
        let evaluate = |value: &mut [MaybeUninit<f32>]| {
            let items = value.chunks_mut(TASK).zip(gate.values_mut().chunks_mut(TASK));
            run(
                items.zip(up.values_mut().chunks_mut(TASK)).collect(),
                #[inline(always)]
                |((value, gate), up)| {
                    for ((slot, gate), up) in value.iter_mut().zip(gate).zip(up) {
                        let value;
                        (value, *gate, *up) = kind.evaluate(*gate, *up);
                        slot.write(value);
                    }
                },
            );
        };
        // SAFETY: all three are of one length, and every element is written.
        #[allow(unsafe_code)]
        let value = unsafe { filled(length, evaluate) };
        (Buffer::new(value, &shape), vec![gate, up])
    }

    fn backward(&self, kept: Vec<Buffer>, mut gradient: Buffer, _wanted: [bool; 2]) -> [Buffer; 2] {
        let Ok([by_gate, mut by_up]) = <[Buffer; 2]>::try_from(kept) else { unreachable!("forward keeps two") };
        // The gradient of `up` overwrites its derivative, that of the gate overwrites that of the value.
        let items = gradient.values_mut().chunks_mut(TASK).zip(by_up.values_mut().chunks_mut(TASK));
        run(
            items.zip(by_gate.values().chunks(TASK)).collect(),
            #[inline(always)]
            |((gradient, by_up), by_gate)| {
                for ((gradient, by_up), by_gate) in gradient.iter_mut().zip(by_up).zip(by_gate) {
                    (*gradient, *by_up) = (*gradient * by_gate, *gradient * *by_up);
                }
            },
        );
        [gradient, by_up]
    }
}

/// A nonlinearity without a gate.
pub(super) trait Curve: std::fmt::Debug + Clone + Copy + Send + Sync + 'static {
    /// The value, and its derivative.
    fn evaluate(self, x: f32) -> (f32, f32);
}

/// The tanh approximation of GELU, which is `x · sigmoid(2 √(2/π) (x + 0.044715 x³))`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TanhGelu;

impl Curve for TanhGelu {
    #[inline(always)]
    fn evaluate(self, x: f32) -> (f32, f32) {
        let sigmoid = sigmoid(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
        let slope = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * x * x);
        let gelu = x * sigmoid;
        (gelu, sigmoid + gelu * (1.0 - sigmoid) * slope)
    }
}

/// Exact GELU, `x · Φ(x)` with the normal distribution function Φ.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExactGelu;

impl Curve for ExactGelu {
    #[inline(always)]
    fn evaluate(self, x: f32) -> (f32, f32) {
        /// 1 / √(2π)
        const FACTOR: f32 = 0.398_942_3;
        let distribution = 0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2);
        let density = FACTOR * exp(-0.5 * x * x);
        (x * distribution, distribution + x * density)
    }
}

/// A nonlinearity without a gate. Forward overwrites x with the derivative.
#[derive(Debug)]
pub(super) struct GeluKernel<C>(pub C);

impl<C: Curve> Kernel<1> for GeluKernel<C> {
    fn forward(&self, [mut x]: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        let curve = self.0;
        let shape = x.shape();
        let length = x.values().len();
        let evaluate = |value: &mut [MaybeUninit<f32>]| {
            run(
                value.chunks_mut(TASK).zip(x.values_mut().chunks_mut(TASK)).collect(),
                #[inline(always)]
                |(value, x)| {
                    for (slot, x) in value.iter_mut().zip(x) {
                        let value;
                        (value, *x) = curve.evaluate(*x);
                        slot.write(value);
                    }
                },
            );
        };
        // SAFETY: both are of one length, and every element is written.
        #[allow(unsafe_code)]
        let value = unsafe { filled(length, evaluate) };
        (Buffer::new(value, &shape), vec![x])
    }

    fn backward(&self, kept: Vec<Buffer>, mut gradient: Buffer, _wanted: [bool; 1]) -> [Buffer; 1] {
        let [derivative] = &kept[..] else { unreachable!("forward keeps one") };
        run(
            gradient.values_mut().chunks_mut(TASK).zip(derivative.values().chunks(TASK)).collect(),
            #[inline(always)]
            |(gradient, derivative)| gradient.iter_mut().zip(derivative).for_each(|(g, d)| *g *= d),
        );
        [gradient]
    }
}
