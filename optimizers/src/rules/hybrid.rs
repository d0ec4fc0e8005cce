//! Composition of norm and polar factor (arXiv 2605.18106): units of equal norm and equal singular values, one after the
//! other.
//!
//! ```text
//! N(X): units along `axis` of norm 1;  P: minus the mean unit (centred), else the identity
//! norm_then_polar:  X = P N(P M),  Z = onesided(X),  U = scale · P(νᵅ Z)
//! polar_then_norm:  X = P M,       Z = onesided(X),  U = scale · P N(νᵅ Z)
//! ν = ⟨X, Z⟩  (nuclear)   or   ⟨X, Z⟩ / ‖X‖_F  (nuclear_over_fro: what the authors' published runs computed)
//! ```
//!
//! `onesided` is the root of [`spectral`](super::spectral); its `side` is by default the axis opposite to
//! `axis`.
//!
//! **Singular values**: all ν (norm_then_polar), between about √units and units: with `nuclear` the
//! learning rate should be smaller than Muon's by about √units. polar_then_norm gives units of norm 1.
//!
//! With alpha 0 and norm_then_polar this is [`muon_eq`](super::muon_eq) without its look-ahead and with an average of gradients
//! as momentum: units of equal norm before the polar factor, and a step of Muon's size. The stack `symmetric` uses it so for
//! gate, up and down.
//!
//! **When**: gate, up and down projections, whose neurons are only permuted by the network's own
//! symmetry: `axis` output for gate and up, input for down. Cost: that of ten steps of Muon on a matrix longer by r and 10 mn;
//! with `gram_polar_express` about half of it, for condition numbers up to 1e3 ([`spectral`](super::spectral) has the errors).
//!
//! Of a stack of experts every matrix has its own ν. The authors' program sums one ν over all E experts, which is about E times
//! as large (5.0 times for E = 5): learning rates published for experts must be multiplied by about E here.
//!
//! **Claimed** (paper's runs): 0.003 to 0.025 nats below Muon on the feed-forward layers, at a learning rate shared with Muon
//! and hence with steps of the feed-forward layers that are up to 17.7 times as large (`nuclear_over_fro`, 3072 × 1024): the
//! two are not separated there.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::spectral::{side, sized};
use crate::matrix::{Axis, EpsMode, Matrix, center, divide_or_zero, frobenius_norm, normalize_units};
use crate::rule::{
    About, Direction, Gain, Kind, OneSided, Pipeline, StackRow, SymmetryRow, follows_rank, kind_settings,
};
use crate::setting::{Numbers, choice};

choice! {
    /// What comes first.
    #[derive(Default)]
    pub enum HybridOrder {
        /// Units first, then singular values.
        #[default]
        NormThenPolar = "norm_then_polar",
        /// Singular values first, then units.
        PolarThenNorm = "polar_then_norm",
    }
}

choice! {
    /// The size of the update.
    #[derive(Default)]
    pub enum Nu {
        /// `⟨X, Z⟩`, about the nuclear norm.
        #[default]
        Nuclear = "nuclear",
        /// `⟨X, Z⟩ / ‖X‖_F`, between 1 and the root of the rank: the scale of the published learning rates.
        NuclearOverFro = "nuclear_over_fro",
    }
}

kind_settings! {
    /// Settings of Hybrid, and the rule itself.
    pub struct HybridConfig {
        momentum: 0.95, Ema, nesterov: false, scale: None;
        /// What comes first.
        order, with_order: HybridOrder = HybridOrder::NormThenPolar;
        /// The axis along which units are.
        axis, with_axis: Axis = Axis::Output;
        /// The side of the root: `output` (or `left`), `input` (or `right`); default the axis opposite to `axis`.
        #[serde(deserialize_with = "optional_side")]
        side, with_side: Option<Axis> = None;
        /// Power of ν.
        alpha, with_alpha: f64 = 1.0, in Numbers::from_to(0.0, 2.0);
        /// What ν is.
        nu, with_nu: Nu = Nu::Nuclear;
        /// Remove the mean unit along `axis` at every stage.
        centered, with_centered: bool = false;
        /// Used in the norms and in the root, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// Whether `eps` is measured in the mean unit norm and the mean eigenvalue.
        eps_mode, with_eps_mode: EpsMode = EpsMode::Relative;
        /// How the root is computed.
        polar, with_polar: OneSided = OneSided::ConvergedRoot;
    }
}

