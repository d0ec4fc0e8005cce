//! How a matrix changes: the size of the difference, and how far its first singular vectors turn.

use burn::tensor::TensorData;
use faer::MatRef;
use polaron::matrix::singular_values;
use serde::{Deserialize, Serialize};

use super::Spectrum;

/// The difference of two matrices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its spectral norm; of a stack, the mean.
    pub norm: f64,
    /// Its stable rank, `Σ s² / max s²`; of a stack, the mean. `None` where a matrix did not change: no direction is the strongest.
    pub stable_rank: Option<f64>,
}

impl Change {
    /// The change from one tensor `[.., height, width]` to another of the same shape. `None` for vectors, for other shapes and
    /// for numbers that are not finite.
    ///
    /// ```
    /// use burn::tensor::TensorData;
    /// use polaron_verify::inspect::Change;
    ///
    /// let [before, after] = [1.0, 4.0].map(|x| TensorData::new(vec![x, 0.0, 0.0, x], [2, 2]));
    /// let change = Change::between(&before, &after).unwrap();
    /// assert!((change.norm - 3.0).abs() < 1e-12 && (change.stable_rank.unwrap() - 2.0).abs() < 1e-12);
    /// ```
    pub fn between(before: &TensorData, after: &TensorData) -> Option<Self> {
        if before.shape() != after.shape() {
            return None;
        }
        let entries: Vec<f64> = after.iter::<f64>().zip(before.iter::<f64>()).map(|(a, b)| a - b).collect();
        let matrices = singular_values(&TensorData::new(entries, after.shape().clone()));
        let spectra = matrices.iter().map(|values| Spectrum::of(values)).collect::<Option<Vec<Spectrum>>>()?;
        let count = (!spectra.is_empty()).then_some(spectra.len() as f64)?;
        let rank = |spectrum: &Spectrum| (spectrum.largest > 0.0).then_some(spectrum.stable_rank);
        Some(Self {
            norm: spectra.iter().map(|spectrum| spectrum.largest).sum::<f64>() / count,
            stable_rank: spectra.iter().map(rank).sum::<Option<f64>>().map(|sum| sum / count),
        })
    }
}

/// The singular values of a matrix, and the singular vectors of the largest one.
#[derive(Clone, Debug, PartialEq)]
pub struct Leading {
    /// All singular values, largest first.
    pub values: Vec<f64>,
    /// The left vector: an entry for every row of the stored matrix.
    pub rows: Vec<f64>,
    /// The right vector: an entry for every column of the stored matrix.
    pub columns: Vec<f64>,
}

impl Leading {
    /// Those of every matrix in a tensor `[.., height, width]` of any number of leading axes, in f64. `None` for a vector or an
    /// empty matrix, and where a decomposition does not converge, as with numbers that are not finite.
    pub fn of(data: &TensorData) -> Option<Vec<Self>> {
        let &[.., height, width] = data.shape().as_slice() else { return None };
        let values: Vec<f64> = data.iter::<f64>().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let of = |matrix: &[f64]| {
            let svd = MatRef::from_row_major_slice(matrix, height, width).thin_svd().ok()?;
            let first = |vectors: MatRef<'_, f64>| vectors.col(0).iter().copied().collect();
            let values = svd.S().column_vector().iter().copied().collect();
            Some(Self { values, rows: first(svd.U()), columns: first(svd.V()) })
        };
        values.chunks_exact(height * width).map(of).collect()
    }
}

/// The squared cosines between the first singular vectors of a matrix at two times: 1 if they did not turn, about 1 over their
/// length if they have nothing in common. Where the two largest singular values are nearly the same, so are all directions
/// between their vectors, and the numbers say little.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Of the left vectors, which have an entry for every row of the stored matrix.
    pub rows: f64,
    /// Of the right vectors, which have an entry for every column.
    pub columns: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(values: &[f64], shape: &[usize]) -> TensorData {
        TensorData::new(values.to_vec(), shape.to_vec())
    }

    #[test]
    fn the_change_of_a_stack_is_the_mean_over_its_matrices() {
        let before = data(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], &[2, 2, 2]);
        let after = data(&[4.0, 0.0, 0.0, 5.0, 2.0, 0.0, 0.0, 0.0], &[2, 2, 2]);
        // diag(3, 4), of stable rank 25 / 16, and diag(2, 0), of 1.
        let change = Change::between(&before, &after).unwrap();
        assert!((change.norm - 3.0).abs() < 1e-12, "{change:?}");
        assert!((change.stable_rank.unwrap() - (25.0 / 16.0 + 1.0) / 2.0).abs() < 1e-12, "{change:?}");
    }

    #[test]
    fn no_change_has_a_size_and_no_rank_and_what_cannot_be_compared_has_none() {
        let matrix = data(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
        assert_eq!(Change::between(&matrix, &matrix), Some(Change { norm: 0.0, stable_rank: None }));
        assert_eq!(Change::between(&matrix, &data(&[1.0, 2.0], &[2])), None);
        assert_eq!(Change::between(&matrix, &data(&[f64::NAN; 4], &[2, 2])), None);
        assert_eq!(Leading::of(&data(&[1.0, f64::NAN], &[1, 2])), None);
        assert_eq!(Leading::of(&data(&[1.0], &[1])), None);
    }

    #[test]
    fn the_first_vectors_are_those_of_the_largest_singular_value() {
        let leading = &Leading::of(&data(&[0.0, 3.0, 0.0, 0.0, 0.0, -4.0], &[2, 3])).unwrap()[0];
        assert!((leading.values[0] - 4.0).abs() < 1e-12 && (leading.values[1] - 3.0).abs() < 1e-12, "{leading:?}");
        let size = |vector: &[f64]| vector.iter().map(|x| x.abs()).collect::<Vec<f64>>();
        assert!(size(&leading.rows).iter().zip([0.0, 1.0]).all(|(x, want)| (x - want).abs() < 1e-12), "{leading:?}");
        assert!(size(&leading.columns).iter().zip([0.0, 0.0, 1.0]).all(|(x, want)| (x - want).abs() < 1e-12));
    }
}
