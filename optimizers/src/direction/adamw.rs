//! AdamW (arXiv 1711.05101, algorithm 2, with the schedule folded into the learning rate).
//!
//! ```text
//! m ← β₁ m + (1-β₁) G,   v ← β₂ v + (1-β₂) G²
//! U = (m / (1-β₁ᵗ)) / (√(v / (1-β₂ᵗ)) + ε)
//! W ← (1 - lr wd) W - lr U
//! ```
//!
//! Defaults are PyTorch's (ε 1e-8, no decay unless asked for), not Burn's (ε 1e-5, decay 1e-4).

use burn::optim::{ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

use crate::config::{ConfigError, Description, Keys, Settings, settings};
#[cfg(feature = "flex")]
use crate::host::in_place;
use crate::setting::Numbers;
use crate::step::{Decay, Gain, SecondMoment, State, in_working_precision};

/// Entries that a step in place treats alike: whether all of them have second moments that f32 holds is looked up first.
#[cfg(feature = "flex")]
const BLOCK: usize = 1024;

settings! {
    /// Settings of [`AdamW`].
    pub struct AdamWConfig {
        /// Decoupled weight decay, at least 0.
        weight_decay, with_weight_decay: f64 = 0.0, in Numbers::SIZE;
        /// Decay only entries where update and weight do not have opposite signs.
        cautious, with_cautious: bool = false;
        /// Decay of the first moment, in [0, 1).
        beta1, with_beta1: f64 = 0.9, in Numbers::FACTOR;
        /// Decay of the second moment, in [0, 1).
        beta2, with_beta2: f64 = 0.999, in Numbers::FACTOR;
        /// Added to the root of the debiased second moment, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
    }
}

impl AdamWConfig {
    /// The bare optimizer, for one parameter group.
    pub fn build(&self) -> AdamW {
        AdamW { config: self.clone() }
    }

    /// The optimizer of a whole module.
    pub fn init(&self) -> ModuleOptimizer {
        self.build().into()
    }
}

impl Settings for AdamWConfig {
    fn describe(&self) -> Description {
        Description {
            kind: "adamw",
            formula: "m ← β₁ m + (1-β₁) G, v ← β₂ v + (1-β₂) G², U = m̂ / (√v̂ + ε)",
            source: "arXiv 1711.05101",
            state: "2 buffers",
            cost: "13 mn",
        }
    }

    fn check_keys(&self, kind: &str) -> Result<(), ConfigError> {
        Keys::check_keys(self, kind)
    }

    fn gain(&self, _shape: [usize; 2]) -> Result<Gain, &'static str> {
        Ok(Gain::ENTRYWISE)
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// AdamW on parameters of any rank.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
}

impl AdamW {
    /// The weights and the state after a step.
    fn advance<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, State<D>) {
        #[cfg(feature = "flex")]
        let (tensor, grad, state) = match self.advance_in_place(lr, tensor, grad, state) {
            Ok(done) => return done,
            Err(given) => given,
        };
        let decay = Decay { rate: self.config.weight_decay, cautious: self.config.cautious };
        let (direction, state) = self.direction(grad, state);
        (decay.update(tensor, direction, lr), state)
    }

    /// The same in one pass over memory, where the tensors allow it; to the same bit, because every operation is the same
    /// and rounds alike.
    #[cfg(feature = "flex")]
    #[allow(
        clippy::type_complexity,
        clippy::result_large_err,
        reason = "an `Err` gives the arguments back, it is no failure"
    )]
    fn advance_in_place<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<D>>,
    ) -> Result<(Tensor<D>, State<D>), (Tensor<D>, Tensor<D>, Option<State<D>>)> {
        let AdamWConfig { weight_decay, cautious, beta1, beta2, eps } = self.config;
        if eps == 0.0 || (cautious && weight_decay != 0.0) {
            return Err((tensor, grad, state));
        }
        let (step, first, second) = match state {
            Some(State { step, momentum: Some(first), second_moment: Some(second), .. }) => (step + 1, first, second),
            other => return Err((tensor, grad, other)),
        };
        let (debias1, new1, beta1_f32) = (debias(beta1, step) as f32, (1.0 - beta1) as f32, beta1 as f32);
        let moment = SecondMoment::new(beta2, eps).in_place(debias(beta2, step));
        let (eps, kept, lr) = (eps as f32, (1.0 - lr * weight_decay) as f32, lr as f32);
        let done = in_place(
            [tensor, first, second, grad],
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
        let state = |momentum, second_moment, step| State {
            step,
            momentum: Some(momentum),
            second_moment: Some(second_moment),
            ..State::default()
        };
        match done {
            Ok([tensor, first, second, _]) => Ok((tensor, state(first, second, step))),
            Err([tensor, first, second, grad]) => Err((tensor, grad, Some(state(first, second, step - 1)))),
        }
    }

    /// The update U, and the state after it.
    fn direction<const D: usize>(&self, grad: Tensor<D>, state: Option<State<D>>) -> (Tensor<D>, State<D>) {
        let AdamWConfig { beta1, beta2, eps, .. } = self.config;
        let state = state.unwrap_or_default();
        let step = state.step + 1;
        let moment = SecondMoment::new(beta2, eps);
        let second = moment.advance(state.second_moment, grad.clone());
        let new = grad * (1.0 - beta1);
        let first = match state.momentum {
            Some(old) => old * beta1 + new,
            None => new,
        };
        let root = moment.root(second.clone(), debias(beta2, step)) + eps;
        let direction = first.clone() * debias(beta1, step);
        let direction = match eps > 0.0 {
            true => direction / root,
            // 0 / 0: an entry that never had a gradient does not move.
            false => {
                let never = root.clone().equal_scalar(0.0);
                (direction / root).mask_fill(never, 0.0)
            }
        };
        (direction, State { step, momentum: Some(first), second_moment: Some(second), ..State::default() })
    }
}

