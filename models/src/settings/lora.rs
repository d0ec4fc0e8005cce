//! The settings of adapters of low rank.

use serde::{Deserialize, Serialize};

use super::keys::{above_zero, at_least_one};
use crate::error::ModelError;

/// Which projections have an adapter of low rank (LoRA, arXiv 2106.09685), and of which size: `y = x W + (alpha / r) x a b`.
///
/// ```
/// let lora: polaron_models::LoraSettings = toml::from_str("rank = 4\nmatch = [\"attn.*\", \"mlp.down\"]")?;
/// assert_eq!((lora.rank, lora.alpha), (4, 16.0));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// r: columns of a, rows of b; at most the smaller side of every matrix that has an adapter.
    pub rank: usize,
    /// Numerator of the factor `alpha / r`.
    pub alpha: f64,
    /// Globs or `/regex/` on the paths of projections, whole (`blocks.0.attn.wq`) or within their block (`attn.wq`).
    #[serde(rename = "match")]
    pub patterns: Vec<String>,
    /// Steps between two re-factorisations (`refactored`, with the feature `exact`), which the training loop makes; 0, the default,
    /// makes none.
    #[serde(skip_serializing_if = "is_zero")]
    pub refactor_every: u64,
}

fn is_zero(steps: &u64) -> bool {
    *steps == 0
}

impl Default for LoraSettings {
    /// Rank 8 and alpha 16, for all projections of the attention.
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, patterns: vec!["attn.*".into()], refactor_every: 0 }
    }
}

impl LoraSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// [`ModelError::Zero`], [`ModelError::OutOfRange`].
    pub fn validate(&self) -> Result<(), ModelError> {
        at_least_one("lora.rank", self.rank)?;
        above_zero("lora.alpha", self.alpha)
    }

    /// `alpha / r`.
    pub(crate) fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}
