//! Singular values: the effect of a rule on those of a gradient, and a summary of those of weights.

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::matrix::{Layout, Placement, polar_svd};
use polaron::{ConfigError, OptimizerConfig};
use polaron_common::splitmix64;
use serde::{Deserialize, Serialize};

/// Input features of the test gradient.
const INPUTS: usize = 24;

/// The image of each singular value of a gradient in the first update: `u_iᵀ U v_i` for the gradient
/// `Σ s_i u_i v_iᵀ` with random directions, `s.len()` outputs and 24 inputs, at learning rate 1. SOAP, whose first gradient
/// only sets its bases, is given the same gradient twice.
///
/// For rules that are functions of the singular values this is the whole update; for others it is the part of
/// the update along the gradient's own directions.
///
/// ```
/// use burn::tensor::Device;
/// use polaron::OptimizerConfig;
/// use polaron_verify::inspect::singular_map;
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
    let (mut after, state) = optimizer.step(1.0, zero.clone(), gradient.clone(), None);
    if after.clone().abs().max().into_scalar::<f64>() == 0.0 {
        (after, _) = optimizer.step(1.0, zero, gradient, state);
    }
    let along = left.matmul(after.neg()).matmul(right.transpose());
    let values: Vec<f64> = along.into_data().convert_dtype(DType::F64).iter::<f64>().collect();
    Ok((0..s.len()).map(|i| values[i * s.len() + i]).collect())
}

/// A summary of the singular values of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// The largest one: the spectral norm.
    pub largest: f64,
    /// The smallest one.
    pub smallest: f64,
    /// `Σ s² / max s²`: how many directions carry as much as the strongest; between 1 and the rank, 0 for a zero matrix.
    pub stable_rank: f64,
    /// `exp(-Σ p ln p)` with `p = s² / Σ s²`: how many directions the size is spread over; between 1 and the rank, 0 for a
    /// zero matrix. Earlier versions called it `effective_rank` and recorded no other rank but the stable one; that name is still
    /// read and never written, since others mean [`roy_vetterli_rank`](Self::roy_vetterli_rank) by it.
    #[serde(alias = "effective_rank")]
    pub entropy_rank: f64,
    /// The same with `p = s / Σ s`: the effective rank of Roy and Vetterli (2007). `None` in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roy_vetterli_rank: Option<f64>,
    /// `Σ s / max s`: the nuclear norm over the spectral norm; between 1 and the rank, 0 for a zero matrix. `None` in records of
    /// earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nuclear_rank: Option<f64>,
}

impl Spectrum {
    /// The summary of these singular values; `None` if there are none, or if one is not finite.
    ///
    /// ```
    /// use polaron_verify::inspect::Spectrum;
    ///
    /// let spectrum = Spectrum::of(&[2.0, 2.0, 2.0, 2.0, 0.0]).unwrap();
    /// assert_eq!((spectrum.largest, spectrum.smallest), (2.0, 0.0));
    /// assert_eq!(spectrum.stable_rank, 4.0);
    /// assert!((spectrum.entropy_rank - 4.0).abs() < 1e-12);
    /// assert_eq!(spectrum.nuclear_rank, Some(4.0));
    /// ```
    pub fn of(singular_values: &[f64]) -> Option<Self> {
        if singular_values.is_empty() || singular_values.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let largest = singular_values.iter().copied().fold(0.0, f64::max);
        let smallest = singular_values.iter().copied().fold(f64::INFINITY, f64::min);
        if largest == 0.0 {
            let (roy_vetterli_rank, nuclear_rank) = (Some(0.0), Some(0.0));
            return Some(Self {
                largest,
                smallest,
                stable_rank: 0.0,
                entropy_rank: 0.0,
                roy_vetterli_rank,
                nuclear_rank,
            });
        }
        // Relative to the largest, so that no square overflows.
        let values: Vec<f64> = singular_values.iter().map(|s| s / largest).collect();
        let squares: Vec<f64> = values.iter().map(|value| value.powi(2)).collect();
        Some(Self {
            largest,
            smallest,
            stable_rank: squares.iter().sum(),
            entropy_rank: spread(&squares),
            roy_vetterli_rank: Some(spread(&values)),
            nuclear_rank: Some(values.iter().sum()),
        })
    }
}

/// The exponential of the entropy of `parts` over their sum, which is positive.
fn spread(parts: &[f64]) -> f64 {
    let sum: f64 = parts.iter().sum();
    let entropy: f64 = parts.iter().map(|part| part / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spectrum_tells_ranks() {
        // Squares 16 and 9: 25 / 16, and the entropy of 0.64 and 0.36. The values: that of 4/7 and 3/7, and 7 / 4.
        let spectrum = Spectrum::of(&[4.0, 3.0]).unwrap();
        assert!((spectrum.stable_rank - 1.5625).abs() < 1e-12);
        assert!((spectrum.entropy_rank - 1.922_099_7).abs() < 1e-6, "{}", spectrum.entropy_rank);
        let expected = (7.0 / 4.0_f64).powf(4.0 / 7.0) * (7.0 / 3.0_f64).powf(3.0 / 7.0);
        assert!((spectrum.roy_vetterli_rank.unwrap() - expected).abs() < 1e-12, "{spectrum:?}");
        assert!((spectrum.nuclear_rank.unwrap() - 1.75).abs() < 1e-12, "{spectrum:?}");
        // One direction is one by every measure; n equal ones are n.
        for (values, rank) in [(vec![5.0, 0.0, 0.0], 1.0), (vec![1e-300; 4], 4.0)] {
            let Spectrum { stable_rank, entropy_rank, roy_vetterli_rank, nuclear_rank, .. } =
                Spectrum::of(&values).unwrap();
            for found in [stable_rank, entropy_rank, roy_vetterli_rank.unwrap(), nuclear_rank.unwrap()] {
                assert!((found - rank).abs() < 1e-12, "{values:?}: {found}");
            }
        }
        assert_eq!(Spectrum::of(&[0.0, 0.0]).unwrap().stable_rank, 0.0);
        assert_eq!(Spectrum::of(&[1e300, 1e300]).unwrap().stable_rank, 2.0);
        assert_eq!((Spectrum::of(&[]), Spectrum::of(&[1.0, f64::NAN])), (None, None));
    }

    #[test]
    fn a_record_of_an_earlier_version_keeps_its_meaning_and_the_old_name_is_not_written() {
        let old = r#"{"largest":4.0,"smallest":3.0,"stable_rank":1.5625,"effective_rank":1.9220997}"#;
        let read: Spectrum = serde_json::from_str(old).unwrap();
        assert_eq!((read.entropy_rank, read.roy_vetterli_rank, read.nuclear_rank), (1.922_099_7, None, None));
        assert_eq!(serde_json::to_string(&read).unwrap(), old.replace("effective_rank", "entropy_rank"));
        let new = serde_json::to_string(&Spectrum::of(&[4.0, 3.0]).unwrap()).unwrap();
        assert!(!new.contains("effective_rank") && new.contains("roy_vetterli_rank"), "{new}");
        assert_eq!(serde_json::from_str::<Spectrum>(&new).unwrap(), Spectrum::of(&[4.0, 3.0]).unwrap());
    }
}
