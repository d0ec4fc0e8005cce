//! Matrix products written directly to their destination.
//!
//! Burn's CPU backend zeroes memory for every product, writes it there and copies it, which is a sixth of a training step. Here
//! the same routine writes into uninitialised memory, or adds to the values there.

use std::mem::MaybeUninit;

use super::tape::{Buffer, Kernel};

/// Products with at least this many multiply-adds run on several threads; Burn's own bound.
const SHARED_FROM: usize = 192 * 192 * 192;

/// Products of fewer than 6 · 11 lines read the factor with contiguous lines in place; the routine's own bound is 6 · 8.
const UNCOPIED: usize = 11;

/// Sets, for the whole process, the size above which the matrix products of Burn's CPU backend and of this crate copy a factor
/// before they read it. This speeds up attention and the gradients of weights with 64 inputs: a step of `llama-d64` is 4 to 6 %
/// faster. Results do not change.
///
/// All users of the crate `gemm` in the process share this setting, so this library does not change it by itself: programs call
/// this function once, when they start.
pub fn tune_products() {
    gemm::set_lhs_packing_threshold_single_thread(UNCOPIED);
}

/// A matrix inside a slice: element (i, j) at `start + i · strides[0] + j · strides[1]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> View<'a> {
    /// `lines` lines of `width` elements: the first begins at the start of `values`, each of the others `stride` after the one
    /// before it.
    pub(super) fn new(values: &'a [f32], lines: usize, width: usize, stride: usize) -> Self {
        Self { values, shape: [lines, width], strides: [stride, 1] }
    }

    /// Lines of `width` elements that fill `values`.
    pub(super) fn whole(values: &'a [f32], width: usize) -> Self {
        Self::new(values, values.len() / width.max(1), width, width)
    }

    pub(super) fn transpose(self) -> Self {
        let ([lines, width], [a, b]) = (self.shape, self.strides);
        Self { shape: [width, lines], strides: [b, a], ..self }
    }

    /// Whether every element is inside the slice.
    fn fits(&self) -> bool {
        let [lines, width] = self.shape;
        lines == 0 || width == 0 || (lines - 1) * self.strides[0] + (width - 1) * self.strides[1] < self.values.len()
    }
}

/// A vector of `length` elements that `fill` writes, without zeroing them first.
///
/// # Safety
///
/// `fill` writes every element.
#[allow(unsafe_code)]
pub(super) unsafe fn filled(length: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(length);
    fill(&mut values.spare_capacity_mut()[..length]);
    // SAFETY: the caller's promise.
    unsafe { values.set_len(length) };
    values
}

/// Appends `a · b` to `out`, one line after the other.
pub(super) fn append(out: &mut Vec<f32>, a: View<'_>, b: View<'_>) {
    let size = a.shape[0] * b.shape[1];
    out.reserve(size);
    let length = out.len();
    fill(&mut out.spare_capacity_mut()[..size], a, b);
    // SAFETY: `fill` wrote these elements.
    #[allow(unsafe_code)]
    unsafe {
        out.set_len(length + size);
    }
}

/// Writes `a · b` into `out`, one line after the other.
pub(super) fn fill<'a>(out: &'a mut [MaybeUninit<f32>], a: View<'_>, b: View<'_>) -> &'a mut [f32] {
    let ([m, k], n) = (a.shape, b.shape[1]);
    assert_eq!(m * n, out.len(), "a product must fill its destination");
    if k == 0 {
        out.fill(MaybeUninit::new(0.0));
    } else if m * n > 0 {
        // SAFETY: `out` holds m · n elements, n in a line.
        #[allow(unsafe_code)]
        unsafe {
            multiply(out.as_mut_ptr().cast(), n, false, a, b);
        }
    }
    // SAFETY: the product writes every element without reading it.
    #[allow(unsafe_code)]
    unsafe {
        out.assume_init_mut()
    }
}

/// Writes `a · b` into `out`, a line every `stride` elements; with `add`, adds it to the values there.
pub(super) fn write(out: &mut [f32], stride: usize, add: bool, a: View<'_>, b: View<'_>) {
    let ([m, k], n) = (a.shape, b.shape[1]);
    if m * n == 0 {
        return;
    }
    assert!(k > 0 && n <= stride && (m - 1) * stride + n <= out.len(), "a product must fit into its destination");
    // SAFETY: checked above; lines do not overlap.
    #[allow(unsafe_code)]
    unsafe {
        multiply(out.as_mut_ptr(), stride, add, a, b);
    }
}

