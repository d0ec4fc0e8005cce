//! The polynomial iteration in host memory, for Burn's CPU backend.
//!
//! In Burn's operations every product and every step between two products is a new tensor, and of a symmetric product
//! both halves are computed. Here a matrix is iterated on in two buffers, the diagonal term is part of the polynomial's
//! prefilled result, and of symmetric products one half is computed and mirrored.
//!
//! Work is cut by the shapes alone, never by the number of threads, so the result does not depend on that.

use std::mem::swap;

use burn::tensor::{ElementConversion, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::stack::{PARALLEL, Real, Work, each_matrix};
use super::{Iteration, LEAST_SUM, Norm, Normalisation};

/// Rows of a product that are computed as one piece of work. With fewer, copying the other operand into the layout of the
/// kernels costs too much; with more, there is less to share among threads.
const BLOCK: usize = 256;

/// The same for a symmetric product, which is computed up to the diagonal only.
const SYMMETRIC_BLOCK: usize = 128;

/// Rows of a diagonal block that are computed at once: their entries above the diagonal are wasted work.
const PANEL: usize = 32;

/// Symmetric matrices up to this size are cheaper to compute in full than to mirror.
const FULL: usize = 64;

/// Runs a polynomial iteration on a plain tensor of 32-bit or 64-bit floats of this backend; returns any other tensor
/// unchanged.
#[allow(clippy::result_large_err, reason = "an `Err` returns the stack, it is not a failure")]
pub(crate) fn iterate(stack: Tensor<3>, iteration: &Iteration<'_>) -> Result<Tensor<3>, Tensor<3>> {
    each_matrix(stack, iteration)
}

impl Work for Iteration<'_> {
    type Buffers<T: Real> = Workspace<T>;

    fn buffers<T: Real>(&self, shape: [usize; 2]) -> Workspace<T> {
        Workspace::new(shape)
    }

    fn apply<T: Real>(&self, space: &mut Workspace<T>, values: &mut [T]) {
        space.iterate(values, self);
    }
}

/// The buffers of an iteration on a matrix; r is its smaller side.
pub(crate) struct Workspace<T> {
    shape: [usize; 2],
    /// Another matrix of this shape.
    other: Vec<T>,
    /// `[r, r]`: the Gram matrix, the polynomial of a step, the product of the polynomials so far, and one to write into.
    gram: Vec<T>,
    step: Vec<T>,
    total: Vec<T>,
    spare: Vec<T>,
}

impl<T: Real> Workspace<T> {
    fn new(shape: [usize; 2]) -> Self {
        let [height, width] = shape;
        let zeros = |size: usize| vec![T::zeroed(); size];
        let square = || zeros(height.min(width).pow(2));
        let other = zeros(height * width);
        Self { shape, other, gram: square(), step: square(), total: square(), spare: square() }
    }

    fn iterate(&mut self, values: &mut [T], iteration: &Iteration<'_>) {
        normalise(values, iteration.normalisation);
        let mut other = std::mem::take(&mut self.other);
        let (mut from, mut to) = (values, other.as_mut_slice());
        if iteration.segments.len() % 2 == 1 {
            // so that the last product is written into `values`
            to.copy_from_slice(from);
            swap(&mut from, &mut to);
        }
        for (index, steps) in iteration.segments.iter().enumerate() {
            self.multiply_by_itself(from);
            match index {
                0 => self.compose_after(iteration.normalisation, steps),
                _ => self.compose(steps),
            }
            short_side_product(to, &self.total, from, self.shape, T::one_impl());
            swap(&mut from, &mut to);
        }
        self.other = other;
    }

    /// `gram = X Xᵀ` on the short side.
    fn multiply_by_itself(&mut self, values: &[T]) {
        let x = view(values, self.shape);
        let x = if x.nrows() <= x.ncols() { x } else { x.transpose() };
        symmetric_product(&mut self.gram, Accum::Replace, x, x.transpose(), T::one_impl());
    }

