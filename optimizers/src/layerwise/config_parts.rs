//! The sections of the `[optimizer]` table: AdamW outside of the main rule, and the rates of the unit-norm rules at the edges.

use serde::{Deserialize, Serialize};

use super::rule::Rate;
use crate::setting::ConfigError;

/// The AdamW part of a stack. Under `adamw` itself only the betas, eps and `decay_vectors` are used.
///
/// ```
/// use polaron::layerwise::LayerwiseConfig;
///
/// // One learning rate and one decay for everything, as Moonlight has them: AdamW follows the rate of the main rule.
/// let config = LayerwiseConfig::from_toml(r#"
///     lr = 2e-3
///     weight_decay = 0.1
///     matrix = { scale = "match_rms_adamw" }
///     adamw = { lr_ratio = 1.0, weight_decay = 0.1, decay_vectors = true }
/// "#)?;
/// assert_eq!(config.adamw.rate(config.lr), 2e-3);
/// # Ok::<(), polaron::layerwise::LayerwiseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "AdamWKeys", into = "AdamWKeys")]
pub struct AdamWPart {
    /// Learning rate; not used, and not written, with `lr_ratio`.
    pub lr: f64,
    /// Learning rate as a multiple of that of the main rule, in place of `lr`: a file has one of both.
    pub lr_ratio: Option<f64>,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay of embeddings, head and router.
    pub weight_decay: f64,
    /// Whether gains and biases decay as well: as embeddings, or in a stack of one kind as everything else.
    pub decay_vectors: bool,
}

impl Default for AdamWPart {
    /// lr 1e-3, betas (0.9, 0.99), eps 1e-8, no decay.
    fn default() -> Self {
        Self { lr: 1e-3, lr_ratio: None, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, decay_vectors: false }
    }
}

impl AdamWPart {
    /// The learning rate beside a main rule with this one.
    pub fn rate(&self, main: f64) -> f64 {
        self.lr_ratio.map_or(self.lr, |ratio| ratio * main)
    }
}

/// The keys of [`AdamWPart`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdamWKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lr: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lr_ratio: Option<f64>,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    decay_vectors: bool,
}

impl TryFrom<AdamWKeys> for AdamWPart {
    type Error = ConfigError;

    fn try_from(keys: AdamWKeys) -> Result<Self, ConfigError> {
        let AdamWKeys { lr, lr_ratio, beta1, beta2, eps, weight_decay, decay_vectors } = keys;
        let lr = one_of(("adamw.lr", lr), ("adamw.lr_ratio", lr_ratio), Self::default().lr)?;
        Ok(Self { lr, lr_ratio, beta1, beta2, eps, weight_decay, decay_vectors })
    }
}

impl From<AdamWPart> for AdamWKeys {
    fn from(part: AdamWPart) -> Self {
        let AdamWPart { lr, lr_ratio, beta1, beta2, eps, weight_decay, decay_vectors } = part;
        Self { lr: lr_ratio.is_none().then_some(lr), lr_ratio, beta1, beta2, eps, weight_decay, decay_vectors }
    }
}

