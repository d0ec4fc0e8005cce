//! Random singular values (theory variant after theorem 2.5 of arXiv 2605.11181; not the paper's Kaon).
//!
//! ```text
//! M = P diag(s) Qᵀ   →   U = scale · P diag(ρ) Qᵀ,   ρ_i independent, uniform on [low, high]
//! ```
//!
//! **Singular values**: noise, independent of those of the momentum; directions that the momentum
//! does not contain (below 1e-5 of the largest) stay 0.
//!
//! **When**: as a control. If it trains nearly as well as Muon, the exact spectrum is not what
//! matters. Cost: a host decomposition by its nature: every singular value gets a number of its own, which no polynomial does.
//!
//! The draws come from a counter: seed, path of the parameter, step, position in the stack of experts and blocks, and index
//! decide them, so a resumed run draws the same numbers as a run without interruption, however parameters are stacked.
//! Only a plan ([`Layerwise`](crate::Layerwise)) knows paths: in an optimizer without one, parameters of the same shape with
//! the same seed share their draws.

use polaron_common::splitmix64;
use serde_json::{Value, json};

use crate::matrix::map_singular_values;
use crate::rule::{
    About, Cost, Gain, Kind, Memory, Pipeline, Rule, StackRow, Stage, SymmetryRow, Update, kind_settings,
};
use crate::setting::{ConfigError, Numbers, Setting, choice};

/// Singular values below this share of the largest count as 0.
const NOISE: f64 = 1e-5;

choice! {
    /// Whether parameters of one shape share their draws.
    #[derive(Default)]
    pub enum Draws {
        /// Every parameter of a plan has its own, which follow from its path: the independent draws of the theorem.
        #[default]
        ByPath = "by_path",
        /// They share them: the same noise in all layers, as in the first version.
        Shared = "shared",
    }
}

kind_settings! {
    /// Settings of RandomSpectrum, and the rule itself.
    pub struct RandomSpectrumConfig {
        momentum: 0.95, Ema, nesterov: false, scale: None;
        /// Smallest singular value, at least 0.
        low, with_low: f64 = 0.5, in Numbers::SIZE;
        /// Largest singular value, at least `low`.
        high, with_high: f64 = 1.5, in Numbers::SIZE;
        /// Seed of the draws.
        seed, with_seed: u64 = 0, in 0..=u64::MAX;
        /// Whether parameters of one shape share their draws.
        draws, with_draws: Draws = Draws::ByPath;
    }
}

impl Kind for RandomSpectrumConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        let Self { low, high, .. } = self;
        About {
            formula: self.formula(&format!("d = P diag(s) Qᵀ → U = P diag(ρ) Qᵀ, ρ uniform on [{low}, {high}]")),
            source: "after theorem 2.5 of arXiv 2605.11181",
            cost: Cost::host(""),
            detail: format!("{low} to {high}"),
            stack: StackRow::new(0.02, 0.01, "random singular values for the matrices, AdamW for the rest"),
            symmetries: vec![SymmetryRow::new("random_spectrum", "", SymmetryRow::SPECTRAL, 0)],
            gain: Ok(Gain::ORTHOGONAL),
        }
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("draws", json!(Draws::Shared)))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.low.check("random_spectrum.low", &Numbers::from_to(0.0, self.high))
    }
}

impl Rule for RandomSpectrumConfig {
    fn advance(&self, Stage { matrix: momentum, number, streams, .. }: Stage, _memory: &mut Memory) -> Update {
        let direction = momentum.map(|m| {
            let of_a_parameter = m.dims()[0] / streams.len();
            map_singular_values(m, |matrix, s| {
                let position = (matrix % of_a_parameter) as u64;
                let path = match self.draws {
                    Draws::ByPath => streams[matrix / of_a_parameter],
                    Draws::Shared => 0,
                };
                let stream = splitmix64(splitmix64(splitmix64(self.seed) ^ path ^ number) ^ position);
                let largest = s.first().copied().unwrap_or(0.0);
                s.iter()
                    .enumerate()
                    .map(|(i, s)| if *s > NOISE * largest { self.draw(stream.wrapping_add(i as u64)) } else { 0.0 })
                    .collect()
            })
        });
        direction.into()
    }
}

impl RandomSpectrumConfig {
    fn draw(&self, counter: u64) -> f64 {
        // 53 bits make a number in [0, 1) that f64 holds exactly.
        let unit = (splitmix64(counter) >> 11) as f64 / (1_u64 << 53) as f64;
        self.low + (self.high - self.low) * unit
    }
}
