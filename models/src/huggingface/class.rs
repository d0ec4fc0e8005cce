//! What must be said about a model class of `transformers`.

use serde_json::{Map, Value};

use super::keys::Keys;
use super::link::Link;
use crate::error::ModelError;
use crate::settings::choices::FeedForwardKind;
use crate::settings::model::ModelConfig;

/// A model class. Each has a file in `classes` and a line in its list.
#[derive(Debug)]
pub(super) struct Class {
    /// `model_type` in its `config.json`.
    pub model_type: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The preset that is most like it. Keys that are not `free` must have the preset's values.
    pub preset: &'static str,
    /// Whether a model that is none of the classes before it in the list is most like it.
    pub resembles: fn(&ModelConfig) -> bool,
    /// Keys of the model that it can follow besides those of [`ALWAYS_FREE`].
    pub free: &'static [&'static str],
    /// The key of its nonlinearity, and the values that the decoder knows; the first of a kind is written.
    pub activation: (&'static str, &'static [(&'static str, FeedForwardKind)]),
    /// Its default for a missing `vocab_size`.
    pub vocab_size: usize,
    /// The settings of a `config.json`, starting from those of the preset.
    pub read: fn(&Keys, ModelConfig) -> Result<ModelConfig, ModelError>,
    /// Checks what no single key decides: key, value and what is needed of the first that does not hold.
    pub unmet: fn(&ModelConfig) -> Option<(&'static str, String, String)>,
    /// The keys of a `config.json` that are of this class.
    pub write: fn(&ModelConfig) -> Map<String, Value>,
    /// Its tensors, in the form in which they are published.
    pub links: fn(&ModelConfig, usize) -> Vec<Link>,
    /// Other forms, which are read too.
    pub other_links: fn(&ModelConfig) -> Vec<Link>,
    /// With what all names of tensors but the head's begin; files of the model without its head leave it out.
    pub prefix: &'static str,
    /// Ends of the names of tensors that are computed, not trained.
    pub buffers: &'static [&'static str],
}

/// Keys that every class can follow, or that only matter in training.
pub(super) const ALWAYS_FREE: &[&str] = &[
    "attention_bias",
    "aux_load_balance",
    "aux_z",
    "base_width",
    "context",
    "d_model",
    "head_dim",
    "heads",
    "hidden",
    "kv_heads",
    "layers",
    "norm_eps",
    "preset",
    "vocab_size",
    "projection",
    "rope_base",
    "rope_base_sliding",
    "sliding_window",
    "tied_head",
];

/// No other forms.
pub(super) fn no_links(_: &ModelConfig) -> Vec<Link> {
    Vec::new()
}

/// The nonlinearities of classes with a gate.
pub(super) const GATED: (&str, &[(&str, FeedForwardKind)]) = (
    "hidden_act",
    &[
        ("silu", FeedForwardKind::SwiGlu),
        ("swish", FeedForwardKind::SwiGlu),
        ("gelu_pytorch_tanh", FeedForwardKind::GeGlu),
        ("gelu_new", FeedForwardKind::GeGlu),
    ],
);

/// A buffer of all classes with rotary positions.
pub(super) const ROTARY_BUFFERS: &[&str] = &["rotary_emb.inv_freq"];
