//! AdaMuon (arXiv 2507.11005): every entry of Muon's update gets its own step size.
//!
//! ```text
//! O = polar(sign(d))   (or polar(d) with sign = false)
//! v ← β₂ v + (1-β₂) O²   (entrywise, no bias correction: it cancels),   O' = O / (√v + eps)
//! U = rms √(mn) O' / (‖O'‖_F + eps)
//! ```
//!
//! **Singular values**: no longer about 1; the entrywise division changes them, more so in the first
//! steps. The sign and the entrywise division make the rule depend on the coordinates: it is
//! equivariant under permutations only, like AdamW.
//!
//! **When**: to keep AdamW's learning rates (the root mean square entry is `rms`). Extra cost over
//! Muon: 6 mn, and a second buffer.
//!
//! **Claimed** (paper): faster than Muon and AdamW on GPT-2 sizes; many ports omit the sign.

use crate::matrix::{divide_or_zero, frobenius_norm, sign as signs};
use crate::rule::{
    About, Gain, Kept, Kind, Memory, Pipeline, Polar, Rule, SecondMoment, StackRow, Stage, SymmetryRow, Update,
    follows_rank, kind_settings,
};
use crate::setting::Numbers;

/// The name of the second moment in records.
const SECOND_MOMENT: &str = "second_moment";

kind_settings! {
    /// Settings of AdaMuon, and the rule itself.
    pub struct AdaMuonConfig {
        momentum: 0.95, Ema, nesterov: true;
        /// Decay of the second moment, in [0, 1).
        beta2, with_beta2: f64 = 0.95, in Numbers::FACTOR;
        /// Added to the root of the second moment, and to the norm; at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// Orthogonalise the signs of the momentum instead of the momentum.
        sign, with_sign: bool = true;
        /// Root mean square entry of the update.
        rms, with_rms: f64 = 0.2, in Numbers::SIZE;
        /// How the momentum is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl Kind for AdaMuonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        let start = if self.sign { "sign(d)" } else { "d" };
        let rest = format!("O = polar({start}), v ← β₂ v + (1-β₂) O², U = O/√v with root mean square {}", self.rms);
        About {
            formula: self.formula(&rest),
            source: "arXiv 2507.11005",
            cost: self.polar.cost(" + 6 mn"),
            detail: format!("{}{}", if self.sign { "sign, " } else { "" }, self.polar.label()),
            stack: StackRow::new(0.01, 0.01, "AdaMuon for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("adamuon", "", SymmetryRow::ENTRIES, 0)],
            gain: match self.sign {
                true => Ok(Gain::ORTHOGONAL.times(0.5, 0.0)),
                false => follows_rank!("set sign=true"),
            },
        }
    }
}

impl Rule for AdaMuonConfig {
    fn memories(&self) -> Vec<Kept> {
        vec![Kept::entries(SECOND_MOMENT)]
    }

    fn advance(&self, stage: Stage, memory: &mut Memory) -> Update {
        let momentum = stage.matrix;
        let AdaMuonConfig { beta2, eps, sign, rms, .. } = *self;
        let size = rms * ((momentum.outputs() * momentum.inputs()) as f64).sqrt();
        let polar = self.polar.apply(if sign { momentum.map(signs) } else { momentum });
        let moment = SecondMoment::of_small_numbers(beta2, eps);
        let second = moment.advance(memory.take(SECOND_MOMENT, polar.tensor().dims()), polar.tensor().clone());
        memory.keep(SECOND_MOMENT, second.clone());
        let update = polar.map(|o| {
            let scaled = divide_or_zero(o, moment.root(second.clone(), 1.0) + eps);
            let norm = frobenius_norm(scaled.clone()) + eps;
            divide_or_zero(scaled, norm) * size
        });
        update.into()
    }
}