/// Learning rates of the unit-norm rules of `symmetric`, each in one of two forms: the distance that every unit moves in a
/// step (`_lr`), or the root mean square of the change of its entries (`_rms`), which means the same at every width: the
/// rate is `rms √d` for units of d entries. (With [`Layerwise::width`](super::Layerwise::width) it is that of the base
/// width, and the width rule follows.)
///
/// The defaults are distances. Measured at d 64 over 300 steps (embedding and head, llama) and 120 steps (router, olmoe),
/// `embedding_rms = 6e-3` and `head_rms = 1.25e-3` are about the default rates there and the best of those tried; a router
/// learns faster with `router_rms = 2e-3` (8e-3 was the best rate tried, but loads were less balanced) than with its default,
/// which is that of the paper for d 2048, 1.7e-5 per entry.
///
/// ```
/// use polaron::layerwise::LayerwiseConfig;
///
/// let config = LayerwiseConfig::from_toml(r#"
///     stack = "symmetric"
///     edges = { embedding_rms = 6e-3, head_rms = 1.25e-3, router_rms = 2e-3 }
/// "#)?;
/// assert_eq!(config.edges.unwrap().router_rms, Some(2e-3));
/// # Ok::<(), polaron::layerwise::LayerwiseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "EdgeKeys", into = "EdgeKeys")]
pub struct EdgesPart {
    /// Embeddings, tied ones too; not used, and not written, with `embedding_rms`.
    pub embedding_lr: f64,
    /// The same as root mean square of a token's entries, in place of `embedding_lr`.
    pub embedding_rms: Option<f64>,
    /// Untied head; not used, and not written, with `head_rms`.
    pub head_lr: f64,
    /// The same as root mean square of a token's entries, in place of `head_lr`.
    pub head_rms: Option<f64>,
    /// Router; not used, and not written, with `router_rms`.
    pub router_lr: f64,
    /// The same as root mean square of an expert's entries, in place of `router_lr`.
    pub router_rms: Option<f64>,
}

impl Default for EdgesPart {
    /// Distances of 0.05, 0.01, 7.5e-4.
    fn default() -> Self {
        let [embedding_rms, head_rms, router_rms] = [None; 3];
        Self { embedding_lr: 0.05, embedding_rms, head_lr: 0.01, head_rms, router_lr: 7.5e-4, router_rms }
    }
}

impl EdgesPart {
    pub(super) fn embedding(&self) -> Rate {
        self.embedding_rms.map_or(Rate::Lr(self.embedding_lr), Rate::UnitRms)
    }

    pub(super) fn head(&self) -> Rate {
        self.head_rms.map_or(Rate::Lr(self.head_lr), Rate::UnitRms)
    }

    pub(super) fn router(&self) -> Rate {
        self.router_rms.map_or(Rate::Lr(self.router_lr), Rate::UnitRms)
    }
}

/// The keys of [`EdgesPart`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    embedding_lr: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    embedding_rms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_lr: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_rms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    router_lr: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    router_rms: Option<f64>,
}

impl TryFrom<EdgeKeys> for EdgesPart {
    type Error = ConfigError;

    fn try_from(keys: EdgeKeys) -> Result<Self, ConfigError> {
        let EdgeKeys { embedding_lr, embedding_rms, head_lr, head_rms, router_lr, router_rms } = keys;
        let Self { embedding_lr: embedding, head_lr: head, router_lr: router, .. } = Self::default();
        Ok(Self {
            embedding_lr: one_of(
                ("edges.embedding_lr", embedding_lr),
                ("edges.embedding_rms", embedding_rms),
                embedding,
            )?,
            embedding_rms,
            head_lr: one_of(("edges.head_lr", head_lr), ("edges.head_rms", head_rms), head)?,
            head_rms,
            router_lr: one_of(("edges.router_lr", router_lr), ("edges.router_rms", router_rms), router)?,
            router_rms,
        })
    }
}

impl From<EdgesPart> for EdgeKeys {
    fn from(part: EdgesPart) -> Self {
        let EdgesPart { embedding_lr, embedding_rms, head_lr, head_rms, router_lr, router_rms } = part;
        Self {
            embedding_lr: embedding_rms.is_none().then_some(embedding_lr),
            embedding_rms,
            head_lr: head_rms.is_none().then_some(head_lr),
            head_rms,
            router_lr: router_rms.is_none().then_some(router_lr),
            router_rms,
        }
    }
}

/// A value that a file gives by one of two keys: the first one's, and `unused` if it is the second.
fn one_of(first: (&str, Option<f64>), second: (&str, Option<f64>), unused: f64) -> Result<f64, ConfigError> {
    let ((key, value), (other, second)) = (first, second);
    match (value, second) {
        (Some(value), None) => Ok(value),
        (None, Some(_)) => Ok(unused),
        (Some(_), Some(_)) => Err(ConfigError::value(key, format!("cannot stand beside {other}: give one of them"))),
        (None, None) => Err(ConfigError::value(key, format!("is missing: give it or {other}"))),
    }
}