    /// The same for X divided by its norm, which its Gram matrix knows: `total` is to be multiplied by X itself.
    fn compose_after(&mut self, Normalisation { norm, factor, .. }: Normalisation, steps: &[[f64; 3]]) {
        let size = self.size();
        let shrinks: Vec<T> = match norm {
            Norm::Frobenius => return self.compose(steps),
            Norm::Schatten4 => vec![reciprocal(factor * frobenius_norm(&self.gram).sqrt()); size],
            Norm::Aol => self
                .gram
                .chunks(size)
                .map(|unit| reciprocal(factor * sum_of_sizes(unit).max(LEAST_SUM).sqrt()))
                .collect(),
        };
        for (row, s) in self.gram.chunks_mut(size).zip(&shrinks) {
            row.iter_mut().zip(&shrinks).for_each(|(x, t)| *x = *x * *s * *t);
        }
        self.compose(steps);
        let wide = self.shape[0] <= self.shape[1];
        for (row, s) in self.total.chunks_mut(size).zip(&shrinks) {
            row.iter_mut().zip(&shrinks).for_each(|(x, t)| *x *= if wide { *t } else { *s });
        }
    }

    /// `total` = the product of the steps' polynomials, each in the Gram matrix of the iterate before that step.
    fn compose(&mut self, steps: &[[f64; 3]]) {
        let one = T::one_impl();
        let size = self.size();
        let Self { gram, step, total, spare, .. } = self;
        for (index, coefficients) in steps.iter().enumerate() {
            polynomial(gram, size, *coefficients, step);
            if index == 0 {
                total.copy_from_slice(step);
            } else {
                symmetric_product(spare, Accum::Replace, square(step, size), square(total, size), one);
                swap(total, spare);
            }
            if index + 1 < steps.len() {
                symmetric_product(spare, Accum::Replace, square(gram, size), square(step, size), one);
                symmetric_product(gram, Accum::Replace, square(step, size), square(spare, size), one);
            }
        }
    }

    fn size(&self) -> usize {
        self.shape[0].min(self.shape[1])
    }
}

/// `X / (factor ‖X‖_F + eps)`, and 0 for a zero matrix.
fn normalise<T: Real>(values: &mut [T], normalisation: Normalisation) {
    let (factor, eps) = normalisation.first();
    let norm = factor * frobenius_norm(values) + eps;
    let norm: T = if norm == 0.0 { 1.0.elem() } else { norm.elem() };
    values.iter_mut().for_each(|x| *x /= norm);
}

