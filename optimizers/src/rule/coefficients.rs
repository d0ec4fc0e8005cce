//! The steps of a polynomial iteration, by name or as numbers.

use serde::{Deserialize, Serialize};

use crate::matrix::NEWTON_SCHULZ;
use crate::setting::choice;

choice! {
    /// Published lists of coefficients.
    pub enum CoefficientList {
        /// Five steps into 0.98 to 1.03 on [1e-2, 1]: You Jiacheng, also of `optax` (`dion`) and Emerging-Optimizers.
        Quintic = "quintic",
        /// Eight steps of Muon, then two of `stable12`, into 1 to 1.0006 on [1e-3, 1]: DeepSeek-V4.
        DeepseekV4 = "deepseekv4",
        /// Twelve times `2 s - 1.5 s³ + 0.5 s⁵`, into 1 ± 5e-6 on [1e-3, 1]: the baseline of modded-nanogpt's track 3.
        Stable12 = "stable12",
        /// Five steps without a fifth power, 2 products each instead of 3, into 0.77 to 1.3 on [1e-2, 1]: arXiv 2606.00371.
        /// Above 1.0035 the map is negative, so the default of `norm_factor` is 1.01.
        Cubic5 = "cubic5",
        /// Four steps for `precondition = "aol"`, into 0.94 to 1.05 on [1e-2, 1]: Turbo-Muon, arXiv 2512.04632. The list that
        /// Emerging-Optimizers calls `aol` is an older one that flips the sign of large singular values.
        Aol = "aol",
    }
}

const STABLE: [f64; 3] = [2.0, -1.5, 0.5];

impl CoefficientList {
    pub(super) const ALL: [Self; 5] = [Self::Quintic, Self::DeepseekV4, Self::Stable12, Self::Cubic5, Self::Aol];

    /// `[a, b, c]` of every step.
    pub fn rows(self) -> Vec<[f64; 3]> {
        match self {
            Self::Quintic => vec![
                [4.0848, -6.8946, 2.9270],
                [3.9505, -6.3029, 2.6377],
                [3.7418, -5.5913, 2.3037],
                [2.8769, -3.1427, 1.2046],
                [2.8366, -3.0525, 1.2012],
            ],
            Self::DeepseekV4 => [vec![NEWTON_SCHULZ; 8], vec![STABLE; 2]].concat(),
            Self::Stable12 => vec![STABLE; 12],
            Self::Cubic5 => vec![
                [3.3656576, -3.3420992, 0.0],
                [2.5744352, -1.4957376, 0.0],
                [2.5368962, -1.4312570, 0.0],
                [2.4418906, -1.2764040, 0.0],
                [2.2230472, -0.9630650, 0.0],
            ],
            Self::Aol => vec![
                [4.6051, -9.6552, 5.6769],
                [4.7505, -6.0861, 2.1790],
                [2.7763, -2.3190, 0.5523],
                [2.4231, -2.2861, 0.8193],
            ],
        }
    }

    /// By how much singular values must stay below 1.
    pub(super) fn norm_factor(self) -> f64 {
        match self {
            Self::Cubic5 => 1.01,
            Self::Quintic | Self::DeepseekV4 | Self::Stable12 | Self::Aol => 1.0,
        }
    }
}

/// The steps of [`Polar::Polynomial`](super::Polar::Polynomial): in configurations a name, or one `[a, b, c]` per step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Coefficients {
    /// A published list.
    Named(CoefficientList),
    /// Any list.
    Given(Vec<[f64; 3]>),
}

impl Coefficients {
    /// `[a, b, c]` of every step.
    pub fn rows(&self) -> Vec<[f64; 3]> {
        match self {
            Self::Named(schedule) => schedule.rows(),
            Self::Given(rows) => rows.clone(),
        }
    }
}

impl From<CoefficientList> for Coefficients {
    fn from(schedule: CoefficientList) -> Self {
        Self::Named(schedule)
    }
}

impl From<Vec<[f64; 3]>> for Coefficients {
    fn from(rows: Vec<[f64; 3]>) -> Self {
        Self::Given(rows)
    }
}
