//! SGD with momentum, decoupled weight decay.
//!
//! ```text
//! M ← μ M + G,   U = M            (heavy ball, the default)
//! W ← (1 - lr wd) W - lr U
//! ```

use crate::rule::{
    About, Cost, Kind, Memory, Pipeline, Rule, StackRow, Stage, SymmetryRow, Update, follows_gradient, kind_settings,
};

kind_settings! {
    /// Settings of Sgd, and the rule itself.
    pub struct SgdConfig {
        momentum: 0.9, HeavyBall, nesterov: false;
    }
}

impl Kind for SgdConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        About {
            formula: self.formula("U = d"),
            source: "Polyak 1964; decoupled weight decay arXiv 1711.05101",
            cost: Cost::device("3 mn"),
            detail: String::new(),
            stack: StackRow::new(0.03, 0.0, "momentum SGD for everything, no decay on gains and biases"),
            symmetries: vec![SymmetryRow::new("sgd", "", SymmetryRow::SPECTRAL, 1)],
            gain: follows_gradient!(),
        }
    }
}

impl Rule for SgdConfig {
    fn advance(&self, stage: Stage, _memory: &mut Memory) -> Update {
        stage.matrix.into()
    }

    fn is_entrywise(&self) -> bool {
        true
    }
}
