//! The fused layers: each forward and each backward is one pass over its tensors.

use std::f32::consts::{FRAC_2_SQRT_PI, SQRT_2};
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::math::{erf, exp, max, replace_and_sum, sigmoid, sum, sum_pairs};
use super::product::filled;
use super::tape::{Buffer, Kernel};
use crate::feed_forward::{GATE_LIMIT, GATE_SLOPE};
use crate::rotary::Angles;

/// Elements that one task works on: small enough for the innermost caches. Fixed, so that sums over tasks do not depend
/// on the number of threads.
const TASK: usize = 8192;

/// Runs `task` on every item, in parallel when there are several, compiled for the widest vectors of this processor.
#[inline(always)]
pub(super) fn run<T: Send, R: Send>(items: Vec<T>, task: impl Fn(T) -> R + Sync) -> Vec<R> {
    let arch = pulp::Arch::new();
    let one = |item| {
        arch.dispatch(
            #[inline(always)]
            || task(item),
        )
    };
    match items.len() {
        0 | 1 => items.into_iter().map(one).collect(),
        _ => items.into_par_iter().map(one).collect(),
    }
}

/// Elements of a task over whole lines of `width` elements.
fn lines(width: usize) -> usize {
    width * (TASK / width.max(1)).max(1)
}

/// Layer norm without bias or RMS norm, times a gain: inputs x `[tokens, width]` and gain `[width]`.
#[derive(Debug)]
pub(super) struct NormKernel {
    pub centred: bool,
    pub eps: f32,
}

impl Kernel<2> for NormKernel {
    fn forward(&self, [x, gain]: [Buffer; 2]) -> (Buffer, Vec<Buffer>) {
        let width = gain.values().len();
        assert_eq!(x.values().len() % width, 0, "a norm's lines must be as long as its gain");
        let Self { centred, eps } = *self;
        // Mean and inverse deviation of every token.
        let mut moments = vec![0f32; 2 * x.values().len() / width];
        let task = lines(width);
        let norm = |value: &mut [MaybeUninit<f32>]| {
            let items = value.chunks_mut(task).zip(x.values().chunks(task)).zip(moments.chunks_mut(2 * task / width));
            run(
                items.collect(),
                #[inline(always)]
                |((value, x), moments)| norm_lines(value, x, gain.values(), moments, centred, eps),
            );
        };
        // SAFETY: value and x are of one length, and every element of every line is written.
        #[allow(unsafe_code)]
        let value = unsafe { filled(x.values().len(), norm) };
        let moments = Buffer::new(moments, &[x.values().len() / width, 2]);
        (Buffer::new(value, &x.shape()), vec![x, gain, moments])
    }

    fn backward(&self, kept: Vec<Buffer>, mut gradient: Buffer) -> [Buffer; 2] {
        let [x, gain, moments] = &kept[..] else { unreachable!("forward keeps three") };
        let width = gain.values().len();
        let centred = self.centred;
        let task = lines(width);
        let items = gradient.values_mut().chunks_mut(task).zip(x.values().chunks(task));
        let items = items.zip(moments.values().chunks(2 * task / width));
        let parts = run(
            items.collect(),
            #[inline(always)]
            |((gradient, x), moments)| norm_lines_backward(gradient, x, gain.values(), moments, centred),
        );
        let mut gain_gradient = vec![0f32; width];
        for part in parts {
            gain_gradient.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        [gradient, Buffer::new(gain_gradient, &[width])]
    }
}

#[inline(always)]
fn norm_lines(value: &mut [MaybeUninit<f32>], x: &[f32], gain: &[f32], moments: &mut [f32], centred: bool, eps: f32) {
    let width = gain.len();
    let share = 1.0 / width as f32;
    let lines = value.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments.chunks_exact_mut(2));
    for ((value, x), moments) in lines {
        let mean = if centred { sum(x, |x| x) * share } else { 0.0 };
        let variance = sum(x, |x| (x - mean) * (x - mean)) * share;
        let inverse = 1.0 / (variance + eps).sqrt();
        moments.copy_from_slice(&[mean, inverse]);
        for ((value, x), gain) in value.iter_mut().zip(x).zip(gain) {
            value.write((x - mean) * inverse * gain);
        }
    }
}

