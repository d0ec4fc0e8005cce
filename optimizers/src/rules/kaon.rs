//! Kaon (arXiv 2605.11181, algorithm 2): chaotic singular values instead of equal ones.
//!
//! ```text
//! X = M / (‖M‖_F + eps);   steps times:  B = I - X Xᵀ,  X ← 4.1 B² X;   U = scale · X / 1.175
//! ```
//!
//! **Singular values** follow `s → 4.1 s (1 - s²)²`, a chaotic map into [0, 1.1735]:
//!
//! | s / ‖M‖_F | 0.001 | 0.01 | 0.1 | 0.3 | 0.5 | 0.9 | 1 |
//! |---|---|---|---|---|---|---|---|
//! | of U after 5 steps | 0.829 | 0.130 | 0.131 | 0.337 | 0.996 | 0.926 | 0 |
//!
//! Their root mean square is about 0.58 on large matrices, so a step is 0.64 times Muon's at the same
//! learning rate (`normalize` rms removes that). The direction still descends: signs never change.
//!
//! **When**: to see how little the exact spectrum matters (the paper's point), or as a cheap
//! alternative to Muon: the same work per step. A matrix of rank one becomes 0; single rows and columns
//! fall back to `M / ‖M‖_F`. Never in half precision: the map amplifies rounding about 4 times a step.
//!
//! **Claimed** (paper's abstract): close to Muon.

use burn::tensor::Tensor;

use crate::matrix::{Matrix, divide_or_zero, frobenius_norm, identity_like, with_norm};
use crate::rule::{About, Cost, Direction, Gain, Kind, Pipeline, StackRow, SymmetryRow, follows_rank, kind_settings};
use crate::setting::{Numbers, choice};

/// Factor of the map; between 4 and 4.257, where it is chaotic and bounded.
const FACTOR: f64 = 4.1;

/// The divisor of the result: just above the largest value of the map, 1.1735.
const BOUND: f64 = 1.175;

choice! {
    /// The size of the update.
    #[derive(Default)]
    pub enum KaonNormalize {
        /// As the map leaves it.
        #[default]
        None = "none",
        /// Root mean square singular value 1.
        Rms = "rms",
    }
}

kind_settings! {
    /// Settings of Kaon, and the rule itself.
    pub struct KaonConfig {
        momentum: 0.95, Ema, nesterov: true, scale: Original;
        /// How often the map is applied, from 1 to 99.
        steps, with_steps: usize = 5, in 1..=99;
        /// Added to the Frobenius norm, at least 0.
        eps, with_eps: f64 = 0.0, in Numbers::SIZE;
        /// Use the direction `M / ‖M‖_F` for a matrix with one row or column, which the map sends to 0.
        vector_fallback, with_vector_fallback: bool = true;
        /// The size of the update.
        normalize, with_normalize: KaonNormalize = KaonNormalize::None;
    }
}

impl Kind for KaonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        let steps = self.steps;
        let products = [4 * steps, 2 * steps];
        let work = format!("{} r²R + {} r³ (r = min(m, n), R = max(m, n))", products[0], products[1]);
        About {
            formula: self.formula(&format!("X = d/‖d‖_F, {steps} times X ← 4.1 (I - X Xᵀ)² X, U = X/1.175")),
            source: "arXiv 2605.11181, algorithm 2",
            cost: Cost::device(work).with_products(products),
            detail: format!("{steps} steps"),
            stack: StackRow::new(0.03, 0.01, "Kaon for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("kaon", "", SymmetryRow::SPECTRAL, 0)],
            gain: match self.normalize {
                KaonNormalize::None => Ok(Gain::ORTHOGONAL),
                KaonNormalize::Rms => follows_rank!("set normalize=none"),
            },
        }
    }
}

/// The image of a singular value under Kaon, given as a share of the Frobenius norm.
///
/// ```
/// let image = polaron::rules::kaon::singular_map(0.3, 5);
/// assert!((image - 0.395834494057699 / 1.175).abs() < 1e-12); // the fifth point of a published orbit, scaled
/// ```
pub fn singular_map(s: f64, steps: usize) -> f64 {
    (0..steps).fold(s, |s, _| FACTOR * s * (1.0 - s * s).powi(2)) / BOUND
}

