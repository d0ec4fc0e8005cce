//! The products of a mixture of experts. Cutting the stack of weights in Burn's operations would write a whole stack of
//! zeros for the gradient of every expert.

use burn::tensor::Tensor;

use super::tape::{Buffer, Kernel};
use crate::experts::groups;

/// The product of every expert's rows with its slice of a stack: inputs rows `[rows, d_in]`, which stand by expert, and
/// weight `[experts, d_in, d_out]`.
#[derive(Debug)]
pub(super) struct GroupedMatmulKernel {
    /// Rows of every expert.
    pub counts: Vec<usize>,
}

impl Kernel<2> for GroupedMatmulKernel {
    fn forward(&self, [rows, weight]: [Buffer; 2]) -> (Buffer, Vec<Buffer>) {
        let (x, stack) = (rows.tensor::<2>(), weight.tensor::<3>());
        let ([tokens, _], [_, _, d_out]) = (x.dims(), stack.dims());
        let mut value = Vec::with_capacity(tokens * d_out);
        for (expert, first, count) in groups(&self.counts) {
            let product = x.clone().narrow(0, first, count).matmul(slice(&stack, expert));
            value.extend_from_slice(Buffer::of(product).values());
        }
        (Buffer::new(value, &[tokens, d_out]), vec![rows, weight])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer) -> [Buffer; 2] {
        let [rows, weight] = &kept[..] else { unreachable!("forward keeps two") };
        let (x, stack, gradient) = (rows.tensor::<2>(), weight.tensor::<3>(), gradient.tensor::<2>());
        let [_, d_in, d_out] = stack.dims();
        let mut to_rows = Vec::with_capacity(rows.values().len());
        let mut to_weight = vec![0f32; weight.values().len()];
        for (expert, first, count) in groups(&self.counts) {
            let gradient = gradient.clone().narrow(0, first, count);
            let back = gradient.clone().matmul(slice(&stack, expert).transpose());
            to_rows.extend_from_slice(Buffer::of(back).values());
            let product = x.clone().narrow(0, first, count).transpose().matmul(gradient);
            let place = &mut to_weight[expert * d_in * d_out..(expert + 1) * d_in * d_out];
            place.copy_from_slice(Buffer::of(product).values());
        }
        [Buffer::new(to_rows, &rows.shape()), Buffer::new(to_weight, &weight.shape())]
    }
}

/// The matrix of one expert, `[d_in, d_out]`.
fn slice(stack: &Tensor<3>, expert: usize) -> Tensor<2> {
    stack.clone().narrow(0, expert, 1).squeeze_dim(0)
}

/// Every expert's bias added to its rows: inputs rows `[rows, d_out]`, which stand by expert, and bias `[experts, d_out]`.
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
        // Its memory becomes that of the gradient.
        (rows, vec![bias])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer) -> [Buffer; 2] {
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
