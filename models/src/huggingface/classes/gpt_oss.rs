//! `GptOssForCausalLM`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::huggingface::class::{Class, ROTARY_BUFFERS, no_links};
use crate::huggingface::decoder::{self, Defaults, Links, first_unmet, one_base};
use crate::huggingface::keys::{Keys, refused};
use crate::huggingface::link::{Link, Place};
use crate::huggingface::{patterns, rope};
use crate::settings::choices::{FeedForwardKind, RouterKind};
use crate::settings::model::ModelConfig;

pub(super) static CLASS: Class = Class {
    model_type: "gpt_oss",
    name: "GptOssForCausalLM",
    preset: "gpt-oss-tiny",
    resembles: |config| config.experts > 0 && config.router == RouterKind::TopKThenSoftmax,
    free: &["experts", "top_k", "full_every"],
    // Whatever the file calls it, this class has one nonlinearity only.
    activation: ("hidden_act", &[("silu", FeedForwardKind::ClampedGlu)]),
    vocab_size: 201_088,
    read,
    unmet: |config| first_unmet([one_base(config)]),
    write,
    links,
    other_links: no_links,
    prefix: "model.",
    buffers: ROTARY_BUFFERS,
};

const DEFAULTS: Defaults = Defaults {
    hidden_size: 2880,
    intermediate_size: 2880,
    layers: 36,
    heads: 64,
    kv_heads: Some(8),
    head_dim: Some(64),
    context: 131_072,
    norm_eps: 1e-5,
    attention_bias: true,
    tied: false,
};

fn read(keys: &Keys, preset: ModelConfig) -> Result<ModelConfig, ModelError> {
    let mut config = decoder::read(keys, preset, &DEFAULTS)?;
    config.rope_base = rope::base(keys, 1.5e5)?;
    if keys.get("rope_parameters").is_none() && keys.get("rope_scaling").is_none() {
        let rule = "without it this class scales its rotary positions (yarn), which the decoder does not";
        return Err(refused("rope_parameters", &Value::Null, rule));
    }
    config.experts = keys.count("num_local_experts", keys.count("num_experts", 128)?)?;
    config.top_k = keys.size("num_experts_per_tok", keys.size("experts_per_token", 4)?)?;
    let limit = json!(f64::from(FeedForwardKind::CLAMP));
    keys.only("swiglu_limit", &limit, "the decoder clamps at 7")?;
    keys.only("swiglu_alpha", &json!(1.702), "the decoder has the slope 1.702")?;
    config.full_every = patterns::read(keys, config.layers, |layer| !(layer + 1).is_multiple_of(2))?;
    config.sliding_window = keys.size("sliding_window", 128)?;
    Ok(config)
}

fn write(config: &ModelConfig) -> Map<String, Value> {
    let mut map = decoder::write(config);
    let more = [
        // Before version 5 the class scaled its rotary positions unless this key said otherwise.
        ("rope_scaling", rope::written(config.rope_base)),
        ("num_local_experts", json!(config.experts)),
        ("num_experts_per_tok", json!(config.top_k)),
        ("swiglu_limit", json!(FeedForwardKind::CLAMP)),
        ("sliding_window", json!(config.sliding_window)),
        ("layer_types", patterns::write(config)),
    ];
    map.extend(more.map(|(key, value)| (key.to_owned(), value)));
    map
}

fn links(config: &ModelConfig, vocab_size: usize) -> Vec<Link> {
    let mut links = Links::default();
    links.outside_feed_forward(config, vocab_size, &decoder::PRE_NORMS);
    let (experts, width, hidden) = (config.experts, config.d_model, config.hidden);
    for layer in 0..config.layers {
        let (theirs, ours) = (format!("model.layers.{layer}.mlp"), format!("blocks.{layer}.moe"));
        links.linear(&format!("{theirs}.router"), &format!("{ours}.router"), [width, experts], true);
        let theirs = format!("{theirs}.experts");
        // Gate and up in turn along the last axis.
        for (first, name) in ["gate", "up"].into_iter().enumerate() {
            links.0.push(Link {
                theirs: Place::whole(format!("{theirs}.gate_up_proj"), &[experts, width, 2 * hidden])
                    .every_second(first),
                ours: Some(Place::whole(format!("{ours}.{name}.weight"), &[experts, width, hidden])),
                size: [experts, width, hidden],
            });
            links.0.push(Link {
                theirs: Place::whole(format!("{theirs}.gate_up_proj_bias"), &[experts, 2 * hidden]).every_second(first),
                ours: Some(Place::whole(format!("{ours}.{name}.bias"), &[experts, hidden])),
                size: [1, experts, hidden],
            });
        }
        links.same(format!("{theirs}.down_proj"), format!("{ours}.down.weight"), &[experts, hidden, width]);
        links.same(format!("{theirs}.down_proj_bias"), format!("{ours}.down.bias"), &[experts, width]);
    }
    links.0
}
