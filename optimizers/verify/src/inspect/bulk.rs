//! Bulk and outliers: which singular values of a matrix noise explains, and which stand out.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Outliers of which the value is kept.
const KEPT: usize = 8;

/// The bulk of a spectrum, as that of an `m x n` matrix of independent numbers with standard deviation σ (the law of Marchenko
/// and Pastur), and the singular values outside of it (arXiv 2605.07870).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bulk {
    /// σ, from the median: the singular value with half of the others below it is `σ √(max(m, n) μ)`, with the median μ of the law.
    pub sigma: f64,
    /// `σ (√m + √n)`: where the bulk ends.
    pub edge: f64,
    /// How many singular values are above the edge by more than 5 %, or by more than `2 min(m, n)^(-2/3)` of it where that is
    /// more, which is how far the largest of noise strays. Of a stack, the mean number.
    pub outliers: f64,
    /// The largest of them, at most 8; of a stack, those of all its matrices.
    pub outlier_values: Vec<f64>,
}

impl Bulk {
    /// The bulk of an `m x n` matrix with these singular values, in any order. `None` if it has fewer than two, or one that is not
    /// finite.
    ///
    /// ```
    /// use polaron_verify::inspect::Bulk;
    ///
    /// let bulk = Bulk::of(&[9.0, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5], [8, 8]).unwrap();
    /// assert_eq!((bulk.outliers, bulk.outlier_values), (1.0, vec![9.0]));
    /// ```
    pub fn of(singular_values: &[f64], shape: [usize; 2]) -> Option<Self> {
        let [short, long] = [shape[0].min(shape[1]) as f64, shape[0].max(shape[1]) as f64];
        if singular_values.len() < 2 || singular_values.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let mut values = singular_values.to_vec();
        values.sort_by(|a, b| b.total_cmp(a));
        let sigma = median(&values) / (long * median_of_law(short / long)).sqrt();
        let edge = sigma * (short.sqrt() + long.sqrt());
        let strays = (2.0 * short.powf(-2.0 / 3.0)).max(0.05);
        let outliers = values.iter().take_while(|s| **s > (1.0 + strays) * edge).count();
        values.truncate(outliers.min(KEPT));
        Some(Self { sigma, edge, outliers: outliers as f64, outlier_values: values })
    }

