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

use crate::config::{ConfigError, Description, Settings, in_range, is_factor, settings};
use crate::step::{Decay, State, in_working_precision};

settings! {
    /// Settings of [`AdamW`].
    pub struct AdamWConfig {
        /// Decoupled weight decay, at least 0.
        weight_decay, with_weight_decay: f64 = 0.0;
        /// Decay only entries where update and weight do not have opposite signs.
        cautious, with_cautious: bool = false;
        /// Decay of the first moment, in [0, 1).
        beta1, with_beta1: f64 = 0.9;
        /// Decay of the second moment, in [0, 1).
        beta2, with_beta2: f64 = 0.999;
        /// Added to the root of the debiased second moment, at least 0.
        eps, with_eps: f64 = 1e-8;
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

    fn validate(&self) -> Result<(), ConfigError> {
        is_factor("adamw.beta1", self.beta1)?;
        is_factor("adamw.beta2", self.beta2)?;
        in_range("adamw.eps", self.eps, 0.0..=f64::MAX)?;
        in_range("adamw.weight_decay", self.weight_decay, 0.0..=f64::MAX)
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
    /// The update U, and the state after it.
    fn direction<const D: usize>(&self, grad: Tensor<D>, state: Option<State<D>>) -> (Tensor<D>, State<D>) {
        let AdamWConfig { beta1, beta2, eps, .. } = self.config;
        let state = state.unwrap_or_default();
        let step = state.step + 1;
        let moment = |old: Option<Tensor<D>>, new: Tensor<D>, beta: f64| match old {
            Some(old) => old * beta + new * (1.0 - beta),
            None => new * (1.0 - beta),
        };
        let second = moment(state.second_moment, grad.clone().square(), beta2);
        let first = moment(state.momentum, grad, beta1);
        let debias = |beta: f64| 1.0 - beta.powf(step as f64);
        let root = (second.clone() / debias(beta2)).sqrt() + eps;
        let direction = (first.clone() / debias(beta1)) / root;
        let direction = match eps > 0.0 {
            true => direction,
            // 0 / 0: an entry that never had a gradient does not move.
            false => direction.clone().mask_fill(direction.is_nan(), 0.0),
        };
        (direction, State { step, momentum: Some(first), second_moment: Some(second), ..State::default() })
    }
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
        let decay = Decay { rate: self.config.weight_decay, cautious: self.config.cautious };
        in_working_precision(tensor, grad, |tensor, grad| {
            let (direction, state) = self.direction(grad, state);
            (decay.update(tensor, direction, lr), Some(state))
        })
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.to_device(device)
    }
}