impl Direction for KaonConfig {
    fn direction(&self, momentum: Matrix) -> Matrix {
        let rank = momentum.rank();
        momentum.map(|m| {
            let norm = frobenius_norm(m.clone()) + self.eps;
            let unit = divide_or_zero(m, norm);
            let mapped = match rank == 1 && self.vector_fallback {
                true => unit,
                false => chaotic(unit, self.steps) / BOUND,
            };
            match self.normalize {
                KaonNormalize::None => mapped,
                KaonNormalize::Rms => with_norm(mapped, (rank as f64).sqrt()),
            }
        })
    }
}

/// `steps` times `X ← 4.1 (I - X Xᵀ)² X`, on the short side.
fn chaotic(x: Tensor<3>, steps: usize) -> Tensor<3> {
    let [_, height, width] = x.dims();
    let tall = height > width;
    let mut x = x;
    let mut eye = None;
    for _ in 0..steps {
        let transposed = x.clone().swap_dims(1, 2);
        let gram = if tall { transposed.matmul(x.clone()) } else { x.clone().matmul(transposed) };
        let eye = eye.get_or_insert_with(|| identity_like(&gram)).clone();
        let b = eye - gram;
        let square = b.clone().matmul(b) * FACTOR;
        x = if tall { x.matmul(square) } else { square.matmul(x) };
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    use crate::matrix::{Layout, map_singular_values};
    use crate::setting::numbers;

    fn direction(x: Tensor<3>, config: &KaonConfig) -> Tensor<3> {
        config.direction(Matrix::new(x, Layout::OutIn)).into_tensor()
    }

    fn f64_tensor(values: &[f64], shape: [usize; 3]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), (&Device::flex(), DType::F64))
    }

    fn difference(x: Tensor<3>, y: Tensor<3>) -> f64 {
        (x - y).abs().max().into_scalar()
    }

    #[test]
    fn the_published_example_comes_out() {
        let g = f64_tensor(&[1., 2., 0., -1., 0., 3., -2., 1., 4., -1., 1., 2.], [1, 3, 4]);
        let row = |steps| -> Vec<f64> {
            let d = direction(g.clone(), &KaonConfig::new().with_steps(steps));
            d.into_data().iter::<f64>().take(4).collect()
        };
        for (steps, want) in [
            (1, [0.3848910839, 0.5179699995, 0.1907667942, -0.5100341009]),
            (5, [0.0014105959, 0.0108512545, 0.0070532238, -0.0210657864]),
        ] {
            // the published values have ten digits
            assert!(row(steps).iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-9), "{steps}");
        }
    }

    #[test]
    fn singular_values_follow_the_map_and_never_change_sign() {
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 1e-4)] {
            for shape in [[2, 8, 12], [2, 12, 8]] {
                let x = numbers(shape, 1, dtype);
                let norms: Vec<f64> = frobenius_norm(x.clone()).into_data().convert::<f64>().iter::<f64>().collect();
                let want =
                    map_singular_values(x.clone(), |i, s| s.iter().map(|s| singular_map(s / norms[i], 5)).collect());
                let got = direction(x.clone(), &KaonConfig::new());
                assert!(difference(got.clone(), want) < tolerance, "{dtype:?} {shape:?}");
                // <M, D> = Σ s f(s) ≥ 0: a descent direction
                assert!((got * x).sum().into_scalar::<f64>() > 0.0);
            }
        }
        for i in 0..=1000 {
            let image = singular_map(f64::from(i) / 1000.0, 5);
            assert!((0.0..=0.99872).contains(&image), "{image}");
        }
    }

    #[test]
    fn rank_one_gives_zero_and_single_rows_fall_back_to_their_direction() {
        let column = f64_tensor(&[3., 0., 4.], [1, 3, 1]);
        let got = direction(column.clone(), &KaonConfig::new());
        assert!(difference(got, f64_tensor(&[0.6, 0., 0.8], [1, 3, 1])) < 1e-15);
        let strict = direction(column, &KaonConfig::new().with_vector_fallback(false));
        assert!(strict.abs().max().into_scalar::<f64>() < 1e-15);
        let outer = f64_tensor(&[1., 2., 2., 4.], [1, 2, 2]);
        // rounding of the first step, times the slope 4.1 of every later one
        assert!(direction(outer, &KaonConfig::new()).abs().max().into_scalar::<f64>() < 1e-12);
    }
}
