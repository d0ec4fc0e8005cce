//! `GPT2LMHeadModel`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::huggingface::class::{Class, no_links};
use crate::huggingface::decoder::{Links, Projection, first_unmet, heads_fill_the_width, projections};
use crate::huggingface::keys::Keys;
use crate::huggingface::link::{Link, Place};
use crate::settings::choices::{FeedForwardKind, PositionKind};
use crate::settings::model::ModelConfig;

pub(super) static CLASS: Class = Class {
    model_type: "gpt2",
    name: "GPT2LMHeadModel",
    preset: "nanogpt-char",
    resembles: |config| config.position == PositionKind::Learned,
    free: &["feed_forward", "feed_forward_bias", "norm_bias"],
    activation: (
        "activation_function",
        &[
            ("gelu_new", FeedForwardKind::GeluTanh),
            ("gelu_pytorch_tanh", FeedForwardKind::GeluTanh),
            ("gelu", FeedForwardKind::Gelu),
        ],
    ),
    vocab_size: 50_257,
    read,
    unmet,
    write,
    links,
    other_links: no_links,
    prefix: "transformer.",
    // Masks of older versions.
    buffers: &[".attn.bias", ".attn.masked_bias"],
};

fn read(keys: &Keys, preset: ModelConfig) -> Result<ModelConfig, ModelError> {
    let mut config = preset;
    config.d_model = keys.size("n_embd", 768)?;
    config.layers = keys.count("n_layer", 12)?;
    config.heads = keys.size("n_head", 12)?;
    config.context = keys.size("n_positions", 1024)?;
    config.hidden = keys.size("n_inner", config.d_model.saturating_mul(4))?;
    config.base_width = config.d_model;
    config.norm_eps = keys.number("layer_norm_epsilon", 1e-5)?;
    config.tied_head = keys.flag("tie_word_embeddings", true)?;
    (config.norm_bias, config.attention_bias, config.feed_forward_bias) = (true, true, true);
    keys.only("scale_attn_weights", &json!(true), "the decoder scales scores by the root of the head dimension")?;
    keys.only("scale_attn_by_inverse_layer_idx", &json!(false), "the decoder scales all layers alike")?;
    keys.only("add_cross_attention", &json!(false), "the decoder has no cross-attention")?;
    Ok(config)
}

fn unmet(config: &ModelConfig) -> Option<(&'static str, String, String)> {
    let alike = (config.kv_heads() == config.heads, "kv_heads", config.kv_heads().to_string(), "it needs `heads`");
    first_unmet([heads_fill_the_width(config), alike])
}

fn write(config: &ModelConfig) -> Map<String, Value> {
    let keys = [
        ("n_embd", json!(config.d_model)),
        ("n_layer", json!(config.layers)),
        ("n_head", json!(config.heads)),
        ("n_positions", json!(config.context)),
        ("n_inner", json!(config.hidden)),
        ("layer_norm_epsilon", json!(config.norm_eps)),
        ("tie_word_embeddings", json!(config.tied_head)),
    ];
    keys.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}

fn links(config: &ModelConfig, vocab_size: usize) -> Vec<Link> {
    let mut links = Links::default();
    let width = config.d_model;
    links.same("transformer.wte.weight", "embed.weight", &[vocab_size, width]);
    links.same("transformer.wpe.weight", "position.weight", &[config.context, width]);
    norm(&mut links, "transformer.ln_f", "norm", config);
    if !config.tied_head {
        links.linear("lm_head", "head", [width, vocab_size], false);
    }
    for layer in 0..config.layers {
        let (theirs, ours) = (format!("transformer.h.{layer}"), format!("blocks.{layer}"));
        norm(&mut links, &format!("{theirs}.ln_1"), &format!("{ours}.norm1"), config);
        norm(&mut links, &format!("{theirs}.ln_2"), &format!("{ours}.norm2"), config);
        attention(&mut links, &format!("{theirs}.attn.c_attn"), &ours, config);
        let hidden = config.hidden;
        let mut projection = |their: &str, our: &str, shape: [usize; 2], bias: bool| {
            let (theirs, ours) = (format!("{theirs}.{their}"), format!("{ours}.{our}"));
            links.same(format!("{theirs}.weight"), format!("{ours}.weight"), &shape);
            let [_, outputs] = shape;
            self::bias(&mut links, &theirs, bias.then_some(ours.as_str()), outputs);
        };
        projection("attn.c_proj", "attn.wo", [width, width], config.attention_bias);
        projection("mlp.c_fc", "mlp.up", [width, hidden], config.feed_forward_bias);
        projection("mlp.c_proj", "mlp.down", [hidden, width], config.feed_forward_bias);
    }
    links.0
}

fn norm(links: &mut Links, theirs: &str, ours: &str, config: &ModelConfig) {
    links.same(format!("{theirs}.weight"), format!("{ours}.gain"), &[config.d_model]);
    bias(links, theirs, config.norm_bias.then_some(ours), config.d_model);
}

/// A bias, which the class always has: zeros if the model has none.
fn bias(links: &mut Links, theirs: &str, ours: Option<&str>, outputs: usize) {
    let theirs = Place::whole(format!("{theirs}.bias"), &[outputs]);
    let ours = ours.map(|ours| Place::whole(format!("{ours}.bias"), &[outputs]));
    links.0.push(Link { theirs, ours, size: [1, 1, outputs] });
}

/// Queries, keys and values, one tensor of the class, `[d_model, 3 · d_model]`.
fn attention(links: &mut Links, theirs: &str, ours: &str, config: &ModelConfig) {
    let width = config.d_model;
    for (index, part) in projections(config).into_iter().enumerate() {
        let Projection { path, outputs, first, count } = part;
        links.0.push(Link {
            theirs: Place::whole(format!("{theirs}.weight"), &[width, 3 * width]).at_output(index * width),
            ours: Some(Place::whole(format!("{ours}.{path}.weight"), &[width, outputs]).at_output(first)),
            size: [1, width, count],
        });
        let bias = || Place::whole(format!("{ours}.{path}.bias"), &[outputs]).at_output(first);
        links.0.push(Link {
            theirs: Place::whole(format!("{theirs}.bias"), &[3 * width]).at_output(index * width),
            ours: config.attention_bias.then(bias),
            size: [1, 1, count],
        });
    }
}