fn optional_side<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Axis>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(deserialize_with = "side")] Axis);
    Ok(Option::<Given>::deserialize(deserializer)?.map(|Given(axis)| axis))
}

impl Kind for HybridConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("polar", json!({"method": "gram_eigh"})))
    }

    fn about(&self) -> About {
        let size = match (self.alpha == 0.0, self.nu) {
            (true, _) => "Z".to_string(),
            (false, Nu::Nuclear) => format!("⟨X, Z⟩^{} Z", self.alpha),
            (false, Nu::NuclearOverFro) => format!("(⟨X, Z⟩/‖X‖)^{} Z", self.alpha),
        };
        let (axis, polar) = (self.axis.name(), self.polar.label());
        let centred = if self.centered { ", centred" } else { "" };
        // What ν makes of the size; without it this is equilibration before the polar factor.
        let kind = match (self.alpha == 0.0, self.nu) {
            (true, _) => ", as MuonEq",
            (false, Nu::Nuclear) => "",
            (false, Nu::NuclearOverFro) => ", times nuclear over Frobenius norm",
        };
        let (rest, detail) = match self.order {
            HybridOrder::NormThenPolar => (
                format!("X = {axis} units of d of norm 1, Z = onesided(X), U = {size}"),
                format!("{axis} → {polar}{kind}{centred}"),
            ),
            HybridOrder::PolarThenNorm => (
                format!("X = d, Z = onesided(X), U = {axis} units of {size} of norm 1"),
                format!("{polar} → {axis}{centred}"),
            ),
        };
        let polar_first = r#"{"order":"polar_then_norm"}"#;
        About {
            formula: self.formula(&rest),
            source: "arXiv 2605.18106",
            cost: self.polar.cost(" + 10 mn"),
            detail,
            stack: StackRow::new(3e-4, 0.01, "unit norms and polar factors for the matrices, AdamW for the rest"),
            symmetries: vec![
                SymmetryRow::new("hybrid output", "", SymmetryRow::OUTPUT_UNITS, 0),
                SymmetryRow::new("hybrid output, polar first", polar_first, SymmetryRow::OUTPUT_UNITS, 0),
                SymmetryRow::new("hybrid input", r#"{"axis":"input"}"#, SymmetryRow::INPUT_UNITS, 0),
                SymmetryRow::new("hybrid centred", r#"{"centered":true}"#, SymmetryRow::CENTERED, 0),
            ],
            gain: match self.order {
                HybridOrder::NormThenPolar if self.alpha == 0.0 => Ok(Gain::ORTHOGONAL),
                _ => follows_rank!("set alpha=0 and order=norm_then_polar, or choose muon"),
            },
        }
    }

    fn axis_follows_role(&self) -> bool {
        true
    }
}

impl Direction for HybridConfig {
    fn direction(&self, momentum: Matrix) -> Matrix {
        let HybridConfig { order, axis, eps, eps_mode, alpha, nu, .. } = *self;
        let side = self.side.unwrap_or(axis.other());
        let start = self.without_mean(momentum);
        let x = match order {
            HybridOrder::NormThenPolar => self.without_mean(normalize_units(start, axis, eps, eps_mode)),
            HybridOrder::PolarThenNorm => start,
        };
        let root = self.polar.apply(x.clone(), side, eps, eps_mode);
        let over_norm = |product| match nu {
            Nu::Nuclear => product,
            Nu::NuclearOverFro => divide_or_zero(product, frobenius_norm(x.tensor().clone())),
        };
        self.without_mean(match order {
            HybridOrder::NormThenPolar => sized(&x, root, alpha, over_norm, eps, eps_mode),
            // Relative norms of units contain the factor ν too, which cancels: leaving it out avoids underflow.
            HybridOrder::PolarThenNorm if eps_mode == EpsMode::Relative || eps == 0.0 => {
                normalize_units(root, axis, eps, eps_mode)
            }
            HybridOrder::PolarThenNorm => {
                normalize_units(sized(&x, root, alpha, over_norm, eps, eps_mode), axis, eps, eps_mode)
            }
        })
    }
}

impl HybridConfig {
    fn without_mean(&self, matrix: Matrix) -> Matrix {
        if self.centered { center(matrix, self.axis) } else { matrix }
    }
}
