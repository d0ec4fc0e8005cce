//! Cases without expected values: updates whose singular values may be anything in an interval.

use burn::tensor::{DType, Tensor};
use faer::{Mat, MatRef, Side};
use polaron::matrix::Placement;
use serde::Deserialize;

use super::report::CaseReport;

/// Properties of the update `D = (W before - W after) / lr` of every matrix, given the momentum M:
/// `D Mᵀ` and `Mᵀ D` are symmetric and positive semidefinite (D has the singular vectors of M), and
/// the singular values of D lie in `[low, high]`.
#[derive(Clone, Debug, Deserialize)]
pub struct SpectrumProperties {
    /// Momentum after every step, flat.
    pub momentum: Vec<Vec<f64>>,
    /// Smallest singular value.
    pub low: f64,
    /// Largest singular value.
    pub high: f64,
}

impl SpectrumProperties {
    /// Checks one step; `entry` of a report is the position of the matrix in the stack.
    pub(super) fn check<const D: usize>(
        &self,
        step: usize,
        update: Tensor<D>,
        placement: &Placement,
        tolerance: f64,
        report: &mut CaseReport,
    ) {
        let shape = update.dims();
        let device = update.device();
        let data = burn::tensor::TensorData::new(self.momentum[step].clone(), shape);
        let momentum = Tensor::<D>::from_data(data, (&device, update.dtype()));
        let (updates, momenta) = (matrices(placement, update), matrices(placement, momentum));
        for (entry, (d, m)) in updates.iter().zip(&momenta).enumerate() {
            let at = |got, expected, deviation: f64| CaseReport {
                worst: deviation / tolerance,
                step: step + 1,
                entry,
                got,
                expected,
            };
            let size = d.norm_l2() * m.norm_l2();
            for product in [d * m.transpose(), m.transpose() * d] {
                report.keep_worse(at(0.0, 0.0, (&product - product.transpose()).norm_max() / size));
                let lowest = product.self_adjoint_eigenvalues(Side::Lower).map_or(f64::NAN, |values| values[0]);
                report.keep_worse(at(lowest, 0.0, -lowest / size));
            }
            let singular = d.singular_values().unwrap_or_else(|_| vec![f64::NAN]);
            for s in singular {
                report.keep_worse(at(s, self.low, self.low - s));
                report.keep_worse(at(s, self.high, s - self.high));
            }
        }
    }
}

/// Every matrix of a parameter, in f64.
fn matrices<const D: usize>(placement: &Placement, parameter: Tensor<D>) -> Vec<Mat<f64>> {
    let stack = placement.split(parameter).into_tensor();
    let [_, height, width] = stack.dims();
    let values: Vec<f64> = stack.into_data().convert_dtype(DType::F64).iter::<f64>().collect();
    values
        .chunks_exact(height * width)
        .map(|matrix| MatRef::from_row_major_slice(matrix, height, width).to_owned())
        .collect()
}
