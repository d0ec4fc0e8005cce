//! Smoothed Muon (arXiv 2605.23871): singular values below a level stay below 1.
//!
//! ```text
//! l = eps ‖M‖_F / √r  (relative: times the root mean square singular value)  or  eps  (absolute)
//! U = scale · (M Mᵀ + l² I)^(-1/2) M = scale · U diag(s / √(s² + l²)) Vᵀ,      r = min(m, n)
//! ```
//!
//! **Singular values** (l = 1):
//!
//! | s | 0.01 | 0.1 | 0.5 | 1 | 2 | 10 |
//! |---|---|---|---|---|---|---|
//! | of U | 0.0100 | 0.0995 | 0.4472 | 0.7071 | 0.8944 | 0.9950 |
//!
//! Directions in which the gradient is only noise are not amplified to full size; `eps` 0 is Muon.
//!
//! **When**: where Muon's equal treatment of tiny singular values hurts: it does not stall on the
//! paper's nonsmooth counterexample. Cost: that of ten steps of Muon on a matrix longer by r.
//!
//! **The default `polar`**, `converged`, is applied to `[M | l I]`. Its largest relative error against `svd` in f32, over spectra
//! that are flat, 1/i, 1/i², with condition numbers of 1e3 and 1e6, or of a quarter of the rank, at 64 × 64, 128 × 384 and
//! 256 × 704 (`optimizers/tests/suite/converged.rs` measures it):
//!
//! | `eps` | 0.1 | 0.03 | 0.01 | 1e-3 | 1e-4 |
//! |---|---|---|---|---|---|
//! | error | 5e-5 | 5e-5 | 6e-5 | 3e-4 | 3e-3 |

use burn::tensor::Tensor;
use serde_json::{Value, json};

use crate::matrix::{EpsMode, Matrix, appended_root, map_singular_values, root_level, with_norm};
use crate::rule::{About, Direction, Gain, Kind, Pipeline, Polar, StackRow, SymmetryRow, follows_rank, kind_settings};
use crate::setting::Numbers;

kind_settings! {
    /// Settings of RegularizedMuon, and the rule itself.
    pub struct RegularizedMuonConfig {
        momentum: 0.95, Ema, nesterov: false, scale: Original;
        /// The level l, at least 0.
        eps, with_eps: f64 = 0.03, in Numbers::SIZE;
        /// Whether `eps` is relative to the root mean square singular value.
        eps_mode, with_eps_mode: EpsMode = EpsMode::Relative;
        /// Scale the result to the Frobenius norm √r of Muon's update.
        rms_restore, with_rms_restore: bool = false;
        /// `svd`: exact. Other methods: applied to `[M | l I]`, of which the first columns are kept.
        polar, with_polar: Polar = Polar::Converged;
    }
}

impl Kind for RegularizedMuonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    #[cfg(feature = "exact")]
    fn smoothing(&self) -> Option<crate::rule::Smoothing> {
        (!self.rms_restore).then_some(crate::rule::Smoothing { eps: self.eps, mode: self.eps_mode })
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("polar", json!({"method": "svd"})))
    }

    fn about(&self) -> About {
        let level = match self.eps_mode {
            EpsMode::Relative => format!("l = {} · rms singular value of d", self.eps),
            EpsMode::Absolute => format!("l = {}", self.eps),
        };
        About {
            formula: self.formula(&format!("U = (d dᵀ + l² I)^(-1/2) d, {level}")),
            source: "arXiv 2605.23871",
            cost: self.polar.cost_appended(""),
            detail: format!("eps {}, {}", self.eps, self.polar.label()),
            stack: StackRow::new(0.02, 0.01, "smoothed Muon for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("regularized_muon", "", SymmetryRow::SPECTRAL, 0)],
            gain: match (self.rms_restore, self.eps_mode) {
                (true, _) => follows_rank!("set rms_restore=false"),
                (false, EpsMode::Absolute) if self.eps > 0.0 => Err(
                    "its level is a size of the gradient, which follows the width in its own way: set eps_mode=relative",
                ),
                _ => Ok(Gain::ORTHOGONAL),
            },
        }
    }
}

impl Direction for RegularizedMuonConfig {
    fn direction(&self, momentum: Matrix) -> Matrix {
        let rank = momentum.rank();
        let smoothed = match &self.polar {
            polar if self.eps == 0.0 => polar.apply(momentum),
            Polar::Svd { .. } => momentum.map(|m| self.exact(m)),
            polar => {
                let level = root_level(momentum.tensor(), rank, self.eps.powi(2), self.eps_mode);
                appended_root(momentum, level, |longer| polar.apply(longer))
            }
        };
        match self.rms_restore {
            true => smoothed.map(|m| with_norm(m, (rank as f64).sqrt())),
            false => smoothed,
        }
    }
}

impl RegularizedMuonConfig {
    fn exact(&self, m: Tensor<3>) -> Tensor<3> {
        map_singular_values(m, |_, s| {
            let level_squared = match self.eps_mode {
                EpsMode::Absolute => self.eps.powi(2),
                EpsMode::Relative => self.eps.powi(2) * s.iter().map(|s| s * s).sum::<f64>() / s.len() as f64,
            };
            s.iter().map(|s| if *s == 0.0 { 0.0 } else { s / (s * s + level_squared).sqrt() }).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;

    use crate::matrix::{Layout, Norm};
    use crate::setting::numbers;

    /// Twelve steps of the quintic that converges to 1 from everywhere in (0, 1.5).
    fn convergent() -> Polar {
        let coefficients = vec![[1.875, -1.25, 0.375]; 12].into();
        Polar::Polynomial { coefficients, norm_factor: 1.0, eps: 0.0, norm: Norm::Frobenius }
    }

    #[test]
    fn the_polar_factor_of_the_longer_matrix_is_the_exact_map() {
        for shape in [[2, 6, 9], [2, 9, 6], [1, 5, 5], [1, 1, 4]] {
            for (eps, eps_mode) in [(0.5, EpsMode::Relative), (0.3, EpsMode::Absolute)] {
                let x = numbers(shape, 1, DType::F64);
                let config = RegularizedMuonConfig::new().with_eps(eps).with_eps_mode(eps_mode);
                let direction = |config: &RegularizedMuonConfig| {
                    config.direction(Matrix::new(x.clone(), Layout::InOut)).into_tensor()
                };
                let exact = direction(&config.clone().with_polar(Polar::Svd { rcond: 1e-5 }));
                let appended = direction(&config.clone().with_polar(convergent()));
                let error = (exact - appended).abs().max().into_scalar::<f64>();
                assert!(error < 1e-12, "{shape:?} {eps_mode:?}: {error:e}"); // rounding: the iteration has converged
            }
        }
    }
}
