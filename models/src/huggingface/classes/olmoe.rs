//! `OlmoeForCausalLM`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::huggingface::class::{Class, GATED, ROTARY_BUFFERS};
use crate::huggingface::decoder::{self, Defaults, Links, first_unmet, heads_fill_the_width};
use crate::huggingface::keys::{Keys, refused};
use crate::huggingface::link::{Link, Place};
use crate::huggingface::rope;
use crate::settings::model::{ModelConfig, ROTARY_BASE};

pub(super) static CLASS: Class = Class {
    model_type: "olmoe",
    name: "OlmoeForCausalLM",
    preset: "olmoe-tiny",
    resembles: |config| config.experts > 0,
    free: &["feed_forward", "experts", "top_k"],
    activation: GATED,
    vocab_size: 50_304,
    read,
    unmet: |config| first_unmet([heads_fill_the_width(config)]),
    write,
    links,
    other_links: stacked,
    prefix: "model.",
    buffers: ROTARY_BUFFERS,
};

const DEFAULTS: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 2048,
    layers: 16,
    heads: 16,
    kv_heads: None,
    head_dim: None,
    context: 4096,
    norm_eps: 1e-5,
    attention_bias: false,
    tied: false,
};

/// Each has tensors of its own; far more than any model has.
const MOST_EXPERTS: usize = 100_000;

fn read(keys: &Keys, preset: ModelConfig) -> Result<ModelConfig, ModelError> {
    let mut config = decoder::read(keys, preset, &DEFAULTS)?;
    config.rope_base = rope::base(keys, ROTARY_BASE)?;
    config.experts = keys.count("num_experts", keys.count("num_local_experts", 64)?)?;
    if config.layers * config.experts > MOST_EXPERTS {
        let rule = format!("with {} layers at most {MOST_EXPERTS} experts in all are read", config.layers);
        return Err(refused("num_experts", &json!(config.experts), &rule));
    }
    config.top_k = keys.size("num_experts_per_tok", 8)?;
    keys.only("norm_topk_prob", &json!(false), "the decoder does not renormalise the weights of the chosen experts")?;
    keys.none("clip_qkv", "the decoder does not clip queries, keys and values")?;
    Ok(config)
}

fn write(config: &ModelConfig) -> Map<String, Value> {
    let mut map = decoder::write(config);
    let more = [
        ("num_experts", json!(config.experts)),
        ("num_experts_per_tok", json!(config.top_k)),
        ("norm_topk_prob", json!(false)),
        ("clip_qkv", Value::Null),
    ];
    map.extend(more.map(|(key, value)| (key.to_owned(), value)));
    map
}

fn outside(config: &ModelConfig, vocab_size: usize) -> Links {
    let mut links = Links::default();
    links.outside_feed_forward(config, vocab_size, &decoder::PRE_NORMS);
    for layer in 0..config.layers {
        let (theirs, ours) = (format!("model.layers.{layer}.mlp.gate"), format!("blocks.{layer}.moe.router"));
        links.linear(&theirs, &ours, [config.d_model, config.experts], false);
    }
    links
}

/// One tensor per expert and projection, as in published files.
fn links(config: &ModelConfig, vocab_size: usize) -> Vec<Link> {
    let mut links = outside(config, vocab_size);
    let (experts, width, hidden) = (config.experts, config.d_model, config.hidden);
    for layer in 0..config.layers {
        for expert in 0..experts {
            for (name, inputs, outputs) in [("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)] {
                let theirs = format!("model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight");
                let ours = format!("blocks.{layer}.moe.{name}.weight");
                links.0.push(Link {
                    theirs: Place::swapped(theirs, &[outputs, inputs]),
                    ours: Some(Place::whole(ours, &[experts, inputs, outputs]).at_expert(expert)),
                    size: [1, inputs, outputs],
                });
            }
        }
    }
    links.0
}

/// The experts of a layer in two tensors, as `transformers` 5 holds them.
fn stacked(config: &ModelConfig) -> Vec<Link> {
    let (experts, width, hidden) = (config.experts, config.d_model, config.hidden);
    let of_layer = |layer: usize| {
        let theirs = |name: &str| format!("model.layers.{layer}.mlp.experts.{name}");
        let both = || Place::swapped(theirs("gate_up_proj"), &[experts, 2 * hidden, width]);
        let down = Place::swapped(theirs("down_proj"), &[experts, width, hidden]);
        let parts = [("gate", both()), ("up", both().at_output(hidden)), ("down", down)];
        parts.map(|(name, theirs)| {
            let size = if name == "down" { [experts, hidden, width] } else { [experts, width, hidden] };
            let ours = Some(Place::whole(format!("blocks.{layer}.moe.{name}.weight"), &size));
            Link { theirs, ours, size }
        })
    };
    (0..config.layers).flat_map(of_layer).collect()
}
