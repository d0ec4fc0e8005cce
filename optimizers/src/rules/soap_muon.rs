//! SOAP-Muon (modded-nanogpt track 3, records 14 and 44 to 46): the momentum whitened in the eigenbases of SOAP, then Muon.
//!
//! ```text
//! d = momentum(G),   p = Pᵀ d Q,   v ← β₂ v + (1-β₂) p²
//! X = P (p / max(√v, ε)) Qᵀ · ‖d‖ / ‖·‖,   U = scale · polar(X)            (first step: X = d)
//! L ← β₂ L + (1-β₂) G Gᵀ,  R ← β₂ R + (1-β₂) Gᵀ G
//! first step: P, Q the eigenvectors of L and R; later, every k steps: P ← qr(L P), Q ← qr(R Q), columns by strength
//! ```
//!
//! **Singular values**: about 1, as with Muon; the whitening decides the directions.
//!
//! **When**: for the fewest steps, where time does not count. Rates as for Muon. Every step copies the squares of both sides to
//! the host, decomposes them and waits (see [`soap`](super::soap)); with a larger `every` the others do not. Cost beyond Muon's:
//! 6 (m²n + mn²), and state for both sides. A side with more than 10,000 units keeps its own basis.
//!
//! **Claimed** (124M parameters, steps to a loss of 3.28 in the public race): 2,690, against 3,250 for tuned Muon.

use crate::matrix::{divide_or_zero, frobenius_norm};
use crate::rule::{
    About, Bases, Gain, Kept, Kind, Learning, Memory, Pipeline, Polar, Rule, SecondMoment, StackRow, Stage,
    SymmetryRow, Update, kind_settings,
};
use crate::setting::Numbers;

/// The name of v in records.
const SECOND_MOMENT: &str = "second_moment";

/// A side with more units keeps its own basis.
const LARGEST_SIDE: usize = 10_000;

kind_settings! {
    /// Settings of SoapMuon, and the rule itself.
    pub struct SoapMuonConfig {
        momentum: 0.95, Ema, nesterov: true, scale: Original;
        /// Decay of the second moment and of the Gram matrices, in [0, 1).
        beta2, with_beta2: f64 = 0.9, in Numbers::FACTOR;
        /// The least root of the second moment, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// Steps from one change of the bases to the next, at least 1.
        every, with_every: u64 = 1, in 1..=1_000_000;
        /// How the whitened momentum is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl Kind for SoapMuonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        let whitened = "p = Pᵀ d Q, v ← β₂ v + (1-β₂) p², U = polar(P (p/√v) Qᵀ)";
        let cost = self.polar.cost(" + 6 (m²n + mn²) + 12 mn").with_bases(self.every, 6);
        About {
            formula: self.formula(&format!("{whitened}, P, Q the eigenvectors of averages of G Gᵀ, Gᵀ G")),
            source: "modded-nanogpt track 3, record 44",
            cost,
            detail: format!("every {}, {}", self.every, self.polar.label()),
            stack: StackRow::new(0.02, 0.01, "SOAP-Muon for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("soap_muon", "", [false; 6], 0)],
            gain: Ok(Gain::ORTHOGONAL),
        }
    }
}

impl Rule for SoapMuonConfig {
    fn memories(&self) -> Vec<Kept> {
        std::iter::once(Kept::entries(SECOND_MOMENT)).chain(Bases::memories(LARGEST_SIDE)).collect()
    }

    fn reads_gradient(&self) -> bool {
        true
    }

    fn advance(&self, stage: Stage, memory: &mut Memory) -> Update {
        let Stage { matrix: momentum, gradient, number, .. } = stage;
        let gradient = gradient.expect("a rule that reads the gradient is given it");
        if number == 1 {
            Bases::first(&gradient, LARGEST_SIDE, Learning::Plain, self.beta2).keep(memory);
            memory.keep(SECOND_MOMENT, momentum.tensor().zeros_like());
            return self.polar.apply(momentum).into();
        }
        let mut bases = Bases::take(&gradient, memory);
        let moment = SecondMoment::new(self.beta2, self.eps);
        let whitened = momentum.map(|d| {
            let turned = bases.turn(d.clone());
            let second = moment.advance(memory.take(SECOND_MOMENT, d.dims()), turned.clone());
            let root = moment.root(second.clone(), 1.0).clamp_min(self.eps);
            memory.keep(SECOND_MOMENT, second);
            let whitened = bases.turn_back(divide_or_zero(turned, root));
            let size = divide_or_zero(frobenius_norm(d), frobenius_norm(whitened.clone()));
            whitened * size
        });
        bases.learn(gradient.tensor(), Learning::Plain, self.beta2);
        if (number - 1) % self.every == 0 {
            bases.refresh();
        }
        bases.keep(memory);
        self.polar.apply(whitened).into()
    }
}
