//! Error-feedback Muon (arXiv 2605.08980): the part that the polar factor leaves out is kept and added later.
//!
//! ```text
//! P = lr · d + E,   Q = polar(P),   D = ⟨P, Q⟩/r · Q          (E starts at 0,  r = min(m, n))
//! W ← (1 - lr wd) W - D,   E ← P - D                          (residual = false: E stays 0)
//! ```
//!
//! **Singular values**: all of them the mean of those of P, so a step is proportional to the
//! gradient, and `‖E‖` contracts: `D` is the best multiple of `Q`, hence `‖P - D‖_F ≤ ‖P‖_F`, with
//! equality only for P = 0. That holds for a polar factor that is only near, too: `‖P‖² - ‖P - D‖² = ⟨P, Q⟩²/r (2 - ‖Q‖²/r)` is
//! positive as long as no singular value of `Q` reaches √2, so what `polar` misses is kept in `E`, but cannot pile up.
//!
//! **When**: for problems on which Muon provably stalls (the paper's nonsmooth counterexample).
//! Experimental: the paper itself reports that it hurts in vision and language models. The step is of degree 1
//! in the gradient, as with SGD: use clipping, and expect far larger learning rates than Muon's. Cost: a host
//! decomposition by default, and a second buffer. The residual depends on the learning rate, so it is part of the record.
//!
//! **Why the default decomposes**: a direction that P does not contain holds rounding errors, which `svd` sets to 0. A
//! polynomial makes them larger (`converged` 3e5 times), the step overshoots them, and the residual brings them back with the
//! opposite sign, until after a few steps they are as large as all others: the weights then shake in directions without a
//! gradient. Where every momentum is of full rank, `converged` gives the same with products only.
//!
//! A step with learning rate 0 moves nothing and leaves E unchanged.

use serde_json::{Value, json};

use crate::matrix::inner_product;
use crate::rule::{
    About, Kept, Kind, Memory, Pipeline, Polar, Rule, StackRow, Stage, SymmetryRow, Update, follows_gradient,
    kind_settings,
};

/// The name of E in records.
const RESIDUAL: &str = "residual";

kind_settings! {
    /// Settings of ErrorFeedbackMuon, and the rule itself.
    pub struct ErrorFeedbackMuonConfig {
        momentum: 0.95, Ema, nesterov: false;
        /// How P is orthogonalised.
        polar, with_polar: Polar = Polar::Svd { rcond: 1e-5 };
        /// Keep the part that was left out.
        residual, with_residual: bool = true;
    }
}

impl Kind for ErrorFeedbackMuonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("polar", json!({"method": "svd"})))
    }

    fn about(&self) -> About {
        About {
            formula: self.formula(match self.residual {
                true => "P = lr d + E, Q = polar(P), D = ⟨P, Q⟩/r · Q, W ← (1 - lr wd) W - D, E ← P - D",
                false => "Q = polar(d), U = ⟨d, Q⟩/r · Q",
            }),
            source: "arXiv 2605.08980",
            cost: self.polar.cost(" + 6 mn"),
            detail: self.polar.label(),
            stack: StackRow::new(1.0, 0.01, "error-feedback Muon for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("error_feedback_muon", "", SymmetryRow::SPECTRAL, 1)],
            gain: follows_gradient!(),
        }
    }
}

impl Rule for ErrorFeedbackMuonConfig {
    fn memories(&self) -> Vec<Kept> {
        if self.residual { vec![Kept::entries(RESIDUAL)] } else { Vec::new() }
    }

    fn advance(&self, Stage { matrix: momentum, lr, .. }: Stage, memory: &mut Memory) -> Update {
        if lr == 0.0 {
            return momentum.map(|m| m.zeros_like()).into();
        }
        let rank = momentum.rank();
        let wanted = momentum.tensor().clone() * lr;
        let wanted = match memory.take(RESIDUAL, wanted.dims()) {
            Some(residual) => wanted + residual,
            None => wanted,
        };
        let polar = self.polar.apply(momentum.clone().map(|_| wanted.clone())).into_tensor();
        let size = inner_product(wanted.clone(), polar.clone()) / rank as f64;
        let step = polar * size;
        if self.residual {
            memory.keep(RESIDUAL, wanted - step.clone());
        }
        momentum.map(|_| step / lr).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, Tensor};

    use crate::matrix::{Layout, Matrix, frobenius_norm};
    use crate::setting::numbers;

    fn norm(x: Tensor<3>) -> f64 {
        frobenius_norm(x).into_scalar()
    }

    #[test]
    fn what_is_left_out_is_smaller_than_what_was_wanted_and_both_add_up() {
        let rule = ErrorFeedbackMuonConfig::new();
        let mut memory = Memory::default();
        let lr = 0.1;
        for step in 1..=20 {
            let m = numbers([1, 5, 8], step, DType::F64);
            let before = memory.get(RESIDUAL).cloned().unwrap_or_else(|| m.zeros_like());
            let wanted = m.clone() * lr + before;
            let stage = Stage::new(Matrix::new(m, Layout::InOut)).with_lr(lr);
            let direction = rule.advance(stage, &mut memory).direction;
            let left = memory.get(RESIDUAL).cloned().expect("a residual");
            assert!(norm(left.clone()) < norm(wanted.clone()));
            assert!(norm(wanted - direction.into_tensor() * lr - left) < 1e-12);
        }
    }

    #[test]
    fn the_residual_of_every_polar_method_stays_as_large_as_that_of_the_exact_one() {
        let largest = |polar: Polar| {
            let rule = ErrorFeedbackMuonConfig::new().with_polar(polar);
            let mut memory = Memory::default();
            let sizes = (1..=300).map(|step| {
                let m = numbers([1, 12, 20], step, DType::F32);
                rule.advance(Stage::new(Matrix::new(m, Layout::InOut)).with_lr(0.1), &mut memory);
                norm(memory.get(RESIDUAL).cloned().expect("a residual"))
            });
            sizes.fold(0.0, f64::max)
        };
        let exact = largest(Polar::Svd { rcond: 1e-5 });
        // Singular values of Newton–Schulz, from 0.7 to 1.2, leave a little more.
        for (polar, more) in [(Polar::Converged, 0.05), (Polar::default(), 0.25)] {
            let got = largest(polar.clone());
            assert!((got / exact - 1.0).abs() < more, "{polar:?}: {got} instead of {exact}");
        }
        // and it is what a handful of steps leave, not a sum over all 300
        assert!(exact < 5.0 * norm(numbers([1, 12, 20], 1, DType::F32) * 0.1), "{exact}");
    }

    #[test]
    fn a_step_without_a_learning_rate_moves_nothing_and_forgets_nothing() {
        let rule = ErrorFeedbackMuonConfig::new();
        let stage = || Stage::new(Matrix::new(Tensor::ones([1, 2, 3], &Device::flex()), Layout::InOut));
        let mut memory = Memory::default();
        rule.advance(stage().with_lr(0.1), &mut memory);
        let residual = |memory: &Memory| memory.get(RESIDUAL).cloned().map(Tensor::into_data);
        let before = residual(&memory);
        let direction = rule.advance(stage().with_lr(0.0), &mut memory).direction;
        assert_eq!(norm(direction.into_tensor()), 0.0);
        assert!(before.is_some() && residual(&memory) == before);
    }
}