/// Overwrites `gradient` by the gradient of x and gives that of the gain.
#[inline(always)]
fn norm_lines_backward(gradient: &mut [f32], x: &[f32], gain: &[f32], moments: &[f32], centred: bool) -> Vec<f32> {
    let width = gain.len();
    let share = 1.0 / width as f32;
    let mut gain_gradient = vec![0f32; width];
    let lines = gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments.chunks_exact(2));
    for ((gradient, x), moments) in lines {
        let (mean, inverse) = (moments[0], moments[1]);
        // To the normalised x; then its mean and its part along the normalised x are taken out.
        let columns = gradient.iter_mut().zip(x).zip(gain).zip(gain_gradient.iter_mut());
        for (((gradient, x), gain), gain_gradient) in columns {
            *gain_gradient += *gradient * ((x - mean) * inverse);
            *gradient *= gain;
        }
        let along = sum_pairs(gradient, x, |g, x| g * (x - mean)) * inverse * share;
        let level = if centred { sum(gradient, |g| g) * share } else { 0.0 };
        for (gradient, x) in gradient.iter_mut().zip(x) {
            *gradient = inverse * (*gradient - level - (x - mean) * inverse * along);
        }
    }
    gain_gradient
}

/// A gated nonlinearity of one feature.
pub(super) trait Gate: std::fmt::Debug + Clone + Copy + Send + Sync + 'static {
    /// Its value, and its derivatives by gate and up.
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

/// `gelu(gate) · up` with the GELU by tanh, which is `x · sigmoid(2 √(2/π) (x + 0.044715 x³))`.
#[derive(Clone, Copy, Debug)]
pub(super) struct GeGlu;

/// 2 √(2/π)
const GELU_SLOPE: f32 = FRAC_2_SQRT_PI * SQRT_2;
const GELU_CUBE: f32 = 0.044_715;

impl Gate for GeGlu {
    #[inline(always)]
    fn evaluate(self, gate: f32, up: f32) -> (f32, f32, f32) {
        let sigmoid = sigmoid(GELU_SLOPE * (gate + GELU_CUBE * gate * gate * gate));
        let slope = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * gate * gate);
        let gelu = gate * sigmoid;
        (gelu * up, up * (sigmoid + gelu * (1.0 - sigmoid) * slope), gelu)
    }
}

/// `g · sigmoid(1.702 g) · (u + 1)` with g = gate up to 7 and u = up within -7 and 7.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClampedGlu;

impl Gate for ClampedGlu {
    #[inline(always)]
    fn evaluate(self, gate: f32, up: f32) -> (f32, f32, f32) {
        let (g, u) = limited(gate, up);
        let sigmoid = sigmoid(GATE_SLOPE * g);
        let weighed = g * sigmoid;
        let by_gate = (u + 1.0) * (sigmoid + weighed * (1.0 - sigmoid) * GATE_SLOPE);
        // Beyond a limit nothing flows back.
        (weighed * (u + 1.0), if g == gate { by_gate } else { 0.0 }, if u == up { weighed } else { 0.0 })
    }
}

/// NaN compares false, so a NaN passes through unchanged.
#[inline(always)]
fn limited(gate: f32, up: f32) -> (f32, f32) {
    let gate = if gate > GATE_LIMIT { GATE_LIMIT } else { gate };
    let up = if up > GATE_LIMIT { GATE_LIMIT } else { up };
    (gate, if up < -GATE_LIMIT { -GATE_LIMIT } else { up })
}

/// A gated nonlinearity: inputs gate and up, of one shape. Forward leaves the derivatives in their places.
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

    fn backward(&self, kept: Vec<Buffer>, mut gradient: Buffer) -> [Buffer; 2] {
        let Ok([by_gate, mut by_up]) = <[Buffer; 2]>::try_from(kept) else { unreachable!("forward keeps two") };
        // The gradient of `up` takes the place of its derivative, that of the gate the place of the value's.
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

/// Exact GELU, `x · Φ(x)` with the normal distribution function Φ. Forward leaves the derivative in the place of x.
#[derive(Debug)]
pub(super) struct GeluKernel;

/// The value, and its derivative.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    /// 1 / √(2π)
    const FACTOR: f32 = 0.398_942_3;
    let distribution = 0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2);
    let density = FACTOR * exp(-0.5 * x * x);
    (x * distribution, distribution + x * density)
}

