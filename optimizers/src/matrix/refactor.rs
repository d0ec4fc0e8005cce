//! A product of two factors of low rank in orthonormal ones (FedSVD, arXiv 2505.12805).

use burn::tensor::{Tensor, TensorData};
use faer::{Mat, MatRef};

use super::host::{Place, by_rows, host};

/// Factors of a stack of products, with what maps the old second factors to the new ones; see [`refactored`].
#[derive(Clone, Debug)]
pub struct Refactored {
    /// `[batch, d_in, r]`: columns that are orthonormal.
    pub a: Tensor<3>,
    /// `[batch, r, d_out]`: rows that are orthogonal, the longest first.
    pub b: Tensor<3>,
    /// `aᵀ a_old`, `[batch, r, r]` in f64: `b = rotation · b_old`. Where the columns of `a_old` were orthonormal too, it is
    /// orthogonal, and gradients with respect to b turn alike.
    pub rotation: TensorData,
}

/// `a b = V diag(s) Uᵀ` as the factors `V` and `diag(s) Uᵀ`, for stacks `[batch, d_in, r]` and `[batch, r, d_out]`.
///
/// Of each column of the new a, the entry of the largest size is positive; of several, the first. The columns of the new a
/// span those of the old a, also where b is zero or of lower rank, and are orthonormal in any case. A decomposition of r × r
/// on the host, in f64 whatever the dtype of the tensors, after a QR decomposition of each factor. A pair with a NaN or an
/// infinity gives NaN.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use polaron::matrix::refactored;
///
/// let device = Device::flex();
/// let a = Tensor::<3>::from_floats([[[0.0], [-2.0]]], &device);
/// let b = Tensor::<3>::from_floats([[[3.0, 4.0]]], &device);
/// let new = refactored(a, b);
/// assert_eq!(new.a.into_data().try_to_vec::<f32>().unwrap(), [0.0, 1.0]);
/// assert_eq!(new.b.into_data().try_to_vec::<f32>().unwrap(), [-6.0, -8.0]);
/// ```
///
/// # Panics
/// If the shapes do not fit, or r is larger than `d_in` or `d_out`.
pub fn refactored(a: Tensor<3>, b: Tensor<3>) -> Refactored {
    let ([batch, d_in, rank], [of, rows, d_out]) = (a.dims(), b.dims());
    assert!(
        (batch, rank) == (of, rows) && rank <= d_in.min(d_out),
        "factors [{batch}, {d_in}, {rank}] and [{of}, {rows}, {d_out}] have no orthonormal form: the inner sizes must be equal, \
         and at most the outer ones"
    );
    let (of_a, of_b) = (Place::of(&a), Place::of(&b));
    let [a, b] = [a, b].map(host);
    let mut new = [Vec::with_capacity(a.len()), Vec::with_capacity(b.len()), Vec::with_capacity(batch * rank * rank)];
    for (a, b) in a.chunks_exact(d_in * rank).zip(b.chunks_exact(rank * d_out)) {
        let pair = canonical([a, b], [d_in, rank, d_out]);
        let undefined = || [[d_in, rank], [rank, d_out], [rank, rank]].map(|[m, n]| Mat::full(m, n, f64::NAN));
        for (all, matrix) in new.iter_mut().zip(pair.unwrap_or_else(undefined)) {
            all.extend(by_rows(matrix.as_ref()));
        }
    }
    let [a, b, rotation] = new;
    Refactored {
        a: of_a.tensor(a, [batch, d_in, rank]),
        b: of_b.tensor(b, [batch, rank, d_out]),
        rotation: TensorData::new(rotation, [batch, rank, rank]),
    }
}

/// The new factors of one product, and the rotation; `None` if a factor is not finite.
fn canonical([a, b]: [&[f64]; 2], [d_in, rank, d_out]: [usize; 3]) -> Option<[Mat<f64>; 3]> {
    let ((a, a_size), (b, b_size)) = (scaled(a, d_in, rank)?, scaled(b, rank, d_out)?);
    let (of_a, of_b) = (a.qr(), b.transpose().qr());
    let core = (of_a.thin_R() * of_b.thin_R().transpose()).svd().ok()?;
    let mut left = of_a.compute_thin_Q() * core.U();
    let sizes = core.S().column_vector();
    let right = of_b.compute_thin_Q() * core.V();
    let mut below = Mat::from_fn(rank, d_out, |i, j| sizes[i] * a_size * b_size * right[(j, i)]);
    for column in 0..rank {
        let first = |best: f64, entry: &f64| if entry.abs() > best.abs() { *entry } else { best };
        if left.col(column).iter().fold(0.0, first) < 0.0 {
            left.col_mut(column).iter_mut().for_each(|entry| *entry = -*entry);
            below.row_mut(column).iter_mut().for_each(|entry| *entry = -*entry);
        }
    }
    let rotation = left.transpose() * &a * faer::Scale(a_size);
    Some([left, below, rotation])
}

