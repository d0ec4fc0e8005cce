//! Muon (Keller Jordan 2024; scale and decay as in arXiv 2502.16982).
//!
//! ```text
//! M ← μ M + (1-μ) G,   d = (1-μ) G + μ M   (Nesterov)
//! U = scale · polar(d),                     polar(U diag(s) Vᵀ) = U Vᵀ
//! W ← (1 - lr wd) W - lr U
//! ```
//!
//! Every singular value of the update is about 1: directions that are weak in the gradient move as
//! far as the strong ones. For hidden matrices only; embeddings, head and vectors need another rule
//! (see [`Layerwise`](crate::Layerwise)).
//!
//! The settings that correspond to other programs:
//!
//! | program | configuration |
//! |---|---|
//! | KellerJordan/Muon | defaults, lr 0.02 |
//! | torch.optim.Muon | `weight_decay` 0.1 |
//! | optax.contrib.muon | `momentum_form = "ema_debiased"`, `polar.eps` 1e-8 |
//! | Muon², track 3 of modded-nanogpt | `second_moment = {}`, lr 0.1, `weight_decay` 0.0125 |
//! | MuonH, track 3 | `norm_control = { method = "hyperball" }`, `weight_decay` 0, lr 0.018 |
//! | Moonlight | `momentum_form = "heavy_ball"`, `scale = "match_rms_adamw"`, `weight_decay` 0.1, AdamW's lr |

use crate::matrix::Matrix;
use crate::rule::{About, Direction, Gain, Kind, Pipeline, Polar, StackRow, SymmetryRow, kind_settings};

kind_settings! {
    /// Settings of Muon, and the rule itself.
    pub struct MuonConfig {
        momentum: 0.95, Ema, nesterov: true, scale: Original;
        /// How the momentum is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl Kind for MuonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    #[cfg(feature = "exact")]
    fn smoothing(&self) -> Option<crate::rule::Smoothing> {
        Some(crate::rule::Smoothing::default())
    }

    fn about(&self) -> About {
        let about = "Muon for the matrices inside the blocks, AdamW for embeddings, head, gains and biases";
        let row = |name, options| SymmetryRow::new(name, options, SymmetryRow::SPECTRAL, 0);
        About {
            formula: self.formula("U = polar(d)"),
            source: "Keller Jordan 2024, arXiv 2502.16982",
            cost: self.polar.cost(""),
            detail: self.polar.label(),
            stack: StackRow::new(0.02, 0.01, about),
            symmetries: vec![
                row("muon", ""),
                row("muon, svd", r#"{"polar":{"method":"svd"}}"#),
                row("muon, polar express", r#"{"polar":{"method":"polar_express"}}"#),
                row("muon, minimax", r#"{"polar":{"method":"minimax"}}"#),
                row("muon, schatten4", r#"{"polar":{"method":"newton_schulz","norm":"schatten4"}}"#),
                SymmetryRow::new(
                    "muon, aol",
                    r#"{"polar":{"method":"polynomial","coefficients":"aol","precondition":"aol"}}"#,
                    SymmetryRow::EITHER_UNITS,
                    0,
                ),
                SymmetryRow::new("muon, second moment", r#"{"second_moment":{}}"#, SymmetryRow::ENTRIES, 0),
            ],
            gain: Ok(Gain::ORTHOGONAL),
        }
    }
}

impl Direction for MuonConfig {
    fn direction(&self, momentum: Matrix) -> Matrix {
        self.polar.apply(momentum)
    }
}
