//! The strongest directions of a change of weights: what a training has learnt, to be kept by the next one
//! (`polaron::rule::Projection`).

use burn::tensor::TensorData;
use faer::MatRef;

/// A singular value below this share of the largest is the rounding of a decomposition.
const ZERO: f64 = 1e-9;

/// The first singular vectors of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    /// Frobenius norm of the matrix.
    pub norm: f64,
    /// For every direction, largest first: its share of the energy, `s² / Σ s²`. Empty for a matrix of zeros.
    pub shares: Vec<f64>,
    /// The left vectors, one after another: each has an entry for every row of the stored matrix.
    pub rows: Vec<Vec<f64>>,
    /// The right vectors, one after another: each has an entry for every column.
    pub columns: Vec<Vec<f64>>,
}

impl Directions {
    /// At most so many of every matrix of a tensor `[.., height, width]` of any number of leading axes, in f64: fewer where fewer
    /// singular values are not 0. `None` for vectors, for numbers that are not finite and where a decomposition does not
    /// converge.
    ///
    /// ```
    /// use burn::tensor::TensorData;
    /// use polaron_verify::inspect::Directions;
    ///
    /// let matrix = TensorData::new(vec![0.0, 4.0, 0.0, 3.0, 0.0, 0.0], [2, 3]);
    /// let found = &Directions::of(&matrix, 1).unwrap()[0];
    /// assert!((found.norm - 5.0).abs() < 1e-12 && (found.shares[0] - 0.64).abs() < 1e-12);
    /// assert!((found.rows[0][0].abs() - 1.0).abs() < 1e-12 && (found.columns[0][1].abs() - 1.0).abs() < 1e-12);
    /// ```
    pub fn of(data: &TensorData, most: usize) -> Option<Vec<Self>> {
        let &[.., height, width] = data.shape().as_slice() else { return None };
        let values: Vec<f64> = data.iter::<f64>().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.chunks_exact(height * width).map(|matrix| Self::of_matrix(matrix, [height, width], most)).collect()
    }

    fn of_matrix(matrix: &[f64], [height, width]: [usize; 2], most: usize) -> Option<Self> {
        let svd = MatRef::from_row_major_slice(matrix, height, width).thin_svd().ok()?;
        let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        let energy: f64 = values.iter().map(|value| value * value).sum();
        let kept = values.iter().take(most).take_while(|value| **value > ZERO * values[0]).count();
        let vectors = |of: MatRef<'_, f64>| (0..kept).map(|j| of.col(j).iter().copied().collect()).collect();
        let shares = values[..kept].iter().map(|value| value * value / energy).collect();
        Some(Self { norm: energy.sqrt(), shares, rows: vectors(svd.U()), columns: vectors(svd.V()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_zeros_has_no_directions_and_one_of_rank_one_has_one() {
        let zero = Directions::of(&TensorData::new(vec![0.0_f64; 6], [2, 3]), 2).unwrap();
        assert!(zero[0].shares.is_empty() && zero[0].rows.is_empty() && zero[0].norm == 0.0);
        let outer = TensorData::new(vec![2.0_f64, 4.0, 6.0, 1.0, 2.0, 3.0], [2, 3]);
        let one = &Directions::of(&outer, 2).unwrap()[0];
        assert_eq!((one.shares.len(), one.rows.len(), one.columns.len()), (1, 1, 1));
        assert!((one.shares[0] - 1.0).abs() < 1e-12 && (one.norm - 70.0_f64.sqrt()).abs() < 1e-12);
        assert!((one.columns[0][2] / one.columns[0][0] - 3.0).abs() < 1e-12);
        assert!((one.rows[0][0] / one.rows[0][1] - 2.0).abs() < 1e-12);
    }

    #[test]
    fn vectors_and_numbers_that_are_not_finite_have_none() {
        assert_eq!(Directions::of(&TensorData::new(vec![1.0_f64, 2.0], [2]), 1), None);
        assert_eq!(Directions::of(&TensorData::new(vec![1.0, f64::NAN], [1, 2]), 1), None);
    }
}
