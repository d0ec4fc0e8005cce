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
//! paper's nonsmooth counterexample. Cost: with a polynomial `polar` that of Muon on a matrix longer by r; with `svd`, the
//! default, a host decomposition.

use burn::tensor::Tensor;
use serde_json::{Value, json};

use crate::matrix::{Axis, EpsMode, Matrix, frobenius_norm, identity_like, map_singular_values, with_norm};
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
        polar, with_polar: Polar = Polar::Svd { rcond: 1e-5 };
    }
}

impl Kind for RegularizedMuonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
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
            cost: self.polar.cost(", of a matrix longer by r"),
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
            polar => self.appended(momentum, polar),
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

    /// The polar factor of `[M | l I]`, the identity on the long side, that of the inputs if M is square; a zero matrix gives
    /// zero.
    fn appended(&self, momentum: Matrix, polar: &Polar) -> Matrix {
        let (short, long) = if momentum.outputs() <= momentum.inputs() {
            (Axis::Output, Axis::Input)
        } else {
            (Axis::Input, Axis::Output)
        };
        let (short, long_dim) = (momentum.size(short), momentum.dim(long));
        let m = momentum.tensor().clone();
        let [batch, height, width] = m.dims();
        let norm = frobenius_norm(m.clone());
        let level = match self.eps_mode {
            EpsMode::Relative => norm * (self.eps / (short as f64).sqrt()),
            EpsMode::Absolute => norm.full_like(self.eps),
        };
        let square = m.clone().narrow(1, 0, short).narrow(2, 0, short);
        let level = identity_like(&square) * level.expand([batch, short, short]);
        let factor = polar.apply(momentum.map(|m| Tensor::cat(vec![m, level], long_dim)));
        factor.map(|factor| factor.narrow(1, 0, height).narrow(2, 0, width))
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
                let exact = direction(&config);
                let appended = direction(&config.clone().with_polar(convergent()));
                let error = (exact - appended).abs().max().into_scalar::<f64>();
                assert!(error < 1e-12, "{shape:?} {eps_mode:?}: {error:e}"); // rounding: the iteration has converged
            }
        }
    }
}
