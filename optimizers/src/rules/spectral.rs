//! One-sided spectral rule (arXiv 2605.18106): the polar factor, as large as the gradient's nuclear norm.
//!
//! ```text
//! C = M, or M without its mean output unit (centred)
//! Z = (C Cᵀ + e I)^(-1/2) C  (side output)   or   C (Cᵀ C + e I)^(-1/2)  (side input)
//! U = scale · νᵅ Z,  ν = ⟨C, Z⟩;             centred again if it was centred before
//! ```
//!
//! **Singular values** of Z: `s / √(s² + e)`, about 1; both sides are the same function and differ
//! only in the scale of a relative `e`. The update is `ν` times as large: the step follows the
//! gradient's size (alpha 1), so use clipping; alpha 0 removes this dependence.
//!
//! **When**: for a router (`side` output, centred), or as an alternative for embeddings. Cost: that of ten steps of Muon on a
//! matrix longer by r, or with `gram_polar_express` 4 mn² + 42 n³ on the shorter side n.
//!
//! **The default `polar`**, `converged_root`, against `gram_eigh` with the default ridge in f32, and the method of the
//! reference program beside it (relative error; `optimizers/tests/suite/converged.rs` measures it):
//!
//! | spectrum | `converged_root`, 64 × 64 | 128 × 384 | 256 × 704 | `gram_polar_express`, 5 steps, 128 × 384 |
//! |---|---|---|---|---|
//! | of independent numbers | 1.3e-5 | 1.8e-5 | 2.4e-5 | 0.09 |
//! | 1/i | 1.1e-5 | 2.2e-5 | 3.3e-5 | 0.09 |
//! | 1/i² | 2.3e-5 | 8.8e-5 | 2.8e-4 | 0.72 |
//! | condition number 1e3 | 1.3e-5 | 3.6e-5 | 4.8e-5 | 0.14 |
//! | condition number 1e6 | 2.2e-4 | 3.5e-3 | 1.5e-2 | 0.56 |
//! | momenta of `nanogpt-char`, largest | | 8e-4 | | |
//!
//! ν = ⟨C, Z⟩ is as near, and without a bias of one sign.
//!
//! **Claimed** (paper's runs): on one of two mixture-of-experts models a router by this rule was 0.008
//! to 0.012 nats better than by `row_norm`, on the other 0.005 worse.

use burn::tensor::DType;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::matrix::{Axis, EpsMode, Matrix, center, inner_product, power};
use crate::rule::{
    About, Direction, Gain, Kind, OneSided, Pipeline, StackRow, SymmetryRow, follows_gradient, kind_settings,
};
use crate::setting::Numbers;

kind_settings! {
    /// Settings of Spectral, and the rule itself.
    pub struct SpectralConfig {
        momentum: 0.95, Ema, nesterov: false, scale: None;
        /// The side of the Gram matrix: `output` (or `left`), `input` (or `right`).
        #[serde(deserialize_with = "side")]
        side, with_side: Axis = Axis::Input;
        /// Power of ν.
        alpha, with_alpha: f64 = 1.0, in Numbers::from_to(0.0, 2.0);
        /// Remove the mean output unit before and after.
        centered, with_centered: bool = false;
        /// Added to the Gram matrix, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// Whether `eps` is relative to the mean eigenvalue of the Gram matrix.
        eps_mode, with_eps_mode: EpsMode = EpsMode::Relative;
        /// How the root is computed.
        polar, with_polar: OneSided = OneSided::ConvergedRoot;
    }
}

impl Kind for SpectralConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("polar", json!({"method": "gram_eigh"})))
    }

    fn about(&self) -> About {
        let root = match self.side {
            Axis::Output => "Z = (d dᵀ + e I)^(-1/2) d",
            Axis::Input => "Z = d (dᵀ d + e I)^(-1/2)",
        };
        let (size, gain) = match self.alpha {
            0.0 => ("U = Z".into(), Ok(Gain::ORTHOGONAL)),
            alpha => (format!("U = ⟨d, Z⟩^{alpha} Z"), follows_gradient!("set alpha=0, or choose muon")),
        };
        let (centred, word) = match self.centered {
            true => (", without mean output unit before and after", ", centred"),
            false => ("", ""),
        };
        About {
            formula: self.formula(&format!("{root}, {size}{centred}")),
            source: "arXiv 2605.18106",
            cost: self.polar.cost(""),
            detail: format!("{}{word}, {}", self.side.name(), self.polar.label()),
            stack: StackRow::new(0.05, 0.01, "the one-sided spectral rule for the matrices, AdamW for the rest"),
            symmetries: vec![
                SymmetryRow::new("spectral input", "", SymmetryRow::SPECTRAL, 1),
                SymmetryRow::new("spectral output", r#"{"side":"output"}"#, SymmetryRow::SPECTRAL, 1),
                SymmetryRow::new("spectral centred", r#"{"centered":true}"#, SymmetryRow::CENTERED, 1),
            ],
            gain,
        }
    }
}

/// An axis that may also be called `left` (output) or `right` (input), as in the paper.
pub(super) fn side<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Axis, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Side {
        #[serde(alias = "left")]
        Output,
        #[serde(alias = "right")]
        Input,
    }
    Ok(match Side::deserialize(deserializer)? {
        Side::Output => Axis::Output,
        Side::Input => Axis::Input,
    })
}

impl Direction for SpectralConfig {
    fn direction(&self, momentum: Matrix) -> Matrix {
        let SpectralConfig { side, alpha, centered, eps, eps_mode, .. } = *self;
        let start = if centered { center(momentum, Axis::Output) } else { momentum };
        let root = self.polar.apply(start.clone(), side, eps, eps_mode);
        let sized = sized(&start, root, alpha, |nu| nu, eps, eps_mode);
        if centered { center(sized, Axis::Output) } else { sized }
    }
}

/// `νᵅ Z` with `ν = change(⟨X, Z⟩)`, at least 0, in absolute mode at least `eps`.
pub(super) fn sized(
    x: &Matrix,
    z: Matrix,
    alpha: f64,
    change: impl FnOnce(burn::tensor::Tensor<3>) -> burn::tensor::Tensor<3>,
    eps: f64,
    mode: EpsMode,
) -> Matrix {
    if alpha == 0.0 {
        return z;
    }
    let least = if mode == EpsMode::Absolute { eps } else { 0.0 };
    let nu = change(inner_product(x.tensor().clone(), z.tensor().clone())).clamp_min(least);
    // ν² of gradients of 1e30 does not fit into f32: the step is then limited, never infinite.
    let largest = if nu.dtype() == DType::F32 { 1e36 } else { f64::MAX };
    z.map(|z| z * power(nu, alpha).clamp_max(largest))
}
