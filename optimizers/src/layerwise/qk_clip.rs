//! QK-clip (MuonClip, arXiv 2507.20534): reduces attention logits that grow too large by scaling down the weights.
//!
//! ```text
//! S_h = largest attention logit of head h in the last batch, after the division by √d_head
//! if S_h > τ:  γ = τ / S_h,   W_q^h ← √γ W_q^h,   W_k^h ← √γ W_k^h
//! ```
//!
//! Only the output units of that head change, biases included; values, momentum and other heads are unchanged.
//! With grouped keys (fewer key heads than query heads) all of γ is applied to the query, as key heads are shared.
//! Queries, keys and values may be one projection: then only the columns of those queries and keys change.
//!
//! Caution: this treats a symptom. It has no effect if queries and keys are normalised (QK-norm), and a
//! threshold that is often exceeded increases the loss: in modded-nanogpt 10 gave 3.32 and 1 gave 3.35, against 3.28
//! without. The published threshold is 100. Off by default.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::{LayerwiseError, QkClipError};
use crate::visit::{Paths, Walk, follow, map_outside_graph};

/// The largest logits of one attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadLogits {
    /// Path of the query projection, without the field: `blocks.0.attn.wq`.
    pub query: String,
    /// Path of the key projection. The same as that of the queries if both are in one projection, whose outputs are the heads of
    /// the queries, then those of the keys, then as many of the values, all equally wide.
    pub key: String,
    /// Number of key heads; divides the number of query heads.
    pub key_heads: usize,
    /// Largest logit of every query head.
    pub largest: Vec<f64>,
}

/// Scales down the heads whose logits were above `threshold`; returns the module and the number of these heads.
///
/// Weights are stored `[d_in, d_out]` (Burn's `Linear`), biases `[d_out]`. Call it after the optimizer's step.
///
/// A threshold of 0 is off.
///
/// # Errors
/// If the module has no projection at a path, heads do not divide its outputs, a logit is not finite, or the threshold is
/// negative or not finite.
pub fn clip_heads<M: Module>(module: M, logits: &[HeadLogits], threshold: f64) -> Result<(M, usize), LayerwiseError> {
    let Some(threshold) = LayerwiseError::check_threshold("qk_clip", Some(threshold))? else {
        return Ok((module, 0));
    };
    if let Some(layer) = logits.iter().find(|layer| layer.largest.iter().any(|logit| !logit.is_finite())) {
        return Err(QkClipError::NotFinite { path: layer.query.clone() }.into());
    }
    let mut cuts = Vec::new();
    for layer in logits {
        cuts.extend(layer.cuts(threshold)?);
    }
    if cuts.is_empty() {
        return Ok((module, 0));
    }
    let clipped = logits.iter().flat_map(|layer| &layer.largest).filter(|logit| **logit > threshold).count();
    let paths = Paths::new(cuts.iter().map(|cut| cut.path.as_str()));
    let mut mapper = Clip { walk: paths.walk(), cuts, failure: None };
    let module = module.map(&mut mapper);
    let unused = mapper.cuts.iter().find(|cut| !cut.applied).map(|cut| cut.path.clone());
    match (mapper.failure, unused) {
        (Some(failure), _) => Err(failure.into()),
        (None, Some(path)) => Err(QkClipError::NoProjection { path }.into()),
        (None, None) => Ok((module, clipped)),
    }
}

/// Factors of the heads of one projection.
struct Cut {
    path: String,
    factors: Vec<f64>,
    applied: bool,
}

impl HeadLogits {
    fn cuts(&self, threshold: f64) -> Result<Vec<Cut>, QkClipError> {
        let heads = self.largest.len();
        if self.key_heads == 0 || !heads.is_multiple_of(self.key_heads) {
            let Self { query, key_heads, .. } = self;
            return Err(QkClipError::KeyHeads { path: query.clone(), key_heads: *key_heads, heads });
        }
        let gamma = |logit: &f64| if *logit > threshold { threshold / logit } else { 1.0 };
        let gammas: Vec<f64> = self.largest.iter().map(gamma).collect();
        if gammas.iter().all(|gamma| *gamma == 1.0) {
            return Ok(Vec::new());
        }
        let unchanged = vec![1.0; self.key_heads];
        let (of_queries, of_keys) = if self.key_heads < heads {
            (gammas, unchanged.clone())
        } else {
            let roots: Vec<f64> = gammas.iter().map(|gamma| gamma.sqrt()).collect();
            (roots.clone(), roots)
        };
        let cut = |path: &str, factors| Cut { path: path.to_string(), factors, applied: false };
        if self.query == self.key {
            return Ok(vec![cut(&self.query, [of_queries, of_keys, unchanged].concat())]);
        }
        let cuts = [cut(&self.query, of_queries), cut(&self.key, of_keys)];
        Ok(cuts.into_iter().filter(|cut| cut.factors.iter().any(|factor| *factor != 1.0)).collect())
    }
}

struct Clip<'a> {
    cuts: Vec<Cut>,
    walk: Walk<'a>,
    failure: Option<QkClipError>,
}

impl ModuleMapper for Clip<'_> {
    follow!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(number) = self.walk.holder() else {
            return param;
        };
        let cut = &mut self.cuts[number];
        let outputs = param.lazy_shape().as_slice()[D - 1];
        if !outputs.is_multiple_of(cut.factors.len()) {
            self.failure = Some(QkClipError::Heads { path: cut.path.clone(), heads: cut.factors.len(), outputs });
            return param;
        }
        cut.applied = true;
        let factors = cut.factors.clone();
        let (id, tensor, mapper) = param.consume();
        let tensor = map_outside_graph(tensor, |tensor| scale_heads(tensor, &factors));
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// Multiplies the last axis, in equal parts; parts with factor 1 keep their bits.
fn scale_heads<const D: usize>(tensor: Tensor<D>, factors: &[f64]) -> Tensor<D> {
    let width = tensor.dims()[D - 1] / factors.len();
    let parts = factors.iter().enumerate().map(|(head, factor)| {
        let part = tensor.clone().narrow(D - 1, head * width, width);
        if *factor == 1.0 { part } else { part * *factor }
    });
    Tensor::cat(parts.collect(), D - 1)
}