impl Kernel<1> for GeluKernel {
    fn forward(&self, [mut x]: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        let shape = x.shape();
        let length = x.values().len();
        let evaluate = |value: &mut [MaybeUninit<f32>]| {
            run(
                value.chunks_mut(TASK).zip(x.values_mut().chunks_mut(TASK)).collect(),
                #[inline(always)]
                |(value, x)| {
                    for (slot, x) in value.iter_mut().zip(x) {
                        let value;
                        (value, *x) = gelu(*x);
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

    fn backward(&self, kept: Vec<Buffer>, mut gradient: Buffer) -> [Buffer; 1] {
        let [derivative] = &kept[..] else { unreachable!("forward keeps one") };
        run(
            gradient.values_mut().chunks_mut(TASK).zip(derivative.values().chunks(TASK)).collect(),
            #[inline(always)]
            |(gradient, derivative)| gradient.iter_mut().zip(derivative).for_each(|(g, d)| *g *= d),
        );
        [gradient]
    }
}

/// Mean cross-entropy of logits `[tokens, vocab]` against one target per token; the value has shape `[1]`.
#[derive(Debug)]
pub(super) struct CrossEntropyKernel {
    pub targets: Vec<i64>,
}

impl Kernel<1> for CrossEntropyKernel {
    fn forward(&self, [mut logits]: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        let vocab = logits.shape().last().copied().unwrap_or(1);
        let task = lines(vocab);
        let share = 1.0 / self.targets.len() as f32;
        let items = logits.values_mut().chunks_mut(task).zip(self.targets.chunks(task / vocab));
        let sums = run(
            items.collect(),
            #[inline(always)]
            |(logits, targets)| cross_entropy_lines(logits, targets, share),
        );
        // In 64 bits: a sum of thousands of losses must not lose digits.
        let mean = sums.into_iter().sum::<f64>() * f64::from(share);
        (Buffer::new(vec![mean as f32], &[1]), vec![logits])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer) -> [Buffer; 1] {
        let Ok([mut logits_gradient]) = <[Buffer; 1]>::try_from(kept) else { unreachable!("forward keeps one") };
        let factor = gradient.values().first().copied().unwrap_or(1.0);
        if factor != 1.0 {
            logits_gradient.values_mut().iter_mut().for_each(|value| *value *= factor);
        }
        [logits_gradient]
    }
}

/// Overwrites logits by the gradient of the mean loss and gives the sum of the losses. A target outside the vocabulary
/// makes it NaN.
#[inline(always)]
fn cross_entropy_lines(logits: &mut [f32], targets: &[i64], share: f32) -> f64 {
    let mut losses = 0f64;
    let vocab = logits.len() / targets.len();
    for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
        let target = usize::try_from(*target).unwrap_or(usize::MAX);
        let largest = max(row);
        let chosen = row.get(target).copied().unwrap_or(f32::NAN) - largest;
        let total = replace_and_sum(row, |value| exp(value - largest));
        losses += f64::from(total.ln() - chosen);
        let factor = share / total;
        for value in row.iter_mut() {
            *value *= factor;
        }
        if let Some(value) = row.get_mut(target) {
            *value -= share;
        }
    }
    losses
}

/// Rotary positions on x, `[tokens, heads · head]`: feature i of a head's first half pairs with feature i of the second.
#[derive(Debug)]
pub(super) struct RotaryKernel {
    pub angles: Angles,
    /// Position of the first token of a window.
    pub start: usize,
    /// Tokens in a window of the batch.
    pub context: usize,
}

impl RotaryKernel {
    fn turn(&self, mut x: Buffer, direction: f32) -> Buffer {
        let width = x.shape().last().copied().unwrap_or(1);
        let window = width * self.context;
        run(
            x.values_mut().chunks_mut(window).collect(),
            #[inline(always)]
            |x| {
                let half = self.angles.head_dim / 2;
                let [cos, sin] = [&self.angles.cos, &self.angles.sin].map(|table| &table[self.start * half..]);
                let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
                for (token, (cos, sin)) in x.chunks_exact_mut(width).zip(angles) {
                    for head in token.chunks_exact_mut(2 * half) {
                        let (first, second) = head.split_at_mut(half);
                        let pairs = first.iter_mut().zip(second).zip(cos.iter().zip(sin));
                        for ((a, b), (cos, sin)) in pairs {
                            let sin = sin * direction;
                            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                        }
                    }
                }
            },
        );
        x
    }
}

impl Kernel<1> for RotaryKernel {
    fn forward(&self, [x]: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        (self.turn(x, 1.0), Vec::new())
    }

    fn backward(&self, _kept: Vec<Buffer>, gradient: Buffer) -> [Buffer; 1] {
        [self.turn(gradient, -1.0)]
    }
}
