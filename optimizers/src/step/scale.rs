//! The factor of an update by the shape of the matrix that was processed.

use serde::{Deserialize, Serialize};

/// Factor of the update, never of the decay, by m output and n input features of the processed
/// matrix (one block, one expert).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// 1
    #[default]
    None,
    /// √max(1, m/n): Keller Jordan, torch
    Original,
    /// 0.2 √max(m, n): arXiv 2502.16982, the update has the root mean square 0.2 of AdamW's
    MatchRmsAdamw,
    /// √(m/n): arXiv 2502.07529, operator norm between root-mean-square norms
    Spectral,
}

impl Scale {
    /// The factor for m outputs and n inputs.
    ///
    /// ```
    /// use polaron::step::Scale;
    /// // a Burn `Linear` from 64 to 256 features has 256 outputs, whatever its storage
    /// assert_eq!(Scale::Original.factor(256, 64), 2.0);
    /// assert_eq!(Scale::Original.factor(64, 256), 1.0);
    /// ```
    pub fn factor(&self, outputs: usize, inputs: usize) -> f64 {
        let (m, n) = (outputs as f64, inputs as f64);
        match self {
            Scale::None => 1.0,
            Scale::Original => (m / n).max(1.0).sqrt(),
            Scale::MatchRmsAdamw => 0.2 * m.max(n).sqrt(),
            Scale::Spectral => (m / n).sqrt(),
        }
    }

    /// The factor as text, for plans.
    pub fn formula(&self) -> &'static str {
        match self {
            Scale::None => "none",
            Scale::Original => "sqrt(max(1, out/in))",
            Scale::MatchRmsAdamw => "0.2 sqrt(max(out, in))",
            Scale::Spectral => "sqrt(out/in)",
        }
    }
}
