//! `Gemma3ForCausalLM`, the part of Gemma 3 that reads text.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::huggingface::class::{Class, GATED, ROTARY_BUFFERS, no_links};
use crate::huggingface::decoder::{self, Defaults, Links, first_unmet, width_in_heads};
use crate::huggingface::keys::Keys;
use crate::huggingface::link::Link;
use crate::huggingface::{patterns, rope};
use crate::settings::choices::NormKind;
use crate::settings::model::ModelConfig;

pub(super) static CLASS: Class = Class {
    model_type: "gemma3_text",
    name: "Gemma3ForCausalLM",
    preset: "gemma3-tiny",
    resembles: |config| config.norm == NormKind::RmsNormPlusOne,
    free: &["feed_forward", "full_every"],
    activation: ("hidden_activation", GATED.1),
    vocab_size: 262_208,
    read,
    unmet: |config| first_unmet([width_in_heads(config)]),
    write,
    links,
    other_links: no_links,
    prefix: "model.",
    buffers: ROTARY_BUFFERS,
};

const DEFAULTS: Defaults = Defaults {
    hidden_size: 2304,
    intermediate_size: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_dim: Some(256),
    context: 131_072,
    norm_eps: 1e-6,
    attention_bias: false,
    tied: true,
};

fn read(keys: &Keys, preset: ModelConfig) -> Result<ModelConfig, ModelError> {
    const UNCAPPED: &str = "the decoder caps neither logits nor scores";
    let mut config = decoder::read(keys, preset, &DEFAULTS)?;
    [config.rope_base, config.rope_base_sliding] = rope::bases(keys, [1e6, 1e4])?;
    let scalar = keys.number("query_pre_attn_scalar", 256.0)?;
    if scalar != config.head_dim() as f64 {
        let rule = format!("the decoder scales scores by the head dimension, here {}", config.head_dim());
        return Err(crate::huggingface::keys::refused("query_pre_attn_scalar", &json!(scalar), &rule));
    }
    keys.none("final_logit_softcapping", UNCAPPED)?;
    keys.none("attn_logit_softcapping", UNCAPPED)?;
    keys.only("use_bidirectional_attention", &json!(false), "the decoder only looks back")?;
    let pattern = keys.size("sliding_window_pattern", keys.size("_sliding_window_pattern", 6)?)?;
    config.full_every = patterns::read(keys, config.layers, |layer| !(layer + 1).is_multiple_of(pattern))?;
    config.sliding_window = keys.size("sliding_window", 4096)?;
    Ok(config)
}

fn write(config: &ModelConfig) -> Map<String, Value> {
    let mut map = decoder::write(config);
    let sliding = config.sliding_base();
    let more = [
        ("rope_local_base_freq", json!(sliding)),
        (
            "rope_parameters",
            json!({ patterns::FULL: rope::written(config.rope_base), patterns::SLIDING: rope::written(sliding) }),
        ),
        ("query_pre_attn_scalar", json!(config.head_dim())),
        ("sliding_window", json!(config.sliding_window)),
        ("layer_types", patterns::write(config)),
        ("final_logit_softcapping", Value::Null),
        ("attn_logit_softcapping", Value::Null),
    ];
    map.extend(more.map(|(key, value)| (key.to_owned(), value)));
    map
}

fn links(config: &ModelConfig, vocab_size: usize) -> Vec<Link> {
    let mut links = Links::default();
    let norms = [
        ("input_layernorm", "norm1"),
        ("post_attention_layernorm", "post_norm1"),
        ("pre_feedforward_layernorm", "norm2"),
        ("post_feedforward_layernorm", "post_norm2"),
    ];
    links.outside_feed_forward(config, vocab_size, &norms);
    links.dense(config);
    links.0
}
