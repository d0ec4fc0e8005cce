//! The energy of the momentum of all parameters whose rule has one.

use super::energy_error::EnergyError;
use super::{LayerwiseError, LayerwiseOptimizer, PlanEntry};
use crate::rule::Energy;

impl LayerwiseOptimizer {
    /// The energy of smoothed Muon after the last step (arXiv 2605.23871), for the parameters updated by `regularized_muon`, and
    /// by `muon`, whose level is 0:
    ///
    /// ```text
    /// kinetic    = Σ lr scale / (1-μ) ψ(M),  ψ(M) = Σ √(s² + l²) - l over the singular values s of M
    /// dissipated = Σ lr scale ⟨h(M), M⟩,     h: s → s / √(s² + l²)
    /// ```
    ///
    /// M is the average of gradients; of `heavy_ball` it is the buffer times 1-μ. A relative `eps` gives the level of this M. The
    /// sum of the loss over the full batch and `kinetic` cannot rise in the limit of small steps and 1-μ, as far as no other
    /// parameters move; with `nesterov` the direction is not quite that of M. All values are 0 before the first step.
    ///
    /// `factor` is that of the last step; if the plan has schedules of its own, call [`set_step`](Self::set_step) with the number
    /// of that step before. Copies the momentum to the host and decomposes it.
    ///
    /// # Errors
    /// If no parameter has such a rule, or one of them has a weight decay, a `norm_control`, a `second_moment` or no momentum,
    /// or there is a wrapper.
    pub fn energy(&self, factor: f64) -> Result<Energy, LayerwiseError> {
        if let Some(wrapper) = self.plan().wrapper() {
            return Err(EnergyError::Wrapped { wrapper: wrapper.kind() }.into());
        }
        let trained = self.plan().entries().iter().filter(|entry| !entry.is_frozen());
        let known = trained.map(has_energy).collect::<Result<Vec<bool>, _>>()?;
        if !known.contains(&true) {
            return Err(EnergyError::Nothing.into());
        }
        let (groups, when) = self.groups_at(factor);
        Ok(groups.iter().map(|group| group.energy(&when)).sum())
    }
}

/// Whether a parameter has an energy.
fn has_energy(entry: &PlanEntry) -> Result<bool, EnergyError> {
    let Some(config) = entry.config().filter(|config| config.smoothing().is_some()) else { return Ok(false) };
    let Some((option, remedy)) = config.pipeline().option_without_energy() else { return Ok(true) };
    Err(EnergyError::Option { path: entry.path.clone(), optimizer: config.kind().into(), option, remedy })
}
