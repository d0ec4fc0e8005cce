//! SGD with momentum, decoupled weight decay.
//!
//! ```text
//! M ← μ M + G,   U = M            (heavy ball, the default)
//! W ← (1 - lr wd) W - lr U
//! ```

use burn::optim::ModuleOptimizer;

use crate::rule::{
    About, Cost, Decay, GROWS_WITH_GRADIENT, Gain, Kind, Memory, Momentum, MomentumForm, Pipeline, Rule, StackRow,
    Stage, SymmetryRow, Update,
};
use crate::setting::{Numbers, settings};

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
    #[must_use]
    pub fn build(&self) -> Pipeline {
        Kind::pipeline(self)
    }

    /// The optimizer of a whole module.
    #[must_use]
    pub fn init(&self) -> ModuleOptimizer {
        self.build().into()
    }

    fn momentum_settings(&self) -> Momentum {
        Momentum { factor: self.momentum, form: self.momentum_form, nesterov: self.nesterov }
    }
}

impl Kind for SgdConfig {
    fn pipeline(&self) -> Pipeline {
        let decay = Decay { rate: self.weight_decay, cautious: self.cautious };
        Pipeline::new(Sgd).with_momentum(self.momentum_settings()).with_decay(decay)
    }

    fn describe(&self) -> About {
        let formula = format!("{}, U = d", self.momentum_settings().formula());
        About::new(formula, "Polyak 1964; decoupled weight decay arXiv 1711.05101", Cost::device("3 mn"))
    }

    fn stack(&self) -> StackRow {
        let about = "momentum SGD for everything, no decay on gains and biases";
        StackRow { lr: 0.03, weight_decay: 0.0, about }
    }

    fn symmetries(&self) -> Vec<SymmetryRow> {
        vec![SymmetryRow::new("sgd", "", SymmetryRow::SPECTRAL, 1)]
    }

    fn gain(&self) -> Result<Gain, &'static str> {
        Err(GROWS_WITH_GRADIENT)
    }
}

/// The momentum itself, on parameters of any rank.
#[derive(Clone, Debug)]
pub struct Sgd;

impl Rule for Sgd {
    fn advance(&self, stage: Stage, _memory: &mut Memory) -> Update {
        stage.matrix.into()
    }

    fn is_entrywise(&self) -> bool {
        true
    }
}
