//! The level of smoothed Muon (arXiv 2605.23871).

use crate::matrix::EpsMode;

/// The level l of an update `U diag(s / √(s² + l²)) Vᵀ`: singular values s far below it stay small. 0 by default, as in Muon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Smoothing {
    pub eps: f64,
    pub mode: EpsMode,
}

impl Smoothing {
    /// The level for a matrix with these singular values.
    pub fn level(self, singular: &[f64]) -> f64 {
        match self.mode {
            EpsMode::Absolute => self.eps,
            EpsMode::Relative => {
                self.eps * (singular.iter().map(|s| s * s).sum::<f64>() / singular.len() as f64).sqrt()
            }
        }
    }
}
