//! Error-feedback Muon (arXiv 2605.08980): what the polar factor leaves out is kept and added later.
//!
//! ```text
//! P = lr · d + E,   Q = polar(P),   D = ⟨P, Q⟩/r · Q          (E starts at 0,  r = min(m, n))
//! W ← (1 - lr wd) W - D,   E ← P - D                          (residual = false: E stays 0)
//! ```
//!
//! **Singular values**: all of them the mean of those of P, so a step is as large as the gradient
//! says, and `‖E‖` contracts: `D` is the best multiple of `Q`, hence `‖P - D‖_F ≤ ‖P‖_F`, with
//! equality only for P = 0.
//!
//! **When**: for problems on which Muon provably stalls (the paper's nonsmooth counterexample).
//! Experimental: the paper itself reports that it hurts in vision and language models. The learning rate is
//! like SGD's, of degree 1 in the gradient: clip, and expect far larger values than Muon's. Cost: a host
//! decomposition by default, and a second buffer. The residual depends on the learning rate, so a record keeps it.
//!
//! A step with learning rate 0 moves nothing and leaves E as it is.

use burn::tensor::Tensor;

use super::{StatefulDirection, StepInfo, matching};
use crate::config::{Description, MatrixSettings, matrix_settings, settings};
use crate::matrix::{Matrix, Polar, inner_product};
use crate::step::Gain;

matrix_settings! {
    /// Settings of [`ErrorFeedbackMuon`].
    pub struct ErrorFeedbackMuonConfig => ErrorFeedbackMuon {
        momentum: 0.95, Ema, nesterov: false;
        /// How P is orthogonalised.
        polar, with_polar: Polar = Polar::Svd { rcond: 1e-5 };
        /// Keep what was left out.
        residual, with_residual: bool = true;
    }
}

impl MatrixSettings for ErrorFeedbackMuonConfig {
    type Rule = ErrorFeedbackMuon;

    const ABOUT: Description = Description {
        kind: "error_feedback_muon",
        formula: "P = lr M + E, Q = polar(P), D = ⟨P, Q⟩/r · Q, W ← (1 - lr wd) W - D, E ← P - D",
        source: "arXiv 2605.08980",
        state: "2 buffers",
        cost: "a host SVD (with a polynomial polar: Muon) + 6 mn",
    };

    fn rule(&self) -> ErrorFeedbackMuon {
        ErrorFeedbackMuon { polar: self.polar.clone(), residual: self.residual }
    }

    fn gain(&self) -> Result<Gain, &'static str> {
        Err(
            "its steps are as large as the gradient, whose size follows the width in its own way: choose a rule with normalised steps, such as muon or adamuon",
        )
    }

    fn detail(&self) -> String {
        self.polar.label()
    }
}

/// The direction of error-feedback Muon; remembers what was left out.
#[derive(Clone, Debug)]
pub struct ErrorFeedbackMuon {
    polar: Polar,
    residual: bool,
}

impl StatefulDirection for ErrorFeedbackMuon {
    fn advance(&self, momentum: Matrix, at: StepInfo, memory: Option<Tensor<3>>) -> (Matrix, Option<Tensor<3>>) {
        if at.lr == 0.0 {
            return (momentum.map(|m| m.zeros_like()), memory);
        }
        let rank = momentum.outputs().min(momentum.inputs());
        let wanted = momentum.tensor().clone() * at.lr;
        let wanted = match matching(memory, &wanted) {
            Some(residual) => wanted + residual,
            None => wanted,
        };
        let polar = self.polar.apply(wanted.clone());
        let size = inner_product(wanted.clone(), polar.clone()) / rank as f64;
        let step = polar * size;
        let residual = self.residual.then(|| wanted - step.clone());
        (momentum.map(|_| step / at.lr), residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device};

    use crate::matrix::{Layout, frobenius_norm};
    use crate::random::tests::numbers;

    fn norm(x: Tensor<3>) -> f64 {
        frobenius_norm(x).into_scalar()
    }

    #[test]
    fn what_is_left_out_is_smaller_than_what_was_wanted_and_both_add_up() {
        let rule = ErrorFeedbackMuonConfig::new().rule();
        let mut memory: Option<Tensor<3>> = None;
        let lr = 0.1;
        for step in 1..=20 {
            let m = numbers([1, 5, 8], step, DType::F64);
            let before = memory.clone().unwrap_or_else(|| m.zeros_like());
            let wanted = m.clone() * lr + before;
            let (direction, after) = rule.advance(Matrix::new(m, Layout::InOut), StepInfo { number: step, lr }, memory);
            let left = after.clone().expect("a residual");
            assert!(norm(left.clone()) < norm(wanted.clone()));
            assert!(norm(wanted - direction.into_tensor() * lr - left) < 1e-12);
            memory = after;
        }
    }

    #[test]
    fn a_step_without_a_learning_rate_moves_nothing_and_forgets_nothing() {
        let rule = ErrorFeedbackMuonConfig::new().rule();
        let m = || Matrix::new(Tensor::ones([1, 2, 3], &Device::flex()), Layout::InOut);
        let (_, memory) = rule.advance(m(), StepInfo { number: 1, lr: 0.1 }, None);
        let (direction, after) = rule.advance(m(), StepInfo { number: 2, lr: 0.0 }, memory.clone());
        assert_eq!(norm(direction.into_tensor()), 0.0);
        assert_eq!(after.map(Tensor::into_data), memory.map(Tensor::into_data));
    }
}
