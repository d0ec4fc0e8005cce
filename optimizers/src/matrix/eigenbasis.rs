//! Orthonormal bases of the axes of a matrix, by decompositions on the host.
//!
//! Burn 0.22 has a QR decomposition of tensors, but it reflects column by column over the whole matrix, which is thousands
//! of launches, treats columns below 1e-8 as zero, and does not work in f64 on a device of f32.

use burn::tensor::{DType, Tensor};
use faer::{Mat, MatRef};

use super::host::{Place, by_rows, host};

/// Singular vectors of every matrix of a stack `[batch, a, b]`, strongest first: `[batch, a, a]` of the axis of a and
/// `[batch, b, b]` of that of b, each if wanted. What the matrix does not reach is filled by a fixed choice.
pub(crate) fn singular_bases(stack: Tensor<3>, wanted: [bool; 2]) -> [Option<Tensor<3>>; 2] {
    let (place, [batch, height, width]) = (Place::of(&stack), stack.dims());
    let least = noise(place.dtype);
    let mut bases = [(wanted[0], height), (wanted[1], width)].map(|(wanted, size)| wanted.then(|| (size, Vec::new())));
    for matrix in host(stack).chunks_exact(height * width) {
        let vectors = singular_vectors(matrix, [height, width], least);
        for (basis, vectors) in bases.iter_mut().zip(vectors) {
            if let Some((size, values)) = basis {
                values.extend(by_rows(completed(vectors, *size).as_ref()));
            }
        }
    }
    bases.map(|basis| basis.map(|(size, values)| place.tensor(values, [batch, size, size])))
}

/// The basis after one step of orthogonal iteration with a symmetric matrix A, for every pair of a stack: the columns of
/// `A Q`, strongest first, made orthonormal. Each column stays in its place. A column that A does not reach stays what it
/// was, as far as the others allow.
pub(crate) fn iterated_basis(symmetric: Tensor<3>, basis: Tensor<3>) -> Tensor<3> {
    let (place, dims) = (Place::of(&basis), basis.dims());
    let size = dims[1];
    let (symmetric, basis, noise) = (host(symmetric), host(basis), noise(place.dtype));
    let mut next = Vec::with_capacity(basis.len());
    for (symmetric, basis) in symmetric.chunks_exact(size * size).zip(basis.chunks_exact(size * size)) {
        if symmetric.iter().chain(basis).all(|x| x.is_finite()) {
            let [symmetric, basis] = [symmetric, basis].map(|rows| MatRef::from_row_major_slice(rows, size, size));
            next.extend(by_rows(iterated(symmetric, basis, noise).as_ref()));
        } else {
            next.resize(next.len() + size * size, f64::NAN);
        }
    }
    place.tensor(next, dims)
}

/// `Q` of `A Q` by its columns in the order of their strength `qᵀ A q`.
fn iterated(symmetric: MatRef<'_, f64>, basis: MatRef<'_, f64>, noise: f64) -> Mat<f64> {
    // By columns: a product with a matrix by rows takes twice the time where the rows are a power of two apart.
    let basis = basis.to_owned();
    let (size, product) = (basis.nrows(), symmetric * &basis);
    let strength: Vec<f64> = (0..size).map(|j| basis.col(j).transpose() * product.col(j)).collect();
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| strength[*b].total_cmp(&strength[*a]));
    let decomposed = Mat::from_fn(size, size, |i, j| product[(i, order[j])]).qr();
    let new: Vec<f64> = (0..size).map(|j| decomposed.R()[(j, j)].abs()).collect();
    let least = noise * new.iter().copied().fold(0.0, f64::max);
    let (reached, missed): (Vec<usize>, Vec<usize>) = (0..size).partition(|j| new[*j] > least);
    let (order, orthonormal) = if missed.is_empty() {
        (order, decomposed.compute_Q())
    } else {
        let order: Vec<usize> = reached.iter().chain(&missed).map(|j| order[*j]).collect();
        let column = |i, j: usize| if j < reached.len() { product[(i, order[j])] } else { basis[(i, order[j])] };
        let filled = Mat::from_fn(size, size, column).qr().compute_Q();
        (order, filled)
    };
    let mut places = vec![0; size];
    order.iter().enumerate().for_each(|(position, column)| places[*column] = position);
    Mat::from_fn(size, size, |i, j| orthonormal[(i, places[j])])
}

