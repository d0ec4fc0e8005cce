//! Exact functions of the singular values, by a decomposition on the host.

use burn::tensor::{DType, Tensor, TensorData};
use faer::linalg::solvers::Svd;
use faer::traits::RealField;
use faer::{Mat, MatRef};

/// `U diag(f(s)) Vᵀ` for every matrix `U diag(s) Vᵀ` of a stack `[batch, a, b]`.
///
/// `f` gets the position in the stack and the `min(a, b)` singular values in falling order, and
/// returns as many new ones. The decomposition is a host round trip in the precision of the tensor
/// (f64 for f64, else f32). A matrix with a NaN or an infinity has no decomposition and gives NaN; a
/// zero matrix gives zero.
pub fn map_singular_values(stack: Tensor<3>, f: impl Fn(usize, &[f64]) -> Vec<f64>) -> Tensor<3> {
    let (device, dtype) = (stack.device(), stack.dtype());
    let data = stack.into_data();
    let mapped = match dtype {
        DType::F64 => map_data::<f64>(data, &f),
        _ => map_data::<f32>(data, &f),
    };
    Tensor::from_data(mapped, (&device, dtype))
}

/// What the host path needs of f32 and f64.
trait Scalar: RealField + burn::tensor::Element + Copy {
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
}

impl Scalar for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Scalar for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
}

fn map_data<T: Scalar>(data: TensorData, f: &impl Fn(usize, &[f64]) -> Vec<f64>) -> TensorData {
    let [batch, height, width] = [0, 1, 2].map(|axis| data.shape()[axis]);
    let values: Vec<T> = data.convert_dtype(T::dtype()).iter::<T>().collect();
    let mapped: Vec<T> = values
        .chunks_exact(height * width)
        .enumerate()
        .flat_map(|(index, matrix)| map_matrix(matrix, height, width, |s| f(index, s)))
        .collect();
    TensorData::new(mapped, [batch, height, width])
}

fn map_matrix<T: Scalar>(matrix: &[T], height: usize, width: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<T> {
    let largest = matrix.iter().map(|x| x.to_f64().abs()).fold(0.0, f64::max);
    if largest == 0.0 {
        return vec![T::from_f64(0.0); matrix.len()];
    }
    if matrix.iter().any(|x| !x.to_f64().is_finite()) {
        return vec![T::from_f64(f64::NAN); matrix.len()];
    }
    // Entries of size 1: nothing inside the decomposition over- or underflows.
    let unit: Vec<T> = matrix.iter().map(|x| T::from_f64(x.to_f64() / largest)).collect();
    let Ok(svd) = MatRef::from_row_major_slice(&unit, height, width).thin_svd() else {
        return vec![T::from_f64(f64::NAN); matrix.len()];
    };
    let singular: Vec<f64> = svd.S().column_vector().iter().map(|s| s.to_f64() * largest).collect();
    rows(&rebuild(&svd, &f(&singular)))
}

/// `U diag(values) Vᵀ`
fn rebuild<T: Scalar>(svd: &Svd<T>, values: &[f64]) -> Mat<T> {
    let u = svd.U();
    let scaled = Mat::from_fn(u.nrows(), values.len(), |i, j| T::from_f64(u[(i, j)].to_f64() * values[j]));
    scaled * svd.V().transpose()
}

/// The entries of a matrix row after row.
pub(super) fn rows<T: Copy>(matrix: &Mat<T>) -> Vec<T> {
    (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    fn values(tensor: Tensor<3>) -> Vec<f64> {
        tensor.into_data().convert_dtype(DType::F64).iter::<f64>().collect()
    }

    #[test]
    fn the_identity_map_gives_the_matrix_back() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
            for shape in [[2, 3, 7], [2, 7, 3], [1, 5, 5], [1, 1, 4]] {
                let x = Tensor::<3>::random(shape, Distribution::Default, &Device::flex()).cast(dtype);
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
