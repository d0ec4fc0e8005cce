//! The factor of an update that depends on the shape of the processed matrix.

use super::Gain;
use crate::setting::choice;

choice! {
    /// Factor of the update, never of the decay, by m output and n input features of the processed
    /// matrix (one block, one expert).
    #[derive(Default)]
    pub enum Scale {
        /// 1
        #[default]
        None = "none",
        /// √max(1, m/n): Keller Jordan, torch
        Original = "original",
        /// 0.2 √max(m, n): arXiv 2502.16982, the update has the root mean square 0.2 of AdamW's
        MatchRmsAdamw = "match_rms_adamw",
        /// √(m/n): arXiv 2502.07529, operator norm between root-mean-square norms
        Spectral = "spectral",
    }
}

impl Scale {
    /// The factor for m outputs and n inputs.
    ///
    /// ```
    /// use polaron::rule::Scale;
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

    /// `gain` times this factor for a matrix of m outputs and n inputs.
    ///
    /// # Errors
    /// If the factor grows with the width, which the caller already accounts for.
    pub(crate) fn widen(&self, gain: Gain, [outputs, inputs]: [usize; 2]) -> Result<Gain, &'static str> {
        match self {
            Scale::None => Ok(gain),
            Scale::Original if outputs > inputs => Ok(gain.times(0.5, -0.5)),
            Scale::Original => Ok(gain),
            Scale::Spectral => Ok(gain.times(0.5, -0.5)),
            Scale::MatchRmsAdamw => {
                Err("its scale 0.2 sqrt(max(out, in)) (`match_rms_adamw`) grows with the width that muP \
                                         accounts for: choose another scale for that rule, for example matrix.scale=original")
            }
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
