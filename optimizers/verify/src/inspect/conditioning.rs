//! What an equilibration of MuonEq (arXiv 2603.28254) changes: the conditioning of the matrix, how far five Newton–Schulz steps
//! are from its polar factor, and how far that is from the polar factor of the matrix itself.

use burn::tensor::DType;
use faer::{Mat, MatRef};
use polaron::matrix::{Matrix, scalar_map};
use polaron::rule::Polar;
use polaron::rules::MuonEqConfig;
use polaron::rules::muon_eq::Equilibrate;

use super::Spectrum;

/// Five Newton–Schulz steps reach 0.68 for singular values above this share of the Frobenius norm.
const REACHED: f64 = 1.5e-3;

/// A singular value below this share of the largest is taken for 0: the rounding of a decomposition.
const ZERO: f64 = 1e-13;

/// The numbers of one matrix `Y` that is made of a matrix `G`; of a stack, the means over its matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditioning {
    /// `Σ s² / max s²` of Y.
    pub stable_rank: f64,
    /// κ, the largest singular value of Y over the smallest; of a stack, the geometric mean. `None` where one is 0.
    pub condition: Option<f64>,
    /// Share of the singular values of Y below 1.5e-3 of its Frobenius norm, from 0 to 1.
    pub below: f64,
    /// `‖NS(Y) - polar(Y)‖ / √r`, with five Newton–Schulz steps (0.15 to 0.19 for a well conditioned matrix: their own band) and
    /// the smaller size r. Directions with a singular value of 0 count as exact.
    pub error: f64,
    /// `⟨polar(Y), polar(G)⟩ / r`.
    pub cosine: f64,
}

/// The numbers after one kind of equilibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Equilibrated {
    /// `none`, `output`, `input` or `both`.
    pub mode: &'static str,
    /// The numbers.
    pub numbers: Conditioning,
}

/// The numbers of a stack of matrices without equilibration and after each kind of it, with the default exponent and `eps`, in f64
/// on the host. Zero matrices are left out. `None` if all are zero, or one is not finite.
pub fn conditioning(stack: &Matrix) -> Option<[Equilibrated; 4]> {
    let before = polar_factors(stack)?;
    let measured = |mode: &'static str, equilibrate: Option<Equilibrate>| {
        let after = match equilibrate {
            None => before.clone(),
            Some(units) => {
                let config = MuonEqConfig::new().with_equilibrate(units);
                polar_factors(&config.equilibrated(stack.clone(), 1))?
            }
        };
        let each: Vec<Conditioning> =
            after.iter().zip(&before).map(|(after, before)| after.against(before)).collect::<Option<_>>()?;
        Some(Equilibrated { mode, numbers: Conditioning::mean(&each)? })
    };
    Some([
        measured("none", None)?,
        measured("output", Some(Equilibrate::Output))?,
        measured("input", Some(Equilibrate::Input))?,
        measured("both", Some(Equilibrate::Both))?,
    ])
}

/// Singular values and polar factor of a matrix that is not zero.
#[derive(Clone)]
struct Factor {
    values: Vec<f64>,
    polar: Mat<f64>,
}

/// Those of every matrix that is not zero; `None` if there is none, or one is not finite.
fn polar_factors(stack: &Matrix) -> Option<Vec<Factor>> {
    let [_, height, width] = stack.tensor().dims();
    let entries: Vec<f64> = stack.tensor().clone().into_data().convert_dtype(DType::F64).iter::<f64>().collect();
    if entries.iter().any(|entry| !entry.is_finite()) {
        return None;
    }
    let matrices = entries.chunks_exact((height * width).max(1));
    let factor = |matrix: &[f64]| {
        let svd = MatRef::from_row_major_slice(matrix, height, width).thin_svd().ok()?;
        let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        let kept = values.iter().take_while(|value| **value > ZERO * values[0]).count();
        let polar = svd.U().subcols(0, kept) * svd.V().subcols(0, kept).transpose();
        Some(Factor { values, polar })
    };
    let factors: Option<Vec<Factor>> =
        matrices.filter(|matrix| matrix.iter().any(|entry| *entry != 0.0)).map(factor).collect();
    factors.filter(|factors| !factors.is_empty())
}

impl Factor {
    /// The numbers of this matrix, made of one with the polar factor of `before`.
    fn against(&self, before: &Self) -> Option<Conditioning> {
        let (values, count) = (&self.values, self.values.len() as f64);
        let (largest, smallest) = (values[0], *values.last()?);
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let steps = Polar::default().schedule();
        let nonzero = values.iter().filter(|value| **value > ZERO * largest);
        let error = nonzero.map(|value| (scalar_map(&steps, value / norm) - 1.0).powi(2)).sum::<f64>();
        let columns = self.polar.col_iter().zip(before.polar.col_iter());
        let product = columns.map(|(a, b)| a.iter().zip(b.iter()).map(|(a, b)| a * b).sum::<f64>()).sum::<f64>();
        Some(Conditioning {
            stable_rank: Spectrum::of(values)?.stable_rank,
            condition: (smallest > ZERO * largest).then_some(largest / smallest),
            below: values.iter().filter(|value| **value < REACHED * norm).count() as f64 / count,
            error: (error / count).sqrt(),
            cosine: product / count,
        })
    }
}

