//! The products of a mixture of experts. Slicing the stack of weights in Burn's operations would write a whole stack of zeros
//! for the gradient of every expert.

use super::product::{View, append, write};
use super::tape::{Buffer, Kernel};
use crate::shapes::groups;

/// The product of every expert's rows with its slice of a stack: inputs rows `[rows, d_in]`, sorted by expert, and
/// weight `[experts, d_in, d_out]`.
#[derive(Debug)]
pub(super) struct GroupedMatmulKernel {
    /// Rows of every expert.
    pub counts: Vec<usize>,
}

impl Kernel<2> for GroupedMatmulKernel {
    fn forward(&self, [rows, weight]: [Buffer; 2]) -> (Buffer, Vec<Buffer>) {
        let [d_in, d_out] = matrix_shape(&weight);
        let mut value = Vec::with_capacity(rows.values().len() / d_in * d_out);
        for (expert, first, count) in groups(&self.counts) {
            append(&mut value, lines(&rows, first, count), matrix(&weight, expert));
        }
        let tokens = value.len() / d_out;
        (Buffer::new(value, &[tokens, d_out]), vec![rows, weight])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, [_, weight_wanted]: [bool; 2]) -> [Buffer; 2] {
        let [rows, weight] = &kept[..] else { unreachable!("forward keeps two") };
        let mut to_rows = Vec::with_capacity(rows.values().len());
        let mut to_weight = if weight_wanted { vec![0f32; weight.values().len()] } else { Vec::new() };
        let [d_in, d_out] = matrix_shape(weight);
        for (expert, first, count) in groups(&self.counts) {
            let gradient = lines(&gradient, first, count);
            append(&mut to_rows, gradient, matrix(weight, expert).transpose());
            if count > 0 && weight_wanted {
                let place = &mut to_weight[expert * d_in * d_out..][..d_in * d_out];
                write(place, d_out, false, lines(rows, first, count).transpose(), gradient);
            }
        }
        let to_weight = if weight_wanted { Buffer::new(to_weight, &weight.shape()) } else { Buffer::empty() };
        [Buffer::new(to_rows, &rows.shape()), to_weight]
    }
}

/// `count` lines of a tensor of two axes.
fn lines(tensor: &Buffer, first: usize, count: usize) -> View<'_> {
    let width = tensor.shape().last().copied().unwrap_or(1);
    View::whole(&tensor.values()[first * width..][..count * width], width)
}

/// `[d_in, d_out]` of a stack of weights.
fn matrix_shape(weight: &Buffer) -> [usize; 2] {
    let [_, d_in, d_out] = weight.shape()[..] else { unreachable!("a stack has three axes") };
    [d_in, d_out]
}

/// The matrix of one expert, `[d_in, d_out]`.
fn matrix(weight: &Buffer, expert: usize) -> View<'_> {
    let [d_in, d_out] = matrix_shape(weight);
    View::whole(&weight.values()[expert * d_in * d_out..][..d_in * d_out], d_out)
}

/// The rows of every expert plus its bias: inputs rows `[rows, d_out]`, sorted by expert, and bias `[experts, d_out]`.
#[derive(Debug)]
pub(super) struct GroupedAddKernel {
    /// Rows of every expert.
    pub counts: Vec<usize>,
}

impl Kernel<2> for GroupedAddKernel {
    fn forward(&self, [mut rows, bias]: [Buffer; 2]) -> (Buffer, Vec<Buffer>) {
        let width = bias.values().len() / self.counts.len();
        for (expert, first, count) in groups(&self.counts) {
            let bias = &bias.values()[expert * width..][..width];
            for row in rows.values_mut()[first * width..][..count * width].chunks_exact_mut(width) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        }
        // Kept because its memory is reused for the gradient.
        (rows, vec![bias])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 2]) -> [Buffer; 2] {
        let Ok([mut bias]) = <[Buffer; 1]>::try_from(kept) else { unreachable!("forward keeps one") };
        let width = bias.values().len() / self.counts.len();
        let sums = bias.values_mut();
        sums.fill(0.0);
        for (expert, first, count) in groups(&self.counts) {
            let sums = &mut sums[expert * width..][..width];
            for row in gradient.values()[first * width..][..count * width].chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, gradient)| *sum += gradient);
            }
        }
        [gradient, bias]
    }
}
