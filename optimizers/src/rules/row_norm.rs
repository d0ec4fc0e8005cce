//! Unit normalisation (arXiv 2605.18106): every token, neuron or expert moves by the same amount.
//!
//! ```text
//! N(X): every unit along `axis` divided by its norm + e         U = scale · N(M)
//! centred: P removes the mean unit,                             U = scale · P N(P M)
//! ```
//!
//! `e` is `eps` times the mean unit norm (relative) or `eps` (absolute, the authors' programs).
//!
//! **Singular values**: those of a matrix with units of norm 1; nothing is orthogonalised.
//!
//! **When**: parameters whose symmetry is a permutation of units: embeddings (`axis` input, the
//! token), heads and routers (`axis` output, centred: adding one vector to all their units changes no
//! softmax, so the update should not either). Not centred for a tied embedding, nor with logit
//! soft-capping or a z-loss. It needs about ten times AdamW's learning rate. Cost: 8 mn, 12 mn centred.
//!
//! **Claimed** (paper's runs): 0.004 to 0.044 nats below AdamW on embedding and head. A token that is
//! seen once keeps moving while its momentum decays: for rare tokens `eps` has to be tuned.

use crate::matrix::{Axis, EpsMode, Matrix, center, normalize_units};
use crate::rule::{About, Cost, Direction, Gain, Kind, Pipeline, StackRow, SymmetryRow, kind_settings};
use crate::setting::Numbers;

kind_settings! {
    /// Settings of RowNorm, and the rule itself.
    pub struct RowNormConfig {
        momentum: 0.95, Ema, nesterov: false, scale: None;
        /// The axis along which units are.
        axis, with_axis: Axis = Axis::Output;
        /// Remove the mean unit before and after.
        centered, with_centered: bool = false;
        /// Remove it after the rule as well; `false` is the first version of the paper, whose update has a mean unit.
        recenter, with_recenter: bool = true;
        /// Added to the norms, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// Whether `eps` is relative to the mean unit norm.
        eps_mode, with_eps_mode: EpsMode = EpsMode::Relative;
    }
}

impl Kind for RowNormConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        let (rest, work) = match (self.centered, self.recenter) {
            (false, _) => ("U_i = d_i / ‖d_i‖ for every unit i", "8 mn"),
            (true, true) => ("U = P N(P d), P without the mean unit, N every unit of norm 1", "12 mn"),
            (true, false) => ("U = N(P d), P without the mean unit, N every unit of norm 1", "10 mn"),
        };
        let once = r#"{"centered":true,"recenter":false}"#;
        About {
            formula: self.formula(rest),
            source: "arXiv 2605.18106",
            cost: Cost::device(work),
            detail: format!("{}{}", self.axis.name(), if self.centered { ", centred" } else { "" }),
            stack: StackRow::new(0.02, 0.01, "unit norms for the matrices, AdamW for the rest"),
            symmetries: vec![
                SymmetryRow::new("row_norm output", "", SymmetryRow::OUTPUT_UNITS, 0),
                SymmetryRow::new("row_norm input", r#"{"axis":"input"}"#, SymmetryRow::INPUT_UNITS, 0),
                SymmetryRow::new("row_norm centred", r#"{"centered":true}"#, SymmetryRow::CENTERED, 0),
                SymmetryRow::new("row_norm centred, recenter off", once, SymmetryRow::CENTERED_ONCE, 0),
            ],
            gain: Ok(match self.axis {
                Axis::Output => Gain::OUTPUT_UNITS,
                Axis::Input => Gain::INPUT_UNITS,
            }),
        }
    }

    fn fixes_units(&self) -> bool {
        true
    }

    fn axis_follows_role(&self) -> bool {
        true
    }
}

impl Direction for RowNormConfig {
    fn direction(&self, momentum: Matrix) -> Matrix {
        let RowNormConfig { axis, centered, recenter, eps, eps_mode, .. } = *self;
        let start = if centered { center(momentum, axis) } else { momentum };
        let units = normalize_units(start, axis, eps, eps_mode);
        if centered && recenter { center(units, axis) } else { units }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    use crate::matrix::{Layout, unit_sums};

    #[test]
    fn a_unit_of_norm_t_gets_the_norm_t_over_t_plus_e() {
        let x = Tensor::<3>::from_data([[[3.0, 4.0], [0.6, 0.8], [0.0, 0.0]]], &Device::flex());
        let config = RowNormConfig::new().with_eps(0.5).with_eps_mode(EpsMode::Absolute);
        let units = config.direction(Matrix::new(x, Layout::OutIn));
        let norms: Vec<f32> = unit_sums(&units, Axis::Output).sqrt().into_data().try_to_vec().unwrap();
        for (got, want) in norms.into_iter().zip([5.0 / 5.5, 1.0 / 1.5, 0.0]) {
            // f32 rounding
            assert!((got - want).abs() < 1e-6, "{got} instead of {want}");
        }
    }
}
