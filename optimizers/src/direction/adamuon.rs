//! AdaMuon (arXiv 2507.11005): every entry of Muon's update gets a step size of its own.
//!
//! ```text
//! O = polar(sign(d))   (or polar(d) with sign = false)
//! v ← β₂ v + (1-β₂) O²   (entrywise, no bias correction: it cancels),   O' = O / (√v + eps)
//! U = rms √(mn) O' / (‖O'‖_F + eps)
//! ```
//!
//! **Singular values**: no longer about 1; dividing by entries bends them away, more in the first
//! steps. The sign and the entrywise division make the rule depend on the coordinates: it is
//! equivariant under permutations only, like AdamW.
//!
//! **When**: where AdamW's learning rates should stay (the root mean square entry is `rms`). Cost
//! over Muon: 6 mn, and a second buffer.
//!
//! **Claimed** (paper): faster than Muon and AdamW on GPT-2 sizes; many ports leave out the sign.

use burn::tensor::Tensor;

use super::{StatefulDirection, StepInfo, matching};
use crate::config::{ConfigError, Description, MatrixSettings, in_range, is_factor, matrix_settings, settings};
use crate::matrix::{Matrix, Polar, divide_or_zero, frobenius_norm};

matrix_settings! {
    /// Settings of [`AdaMuon`].
    pub struct AdaMuonConfig => AdaMuon {
        momentum: 0.95, Ema, nesterov: true;
        /// Decay of the second moment, in [0, 1).
        beta2, with_beta2: f64 = 0.95;
        /// Added to the root of the second moment, and to the norm; at least 0.
        eps, with_eps: f64 = 1e-8;
        /// Orthogonalise the signs of the momentum instead of the momentum.
        sign, with_sign: bool = true;
        /// Root mean square entry of the update.
        rms, with_rms: f64 = 0.2;
        /// How the momentum is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl MatrixSettings for AdaMuonConfig {
    type Rule = AdaMuon;

    const ABOUT: Description = Description {
        kind: "adamuon",
        formula: "O = polar(sign(d)), v ← β₂ v + (1-β₂) O², U = O/√v with root mean square 0.2",
        source: "arXiv 2507.11005",
        state: "2 buffers",
        cost: "Muon + 6 mn",
    };

    fn rule(&self) -> AdaMuon {
        AdaMuon { config: self.clone() }
    }

    fn check(&self) -> Result<(), ConfigError> {
        is_factor("adamuon.beta2", self.beta2)?;
        in_range("adamuon.eps", self.eps, 0.0..=f64::MAX)?;
        in_range("adamuon.rms", self.rms, 0.0..=f64::MAX)?;
        self.polar.validate()
    }

    fn detail(&self) -> String {
        format!("{}{}", if self.sign { "sign, " } else { "" }, self.polar.label())
    }
}

/// The direction of AdaMuon; remembers one second moment per entry.
#[derive(Clone, Debug)]
pub struct AdaMuon {
    config: AdaMuonConfig,
}

impl StatefulDirection for AdaMuon {
    fn advance(&self, momentum: Matrix, _at: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>) {
        let AdaMuonConfig { beta2, eps, sign, rms, .. } = self.config;
        let size = rms * ((momentum.outputs() * momentum.inputs()) as f64).sqrt();
        let polar = momentum.map(|m| self.config.polar.apply(if sign { m.sign() } else { m }));
        let fresh = polar.tensor().clone().square() * (1.0 - beta2);
        let second = match matching(memory, &fresh) {
            Some(old) => old * beta2 + fresh,
            None => fresh,
        };
        let update = polar.map(|o| {
            let scaled = divide_or_zero(o, second.clone().sqrt() + eps);
            let norm = frobenius_norm(scaled.clone()) + eps;
            divide_or_zero(scaled, norm) * size
        });
        (update, Some(second))
    }
}
