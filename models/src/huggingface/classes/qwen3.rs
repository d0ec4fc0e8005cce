//! `Qwen3ForCausalLM`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::huggingface::class::{Class, GATED, ROTARY_BUFFERS, no_links};
use crate::huggingface::decoder::{self, Defaults, first_unmet, one_base};
use crate::huggingface::keys::{Keys, refused};
use crate::huggingface::{patterns, rope};
use crate::settings::choices::QkNormKind;
use crate::settings::model::{ModelConfig, ROTARY_BASE};

pub(super) static CLASS: Class = Class {
    model_type: "qwen3",
    name: "Qwen3ForCausalLM",
    preset: "qwen3-tiny",
    resembles: |config| config.qk_norm == QkNormKind::PerHead,
    free: &["feed_forward", "full_every"],
    activation: GATED,
    vocab_size: 151_936,
    read,
    unmet: |config| first_unmet([one_base(config)]),
    write,
    links: decoder::dense_links,
    other_links: no_links,
    prefix: "model.",
    buffers: ROTARY_BUFFERS,
};

const DEFAULTS: Defaults = Defaults {
    hidden_size: 4096,
    intermediate_size: 22_016,
    layers: 32,
    heads: 32,
    kv_heads: Some(32),
    head_dim: Some(128),
    context: 32_768,
    norm_eps: 1e-6,
    attention_bias: false,
    tied: false,
};

fn read(keys: &Keys, preset: ModelConfig) -> Result<ModelConfig, ModelError> {
    let mut config = decoder::read(keys, preset, &DEFAULTS)?;
    config.rope_base = rope::base(keys, ROTARY_BASE)?;
    let slides = keys.flag("use_sliding_window", false)?;
    let first = keys.number("max_window_layers", 28.0)?;
    let window = keys.size("sliding_window", 4096)?;
    let full_every = patterns::read(keys, config.layers, |layer| slides && layer as f64 >= first)?;
    if full_every > 1 && (!slides || keys.is_null("sliding_window")) {
        let rule = "layers of sliding_attention need `use_sliding_window` and `sliding_window`";
        return Err(refused("layer_types", keys.get("layer_types").unwrap_or(&Value::Null), rule));
    }
    if full_every > 1 {
        (config.full_every, config.sliding_window) = (full_every, window);
    }
    Ok(config)
}

fn write(config: &ModelConfig) -> Map<String, Value> {
    let mut map = decoder::write(config);
    let slides = config.full_every > 1;
    map.insert("use_sliding_window".into(), json!(slides));
    map.insert("sliding_window".into(), if slides { json!(config.sliding_window) } else { Value::Null });
    map.insert("layer_types".into(), patterns::write(config));
    map
}
