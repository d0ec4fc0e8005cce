//! `LlamaForCausalLM`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::huggingface::class::{Class, GATED, ROTARY_BUFFERS, no_links};
use crate::huggingface::decoder::{self, Defaults, first_unmet, width_in_heads};
use crate::huggingface::keys::Keys;
use crate::huggingface::rope;
use crate::settings::model::{ModelConfig, ROTARY_BASE};

pub(super) static CLASS: Class = Class {
    model_type: "llama",
    name: "LlamaForCausalLM",
    preset: "llama-d64",
    resembles: |_| true,
    free: &["feed_forward", "feed_forward_bias"],
    activation: GATED,
    vocab_size: 32_000,
    read,
    unmet: |config| first_unmet([width_in_heads(config)]),
    write,
    links: decoder::dense_links,
    other_links: no_links,
    prefix: "model.",
    buffers: ROTARY_BUFFERS,
};

const DEFAULTS: Defaults = Defaults {
    hidden_size: 4096,
    intermediate_size: 11_008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    context: 2048,
    norm_eps: 1e-6,
    attention_bias: false,
    tied: false,
};

fn read(keys: &Keys, preset: ModelConfig) -> Result<ModelConfig, ModelError> {
    let mut config = decoder::read(keys, preset, &DEFAULTS)?;
    config.rope_base = rope::base(keys, ROTARY_BASE)?;
    config.feed_forward_bias = keys.flag("mlp_bias", false)?;
    Ok(config)
}

fn write(config: &ModelConfig) -> Map<String, Value> {
    let mut map = decoder::write(config);
    map.insert("mlp_bias".into(), json!(config.feed_forward_bias));
    map
}
