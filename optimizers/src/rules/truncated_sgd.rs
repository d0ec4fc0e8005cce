//! Truncated SGD: the momentum without its strongest directions, a control experiment.
//!
//! ```text
//! M = P diag(s) Qᵀ, s descending   →   U = scale · P diag(s_i [i > t]) Qᵀ,     t = ⌈fraction · r⌉,   r = min(m, n)
//! ```
//!
//! **Singular values**: the top t become 0, the others stay unchanged.
//!
//! **When**: to see how much of SGD's progress the few strong directions carry, which Muon and Freon reduce: this rule
//! leaves them out. Learning rates as for `sgd`; of degree 1 in the gradient. Cost: a host decomposition by its nature: which
//! singular values are the largest t, however close they are, no polynomial knows.

use crate::matrix::{Matrix, map_singular_values};
use crate::rule::{About, Cost, Direction, Kind, Pipeline, StackRow, SymmetryRow, follows_gradient, kind_settings};
use crate::setting::Numbers;

kind_settings! {
    /// Settings of TruncatedSgd, and the rule itself.
    pub struct TruncatedSgdConfig {
        momentum: 0.9, HeavyBall, nesterov: false, scale: None;
        /// Share of the singular values that are set to 0, from 0 to 1: the largest, rounded up.
        fraction, with_fraction: f64 = 0.05, in Numbers::from_to(0.0, 1.0);
    }
}

impl Kind for TruncatedSgdConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        let about = "SGD without the strongest directions for the matrices, AdamW for the rest";
        About {
            formula: self.formula(&format!("U = d without its top ⌈{} r⌉ singular values", self.fraction)),
            source: "the control of arXiv 2605.11181",
            cost: Cost::host(""),
            detail: format!("top {}", self.fraction),
            stack: StackRow::new(0.03, 0.0, about),
            symmetries: vec![SymmetryRow::new("truncated_sgd", "", SymmetryRow::SPECTRAL, 1)],
            gain: follows_gradient!(),
        }
    }
}

impl Direction for TruncatedSgdConfig {
    fn direction(&self, momentum: Matrix) -> Matrix {
        momentum.map(|m| {
            map_singular_values(m, |_, s| {
                let cut = (self.fraction * s.len() as f64).ceil() as usize;
                s.iter().enumerate().map(|(i, s)| if i < cut { 0.0 } else { *s }).collect()
            })
        })
    }
}
