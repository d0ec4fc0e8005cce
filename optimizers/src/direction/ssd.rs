//! Stochastic spectral descent (Carlson et al. 2015): the steepest descent of the largest singular value.
//!
//! ```text
//! Q = polar(M),   U = scale · ⟨M, Q⟩ Q             ⟨M, Q⟩ = nuclear norm of M
//! ```
//!
//! **Singular values**: all equal to the nuclear norm: Muon with a step that follows the gradient's
//! size, so it can converge at a fixed learning rate, and wants clipping.
//!
//! **When**: problems where 1/L is a known learning rate, or as the root of PolarGrad (which is this
//! with momentum). No momentum by default. Cost: a host decomposition by default.

use super::Direction;
use crate::config::{Description, MatrixSettings, matrix_settings, settings};
use crate::matrix::{Matrix, Polar, inner_product};
use crate::step::{Gain, Scale};

matrix_settings! {
    /// Settings of [`Ssd`].
    pub struct SsdConfig => Ssd {
        momentum: 0.0, Ema, nesterov: false, scale: None;
        /// How the gradient is orthogonalised.
        polar, with_polar: Polar = Polar::Svd { rcond: 1e-5 };
    }
}

impl MatrixSettings for SsdConfig {
    type Rule = Ssd;

    const ABOUT: Description = Description {
        kind: "ssd",
        formula: "Q = polar(G), U = ⟨G, Q⟩ Q",
        source: "Carlson et al. 2015",
        state: "none",
        cost: "a host SVD (with a polynomial polar: Muon) + 4 mn",
    };

    fn rule(&self) -> Ssd {
        Ssd { polar: self.polar.clone() }
    }

    fn gain(&self) -> Result<Gain, &'static str> {
        Err(
            "its steps are as large as the gradient, whose size follows the width in its own way: choose a rule with normalised steps, such as muon or adamuon",
        )
    }

    fn detail(&self) -> String {
        self.polar.label()
    }

    fn shape_scale(&self) -> Scale {
        self.scale
    }
}

/// The polar factor times the nuclear norm.
#[derive(Clone, Debug)]
pub struct Ssd {
    polar: Polar,
}

impl Direction for Ssd {
    fn direction(&self, momentum: Matrix) -> Matrix {
        momentum.map(|m| {
            let polar = self.polar.apply(m.clone());
            polar.clone() * inner_product(m, polar)
        })
    }
}
