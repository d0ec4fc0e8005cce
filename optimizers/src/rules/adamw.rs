//! AdamW (arXiv 1711.05101, algorithm 2, with the schedule folded into the learning rate).
//!
//! ```text
//! m ← β₁ m + (1-β₁) G,   v ← β₂ v + (1-β₂) G²
//! U = (m / (1-β₁ᵗ)) / (√(v / (1-β₂ᵗ)) + ε)
//! W ← (1 - lr wd) W - lr U
//! ```
//!
//! Defaults are PyTorch's (ε 1e-8, no decay by default), not Burn's (ε 1e-5, decay 1e-4).

use burn::tensor::Tensor;

use crate::flex::in_place;
use crate::rule::{
    About, Cost, Decay, Gain, Kept, Kind, Memory, Moments, Pipeline, Rates, Rule, SecondMoment, StackRow, Stage,
    SymmetryRow, Update, debias, kind_settings,
};
use crate::setting::Numbers;

/// The names of the moments in records.
const FIRST: &str = "momentum";
const SECOND: &str = "second_moment";

/// Entries of one block of a step in place: a block is faster if f32 holds the second moments of all its entries.
const BLOCK: usize = 1024;

kind_settings! {
    /// Settings of AdamW, and the rule itself.
    pub struct AdamWConfig {
        /// Decay of the first moment, in [0, 1).
        beta1, with_beta1: f64 = 0.9, in Numbers::FACTOR;
        /// Decay of the second moment, in [0, 1).
        beta2, with_beta2: f64 = 0.999, in Numbers::FACTOR;
        /// Added to the root of the debiased second moment, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
    }
}

impl Kind for AdamWConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        About {
            formula: "m ← β₁ m + (1-β₁) G, v ← β₂ v + (1-β₂) G², U = m̂ / (√v̂ + ε)".into(),
            source: "arXiv 1711.05101",
            cost: Cost::device("13 mn"),
            detail: String::new(),
            stack: StackRow::new(1e-3, 0.1, "AdamW for everything, no decay on gains and biases"),
            symmetries: vec![SymmetryRow::new("adamw", "", SymmetryRow::ENTRIES, 0)],
            gain: Ok(Gain::ENTRYWISE),
        }
    }
}

impl Rule for AdamWConfig {
    fn memories(&self) -> Vec<Kept> {
        vec![Kept::entries(FIRST), Kept::entries(SECOND)]
    }

    fn is_entrywise(&self) -> bool {
        true
    }

    fn advance(&self, stage: Stage, memory: &mut Memory) -> Update {
        let AdamWConfig { beta1, beta2, eps, .. } = *self;
        let moments = Moments { beta1, beta2, eps };
        let step = stage.number;
        let direction =
            stage.matrix.map(|gradient| moments.debiased(moments.advance([FIRST, SECOND], gradient, memory), step));
        direction.into()
    }

    fn step_in_place(
        &self,
        weights: Tensor<3>,
        gradient: Tensor<3>,
        memory: &mut Memory,
        decay: Decay,
        rates: Rates,
    ) -> Result<Tensor<3>, (Tensor<3>, Tensor<3>)> {
        let AdamWConfig { beta1, beta2, eps, .. } = *self;
        let (step, dims) = (memory.steps(), weights.dims());
        if step == 1 || eps == 0.0 || (decay.cautious && decay.rate != 0.0) {
            return Err((weights, gradient));
        }
        let (Some(first), Some(second)) = (memory.take(FIRST, dims), memory.take(SECOND, dims)) else {
            return Err((weights, gradient));
        };
        let (debias1, new1, beta1_f32) = (debias(beta1, step) as f32, (1.0 - beta1) as f32, beta1 as f32);
        let moment = SecondMoment::new(beta2, eps).in_place(debias(beta2, step));
        let (eps, kept, lr) = (eps as f32, (1.0 - decay.share(rates)) as f32, rates.lr as f32);
        let done = in_place(
            [weights, first, second, gradient],
            #[inline(always)]
            |[tensor, first, second, grad]| {
                let blocks = tensor.chunks_mut(BLOCK).zip(first.chunks_mut(BLOCK));
                for ((tensor, first), (second, grad)) in
                    blocks.zip(second.chunks_mut(BLOCK).zip(grad.chunks_mut(BLOCK)))
                {
                    let plain = moment.all_plain(second, grad);
                    let entries = tensor.iter_mut().zip(first).zip(second).zip(grad);
                    let step = |(((w, m), v), g): (((&mut f32, &mut f32), &mut f32), &mut f32), new: f32, root: f32| {
                        *v = new;
                        *m = *m * beta1_f32 + *g * new1;
                        *w = *w * kept - *m * debias1 / (root + eps) * lr;
                    };
                    if plain {
                        entries.for_each(|entry| {
                            let new = moment.plain(*entry.0.1, *entry.1);
                            step(entry, new, moment.plain_root(new));
                        });
                    } else {
                        entries.for_each(|entry| {
                            let new = moment.any(*entry.0.1, *entry.1);
                            step(entry, new, moment.any_root(new));
                        });
                    }
                }
            },
        );
        let (is_done, [weights, first, second, gradient]) = match done {
            Ok(tensors) => (true, tensors),
            Err(tensors) => (false, tensors),
        };
        memory.keep(FIRST, first);
        memory.keep(SECOND, second);
        if is_done { Ok(weights) } else { Err((weights, gradient)) }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::setting::numbers;
    use burn::tensor::DType;

    use crate::matrix::{Layout, Matrix};

    #[test]
    fn a_step_in_place_is_the_same_to_the_bit() {
        for weight_decay in [0.0, 0.1] {
            let rule = AdamWConfig::new();
            let random = |seed| numbers([1, 70, 500], seed, DType::F32);
            let values = |tensor: &Tensor<3>| tensor.to_data().try_to_vec::<f32>().unwrap();
            let decay = Decay { rate: weight_decay, ..Decay::default() };
            let rates = Rates::constant(0.01);
            let slowly = |weights: Tensor<3>, gradient, memory: &mut Memory| {
                let stage = Stage::new(Matrix::new(gradient, Layout::InOut)).with_number(memory.steps());
                decay.update(weights, rule.advance(stage, memory).direction.into_tensor(), rates)
            };
            let mut memory = Memory::at_step(1);
            let mut weights = slowly(random(0), random(1), &mut memory);
            for seed in 2..6 {
                memory = memory.with_step(seed);
                let (shared, before) = (weights.clone(), values(&weights));
                let mut expected_memory = memory.clone();
                let expected = slowly(weights.clone(), random(seed), &mut expected_memory);
                weights = rule.step_in_place(weights, random(seed), &mut memory, decay, rates).expect("plain tensors");
                assert_eq!(values(&weights), values(&expected));
                assert_eq!(values(&shared), before);
                for name in [FIRST, SECOND] {
                    assert_eq!(values(memory.get(name).unwrap()), values(expected_memory.get(name).unwrap()));
                }
            }
        }
    }
}