/// Summed in f64, in eight lanes.
pub(super) fn frobenius_norm<T: Real>(values: &[T]) -> f64 {
    let square = |x: T| {
        let x: f64 = x.into();
        x * x
    };
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0_f64; 8];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += square(*x);
        }
    }
    (lanes.iter().sum::<f64>() + rest.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

/// `1 / x`, or 1 for 0: a zero matrix stays zero.
fn reciprocal<T: Real>(x: f64) -> T {
    if x == 0.0 { T::one_impl() } else { (1.0 / x).elem() }
}

fn sum_of_sizes<T: Real>(values: &[T]) -> f64 {
    values.iter().map(|x| Into::<f64>::into(*x).abs()).sum()
}

/// `out = a I + b A + c A²`
fn polynomial<T: Real>(gram: &[T], size: usize, [a, b, c]: [f64; 3], out: &mut [T]) {
    let (a, b): (T, T) = (a.elem(), b.elem());
    for (out, x) in out.iter_mut().zip(gram) {
        *out = *x * b;
    }
    out.iter_mut().step_by(size + 1).for_each(|x| *x += a);
    if c != 0.0 {
        let gram = square(gram, size);
        symmetric_product(out, Accum::Add, gram, gram, c.elem());
    }
}

/// `out = factor S X`, or `factor X S` for a tall X: a square matrix on its short side.
pub(super) fn short_side_product<T: Real>(out: &mut [T], short: &[T], x: &[T], shape: [usize; 2], factor: T) {
    let [height, width] = shape;
    let (short, x) = (square(short, height.min(width)), view(x, shape));
    in_blocks(out, width, BLOCK, height.min(width), |first, rows| {
        let count = rows.len() / width;
        let out = MatMut::from_row_major_slice_mut(rows, count, width);
        let (left, right) =
            if height <= width { (short.subrows(first, count), x) } else { (x.subrows(first, count), short) };
        matmul(out, Accum::Replace, left, right, factor, Par::Seq);
    });
}

/// A product known to be symmetric: computed up to the diagonal, then mirrored.
pub(super) fn symmetric_product<T: Real>(
    out: &mut [T],
    accum: Accum,
    left: MatRef<'_, T>,
    right: MatRef<'_, T>,
    factor: T,
) {
    let size = left.nrows();
    if size <= FULL {
        matmul(MatMut::from_row_major_slice_mut(out, size, size), accum, left, right, factor, Par::Seq);
        return;
    }
    in_blocks(out, size, SYMMETRIC_BLOCK, left.ncols(), |first, rows| {
        let count = rows.len() / size;
        let mut block = MatMut::from_row_major_slice_mut(rows, count, size);
        let left = left.subrows(first, count);
        matmul(block.as_mut().subcols_mut(0, first), accum, left, right.subcols(0, first), factor, Par::Seq);
        for start in (0..count).step_by(PANEL) {
            let height = PANEL.min(count - start);
            let panel = block.as_mut().submatrix_mut(start, first, height, start + height);
            let right = right.subcols(first, start + height);
            matmul(panel, accum, left.subrows(start, height), right, factor, Par::Seq);
        }
    });
    mirror(out, size);
}

/// Calls `f` with the first row and the entries of every block of `height` rows of a product over `inner` terms.
fn in_blocks<T: Send>(out: &mut [T], columns: usize, height: usize, inner: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let run = |(index, rows): (usize, &mut [T])| f(index * height, rows);
    if out.len() * inner < PARALLEL {
        out.chunks_mut(height * columns).enumerate().for_each(run);
    } else {
        out.par_chunks_mut(height * columns).enumerate().for_each(run);
    }
}

/// Copies the entries below the diagonal to above it, tile by tile.
fn mirror<T: Copy>(values: &mut [T], size: usize) {
    const TILE: usize = 16;
    let Some(&any) = values.first() else { return };
    let mut tile = [[any; TILE]; TILE];
    for row in (0..size).step_by(TILE) {
        for column in (0..=row).step_by(TILE) {
            if column < row && row + TILE <= size {
                for i in 0..TILE {
                    let below = &values[(row + i) * size + column..][..TILE];
                    tile.iter_mut().zip(below).for_each(|(tile, value)| tile[i] = *value);
                }
                for (j, tile) in tile.iter().enumerate() {
                    values[(column + j) * size + row..][..TILE].copy_from_slice(tile);
                }
            } else {
                for i in row..size.min(row + TILE) {
                    for j in column..i.min(column + TILE) {
                        values[j * size + i] = values[i * size + j];
                    }
                }
            }
        }
    }
}

pub(super) fn view<T>(values: &[T], [height, width]: [usize; 2]) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(values, height, width)
}

pub(super) fn square<T>(values: &[T], size: usize) -> MatRef<'_, T> {
    view(values, [size, size])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirroring_makes_every_size_symmetric() {
        for size in [1, 2, 15, 16, 17, 31, 33, 48, 70] {
            let mut values: Vec<usize> = (0..size * size).collect();
            mirror(&mut values, size);
            for (k, value) in values.into_iter().enumerate() {
                let (i, j) = (k / size, k % size);
                assert_eq!(value, i.max(j) * size + i.min(j), "{size}: {i} {j}");
            }
        }
    }

    #[test]
    fn the_norm_of_large_and_of_many_numbers_is_right() {
        let mut values = vec![1e25_f32; 1_000_003];
        let norm = frobenius_norm(&values);
        assert!((norm / (1e25_f32 as f64 * 1_000_003_f64.sqrt()) - 1.0).abs() < 1e-12, "{norm}");
        normalise(&mut values, Normalisation { norm: Norm::Frobenius, factor: 1.0, eps: 0.0 });
        assert!((frobenius_norm(&values) - 1.0).abs() < 1e-6);
    }
}
