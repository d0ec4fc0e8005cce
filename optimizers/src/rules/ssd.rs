//! Stochastic spectral descent (Carlson et al. 2015): the steepest descent of the largest singular value.
//!
//! ```text
//! Q = polar(M),   U = scale · ⟨M, Q⟩ Q             ⟨M, Q⟩ = nuclear norm of M
//! ```
//!
//! **Singular values**: all equal to the nuclear norm: Muon with a step that follows the gradient's
//! size, so it can converge at a fixed learning rate, and needs clipping.
//!
//! **When**: for problems with a known learning rate 1/L. PolarGrad is the same with
//! momentum. No momentum by default. Cost: twice that of Muon, and 4 mn; [`polar_grad`](super::polar_grad) has the error of the
//! default `polar`.

use serde_json::{Value, json};

use super::polar_grad::PolarGrad;
use crate::rule::{About, Kind, Pipeline, Polar, StackRow, SymmetryRow, follows_gradient, kind_settings};

kind_settings! {
    /// Settings of stochastic spectral descent, which is [`PolarGrad`] without momentum.
    pub struct SsdConfig {
        momentum: 0.0, Ema, nesterov: false, scale: None;
        /// How the gradient is orthogonalised.
        polar, with_polar: Polar = Polar::Converged;
    }
}

impl Kind for SsdConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(PolarGrad { polar: self.polar.clone() })
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("polar", json!({"method": "svd"})))
    }

    fn about(&self) -> About {
        About {
            formula: self.formula("Q = polar(d), U = ⟨d, Q⟩ Q"),
            source: "Carlson et al. 2015",
            cost: self.polar.cost(" + 4 mn"),
            detail: self.polar.label(),
            stack: StackRow::new(0.05, 0.01, "stochastic spectral descent for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("ssd", "", SymmetryRow::SPECTRAL, 1)],
            gain: follows_gradient!(),
        }
    }
}