/// # Safety
///
/// `out` is valid for writing a line of as many elements as `b` has columns every `stride` elements, as many lines as `a`
/// has; if `add`, these elements are initialised.
#[allow(unsafe_code)]
unsafe fn multiply(out: *mut f32, stride: usize, add: bool, a: View<'_>, b: View<'_>) {
    let ([m, k], n) = (a.shape, b.shape[1]);
    assert!(k == b.shape[0] && a.fits() && b.fits(), "the factors of a product must fit");
    let parallelism = match m * n * k >= SHARED_FROM {
        true => gemm::Parallelism::Rayon(0),
        false => gemm::Parallelism::None,
    };
    let [[a_line, a_column], [b_line, b_column]] = [a, b].map(|view| view.strides.map(|stride| stride as isize));
    // SAFETY: the elements of `a` and `b` are inside their slices (asserted); those of `out` are the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            stride as isize,
            add,
            a.values.as_ptr(),
            a_column,
            a_line,
            b.values.as_ptr(),
            b_column,
            b_line,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The product as a new tensor of this shape.
fn product(a: View<'_>, b: View<'_>, shape: [usize; 2]) -> Buffer {
    let mut out = Vec::new();
    append(&mut out, a, b);
    Buffer::new(out, &shape)
}

/// x `[tokens, d_in]` times weight, `[d_in, d_out]`, or `[d_out, d_in]` if it is `transposed`.
#[derive(Debug)]
pub(super) struct MatmulKernel {
    pub transposed: bool,
}

impl MatmulKernel {
    /// The weight as `[d_in, d_out]`.
    fn oriented<'a>(&self, weight: View<'a>) -> View<'a> {
        if self.transposed { weight.transpose() } else { weight }
    }
}

impl Kernel<2> for MatmulKernel {
    fn forward(&self, [x, weight]: [Buffer; 2]) -> (Buffer, Vec<Buffer>) {
        let (a, b) = (x.matrix(), self.oriented(weight.matrix()));
        let value = product(a, b, [a.shape[0], b.shape[1]]);
        (value, vec![x, weight])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, [x_wanted, weight_wanted]: [bool; 2]) -> [Buffer; 2] {
        let [x, weight] = &kept[..] else { unreachable!("forward keeps two") };
        let (a, b, gradient) = (x.matrix(), weight.matrix(), gradient.matrix());
        let to_x = match x_wanted {
            true => product(gradient, self.oriented(b).transpose(), a.shape),
            false => Buffer::empty(),
        };
        let to_weight = match (weight_wanted, self.transposed) {
            (false, _) => Buffer::empty(),
            (true, true) => product(gradient.transpose(), a, b.shape),
            (true, false) => product(a.transpose(), gradient, b.shape),
        };
        [to_x, to_weight]
    }
}

impl Buffer {
    /// A tensor of two axes as a matrix.
    pub(super) fn matrix(&self) -> View<'_> {
        View::whole(self.values(), self.shape().last().copied().unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers, so that products are exact.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 17) as f32 - 8.0).collect()
    }

    fn slowly(a: View<'_>, b: View<'_>) -> Vec<f32> {
        let at = |view: View<'_>, i: usize, j: usize| view.values[i * view.strides[0] + j * view.strides[1]];
        let ([m, k], n) = (a.shape, b.shape[1]);
        let element = |i, j| (0..k).map(|l| at(a, i, l) * at(b, l, j)).sum();
        (0..m * n).map(|place| element(place / n, place % n)).collect()
    }

    #[test]
    fn products_of_parts_of_larger_matrices_are_exact_in_every_orientation() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (64, 48, 33), (17, 1, 40), (1, 19, 6), (200, 200, 200)] {
            for (turn_a, turn_b) in [(false, false), (true, false), (false, true), (true, true)] {
                let [a_shape, b_shape] = [if turn_a { [k, m] } else { [m, k] }, if turn_b { [n, k] } else { [k, n] }];
                let (a, b) = (numbers(a_shape[0] * (a_shape[1] + 3), 1), numbers(b_shape[0] * (b_shape[1] + 2), 2));
                let a = View::new(&a, a_shape[0], a_shape[1], a_shape[1] + 3);
                let b = View::new(&b, b_shape[0], b_shape[1], b_shape[1] + 2);
                let (a, b) = (if turn_a { a.transpose() } else { a }, if turn_b { b.transpose() } else { b });
                let expected = slowly(a, b);
                let mut out = vec![1.0];
                append(&mut out, a, b);
                assert_eq!(out[1..], expected, "{m} {n} {k}");
                let mut out = numbers(m * (n + 1), 3);
                let before = out.clone();
                write(&mut out, n + 1, true, a, b);
                for (place, (found, before)) in out.iter().zip(before).enumerate() {
                    let added = if place % (n + 1) < n { expected[place / (n + 1) * n + place % (n + 1)] } else { 0.0 };
                    assert_eq!(*found, before + added, "{m} {n} {k}");
                }
            }
        }
    }

    #[test]
    fn a_product_over_nothing_is_zero() {
        let mut out = Vec::new();
        append(&mut out, View::new(&[], 2, 0, 0), View::new(&[], 0, 3, 3));
        assert_eq!(out, [0.0; 6]);
    }

    #[test]
    #[should_panic = "must fit"]
    fn a_factor_longer_than_its_slice_is_refused() {
        append(&mut Vec::new(), View::new(&[0.0; 5], 2, 3, 3), View::new(&[0.0; 3], 3, 1, 1));
    }
}