impl Conditioning {
    /// The means over several matrices, geometric for the condition; `None` over none.
    pub fn mean(each: &[Self]) -> Option<Self> {
        let count = (!each.is_empty()).then_some(each.len() as f64)?;
        let mean = |of: fn(&Self) -> f64| each.iter().map(of).sum::<f64>() / count;
        let logarithms: Option<f64> = each.iter().map(|numbers| numbers.condition.map(f64::ln)).sum();
        Some(Self {
            stable_rank: mean(|numbers| numbers.stable_rank),
            condition: logarithms.map(|sum| (sum / count).exp()),
            below: mean(|numbers| numbers.below),
            error: mean(|numbers| numbers.error),
            cosine: mean(|numbers| numbers.cosine),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::problem::normal;
    use burn::tensor::{Device, Tensor, TensorData};
    use polaron::matrix::Layout;

    fn matrix(entries: Vec<f64>, [m, n]: [usize; 2], layout: Layout) -> Matrix {
        let stack = entries.len() / (m * n);
        let data = TensorData::new(entries, [stack, m, n]);
        Matrix::new(Tensor::from_data(data, (&Device::flex(), DType::F64)), layout)
    }

    /// Of the example, with the default eps, computed by NumPy: stable rank, condition, share below, error, cosine.
    const KNOWN: [[f64; 5]; 4] = [
        [1.2882789922105171, 186.18713821196104, 0.0, 0.17714322600082572, 1.0],
        [1.572592614340399, 2.6161977693396072, 0.0, 0.19723657347313622, 0.9490225392190866],
        [1.4046925165473, 117.36024394533915, 0.0, 0.20948012309729522, 0.9558072876277085],
        [1.468344196515426, 3.1373816113444093, 0.0, 0.2391197197383452, 0.9696016107863025],
    ];

    #[test]
    fn the_known_example_has_its_numbers_in_both_layouts() {
        let g = [1.0, -2.0, 3.0, 0.5, 0.01, 0.02, -0.03, 0.04, 5.0, 4.0, -1.0, 2.0];
        let turned: Vec<f64> = (0..12).map(|k| g[k % 3 * 4 + k / 3]).collect();
        for stack in [matrix(g.to_vec(), [3, 4], Layout::OutIn), matrix(turned, [4, 3], Layout::InOut)] {
            let found = conditioning(&stack).unwrap();
            for (got, want) in found.iter().zip(KNOWN) {
                let Conditioning { stable_rank, condition, below, error, cosine } = got.numbers;
                let numbers = [stable_rank, condition.unwrap(), below, error, cosine];
                for (number, want) in numbers.iter().zip(want) {
                    assert!((number - want).abs() < 1e-9 * want.max(1.0), "{}: {numbers:?}", got.mode);
                }
            }
        }
    }

    #[test]
    fn output_units_of_any_size_become_those_of_noise() {
        // Log-normal sizes with deviation 1.5 on the outputs of noise: without them, any seed gives the table's row for noise.
        let (m, n) = (256, 1024);
        let size = |i: usize| (1.5 * normal(7, i as u64)).exp();
        let noise: Vec<f64> = (0..m * n).map(|k| size(k / n) * normal(1, k as u64)).collect();
        let [none, output, input, _] = conditioning(&matrix(noise, [m, n], Layout::OutIn)).unwrap();
        let numbers = output.numbers;
        assert!((numbers.stable_rank - 115.0).abs() < 4.0, "{numbers:?}");
        assert!((numbers.condition.unwrap() - 2.93).abs() < 0.1 && numbers.below == 0.0, "{numbers:?}");
        assert!((numbers.error - 0.152).abs() < 0.004 && numbers.cosine > 0.97, "{numbers:?}");
        assert!((none.numbers.cosine - 1.0).abs() < 1e-12 && none.numbers.stable_rank < 12.0, "{none:?}");
        assert!(none.numbers.error > 0.2 && none.numbers.condition.unwrap() > 300.0, "{none:?}");
        // Input units are alike already: nothing is repaired.
        assert!(input.numbers.condition.unwrap() > 300.0, "{input:?}");
    }

    #[test]
    fn zero_and_broken_matrices_have_no_numbers_and_a_singular_one_no_condition() {
        assert_eq!(conditioning(&matrix(vec![0.0; 4], [2, 2], Layout::OutIn)), None);
        assert_eq!(conditioning(&matrix(vec![f64::NAN; 4], [2, 2], Layout::OutIn)), None);
        // The second of the stack is left out.
        let stack = matrix(vec![3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [2, 2], Layout::OutIn);
        let [none, ..] = conditioning(&stack).unwrap();
        assert_eq!((none.numbers.stable_rank, none.numbers.condition, none.numbers.below), (1.0, None, 0.5));
        assert!((none.numbers.cosine - 0.5).abs() < 1e-12, "one of two directions");
    }
}
