//! Exact functions of the singular values, by a decomposition on the host.

use burn::tensor::{DType, Tensor, TensorData};
use faer::linalg::solvers::Svd;
use faer::{Mat, MatRef};

use super::host::{Place, host, write_rows};

/// `U diag(f(s)) Vᵀ` for every matrix `U diag(s) Vᵀ` of a stack `[batch, a, b]`.
///
/// `f` receives the position in the stack and the `min(a, b)` singular values in descending order, and
/// returns as many new ones. The decomposition is a host round trip in f64, whatever the dtype of the
/// tensor. A matrix with a NaN or an infinity has no decomposition and returns NaN; a zero matrix returns
/// zero.
pub fn map_singular_values(stack: Tensor<3>, f: impl Fn(usize, &[f64]) -> Vec<f64>) -> Tensor<3> {
    map_on_host(stack, |index, matrix| map_matrix(matrix, |s| f(index, s)))
}

/// The singular values of every matrix in a tensor `[.., height, width]` of any number of leading axes, in f64, largest
/// first. A transposed matrix has the same singular values, so the layout does not matter. Empty for a vector; a matrix
/// whose decomposition does not converge has NaN.
pub fn singular_values(data: &TensorData) -> Vec<Vec<f64>> {
    let &[.., height, width] = data.shape().as_slice() else { return Vec::new() };
    let values: Vec<f64> = data.iter::<f64>().collect();
    let of = |matrix: &[f64]| {
        let matrix = MatRef::from_row_major_slice(matrix, height, width);
        matrix.singular_values().unwrap_or_else(|_| vec![f64::NAN; height.min(width)])
    };
    values.chunks_exact((height * width).max(1)).map(of).collect()
}

/// Applies a function to every matrix of a stack, in f64 on the host. The function receives matrices that are finite and
/// not zero, divided by their largest entry, and that entry.
pub(crate) fn map_on_host(stack: Tensor<3>, f: impl Fn(usize, Scaled<'_>) -> Mat<f64>) -> Tensor<3> {
    let (place, [batch, height, width]) = (Place::of(&stack), stack.dims());
    let mut values = host(stack);
    for (index, matrix) in values.chunks_exact_mut(height * width).enumerate() {
        let largest = matrix.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        if !matrix.iter().all(|x| x.is_finite()) {
            matrix.fill(f64::NAN);
        } else if largest > 0.0 {
            // Entries of size 1: nothing overflows or underflows on the way.
            matrix.iter_mut().for_each(|x| *x /= largest);
            let unit = MatRef::from_row_major_slice(matrix, height, width);
            let mapped = f(index, Scaled { unit, largest });
            write_rows(mapped.as_ref(), matrix);
        }
    }
    if place.dtype != DType::F64 {
        // A value beyond the range of f32 becomes its largest number, never an infinity.
        let largest = f64::from(f32::MAX);
        values.iter_mut().for_each(|x| *x = x.clamp(-largest, largest));
    }
    place.tensor(values, [batch, height, width])
}

/// A matrix as `largest · unit`, where the largest entry of `unit` is 1.
#[derive(Clone, Copy)]
pub(crate) struct Scaled<'a> {
    pub unit: MatRef<'a, f64>,
    pub largest: f64,
}

fn map_matrix(matrix: Scaled<'_>, f: impl Fn(&[f64]) -> Vec<f64>) -> Mat<f64> {
    let Ok(svd) = matrix.unit.thin_svd() else {
        return Mat::full(matrix.unit.nrows(), matrix.unit.ncols(), f64::NAN);
    };
    let singular: Vec<f64> = svd.S().column_vector().iter().map(|s| s * matrix.largest).collect();
    rebuild(&svd, &f(&singular))
}

/// `U diag(values) Vᵀ`
fn rebuild(svd: &Svd<f64>, values: &[f64]) -> Mat<f64> {
    let u = svd.U();
    let scaled = Mat::from_fn(u.nrows(), values.len(), |i, j| u[(i, j)] * values[j]);
    scaled * svd.V().transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    use crate::setting::numbers;

    fn values(tensor: Tensor<3>) -> Vec<f64> {
        tensor.into_data().convert_dtype(DType::F64).iter::<f64>().collect()
    }

    #[test]
    fn the_singular_values_of_a_stack_are_those_of_its_matrices() {
        // Shear [[1, 1], [0, 1]]: the golden ratio and its inverse; then diag(3, -4) with a row of zeros below.
        let golden = (1.0 + 5.0_f64.sqrt()) / 2.0;
        let stack = TensorData::new(vec![1.0_f32, 1.0, 0.0, 1.0, 3.0, 0.0, 0.0, -4.0], [2, 2, 2]);
        let found = singular_values(&stack);
        for (found, expected) in found.iter().flatten().zip([golden, 1.0 / golden, 4.0, 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        let tall = TensorData::new(vec![3.0_f32, 0.0, 0.0, -4.0, 0.0, 0.0], [3, 2]);
        assert_eq!(singular_values(&tall).iter().map(Vec::len).collect::<Vec<_>>(), [2]);
        assert!(singular_values(&TensorData::new(vec![1.0_f32, 2.0], [2])).is_empty());
    }

    #[test]
    fn the_identity_map_gives_the_matrix_back() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
            for shape in [[2, 3, 7], [2, 7, 3], [1, 5, 5], [1, 1, 4]] {
                let x = numbers(shape, 1, dtype);
                let same = map_singular_values(x.clone(), |_, s| s.to_vec());
                let scale = values(x.clone()).into_iter().fold(0.0, f64::max);
                for (got, want) in values(same).into_iter().zip(values(x)) {
                    // a few roundings of sums over at most seven terms
                    assert!((got - want).abs() < tolerance * scale * 4.0, "{dtype:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn singular_values_come_in_falling_order_with_the_scale_of_the_matrix() {
        for scale in [1e-12, 1.0, 1e12] {
            let x = Tensor::<3>::from_data([[[3.0 * scale, 0.0], [0.0, -4.0 * scale]]], &Device::flex());
            map_singular_values(x, |index, s| {
                assert_eq!(index, 0);
                assert!((s[0] / scale - 4.0).abs() < 1e-5 && (s[1] / scale - 3.0).abs() < 1e-5, "{s:?}");
                s.to_vec()
            });
        }
    }

    #[test]
    fn a_matrix_that_is_not_finite_gives_nan_and_leaves_its_neighbours_alone() {
        let x = Tensor::<3>::from_data([[[1.0, f32::NAN]], [[3.0, 4.0]]], &Device::flex());
        let got = values(map_singular_values(x, |_, s| s.to_vec()));
        assert!(got[0].is_nan() && got[1].is_nan());
        assert!((got[2] - 3.0).abs() < 1e-6 && (got[3] - 4.0).abs() < 1e-6);
    }
}
