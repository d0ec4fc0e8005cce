//! The inverse power of the Gram matrix in host memory, for Burn's CPU backend.
//!
//! The matrices of the program are kept in a few buffers: of every product, which is symmetric, one half is computed, on
//! top of the linear terms, and a sum is one pass over memory, whatever the number of its terms.

use burn::tensor::Tensor;
use faer::Accum;
use rayon::prelude::*;

use super::polar::{frobenius_norm, short_side_product, square, symmetric_product, view};
use super::stack::{Real, Work, each_matrix};
use crate::power::{Algebra, InversePower, PowerSize};

/// Entries of a sum that stay in the first cache while its terms are added.
const CHUNK: usize = 1024;

/// Entries of a sum in one piece of work, if it is shared among threads. It does not change results, as entries are
/// independent.
const PIECE: usize = 1 << 16;

/// Norms whose square, and the squares of all but the smallest entries, are numbers of f64.
const ORDINARY: std::ops::Range<f64> = 1e-140..1e140;

/// Applies the power to a stack of matrices with at least two rows and columns, if it is a plain tensor of 32-bit or 64-bit
/// floats of this backend; returns any other tensor unchanged.
#[allow(clippy::result_large_err, reason = "an `Err` returns the stack, it is not a failure")]
pub(crate) fn inverse_power(stack: Tensor<3>, power: &InversePower) -> Result<Tensor<3>, Tensor<3>> {
    each_matrix(stack, power)
}

impl Work for InversePower {
    type Buffers<T: Real> = Workspace<T>;

    fn buffers<T: Real>(&self, shape: [usize; 2]) -> Workspace<T> {
        Workspace::new(shape)
    }

    fn apply<T: Real>(&self, space: &mut Workspace<T>, values: &mut [T]) {
        space.apply(values, self);
    }
}

/// The buffers for a matrix.
pub(crate) struct Workspace<T> {
    shape: [usize; 2],
    /// The matrix, of norm 1.
    unit: Vec<T>,
    squares: Buffers<T>,
}

impl<T: Real> Workspace<T> {
    fn new(shape: [usize; 2]) -> Self {
        let [height, width] = shape;
        let unit = vec![T::zeroed(); height * width];
        Self { shape, unit, squares: Buffers { size: height.min(width), free: Vec::new() } }
    }

    fn apply(&mut self, values: &mut [T], power: &InversePower) {
        let norm = normalise(values, &mut self.unit);
        let y = self.gram(power.ridge);
        let q = power.apply(&mut self.squares, &y);
        let (constant, exponent) = power.factor(self.squares.size);
        // A zero matrix has no size, and stays zero whatever its factor.
        let factor = |quantity: f64| if quantity == 0.0 { 1.0 } else { constant * quantity.powf(exponent) };
        let known = match power.size {
            PowerSize::MeanSchatten => factor(inner_product(&q, &y).abs()),
            PowerSize::Own => factor(norm),
            PowerSize::Rms => 1.0,
        };
        short_side_product(values, &q, &self.unit, self.shape, T::from_f64_impl(known));
        if power.size == PowerSize::Rms {
            scale(values, factor(frobenius_norm(values)));
        }
        self.squares.reuse(y);
        self.squares.reuse(q);
    }

    /// `Y = (X Xᵀ + ridge I) / (1 + ridge)`, on the short side.
    fn gram(&mut self, ridge: f64) -> Vec<T> {
        let mut y = self.squares.take();
        let x = view(&self.unit, self.shape);
        let x = if x.nrows() <= x.ncols() { x } else { x.transpose() };
        let part = T::from_f64_impl(1.0 / (1.0 + ridge));
        symmetric_product(&mut y, Accum::Replace, x, x.transpose(), part);
        self.squares.add_to_diagonal(&mut y, ridge / (1.0 + ridge));
        y
    }
}

/// Square matrices of one size, and buffers that can be used again.
struct Buffers<T> {
    size: usize,
    free: Vec<Vec<T>>,
}

impl<T: Real> Buffers<T> {
    fn take(&mut self) -> Vec<T> {
        self.free.pop().unwrap_or_else(|| vec![T::zeroed(); self.size * self.size])
    }

    fn add_to_diagonal(&self, matrix: &mut [T], number: f64) {
        let number = T::from_f64_impl(number);
        matrix.iter_mut().step_by(self.size + 1).for_each(|x| *x += number);
    }
}

impl<T: Real> Algebra for Buffers<T> {
    type Matrix = Vec<T>;

    fn polynomial(&mut self, identity: f64, terms: &[(f64, &Vec<T>)], product: Option<(f64, &Vec<T>)>) -> Vec<T> {
        let mut out = self.take();
        let terms: Vec<(T, &[T])> = terms.iter().map(|(factor, x)| (T::from_f64_impl(*factor), x.as_slice())).collect();
        let accum = if terms.is_empty() && identity == 0.0 {
            Accum::Replace
        } else {
            sum(&mut out, &terms);
            self.add_to_diagonal(&mut out, identity);
            Accum::Add
        };
        if let Some((factor, x)) = product {
            let x = square(x, self.size);
            symmetric_product(&mut out, accum, x, x, T::from_f64_impl(factor));
        }
        out
    }

