//! What the classes with rotary positions share: keys, and the tensors of attention and dense layers.

use serde_json::{Map, Value, json};

use super::keys::Keys;
use super::link::{Link, Place};
use super::rope;
use crate::error::ModelError;
use crate::settings::choices::{ProjectionKind, QkNormKind};
use crate::settings::model::ModelConfig;

/// What a class takes for missing keys.
pub(super) struct Defaults {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// None: as many as `heads`.
    pub kv_heads: Option<usize>,
    /// None: `hidden_size / heads`.
    pub head_dim: Option<usize>,
    pub context: usize,
    pub norm_eps: f64,
    pub attention_bias: bool,
    pub tied: bool,
}

/// The keys that all of these classes have, over `preset`.
pub(super) fn read(keys: &Keys, preset: ModelConfig, defaults: &Defaults) -> Result<ModelConfig, ModelError> {
    let mut config = preset;
    config.d_model = keys.size("hidden_size", defaults.hidden_size)?;
    config.hidden = keys.size("intermediate_size", defaults.intermediate_size)?;
    config.layers = keys.count("num_hidden_layers", defaults.layers)?;
    config.heads = keys.size("num_attention_heads", defaults.heads)?;
    config.context = keys.size("max_position_embeddings", defaults.context)?;
    config.base_width = config.d_model;
    config.norm_eps = keys.number("rms_norm_eps", defaults.norm_eps)?;
    config.attention_bias = keys.flag("attention_bias", defaults.attention_bias)?;
    config.tied_head = keys.flag("tie_word_embeddings", defaults.tied)?;
    let missing = if keys.is_null("num_key_value_heads") { None } else { defaults.kv_heads };
    let kv_heads = keys.size("num_key_value_heads", missing.unwrap_or(config.heads))?;
    let head_dim = keys.size("head_dim", defaults.head_dim.unwrap_or(config.d_model / config.heads))?;
    set_heads(&mut config, kv_heads, head_dim);
    Ok(config)
}

/// Sets key heads and head dimension, as 0 where that means the same.
pub(super) fn set_heads(config: &mut ModelConfig, kv_heads: usize, head_dim: usize) {
    config.kv_heads = if kv_heads == config.heads { 0 } else { kv_heads };
    config.head_dim = if config.heads.saturating_mul(head_dim) == config.d_model { 0 } else { head_dim };
}

/// The same keys of a model.
pub(super) fn write(config: &ModelConfig) -> Map<String, Value> {
    let keys = [
        ("hidden_size", json!(config.d_model)),
        ("intermediate_size", json!(config.hidden)),
        ("num_hidden_layers", json!(config.layers)),
        ("num_attention_heads", json!(config.heads)),
        ("num_key_value_heads", json!(config.kv_heads())),
        ("head_dim", json!(config.head_dim())),
        ("max_position_embeddings", json!(config.context)),
        ("rms_norm_eps", json!(config.norm_eps)),
        ("rope_theta", json!(config.rope_base)),
        ("rope_parameters", rope::written(config.rope_base)),
        ("attention_bias", json!(config.attention_bias)),
        ("tie_word_embeddings", json!(config.tied_head)),
    ];
    keys.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}

