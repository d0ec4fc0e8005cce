//! Muon (Keller Jordan 2024; scale and decay as in arXiv 2502.16982).
//!
//! ```text
//! M ← μ M + (1-μ) G,   d = (1-μ) G + μ M   (Nesterov)
//! U = scale · polar(d),                     polar(U diag(s) Vᵀ) = U Vᵀ
//! W ← (1 - lr wd) W - lr U
//! ```
//!
//! Every singular value of the update is about 1: directions that the gradient shows weakly move as
//! far as the strong ones. For hidden matrices only; embeddings, head and vectors want another rule
//! (see [`Layerwise`](crate::Layerwise)).
//!
//! The programs of others in this configuration:
//!
//! | program | configuration |
//! |---|---|
//! | KellerJordan/Muon | defaults, lr 0.02 |
//! | torch.optim.Muon | `weight_decay` 0.1 |
//! | optax.contrib.muon | `momentum_form = "ema_debiased"`, `polar.eps` 1e-8 |
//! | Moonlight | `momentum_form = "heavy_ball"`, `scale = "match_rms_adamw"`, `weight_decay` 0.1, AdamW's lr |

use super::Direction;
use crate::config::{Description, MatrixSettings, matrix_settings, settings};
use crate::matrix::{Matrix, Polar};
use crate::step::{Gain, Scale};

matrix_settings! {
    /// Settings of [`Muon`].
    pub struct MuonConfig => Muon {
        momentum: 0.95, Ema, nesterov: true, scale: Original;
        /// How the momentum is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl MatrixSettings for MuonConfig {
    type Rule = Muon;

    const ABOUT: Description = Description {
        kind: "muon",
        formula: "M ← μ M + (1-μ) G, U = scale · polar((1-μ) G + μ M)",
        source: "Keller Jordan 2024, arXiv 2502.16982",
        state: "1 buffer",
        cost: "20 r²R + 10 r³, r = min(m, n), R = max(m, n), at 5 steps",
    };

    fn rule(&self) -> Muon {
        Muon { polar: self.polar.clone() }
    }

    fn gain(&self) -> Result<Gain, &'static str> {
        Ok(Gain::ORTHOGONAL)
    }

    fn detail(&self) -> String {
        self.polar.label()
    }

    fn shape_scale(&self) -> Scale {
        self.scale
    }
}

/// The direction of Muon: the polar factor of the momentum.
#[derive(Clone, Debug)]
pub struct Muon {
    polar: Polar,
}

impl Direction for Muon {
    fn direction(&self, momentum: Matrix) -> Matrix {
        momentum.map(|m| self.polar.apply(m))
    }
}
