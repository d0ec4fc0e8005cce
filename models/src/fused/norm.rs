//! Layer norm and RMS norm: one pass forward, one backward.

use std::mem::MaybeUninit;

use super::math::{sum, sum_pairs};
use super::product::filled;
use super::run::{lines, run};
use super::tape::{Buffer, Kernel};

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

    fn backward(&self, kept: Vec<Buffer>, mut gradient: Buffer, _wanted: [bool; 2]) -> [Buffer; 2] {
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

/// Overwrites `gradient` with the gradient of x and returns that of the gain.
#[inline(always)]
fn norm_lines_backward(gradient: &mut [f32], x: &[f32], gain: &[f32], moments: &[f32], centred: bool) -> Vec<f32> {
    let width = gain.len();
    let share = 1.0 / width as f32;
    let mut gain_gradient = vec![0f32; width];
    let lines = gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments.chunks_exact(2));
    for ((gradient, x), moments) in lines {
        let (mean, inverse) = (moments[0], moments[1]);
        // First the gradient of the normalised x; then its mean and its component along the normalised x are removed.
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