    fn product(&mut self, left: &Vec<T>, right: &Vec<T>) -> Vec<T> {
        let mut out = self.take();
        let (left, right) = (square(left, self.size), square(right, self.size));
        symmetric_product(&mut out, Accum::Replace, left, right, T::one_impl());
        out
    }

    fn reuse(&mut self, matrix: Vec<T>) {
        self.free.push(matrix);
    }
}

/// `out = Σ factor · x`
fn sum<T: Real>(out: &mut [T], terms: &[(T, &[T])]) {
    let arch = pulp::Arch::new();
    let piece = |(index, out): (usize, &mut [T])| {
        arch.dispatch(
            #[inline(always)]
            || sum_of_piece(index * PIECE, out, terms),
        );
    };
    if out.len() > PIECE {
        out.par_chunks_mut(PIECE).enumerate().for_each(piece);
    } else {
        piece((0, out));
    }
}

/// The entries from `start` on.
#[inline(always)]
fn sum_of_piece<T: Real>(start: usize, out: &mut [T], terms: &[(T, &[T])]) {
    for (index, out) in out.chunks_mut(CHUNK).enumerate() {
        out.fill(T::zeroed());
        for (factor, x) in terms {
            let x = &x[start + index * CHUNK..][..out.len()];
            out.iter_mut().zip(x).for_each(|(out, x)| *out += *x * *factor);
        }
    }
}

/// `unit = X / ‖X‖_F`, and zero for a zero matrix; returns the norm.
fn normalise<T: Real>(values: &[T], unit: &mut [T]) -> f64 {
    let norm = frobenius_norm(values);
    if ORDINARY.contains(&norm) {
        divide(values, norm, unit);
        return norm;
    }
    let largest = values.iter().fold(0.0, |largest: f64, x| largest.max((*x).into().abs()));
    divide(values, if largest == 0.0 { 1.0 } else { largest }, unit);
    let norm = frobenius_norm(unit);
    scale(unit, if norm == 0.0 { 1.0 } else { 1.0 / norm });
    norm * largest
}

fn divide<T: Real>(values: &[T], by: f64, out: &mut [T]) {
    for (out, x) in out.iter_mut().zip(values) {
        let x: f64 = (*x).into();
        *out = T::from_f64_impl(x / by);
    }
}

fn scale<T: Real>(values: &mut [T], by: f64) {
    let by = T::from_f64_impl(by);
    values.iter_mut().for_each(|x| *x *= by);
}

/// The sum of the products of all entries, in f64 and in eight lanes.
fn inner_product<T: Real>(left: &[T], right: &[T]) -> f64 {
    let product = |x: T, y: T| -> f64 { x.into() * y.into() };
    let (lefts, left_rest) = left.as_chunks::<8>();
    let (rights, right_rest) = right.as_chunks::<8>();
    let mut lanes = [0.0_f64; 8];
    for (left, right) in lefts.iter().zip(rights) {
        for (lane, (x, y)) in lanes.iter_mut().zip(left.iter().zip(right)) {
            *lane += product(*x, *y);
        }
    }
    lanes.iter().sum::<f64>() + left_rest.iter().zip(right_rest).map(|(x, y)| product(*x, *y)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_has_all_terms_in_every_piece() {
        for size in [1, 7, CHUNK, CHUNK + 1, PIECE + CHUNK + 3] {
            let x: Vec<f64> = (0..size).map(|i| i as f64).collect();
            let y = vec![3.0; size];
            let mut out = vec![f64::NAN; size];
            sum(&mut out, &[(2.0, &x), (-1.0, &y), (0.5, &x)]);
            assert!(out.iter().enumerate().all(|(i, out)| *out == 2.5 * i as f64 - 3.0), "{size}");
        }
    }

    #[test]
    fn a_matrix_of_any_size_gets_norm_one() {
        for size in [1e-310, 1e-200, 1e-30, 1.0, 1e30, 1e200, 1e307] {
            let (values, mut unit) = ([3.0 * size, -4.0 * size], [0.0; 2]);
            let norm = normalise(&values, &mut unit);
            // subnormal numbers have few digits
            let tolerance = if size < 1e-300 { 1e-13 } else { 1e-15 };
            assert!((norm / size / 5.0 - 1.0).abs() < tolerance, "{size}: {norm}");
            assert!((unit[0] - 0.6).abs() < tolerance && (unit[1] + 0.8).abs() < tolerance, "{size}: {unit:?}");
        }
        let (zero, mut unit) = ([0.0_f32; 3], [1.0; 3]);
        assert_eq!((normalise(&zero, &mut unit), unit), (0.0, zero));
    }
}
