//! Adding adapters of low rank to a model, and merging them into its weights.

use burn::module::Module;
#[cfg(feature = "exact")]
use polaron::layerwise::BasisChange;
use polaron::layerwise::Pattern;
use polaron::{Role, RoleHint};
use polaron_common::did_you_mean_or_list;

use crate::error::ModelError;
use crate::layers::lora::Adapted;
use crate::settings::lora::LoraSettings;
use crate::weights::parameter_table;

/// A model whose projections can have adapters.
pub trait Projections: Sized {
    /// Every projection with its path, for example `blocks.0.attn.wq`.
    fn projections(&mut self) -> Vec<(String, &mut dyn Adapted)>;
}

/// `model` with an adapter at every projection that the settings match; its outputs are still the same. The first numbers of
/// the factors depend on `seed` and the path of the projection, see the crate's front page.
///
/// To train only the adapters, add `train_only(Role::ADAPTERS)` to the optimizer's builder:
///
/// ```
/// use burn::tensor::Device;
/// use polaron::{Layerwise, Role};
/// use polaron_models::{LoraSettings, ModelConfig, with_lora};
///
/// let model = ModelConfig::preset("llama-d64")?.init(65, 1, &Device::flex().autodiff())?;
/// let model = with_lora(model, &LoraSettings::default(), 1)?;
/// let optimizer = Layerwise::adamw().roles_of(&model).train_only(Role::ADAPTERS).build(&model)?;
/// let model = optimizer.without_frozen_gradients(model);
/// assert_eq!(optimizer.plan().parameters() - optimizer.plan().frozen(), 4 * 4 * 8 * (64 + 64));
/// # let _ = model;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Those of [`LoraSettings::validate`], [`ModelError::LoraPattern`], [`ModelError::LoraWithoutPattern`],
/// [`ModelError::LoraMatchesNothing`], [`ModelError::LoraRank`].
pub fn with_lora<M: Projections>(mut model: M, settings: &LoraSettings, seed: u64) -> Result<M, ModelError> {
    settings.validate()?;
    let patterns = settings.patterns.iter().map(|pattern| Pattern::new(pattern.as_str()));
    let patterns = patterns.collect::<Result<Vec<_>, _>>().map_err(|error| ModelError::LoraPattern { error })?;
    let mut projections = model.projections();
    if patterns.is_empty() {
        return Err(ModelError::LoraWithoutPattern);
    }
    let alone = |pattern: &&Pattern| !projections.iter().any(|(path, _)| matches(pattern, path));
    if let Some(pattern) = patterns.iter().find(alone) {
        let pattern = pattern.to_string();
        let hint = did_you_mean_or_list(&pattern, names(projections.iter().map(|(path, _)| path.as_str())));
        return Err(ModelError::LoraMatchesNothing { pattern, hint });
    }
    projections.retain(|(path, _)| patterns.iter().any(|pattern| matches(pattern, path)));
    let rank = settings.rank;
    let larger = projections.iter().find(|(_, projection)| rank > projection.size().into_iter().min().unwrap_or(0));
    if let Some((path, projection)) = larger {
        let [d_in, d_out] = projection.size();
        return Err(ModelError::LoraRank { path: path.clone(), rank, d_in, d_out });
    }
    for (path, projection) in projections {
        projection.adapt(rank, settings.scale(), seed, &path);
    }
    Ok(model)
}

/// `model` with its adapters added to the weights, `W + (alpha / r) a b`, and removed; its outputs are the same up to
/// rounding.
pub fn merged<M: Projections>(mut model: M) -> M {
    model.projections().into_iter().for_each(|(_, projection)| projection.merge());
    model
}

/// `model` with other factors of every adapter (FedSVD, arXiv 2505.12805): those of
/// [`polaron::matrix::refactored`], of the same product up to rounding. The columns of a are orthonormal then, so that a
/// gradient with respect to b is not larger than that of the whole matrix, times `alpha / r`. Waits for the device.
///
/// It is meant for adapters whose a is frozen, and for an optimizer that learns of it:
///
/// ```
/// # use burn::tensor::Device;
/// # use polaron::{Layerwise, Role};
/// # use polaron_models::{LoraSettings, ModelConfig, refactored, with_lora};
/// let device = Device::flex();
/// # let model = ModelConfig::preset("llama-d64")?.init(65, 1, &device.clone().autodiff())?;
/// let model = with_lora(model, &LoraSettings::default(), 1)?;
/// let (model, _) = refactored(model); // a is orthonormal from the beginning
/// let mut optimizer = Layerwise::muon().roles_of(&model).train_only([Role::LoraB]).build(&model)?;
/// // after every k steps:
/// let (model, changes) = refactored(model);
/// optimizer.change_basis(&changes, &device)?;
/// # let _ = model;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// While only b is trained, the space of a's columns stays that of the first a: what changes is its basis. The steps of a rule
/// that turns with the basis (SGD, Muon) are the same as without, those of an entrywise one (AdamW) are others.
#[cfg(feature = "exact")]
pub fn refactored<M: Projections>(mut model: M) -> (M, Vec<BasisChange>) {
    let projections = model.projections().into_iter();
    let changed = |(path, projection): (String, &mut dyn Adapted)| {
        Some(BasisChange { path: format!("{path}.lora.b"), rotation: projection.refactor()? })
    };
    let changes = projections.filter_map(changed).collect();
    (model, changes)
}

/// Whether a pattern matches a path, or what of it is within a block.
fn matches(pattern: &Pattern, path: &str) -> bool {
    pattern.matches(path) || pattern.matches(within_block(path))
}

/// `attn.wq` of `blocks.0.attn.wq`; other paths as they are.
fn within_block(path: &str) -> &str {
    path.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')).map_or(path, |(_, inside)| inside)
}

/// The different names within blocks.
fn names<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for name in paths.map(within_block) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The roles of the factors of all adapters; none for a model without adapters.
pub(super) fn adapter_roles<M: Module>(model: &M) -> Vec<RoleHint> {
    let roles = [("a", Role::LoraA), ("b", Role::LoraB)];
    match parameter_table(model).iter().any(|info| info.path.ends_with(".lora.a")) {
        true => roles.map(|(factor, role)| RoleHint::new(format!("/\\.lora\\.{factor}$/"), role)).into(),
        false => Vec::new(),
    }
}
