//! PolarGrad (arXiv 2505.21799): the polar factor times the nuclear norm, with momentum before or after.
//!
//! ```text
//! momentum_first:  M = momentum(G),  Q = polar(M),       U = scale · ⟨M, Q⟩ Q
//! polar_first:     Q = polar(G),     M = momentum(Q),    U = scale · ⟨G, Q⟩ M
//! ```
//!
//! **Singular values**: all equal to the nuclear norm (momentum_first), or an average of polar factors
//! times the fresh gradient's nuclear norm (polar_first). Of degree 1 in the gradient: the step shrinks
//! as training converges; clip.
//!
//! **When**: where Muon's constant step size has to be scheduled away. Cost: a host decomposition by
//! default; with a polynomial `polar` that of Muon and 4 mn.
//!
//! **Claimed** (paper): better than Muon and Adam on matrix problems, comparable in language models.

use burn::tensor::Tensor;

use super::{StatefulDirection, StepInfo, matching};
use crate::config::{Description, MatrixSettings, Shared, matrix_settings, settings};
use crate::matrix::{Matrix, Polar, inner_product};
use crate::setting::choice;
use crate::step::{Gain, Momentum, Scale, State};

choice! {
    /// Whether momentum is formed of gradients or of polar factors.
    #[derive(Default)]
    pub enum PolarGradOrder {
        /// Momentum of gradients, then the polar factor.
        #[default]
        MomentumFirst,
        /// Polar factor of every gradient, then momentum.
        PolarFirst,
    }
}

matrix_settings! {
    /// Settings of [`PolarGrad`].
    pub struct PolarGradConfig => PolarGrad {
        momentum: 0.95, Ema, nesterov: false, scale: None;
        /// Whether momentum is formed of gradients or of polar factors.
        order, with_order: PolarGradOrder = PolarGradOrder::MomentumFirst;
        /// How a matrix is orthogonalised.
        polar, with_polar: Polar = Polar::Svd { rcond: 1e-5 };
    }
}

impl MatrixSettings for PolarGradConfig {
    type Rule = PolarGrad;

    const ABOUT: Description = Description {
        kind: "polar_grad",
        formula: "Q = polar(M), U = ⟨M, Q⟩ Q; polar_first: momentum of the polar factors",
        source: "arXiv 2505.21799",
        state: "1 buffer",
        cost: "a host SVD (with a polynomial polar: Muon) + 4 mn",
    };

    fn rule(&self) -> PolarGrad {
        PolarGrad { order: self.order, momentum: self.momentum(), polar: self.polar.clone() }
    }

    fn gain(&self) -> Result<Gain, &'static str> {
        Err(
            "its steps are as large as the gradient, whose size follows the width in its own way: choose a rule with normalised steps, such as muon or adamuon",
        )
    }

    fn detail(&self) -> String {
        let order = match self.order {
            PolarGradOrder::MomentumFirst => "",
            PolarGradOrder::PolarFirst => "polar first, ",
        };
        format!("{order}{}", self.polar.label())
    }

    fn shape_scale(&self) -> Scale {
        self.scale
    }

    /// With `polar_first` the rule sees the gradient and keeps the momentum itself.
    fn outer_momentum(&self) -> Momentum {
        match self.order {
            PolarGradOrder::MomentumFirst => self.momentum(),
            PolarGradOrder::PolarFirst => Momentum { factor: 0.0, ..self.momentum() },
        }
    }
}

/// The polar factor times the nuclear norm; remembers the momentum of polar factors if it forms one.
#[derive(Clone, Debug)]
pub struct PolarGrad {
    order: PolarGradOrder,
    momentum: Momentum,
    polar: Polar,
}

impl StatefulDirection for PolarGrad {
    fn advance(&self, matrix: Matrix, at: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>) {
        let input = matrix.tensor().clone();
        let polar = self.polar.apply(input.clone());
        let nuclear_norm = inner_product(input, polar.clone());
        let (direction, memory) = match self.order {
            PolarGradOrder::MomentumFirst => (polar, None),
            PolarGradOrder::PolarFirst => {
                let memory = matching(memory, &polar);
                let state =
                    State { step: at.number - 1, form: self.momentum.form, momentum: memory, ..State::default() };
                let (direction, state) = self.momentum.advance(polar, Some(state));
                (direction, state.momentum)
            }
        };
        (matrix.map(|_| direction * nuclear_norm), memory)
    }
}
