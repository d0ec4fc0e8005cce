//! Muown (arXiv 2605.10797): Muon turns the output units of the weights, Adam learns their norms.
//!
//! ```text
//! W_i = g_i v_i/|v_i| for every output unit i; at the start v = W, g_i = |W_i|
//! u = W/g,   ∂g_i = ⟨G_i, u_i⟩,   ∂v = (g/|v|) (G - u ∂g)
//! M ← μ M + (1-μ) ∂v,   v ← u |v| - lr · scale · polar(M)
//! g ← (1 - lr wd) (g - lr Adam(∂g))
//! W ← g v/|v|
//! ```
//!
//! **Singular values**: all directions of v move alike, as with Muon, but only across the units: what would make a unit
//! longer or shorter is not in ∂v. The longer v has become, the less a unit turns, which acts as a schedule of its own.
//! The weights are set rather than moved, so their units have the norms g whatever the learning rate.
//!
//! **When**: as Muon, where norms of units matter or weight decay is to be avoided. Learning rates are those of AdamW (the
//! default scale), as g moves by the learning rate itself. Extra cost over Muon: 12 mn; state: one buffer and 4 numbers per
//! output unit.
//!
//! **Claimed** (124M parameters, steps to a loss of 3.28 in the public race): 3,075, against 3,250 for tuned Muon.
//!
//! An output unit that is zero has no direction: the rule moves it as Muon would and takes its g and |v| from there, so that
//! projections that start at zero are trained. An output unit with one input cannot turn. A step with learning rate 0 leaves
//! the weights as they are. The size of g is read from the weights, so that what else changes them (QK-clip, a wrapper, another
//! program) holds.

use burn::tensor::Tensor;

use crate::matrix::{Axis, Matrix, divide_or_zero, sign, unit_norms};
use crate::rule::{
    About, Gain, Kept, Kind, Memory, Moments, Pipeline, Polar, Rates, Rule, StackRow, Stage, SymmetryRow, Update,
    kind_settings,
};
use crate::setting::{ConfigError, Numbers};

/// The names of M, g, |v| and the moments of ∂g in records.
const MOMENTUM: &str = "momentum";
const NORM: &str = "norm";
const LENGTH: &str = "direction_length";
const MOMENTS: [&str; 2] = ["norm_momentum", "norm_second_moment"];

