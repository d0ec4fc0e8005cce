//! What a rule does to the singular values of a gradient.

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::{ConfigError, OptimizerConfig};
use crate::matrix::{Layout, Placement, polar_svd};
use crate::splitmix64;

/// Input features of the gradient that is tried.
const INPUTS: usize = 24;

/// What each singular value of a gradient becomes in the first update: `u_iᵀ U v_i` for the gradient
/// `Σ s_i u_i v_iᵀ` with random directions, `s.len()` outputs and 24 inputs, at learning rate 1.
///
/// For rules that are functions of the singular values this is the whole update; for the others the part of
/// it that lies along the gradient's own directions.
///
/// ```
/// use burn::tensor::Device;
/// use polaron::{OptimizerConfig, inspect::singular_map};
///
/// let muon: OptimizerConfig = serde_json::from_str(r#"{"kind": "muon", "polar": {"method": "svd"}}"#)?;
/// let mapped = singular_map(&muon, &[1.0, 0.1, 0.001], &Device::flex())?;
/// assert!(mapped.iter().all(|s| (s - 1.0).abs() < 1e-6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the configuration is not valid.
pub fn singular_map(config: &OptimizerConfig, s: &[f64], device: &Device) -> Result<Vec<f64>, ConfigError> {
    let optimizer = config.build(Placement::new(Layout::OutIn))?;
    let dtype = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
    let tensor = |values: Vec<f64>, shape: [usize; 2]| {
        let data = TensorData::new(values, shape).convert_dtype(dtype);
        Tensor::<2>::from_data(data, (device, dtype))
    };
    let orthogonal = |width: usize, seed: u64| {
        let values =
            (0..s.len() * width).map(|i| (splitmix64(seed << 32 | i as u64) >> 11) as f64 / 2f64.powi(52) - 1.0);
        polar_svd(tensor(values.collect(), [s.len(), width]).unsqueeze(), 0.0).squeeze_dim::<2>(0)
    };
    // Rows of `left` are the u_i, rows of `right` the v_i.
    let (left, right) = (orthogonal(s.len(), 1), orthogonal(INPUTS, 2));
    let gradient = left.clone().transpose().matmul(right.clone() * tensor(s.to_vec(), [s.len(), 1]));
    let zero = gradient.zeros_like();
    let (after, _) = optimizer.step(1.0, zero, gradient, None);
    let along = left.matmul(after.neg()).matmul(right.transpose());
    let values: Vec<f64> = along.into_data().convert_dtype(DType::F64).iter::<f64>().collect();
    Ok((0..s.len()).map(|i| values[i * s.len() + i]).collect())
}
