//! SGD with momentum, decoupled weight decay.
//!
//! ```text
//! M ← μ M + G,   U = M            (heavy ball, the default)
//! W ← (1 - lr wd) W - lr U
//! ```

use burn::optim::{ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

use crate::config::{ConfigError, Description, Keys, Settings, settings};
use crate::setting::Numbers;
use crate::step::{Decay, Gain, Momentum, MomentumForm, State, in_working_precision};

settings! {
    /// Settings of [`Sgd`].
    pub struct SgdConfig {
        /// Decoupled weight decay, at least 0.
        weight_decay, with_weight_decay: f64 = 0.0, in Numbers::SIZE;
        /// Decay only entries where update and weight do not have opposite signs.
        cautious, with_cautious: bool = false;
        /// Momentum μ in [0, 1).
        momentum, with_momentum: f64 = 0.9, in Numbers::FACTOR;
        /// How the momentum buffer is formed.
        momentum_form, with_momentum_form: MomentumForm = MomentumForm::HeavyBall;
        /// Look ahead by one step.
        nesterov, with_nesterov: bool = false;
    }
}

impl SgdConfig {
    /// The bare optimizer, for one parameter group.
    pub fn build(&self) -> Sgd {
        Sgd {
            momentum: Momentum { factor: self.momentum, form: self.momentum_form, nesterov: self.nesterov },
            decay: Decay { rate: self.weight_decay, cautious: self.cautious },
        }
    }

    /// The optimizer of a whole module.
    pub fn init(&self) -> ModuleOptimizer {
        self.build().into()
    }
}

impl Settings for SgdConfig {
    fn describe(&self) -> Description {
        Description {
            kind: "sgd",
            formula: "M ← μ M + G, U = M",
            source: "Polyak 1964; decoupled weight decay arXiv 1711.05101",
            state: "1 buffer",
            cost: "3 mn",
        }
    }

    fn check_keys(&self, kind: &str) -> Result<(), ConfigError> {
        Keys::check_keys(self, kind)
    }

    fn gain(&self, _shape: [usize; 2]) -> Result<Gain, &'static str> {
        Err(
            "its steps are as large as the gradient, whose size follows the width in its own way: choose a rule with normalised steps, such as muon or adamuon",
        )
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// Momentum SGD on parameters of any rank.
#[derive(Clone, Debug)]
pub struct Sgd {
    momentum: Momentum,
    decay: Decay,
}

impl Optimizer for Sgd {
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
            let (direction, state) = self.momentum.advance(grad, state);
            (self.decay.update(tensor, direction, lr), Some(state))
        })
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.to_device(device)
    }
}
