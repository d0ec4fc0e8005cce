//! The re-factorisation of adapters every `train.lora.refactor_every` steps.

use burn::tensor::Device;
use polaron::LayerwiseOptimizer;
use polaron::layerwise::Plan;
use polaron_models::{Projections, refactored};

use crate::error::Error;
use crate::run::averaging::Averaging;
use crate::settings::config::Config;

/// `model` with other factors of the same adapters, if that is due after `step` steps; the states of the optimizer and the
/// average follow.
///
/// # Errors
///
/// A model that is not the one of the optimizer.
pub fn refactor_if_due<M: Projections>(
    config: &Config,
    step: u64,
    model: M,
    optimizer: &mut LayerwiseOptimizer,
    averaging: Option<&mut Averaging>,
    device: &Device,
) -> Result<M, Error> {
    if !config.refactors(step) {
        return Ok(model);
    }
    let (model, changes) = refactored(model);
    optimizer.change_basis(&changes, device)?;
    if let Some(averaging) = averaging {
        averaging.change_basis(&changes, device)?;
    }
    Ok(model)
}

/// What happens to the states of the second factors, in words.
pub fn states(plan: &Plan) -> String {
    let factors = || plan.entries().iter().filter(|entry| entry.path.ends_with(".lora.b"));
    let kinds = |turns: bool| {
        let mut kinds: Vec<String> = Vec::new();
        for entry in factors().filter(|entry| entry.turns() == turns) {
            let kind = entry.optimizer.kind().map_or_else(|| entry.label(), str::to_string);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds.join(", ")
    };
    match (kinds(true), kinds(false)) {
        (turning, anew) if anew.is_empty() => format!("the momentum of b ({turning}) turns with it"),
        (turning, anew) if turning.is_empty() => format!("the state of b ({anew}) begins anew each time"),
        (turning, anew) => {
            format!(
                "the momentum of b turns with it where it has {turning}, and its state begins anew where it has {anew}"
            )
        }
    }
}