/// A matrix as entries of at most 1 and their scale, so that nothing overflows or underflows on the way; `None` if an entry
/// is not finite.
fn scaled(entries: &[f64], height: usize, width: usize) -> Option<(Mat<f64>, f64)> {
    let largest = entries.iter().fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
    let scale = if largest == 0.0 { 1.0 } else { largest };
    let finite = entries.iter().all(|entry| entry.is_finite());
    let matrix = MatRef::from_row_major_slice(entries, height, width);
    finite.then(|| (Mat::from_fn(height, width, |i, j| matrix[(i, j)] / scale), scale))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::setting::numbers;

    fn distance(one: Tensor<3>, other: Tensor<3>) -> f64 {
        host(one).iter().zip(host(other)).map(|(one, other)| (one - other).powi(2)).sum::<f64>().sqrt()
    }

    fn norm(x: &Tensor<3>) -> f64 {
        host(x.clone()).iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    fn rotation(new: &Refactored, like: &Tensor<3>) -> Tensor<3> {
        Tensor::from_data(new.rotation.clone().convert_dtype(like.dtype()), (&like.device(), like.dtype()))
    }

    /// `|aᵀ a - I|`
    fn skew(a: &Tensor<3>) -> f64 {
        let gram = a.clone().swap_dims(1, 2).matmul(a.clone());
        let eye = super::super::identity_like(&gram);
        distance(gram, eye)
    }

    fn tensor(values: &[f64], shape: [usize; 3]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), (&Device::flex(), DType::F64))
    }

    #[test]
    fn the_known_answer_is_found_with_its_signs() {
        // As in the paper, A = aᵀ and B = bᵀ: B = [[1,0],[2,1],[0,-1]], A = [[1,1,0,2],[0,1,-1,1]].
        let a = tensor(&[1.0, 0.0, 1.0, 1.0, 0.0, -1.0, 2.0, 1.0], [1, 4, 2]);
        let b = tensor(&[1.0, 2.0, 0.0, 0.0, 1.0, -1.0], [1, 2, 3]);
        let new = refactored(a.clone(), b.clone());
        let (first, below) = (host(new.a.clone()), host(new.b.clone()));
        let row = |row: usize| below[row * 3..][..3].to_vec();
        let length = |row: Vec<f64>| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Ten digits are given.
        for (row, expected) in [(row(0), 6.8445101591), (row(1), 1.0736296766)] {
            assert!((length(row) - expected).abs() < 1e-9);
        }
        let column: Vec<f64> = first.iter().step_by(2).copied().collect();
        for (found, expected) in column.iter().zip([0.3178261321, 0.4819957293, -0.1641695972, 0.7998218614]) {
            assert!((found - expected).abs() < 1e-9, "{column:?}");
        }
        for (found, expected) in row(0).iter().zip([2.3994655843, 6.2449183565, -1.445987188]) {
            assert!((found - expected).abs() < 1e-9, "{below:?}");
        }
        for column in 0..2 {
            let entries = (0..4).map(|i| first[2 * i + column]);
            let largest = entries.reduce(|best, entry| if entry.abs() > best.abs() { entry } else { best });
            assert!(largest > Some(0.0), "{first:?}");
        }
        assert!(distance(new.a.clone().matmul(new.b.clone()), a.matmul(b)) < 3e-15 * 6.9);
        assert!(skew(&new.a) < 3e-15);
    }

    #[test]
    fn the_product_is_unchanged_to_rounding_and_the_first_factor_orthonormal() {
        for (dtype, tolerance) in [(DType::F64, 3e-15), (DType::F32, 2e-7)] {
            for [d_in, rank, d_out] in [[9, 4, 7], [4, 4, 4], [64, 8, 24], [5, 1, 3], [6, 3, 40]] {
                let (a, b) = (numbers([2, d_in, rank], 1, dtype), numbers([2, rank, d_out], 2, dtype));
                let new = refactored(a.clone(), b.clone());
                // In f64: the products themselves round.
                let exact = |x: &Tensor<3>| x.clone().cast(DType::F64);
                let [old, now] = [(&a, &b), (&new.a, &new.b)].map(|(a, b)| exact(a).matmul(exact(b)));
                let apart = distance(now, old.clone()) / norm(&old);
                assert!(apart < tolerance, "{dtype:?} {d_in} {rank} {d_out}: {apart:e}");
                let skewed = skew(&exact(&new.a)) / (rank as f64).sqrt();
                assert!(skewed < tolerance, "{dtype:?} {d_in} {rank} {d_out}: {skewed:e}");
                let mapped = rotation(&new, &exact(&b)).matmul(exact(&b));
                let apart = distance(mapped, exact(&new.b)) / norm(&exact(&new.b));
                assert!(apart < 2.0 * tolerance, "{dtype:?} {d_in} {rank} {d_out}: {apart:e}");
            }
        }
    }

    #[test]
    fn between_orthonormal_factors_the_map_is_a_rotation_and_the_space_stays() {
        let b = numbers([1, 3, 8], 3, DType::F64);
        let a = refactored(numbers([1, 6, 3], 1, DType::F64), b).a;
        let b = numbers([1, 3, 8], 2, DType::F64);
        let new = refactored(a.clone(), b);
        let turned = rotation(&new, &a);
        assert!(skew(&turned) < 3e-15);
        assert!(distance(new.a.matmul(turned), a) < 3e-15);
    }

    #[test]
    fn a_product_that_is_zero_or_of_lower_rank_has_an_orthonormal_factor_too() {
        for dtype in [DType::F64, DType::F32] {
            let a = numbers([1, 6, 3], 1, dtype);
            let zero = Tensor::zeros([1, 3, 5], (&Device::flex(), dtype));
            let rank_one = numbers([1, 3, 1], 2, dtype).matmul(numbers([1, 1, 5], 3, dtype));
            for (a, b) in [
                (a.clone(), zero.clone()),
                (a.clone(), rank_one.clone()),
                (a.clone().zeros_like(), rank_one.clone()),
                (numbers([1, 6, 1], 4, dtype).repeat_dim(2, 3), rank_one),
            ] {
                let new = refactored(a.clone(), b.clone());
                let old = a.matmul(b);
                let apart = distance(new.a.clone().matmul(new.b), old.clone());
                assert!(apart <= 4e-7 * norm(&old), "{dtype:?}: {apart:e}");
                assert!(skew(&new.a) < 4e-7, "{dtype:?}: {:e}", skew(&new.a));
            }
            let new = refactored(a, zero);
            assert_eq!(norm(&new.b), 0.0);
        }
    }

    #[test]
    fn factors_of_any_size_keep_their_product() {
        for (size_a, size_b) in [(1e-30, 1e30), (1e20, 1e-30), (1e-20, 1e-18)] {
            let (a, b) = (numbers([1, 6, 3], 1, DType::F32) * size_a, numbers([1, 3, 5], 2, DType::F32) * size_b);
            let new = refactored(a.clone(), b.clone());
            let exact = |x: Tensor<3>| x.cast(DType::F64);
            let old = exact(a).matmul(exact(b));
            assert!(distance(exact(new.a.clone()).matmul(exact(new.b)), old.clone()) < 1e-6 * norm(&old));
            assert!(skew(&new.a) < 1e-6);
        }
    }

    #[test]
    fn a_pair_that_is_not_finite_gives_nan_and_leaves_its_neighbours_alone() {
        let a = tensor(&[1.0, f64::INFINITY, 1.0, 2.0], [2, 2, 1]);
        let b = tensor(&[1.0, 1.0, 1.0, 1.0], [2, 1, 2]);
        let new = refactored(a, b);
        assert!(host(new.a)[..2].iter().all(|x| x.is_nan()));
        let first: Vec<f64> = host(new.b);
        assert!(first[0].is_nan() && (first[2] - 5f64.sqrt()).abs() < 1e-14);
    }

    #[test]
    #[should_panic(expected = "the inner sizes must be equal")]
    fn factors_that_do_not_fit_are_refused() {
        refactored(numbers([1, 2, 3], 1, DType::F64), numbers([1, 3, 5], 2, DType::F64));
    }
}
