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

use burn::optim::ModuleOptimizer;

use super::Direction;
use crate::config::{ConfigError, Description, Settings, in_range, is_factor, settings};
use crate::matrix::{Matrix, Polar};
use crate::step::{Decay, MatrixOptimizer, Momentum, MomentumForm, Scale};

settings! {
    /// Settings of [`Muon`].
    pub struct MuonConfig {
        /// Decoupled weight decay, at least 0; multiplied by the learning rate, never by the scale.
        weight_decay, with_weight_decay: f64 = 0.0;
        /// Decay only entries where update and weight do not have opposite signs.
        cautious, with_cautious: bool = false;
        /// Momentum μ in [0, 1).
        momentum, with_momentum: f64 = 0.95;
        /// How the momentum buffer is formed.
        momentum_form, with_momentum_form: MomentumForm = MomentumForm::Ema;
        /// Look ahead by one step.
        nesterov, with_nesterov: bool = true;
        /// Factor of the update by the shape of the matrix.
        scale, with_scale: Scale = Scale::Original;
        /// How the momentum is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl MuonConfig {
    /// The bare optimizer, for one parameter group stored `[d_in, d_out]`.
    ///
    /// For another layout or for blocks follow with
    /// [`with_placement`](MatrixOptimizer::with_placement).
    pub fn build(&self) -> MatrixOptimizer<Muon> {
        MatrixOptimizer::new(Muon { polar: self.polar.clone() })
            .with_momentum(Momentum { factor: self.momentum, form: self.momentum_form, nesterov: self.nesterov })
            .with_scale(self.scale)
            .with_decay(Decay { rate: self.weight_decay, cautious: self.cautious })
    }

    /// The optimizer of a module that has only matrices and stacks of them.
    ///
    /// A module with vectors as well wants [`Layerwise::muon`](crate::Layerwise::muon).
    pub fn init(&self) -> ModuleOptimizer {
        self.build().into()
    }
}

impl Settings for MuonConfig {
    fn describe(&self) -> Description {
        Description {
            kind: "muon",
            formula: "M ← μ M + (1-μ) G, U = scale · polar((1-μ) G + μ M)",
            source: "Keller Jordan 2024, arXiv 2502.16982",
            state: "1 buffer",
            cost: "20 r²R + 10 r³, r = min(m, n), R = max(m, n), at 5 steps",
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        is_factor("muon.momentum", self.momentum)?;
        in_range("muon.weight_decay", self.weight_decay, 0.0..=f64::MAX)?;
        self.polar.validate()
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn label(&self) -> String {
        format!("muon ({})", self.polar.label())
    }

    fn scale(&self) -> &'static str {
        self.scale.formula()
    }

    fn is_matrix_rule(&self) -> bool {
        true
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
