//! The metrics of the routers of a mixture of experts in a validation.

use polaron_models::RouterMetrics;
use serde::{Deserialize, Serialize};

/// The metrics of the routers in a validation: each is computed for every batch, then averaged over the batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterReport {
    /// Means over the routers.
    #[serde(flatten)]
    pub mean: RouterMetrics,
    /// The router of every block, first to last.
    pub layers: Vec<RouterMetrics>,
}

impl RouterReport {
    /// The report on batches, each with the metrics of every router; None without routers.
    pub fn of_batches(batches: &[Vec<RouterMetrics>]) -> Option<Self> {
        let routers = batches.first()?.len();
        let layer = |index: usize| {
            let of_all: Vec<RouterMetrics> = batches.iter().filter_map(|batch| batch.get(index).copied()).collect();
            RouterMetrics::mean(&of_all)
        };
        let layers = (0..routers).map(layer).collect::<Option<Vec<_>>>()?;
        Some(Self { mean: RouterMetrics::mean(&layers)?, layers })
    }
}