/// The singular vectors of both axes that are not noise; `None` for a matrix that is not finite.
fn singular_vectors(matrix: &[f64], [height, width]: [usize; 2], noise: f64) -> [Option<Mat<f64>>; 2] {
    let largest = matrix.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    if !matrix.iter().all(|x| x.is_finite()) {
        return [None, None];
    }
    // Entries of size 1: nothing overflows or underflows on the way.
    let unit: Vec<f64> = matrix.iter().map(|x| if largest == 0.0 { 0.0 } else { x / largest }).collect();
    let Ok(svd) = MatRef::from_row_major_slice(&unit, height, width).thin_svd() else { return [None, None] };
    let singular = svd.S().column_vector();
    let rank = singular.iter().filter(|s| **s > noise * singular[0]).count();
    [svd.U(), svd.V()].map(|vectors| Some(vectors.subcols(0, rank).to_owned()))
}

/// Orthonormal columns, and as many more as make them a basis.
fn completed(columns: Option<Mat<f64>>, size: usize) -> Mat<f64> {
    let Some(columns) = columns else { return Mat::full(size, size, f64::NAN) };
    let given = columns.ncols();
    if given == size {
        return columns;
    }
    let all = if given == 0 { Mat::identity(size, size) } else { columns.qr().compute_Q() };
    Mat::from_fn(size, size, |i, j| if j < given { columns[(i, j)] } else { all[(i, j)] })
}

/// The share of the largest number below which others are rounding: 4 units in the last digit.
pub(crate) fn noise(dtype: DType) -> f64 {
    4.0 * if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::identity_like;
    use crate::setting::numbers;

    fn largest(x: Tensor<3>) -> f64 {
        x.abs().max().into_scalar::<f64>()
    }

    /// How far the columns are from orthonormal.
    fn skew(basis: &Tensor<3>) -> f64 {
        largest(basis.clone().swap_dims(1, 2).matmul(basis.clone()) - identity_like(basis))
    }

    #[test]
    fn singular_bases_are_orthonormal_and_make_the_matrix_diagonal() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-13)] {
            for shape in [[2, 3, 7], [2, 7, 3], [1, 5, 5], [1, 1, 4]] {
                let x = numbers(shape, 1, dtype);
                let [left, right] = singular_bases(x.clone(), [true, true]).map(|basis| basis.expect("wanted"));
                assert!(skew(&left) < tolerance && skew(&right) < tolerance, "{dtype:?} {shape:?}");
                let turned = left.swap_dims(1, 2).matmul(x).matmul(right);
                for (k, value) in turned.into_data().convert_dtype(DType::F64).iter::<f64>().enumerate() {
                    let (i, j) = (k / shape[2] % shape[1], k % shape[2]);
                    assert!(i == j || value.abs() < 10.0 * tolerance, "{dtype:?} {shape:?}: {value}");
                }
            }
        }
    }

    #[test]
    fn a_column_that_a_matrix_does_not_reach_stays_in_its_place() {
        // diag(0, 3, 0, 1) and the axes, the second of them tilted.
        let symmetric = Tensor::<3>::from_data(
            [[[0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]],
            &burn::tensor::Device::flex(),
        );
        let basis = identity_like(&symmetric);
        let next = iterated_basis(symmetric, basis.clone());
        assert!(largest(next.abs() - basis) < 1e-6);
    }

    #[test]
    fn iteration_finds_the_eigenvectors_in_any_element_type() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-12)] {
            let x = numbers([2, 6, 6], 1, dtype);
            let symmetric = x.clone().matmul(x.clone().swap_dims(1, 2));
            let steps = 0..3000;
            let basis = steps.fold(identity_like(&symmetric), |basis, _| iterated_basis(symmetric.clone(), basis));
            assert!(skew(&basis) < tolerance);
            let turned = basis.clone().swap_dims(1, 2).matmul(symmetric).matmul(basis);
            let off = turned.clone() - turned.clone() * identity_like(&turned);
            assert!(largest(off) < tolerance * largest(turned), "{dtype:?}");
        }
    }
}