/// The first of these conditions that does not hold: key, value, what is needed.
pub(super) fn first_unmet<const N: usize>(
    conditions: [(bool, &'static str, String, &str); N],
) -> Option<(&'static str, String, String)> {
    let unmet = conditions.into_iter().find(|(holds, ..)| !holds);
    unmet.map(|(_, key, value, needed)| (key, value, needed.to_owned()))
}

/// Heads that are cut from the width, for classes that check it.
pub(super) fn width_in_heads(config: &ModelConfig) -> (bool, &'static str, String, &'static str) {
    let holds = config.d_model.is_multiple_of(config.heads);
    (holds, "d_model", config.d_model.to_string(), "it needs a multiple of `heads`")
}

/// Heads that fill the width, for classes whose heads always do.
pub(super) fn heads_fill_the_width(config: &ModelConfig) -> (bool, &'static str, String, &'static str) {
    let holds = config.query_width() == config.d_model;
    (holds, "head_dim", config.head_dim().to_string(), "it needs `d_model` / `heads`")
}

/// One base for all layers, for classes that have only one.
pub(super) fn one_base(config: &ModelConfig) -> (bool, &'static str, String, &'static str) {
    let holds = config.full_every == 1 || config.sliding_base() == config.rope_base;
    (holds, "rope_base_sliding", config.rope_base_sliding.to_string(), "it needs 0 or the value of `rope_base`")
}

/// A part of the output units of an attention projection.
pub(super) struct Projection {
    /// Path below a block.
    pub path: &'static str,
    /// Its output units, and of these the first and the number that belong to the part.
    pub outputs: usize,
    pub first: usize,
    pub count: usize,
}

/// Where queries, keys and values are.
pub(super) fn projections(config: &ModelConfig) -> [Projection; 3] {
    let (query, key) = (config.query_width(), config.key_width());
    let alone = |path, count| Projection { path, outputs: count, first: 0, count };
    let part = |first, count| Projection { path: "attn.qkv", outputs: query + 2 * key, first, count };
    match config.projection {
        ProjectionKind::Fused => [part(0, query), part(query, key), part(query + key, key)],
        ProjectionKind::Separate => [alone("attn.wq", query), alone("attn.wk", key), alone("attn.wv", key)],
    }
}

/// Collects links.
#[derive(Default)]
pub(super) struct Links(pub Vec<Link>);

/// Norms before the layers of a block: their names, and ours.
pub(super) const PRE_NORMS: [(&str, &str); 2] = [("input_layernorm", "norm1"), ("post_attention_layernorm", "norm2")];

/// The tensors of a decoder with [`PRE_NORMS`] and without experts.
pub(super) fn dense_links(config: &ModelConfig, vocab_size: usize) -> Vec<Link> {
    let mut links = Links::default();
    links.outside_feed_forward(config, vocab_size, &PRE_NORMS);
    links.dense(config);
    links.0
}

impl Links {
    /// A whole tensor that is the same in both.
    pub fn same(&mut self, theirs: impl Into<String>, ours: impl Into<String>, shape: &[usize]) {
        let (theirs, ours) = (Place::whole(theirs, shape), Place::whole(ours, shape));
        let size = match *shape {
            [inputs, outputs] => [1, inputs, outputs],
            [experts, inputs, outputs] => [experts, inputs, outputs],
            _ => [1, 1, shape.iter().product()],
        };
        self.0.push(Link { theirs, ours: Some(ours), size });
    }

    /// A projection `[inputs, outputs]` that is stored the other way round, with its bias if it has one.
    pub fn linear(&mut self, theirs: &str, ours: &str, [inputs, outputs]: [usize; 2], bias: bool) {
        self.0.push(Link {
            theirs: Place::swapped(format!("{theirs}.weight"), &[outputs, inputs]),
            ours: Some(Place::whole(format!("{ours}.weight"), &[inputs, outputs])),
            size: [1, inputs, outputs],
        });
        if bias {
            self.same(format!("{theirs}.bias"), format!("{ours}.bias"), &[outputs]);
        }
    }

    /// Everything but the feed-forward layers; `norms` names the norms of a block, theirs and ours.
    pub fn outside_feed_forward(&mut self, config: &ModelConfig, vocab_size: usize, norms: &[(&str, &str)]) {
        let width = config.d_model;
        self.same("model.embed_tokens.weight", "embed.weight", &[vocab_size, width]);
        self.same("model.norm.weight", "norm.gain", &[width]);
        if !config.tied_head {
            self.linear("lm_head", "head", [width, vocab_size], false);
        }
        for layer in 0..config.layers {
            let (theirs, ours) = (format!("model.layers.{layer}"), format!("blocks.{layer}"));
            for (their, our) in norms {
                self.same(format!("{theirs}.{their}.weight"), format!("{ours}.{our}.gain"), &[width]);
            }
            self.attention(config, &format!("{theirs}.self_attn"), &ours);
        }
    }

    fn attention(&mut self, config: &ModelConfig, theirs: &str, ours: &str) {
        let width = config.d_model;
        for (part, name) in projections(config).into_iter().zip(["q_proj", "k_proj", "v_proj"]) {
            let Projection { path, outputs, first, count } = part;
            self.0.push(Link {
                theirs: Place::swapped(format!("{theirs}.{name}.weight"), &[count, width]),
                ours: Some(Place::whole(format!("{ours}.{path}.weight"), &[width, outputs]).at_output(first)),
                size: [1, width, count],
            });
            if config.attention_bias {
                self.0.push(Link {
                    theirs: Place::whole(format!("{theirs}.{name}.bias"), &[count]),
                    ours: Some(Place::whole(format!("{ours}.{path}.bias"), &[outputs]).at_output(first)),
                    size: [1, 1, count],
                });
            }
        }
        let query = config.query_width();
        self.linear(&format!("{theirs}.o_proj"), &format!("{ours}.attn.wo"), [query, width], config.attention_bias);
        let norms = match config.qk_norm {
            QkNormKind::None => [0, 0],
            QkNormKind::PerHead => [config.head_dim(); 2],
            QkNormKind::FullWidth => [query, config.key_width()],
        };
        for (name, features) in ["q_norm", "k_norm"].into_iter().zip(norms).filter(|(_, features)| *features > 0) {
            self.same(format!("{theirs}.{name}.weight"), format!("{ours}.attn.{name}.gain"), &[features]);
        }
        if config.sinks {
            self.same(format!("{theirs}.sinks"), format!("{ours}.attn.sinks"), &[config.heads]);
        }
    }

    /// The dense feed-forward layers, which have a gate.
    pub fn dense(&mut self, config: &ModelConfig) {
        let (width, hidden, bias) = (config.d_model, config.hidden, config.feed_forward_bias);
        for layer in 0..config.layers {
            let (theirs, ours) = (format!("model.layers.{layer}.mlp"), format!("blocks.{layer}.mlp"));
            self.linear(&format!("{theirs}.gate_proj"), &format!("{ours}.gate"), [width, hidden], bias);
            self.linear(&format!("{theirs}.up_proj"), &format!("{ours}.up"), [width, hidden], bias);
            self.linear(&format!("{theirs}.down_proj"), &format!("{ours}.down"), [hidden, width], bias);
        }
    }
}