kind_settings! {
    /// Settings of Muown, and the rule itself.
    pub struct MuownConfig {
        momentum: 0.95, Ema, nesterov: false, scale: MatchRmsAdamw;
        /// Decay of the first moment of a norm's gradient, in [0, 1).
        beta1, with_beta1: f64 = 0.9, in Numbers::FACTOR;
        /// Decay of the second moment of a norm's gradient, in [0, 1).
        beta2, with_beta2: f64 = 0.95, in Numbers::FACTOR;
        /// Added to the root of that second moment, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// How the momentum of ∂v is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl Kind for MuownConfig {
    fn pipeline(&self) -> Pipeline {
        // The momentum is not one of gradients, so the rule keeps it.
        self.assemble(self.clone()).without_momentum()
    }

    fn about(&self) -> About {
        let rest = "v ← u |v| - lr U, U = polar(d), g ← g - lr Adam(∂g), W ← g v/|v|";
        let momentum = self.formula(rest).replace('G', "∂v");
        About {
            formula: format!("u = W/g, ∂g = ⟨G, u⟩, ∂v = (g/|v|) (G - u ∂g) by output units, {momentum}"),
            source: "arXiv 2605.10797",
            cost: self.polar.cost(" + 12 mn"),
            detail: self.polar.label(),
            stack: StackRow::new(0.0035, 0.0, "Muown for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("muown", "", SymmetryRow::OUTPUT_UNITS, 0)],
            gain: Ok(Gain::ORTHOGONAL),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refused = |key: &str, why: &str| {
            Err(ConfigError::value(format!("muown.{key}"), format!("must be left out: {why}; choose muon to use it")))
        };
        if self.norm_control.is_some() {
            return refused("norm_control", "the rule learns the norm of every output unit itself");
        }
        if self.second_moment.is_some() {
            return refused("second_moment", "the rule needs the gradient as it is for norms and directions");
        }
        Ok(())
    }
}

impl Rule for MuownConfig {
    fn memories(&self) -> Vec<Kept> {
        let momentum = (self.momentum != 0.0).then(|| Kept::entries(MOMENTUM));
        momentum.into_iter().chain([NORM, LENGTH, MOMENTS[0], MOMENTS[1]].map(Kept::units)).collect()
    }

    fn reads_weights(&self) -> bool {
        true
    }

    fn sets_weights(&self, _step: u64) -> bool {
        true
    }

    fn advance(&self, stage: Stage, memory: &mut Memory) -> Update {
        let weights = stage.weights.expect("a rule that reads the weights is given them");
        let rates = Rates { lr: stage.lr, factor: stage.factor };
        let (across, scale) = (weights.dim(Axis::Input), self.scale.factor(weights.outputs(), weights.inputs()));
        let norms = unit_norms(&weights, Axis::Output);
        // Of what is remembered of g only its sign is used: it passes through 0 in training.
        let norm = match memory.take(NORM, norms.dims()) {
            Some(old) => norms.clone() * sign(old),
            None => norms.clone(),
        };
        let length = memory.take(LENGTH, norms.dims()).unwrap_or(norms);
        let empty = norm.clone().equal_scalar(0.0).bool_or(length.clone().equal_scalar(0.0));
        let ratio = |a: &Tensor<3>, b: &Tensor<3>| (a.clone() / b.clone()).mask_fill(empty.clone(), 1.0);

        let (gradient, w) = (stage.matrix.into_tensor(), weights.tensor().clone());
        let unit = w.clone() / norm.clone().mask_fill(empty.clone(), 1.0);
        let stretch = (gradient.clone() * unit.clone()).sum_dim(across);
        let turn = match weights.inputs() {
            // Nothing is across a single number; what is left would be rounding.
            1 => gradient.mask_fill(empty.clone().bool_not(), 0.0),
            _ => (gradient - unit * stretch.clone()) * ratio(&norm, &length),
        };

        let settings = self.momentum_settings();
        let momentum = settings.advance(stage.momentum, MOMENTUM, turn, memory);
        let momentum = Matrix::new(momentum, weights.layout());
        let step = self.polar.apply(momentum).into_tensor() * (stage.lr * scale);
        let turned = weights.map(|w| w * ratio(&length, &norm) - step);
        let new_length = unit_norms(&turned, Axis::Output);
        let new_norm = self.stretched(norm.clone(), stretch, stage.number, rates, memory);
        let new_norm = new_norm.mask_where(empty.clone(), new_length.clone());
        memory.keep(NORM, new_norm.clone());
        if stage.lr == 0.0 {
            memory.keep(LENGTH, length);
            return turned.map(|_| w * ratio(&new_norm, &norm)).into();
        }
        memory.keep(LENGTH, new_length.clone());
        turned.map(|turned| turned * divide_or_zero(new_norm, new_length)).into()
    }
}

impl MuownConfig {
    /// The norms after a step of Adam and their decay.
    fn stretched(
        &self,
        norm: Tensor<3>,
        gradient: Tensor<3>,
        step: u64,
        rates: Rates,
        memory: &mut Memory,
    ) -> Tensor<3> {
        let moments = Moments { beta1: self.beta1, beta2: self.beta2, eps: self.eps };
        let direction = moments.debiased(moments.advance(MOMENTS, gradient, memory), step);
        self.decay().kept(norm - direction.clone() * rates.lr, &direction, rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;

    use crate::matrix::Layout;
    use crate::setting::numbers;

    /// The weights after a step.
    fn step(weights: Tensor<3>, seed: u64, lr: f64, memory: &mut Memory) -> Tensor<3> {
        let [_, outputs, inputs] = weights.dims();
        let matrix = |tensor| Matrix::new(tensor, Layout::OutIn);
        let gradient = matrix(numbers([1, outputs, inputs], seed, DType::F64));
        let stage = Stage { weights: Some(matrix(weights)), ..Stage::new(gradient).with_number(seed).with_lr(lr) };
        MuownConfig::new().advance(stage, memory).direction.into_tensor()
    }

    fn values(x: Tensor<3>) -> Vec<f64> {
        x.into_data().iter::<f64>().collect()
    }

    fn norms(x: Tensor<3>) -> Vec<f64> {
        values(unit_norms(&Matrix::new(x, Layout::OutIn), Axis::Output))
    }

    #[test]
    fn units_have_the_norms_that_are_remembered_whatever_the_learning_rate() {
        for lr in [1e-3, 1.0, 100.0] {
            let (mut memory, mut weights) = (Memory::default(), numbers([1, 5, 8], 0, DType::F64));
            for seed in 1..=6 {
                weights = step(weights, seed, lr, &mut memory);
                let remembered = values(memory.get(NORM).cloned().expect("kept"));
                for (norm, remembered) in norms(weights.clone()).into_iter().zip(remembered) {
                    // a few roundings
                    assert!((norm / remembered.abs() - 1.0).abs() < 1e-13, "{norm} {remembered}");
                }
            }
        }
    }

    #[test]
    fn a_unit_of_zeros_starts_where_muon_puts_it() {
        let mut memory = Memory::default();
        let start = numbers([1, 3, 4], 0, DType::F64).slice_fill([0..1, 1..2, 0..4], 0.0);
        let after = step(start, 1, 0.01, &mut memory);
        let found = norms(after.clone());
        let remembered = values(memory.get(NORM).cloned().expect("kept"));
        assert!(found[1] > 0.0 && (found[1] / remembered[1] - 1.0).abs() < 1e-13, "{found:?} {remembered:?}");
        // From zero, all of a matrix moves as with Muon, whose update of a row of the identity's shape has norm 1.
        let muon = step(after.zeros_like(), 1, 0.01, &mut Memory::default());
        let size = norms(muon).into_iter().fold(0.0, f64::max);
        assert!((0.002..0.006).contains(&size), "{size}"); // 0.01 · 0.2 √4 · (0.5 to 1.2)
    }

    #[test]
    fn a_step_without_a_learning_rate_leaves_the_weights_to_the_bit_and_learns_the_momentum() {
        let mut memory = Memory::default();
        let weights = step(numbers([1, 5, 8], 0, DType::F64), 1, 0.1, &mut memory);
        let before = memory.get(MOMENTUM).cloned().map(Tensor::into_data);
        let after = step(weights.clone(), 2, 0.0, &mut memory);
        assert_eq!(values(after.clone()), values(weights));
        assert!(before != memory.get(MOMENTUM).cloned().map(Tensor::into_data));
        assert!(values(step(after, 3, 0.1, &mut memory)).iter().all(|x| x.is_finite()));
    }
}
