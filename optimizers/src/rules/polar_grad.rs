//! PolarGrad (arXiv 2505.21799): the polar factor times the nuclear norm, with momentum before or after.
//!
//! ```text
//! momentum_first:  M = momentum(G),  Q = polar(M),       U = scale · ⟨M, Q⟩ Q
//! polar_first:     Q = polar(G),     M = momentum(Q),    U = scale · ⟨G, Q⟩ M
//! ```
//!
//! **Singular values**: all equal to the nuclear norm (momentum_first), or an average of polar factors
//! times the fresh gradient's nuclear norm (polar_first). Of degree 1 in the gradient: the step shrinks
//! as training converges; use clipping.
//!
//! **When**: if Muon's constant step size, which needs a schedule, is a problem. Cost: twice that of Muon, and 4 mn.
//!
//! **The default `polar`**, `converged`, needs products only. Its relative error against `svd` in f32
//! (`optimizers/tests/suite/converged.rs` measures it):
//!
//! | spectrum | 64 × 64 | 128 × 384 | 256 × 704 |
//! |---|---|---|---|
//! | of independent numbers | 5e-6 | 2e-5 | 3e-5 |
//! | 1/i | 7e-6 | 2e-5 | 3e-5 |
//! | 1/i² | 1e-5 | 9e-5 | 3e-4 |
//! | condition number 1e3 | 6e-6 | 4e-5 | 5e-5 |
//! | condition number 1e6 | 0.28 | 0.24 | 0.19 |
//! | a quarter of the rank | 8e-3 | 5e-3 | 6e-3 |
//!
//! The last two are not errors of rounding: `svd` drops singular values below 1e-5 of the largest, the polynomial lets them fall in
//! proportion, 0.3 at 1e-6 and 0.03 at 1e-7 of the norm. That is also where momenta of a real run differ (18 matrices of
//! `nanogpt-char` after 60 steps: 1e-5 to 9e-4, and 0.05 to 0.08 for three with one singular value at the cut). ⟨M, Q⟩, the nuclear
//! norm, is exact to 1e-5 in all of these, since what is dropped is small. (Five steps of `polar_express` are 10 to 40 % away, and
//! 4 % in the norm.)
//!
//! **The authors' program** is not converged at its defaults: with 2 inner steps of QDWH its class is .02 to .16 away from this
//! rule after 14 steps in which weights moved by .01 to .2; with 10 inner steps both agree to 1e-16. Its class for several
//! devices uses 5.
//!
//! **Claimed** (paper): better than Muon and Adam on matrix problems, comparable in language models.

use serde_json::{Value, json};

use crate::matrix::inner_product;
use crate::rule::{
    About, Kind, Memory, Order, Pipeline, Polar, Rule, StackRow, Stage, SymmetryRow, Update, follows_gradient,
    kind_settings,
};
use crate::setting::choice;

choice! {
    /// Whether momentum averages gradients or polar factors.
    #[derive(Default)]
    pub enum PolarGradOrder {
        /// Momentum of gradients, then the polar factor.
        #[default]
        MomentumFirst = "momentum_first",
        /// Polar factor of every gradient, then momentum.
        PolarFirst = "polar_first",
    }
}

kind_settings! {
    /// Settings of [`PolarGrad`].
    pub struct PolarGradConfig {
        momentum: 0.95, Ema, nesterov: false, scale: None;
        /// Whether momentum averages gradients or polar factors.
        order, with_order: PolarGradOrder = PolarGradOrder::MomentumFirst;
        /// How a matrix is orthogonalised.
        polar, with_polar: Polar = Polar::Converged;
    }
}

impl Kind for PolarGradConfig {
    fn pipeline(&self) -> Pipeline {
        let order = match self.order {
            PolarGradOrder::MomentumFirst => Order::MomentumFirst,
            PolarGradOrder::PolarFirst => Order::RuleFirst,
        };
        self.assemble(PolarGrad { polar: self.polar.clone() }).with_order(order)
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("polar", json!({"method": "svd"})))
    }

    fn about(&self) -> About {
        let (formula, order) = match self.order {
            PolarGradOrder::MomentumFirst => (self.formula("Q = polar(d), U = ⟨d, Q⟩ Q"), ""),
            PolarGradOrder::PolarFirst => ("Q = polar(G), d the momentum of Q, U = ⟨G, Q⟩ d".into(), "polar first, "),
        };
        let row = |name, options| SymmetryRow::new(name, options, SymmetryRow::SPECTRAL, 1);
        About {
            formula,
            source: "arXiv 2505.21799",
            cost: self.polar.cost(" + 4 mn"),
            detail: format!("{order}{}", self.polar.label()),
            stack: StackRow::new(0.05, 0.01, "PolarGrad for the matrices, AdamW for the rest"),
            symmetries: vec![row("polar_grad", ""), row("polar_grad, polar first", r#"{"order":"polar_first"}"#)],
            gain: follows_gradient!(),
        }
    }
}

/// The polar factor, and the nuclear norm as its size.
#[derive(Clone, Debug)]
pub struct PolarGrad {
    pub(super) polar: Polar,
}

impl Rule for PolarGrad {
    fn advance(&self, stage: Stage, _memory: &mut Memory) -> Update {
        let input = stage.matrix.tensor().clone();
        let direction = self.polar.apply(stage.matrix);
        let size = Some(inner_product(input, direction.tensor().clone()));
        Update { direction, size }
    }
}