/// 1 / (1-βᵗ)
fn debias(beta: f64, step: u64) -> f64 {
    1.0 / (1.0 - beta.powf(step as f64))
}

impl Optimizer for AdamW {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        in_working_precision(tensor, grad, |tensor, grad| {
            let state = State::of(state, &tensor);
            let (tensor, state) = self.advance(lr, tensor, grad, state);
            (tensor, Some(state))
        })
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.to_device(device)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::random::tests::numbers;
    use burn::tensor::DType;

    #[test]
    fn a_step_in_place_is_the_same_to_the_bit() {
        for weight_decay in [0.0, 0.1] {
            let optimizer = AdamWConfig::new().with_weight_decay(weight_decay).build();
            let random = |seed| numbers([70, 500], seed, DType::F32);
            let values = |tensor: &Tensor<2>| tensor.to_data().try_to_vec::<f32>().unwrap();
            let (mut tensor, mut state) = optimizer.advance(0.01, random(0), random(1), None);
            for seed in 2..6 {
                let shared = tensor.clone();
                let before = values(&shared);
                let given = (tensor.clone(), random(seed), Some(state.clone()));
                let (direction, expected_state) = optimizer.direction(given.1.clone(), given.2.clone());
                let decay = Decay { rate: weight_decay, cautious: false };
                let expected = decay.update(given.0.clone(), direction, 0.01);
                (tensor, state) = optimizer.advance_in_place(0.01, given.0, given.1, given.2).expect("plain tensors");
                assert_eq!(values(&tensor), values(&expected));
                assert_eq!(values(&shared), before);
                assert_eq!(state.step, expected_state.step);
                for part in [|s: &State<2>| s.momentum.clone(), |s: &State<2>| s.second_moment.clone()] {
                    assert_eq!(values(&part(&state).unwrap()), values(&part(&expected_state).unwrap()));
                }
            }
        }
    }
}