    /// The mean over the matrices of a stack; `None` if there are none.
    pub fn mean(bulks: &[Self]) -> Option<Self> {
        let mean = |of: fn(&Self) -> f64| bulks.iter().map(of).sum::<f64>() / bulks.len() as f64;
        let mut outlier_values: Vec<f64> = bulks.iter().flat_map(|bulk| bulk.outlier_values.iter().copied()).collect();
        outlier_values.sort_by(|a, b| b.total_cmp(a));
        outlier_values.truncate(KEPT);
        (!bulks.is_empty()).then(|| Self {
            sigma: mean(|bulk| bulk.sigma),
            edge: mean(|bulk| bulk.edge),
            outliers: mean(|bulk| bulk.outliers),
            outlier_values,
        })
    }
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// The median of the Marchenko-Pastur law with ratio β ≤ 1: of the squared singular values over `σ² max(m, n)`.
///
/// At `λ = 1 + β + 2 √β cos θ` the law has the mass `∫ 2 sin² θ / (π λ) dθ`, from 0 to θ, above λ.
fn median_of_law(ratio: f64) -> f64 {
    const STEPS: usize = 4096;
    let place = |theta: f64| 1.0 + ratio + 2.0 * ratio.sqrt() * theta.cos();
    let width = PI / STEPS as f64;
    let mut above = 0.0;
    for step in 0..STEPS {
        let theta = (step as f64 + 0.5) * width;
        let mass = 2.0 * theta.sin().powi(2) / (PI * place(theta)) * width;
        if above + mass > 0.5 {
            return place((step as f64 + (0.5 - above) / mass) * width);
        }
        above += mass;
    }
    place(PI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::problem::normal;
    use burn::tensor::TensorData;
    use faer::Mat;
    use polaron::matrix::singular_values;

    /// Gaussian numbers with standard deviation σ, row by row.
    fn noise([m, n]: [usize; 2], sigma: f64, seed: u64) -> Vec<f64> {
        (0..(m * n) as u64).map(|i| sigma * normal(seed, i)).collect()
    }

    fn values(matrix: Vec<f64>, [m, n]: [usize; 2]) -> Vec<f64> {
        singular_values(&TensorData::new(matrix, [m, n])).remove(0)
    }

    #[test]
    fn the_median_of_the_law_is_the_known_one() {
        // For square matrices the singular values follow a quarter of a circle, whose median is 0.807946.
        for (ratio, want) in [(1.0, 0.807946_f64.powi(2)), (0.5, 0.83047), (0.25, 0.91600)] {
            assert!((median_of_law(ratio) - want).abs() < 6e-6, "{ratio}: {}", median_of_law(ratio));
        }
    }

    #[test]
    fn noise_has_no_outlier_in_two_hundred_draws_and_its_own_scale() {
        let shape = [128, 256];
        for seed in 0..200 {
            let bulk = Bulk::of(&values(noise(shape, 0.02, seed), shape), shape).unwrap();
            assert_eq!((bulk.outliers, bulk.outlier_values.len()), (0.0, 0), "{seed}: {bulk:?}");
            assert!((bulk.sigma / 0.02 - 1.0).abs() < 0.03, "{seed}: {bulk:?}");
        }
    }

    #[test]
    fn a_planted_spike_is_seen_where_theory_puts_it() {
        let (shape, sigma) = ([128, 256], 0.02);
        let [m, n] = shape.map(|size| size as f64);
        // The spike along the first row and column.
        let spiked = |theta: f64, seed: u64| {
            let mut matrix = noise(shape, sigma, seed);
            matrix[0] += theta;
            matrix
        };
        for (theta, want) in [(0.6, 0.726749), (0.8, 0.895428), (1.2, 1.263820)] {
            let t = theta / sigma;
            let at = sigma * ((m + t * t) * (n + t * t)).sqrt() / t;
            assert!((at - want).abs() < 1e-6, "{theta}: {at}");
            for seed in 0..10 {
                let bulk = Bulk::of(&values(spiked(theta, seed), shape), shape).unwrap();
                assert_eq!(bulk.outliers, 1.0, "{theta}, {seed}: {bulk:?}");
                // the entry under the spike is itself noise of 0.02
                assert!((bulk.outlier_values[0] - at).abs() < 0.08, "{theta}, {seed}: {bulk:?}, theory {at}");
            }
        }
        // Below the threshold σ (mn)^(1/4) = 0.269 it is hidden.
        let hidden = Bulk::of(&values(spiked(0.2, 3), shape), shape).unwrap();
        assert_eq!(hidden.outliers, 0.0, "{hidden:?}");
    }

    #[test]
    fn the_leading_directions_of_a_spike_overlap_as_theory_says() {
        let (m, n, sigma) = (128, 256, 0.02);
        for (theta, left, right) in [(0.6, 0.8401, 0.7471), (0.8, 0.9141, 0.8510), (1.2, 0.9632, 0.9312)] {
            let t = f64::powi(theta / sigma, 2);
            let (rows, columns) = (m as f64, n as f64);
            let power = t * t - rows * columns;
            let theory = [power / (t * (t + rows)), power / (t * (t + columns))];
            assert!((theory[0] - left).abs() < 1e-4 && (theory[1] - right).abs() < 1e-4, "{theta}: {theory:?}");
            let mut means = [0.0; 2];
            for seed in 0..10 {
                let numbers = noise([m, n], sigma, seed);
                let spike = |i: usize, j: usize| if i + j == 0 { theta } else { 0.0 };
                let svd = Mat::from_fn(m, n, |i, j| numbers[i * n + j] + spike(i, j)).thin_svd().unwrap();
                means[0] += svd.U()[(0, 0)].powi(2) / 10.0;
                means[1] += svd.V()[(0, 0)].powi(2) / 10.0;
            }
            assert!((means[0] - left).abs() < 0.02 && (means[1] - right).abs() < 0.03, "{theta}: {means:?}");
        }
    }

    #[test]
    fn small_and_broken_matrices_have_no_bulk_and_low_ranks_are_all_outliers() {
        assert_eq!(Bulk::of(&[1.0], [1, 9]), None);
        assert_eq!(Bulk::of(&[1.0, f64::NAN, 0.5], [3, 3]), None);
        let low = Bulk::of(&[3.0, 2.0, 0.0, 0.0, 0.0, 0.0], [6, 6]).unwrap();
        assert_eq!((low.sigma, low.outliers, low.outlier_values), (0.0, 2.0, vec![3.0, 2.0]));
        assert_eq!(Bulk::mean(&[]), None);
    }
}
