//! How much memory a model will take, told before any of it is allocated.

use polaron_models::ModelConfig;

use crate::config::Config;
use crate::device;
use crate::error::Error;
use crate::memory;
use crate::network::NetworkConfig;

/// Bytes of a number in weights, gradients, states and activations.
const FLOAT: f64 = 4.0;
/// Bytes of a token of a batch: one of the inputs, one of the targets.
const TOKEN: f64 = 8.0;

/// Sizes that the data bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// Tokens of the vocabulary.
    Vocabulary(usize),
    /// Inputs and classes of images.
    Images {
        /// Numbers of an image.
        features: usize,
        /// Classes.
        classes: usize,
    },
}

/// What a model is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its weights alone.
    Look,
    /// Weights, gradients, the optimizer's states, activations.
    Train,
}

/// Memory of a run in bytes. Every part is at least what it says: nothing that fits is refused for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Weights.
    pub weights: f64,
    /// Gradients and the optimizer's states.
    pub updates: f64,
    /// A batch and what is kept of its forward pass.
    pub activations: f64,
}

/// A model that does not fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("this model needs at least {} of memory ({parts}), but {} are available: lower {keys}", bytes(*.needed), bytes(*.available))]
pub struct TooLarge {
    /// Bytes it needs.
    pub needed: f64,
    /// Bytes there are.
    pub available: f64,
    /// What for.
    pub parts: String,
    /// Keys that decide it, with their values.
    pub keys: String,
}

impl Estimate {
    /// Of a configuration and the sizes that its data bring.
    pub fn of(config: &Config, brought: Brought) -> Self {
        let (parameters, per_row) = match (&config.model, brought) {
            (NetworkConfig::Decoder(model), Brought::Vocabulary(vocabulary)) => {
                (model.parameters(vocabulary), model.context as f64 * per_token(model, vocabulary))
            }
            (NetworkConfig::Mlp(mlp), Brought::Images { features, classes }) => {
                (mlp.parameters(features, classes), features as f64 + mlp.depth as f64 * mlp.width as f64)
            }
            // The commands never bring one kind's sizes to the other.
            _ => (0, 0.0),
        };
        let train = &config.train;
        let rows = train.batch as f64 / train.accumulation as f64;
        let states = match config.optimizer.stack.as_str() {
            "adamw" => 2.0,
            "sgd" => 0.0,
            _ => 1.0,
        };
        let weights = parameters as f64 * FLOAT;
        let batch = config.tokens_per_step() as f64 * TOKEN;
        Self { weights, updates: weights * (1.0 + states), activations: rows * per_row * FLOAT + batch }
    }

    /// Bytes of all of it.
    pub fn total(&self) -> f64 {
        self.weights + self.updates + self.activations
    }

    /// The parts in words.
    pub fn parts(&self) -> String {
        format!(
            "weights {}, gradients and optimizer {}, activations {}",
            bytes(self.weights),
            bytes(self.updates),
            bytes(self.activations)
        )
    }
}

/// Numbers that the backward pass needs of a token, counted low: fused layers keep less than others.
fn per_token(model: &ModelConfig, vocabulary: usize) -> f64 {
    let hidden = model.hidden as f64 * model.top_k.max(1) as f64;
    let layer = 4.0 * model.d_model as f64 + model.query_width() as f64 + model.key_width() as f64 + 2.0 * hidden;
    model.layers as f64 * layer + vocabulary as f64
}

/// Refuses a model that cannot fit into the memory of this machine, before it is made. Where the system does not tell how
/// much there is, and for a device with memory of its own, nothing is refused.
///
/// # Errors
///
/// [`TooLarge`] with figures and keys; an unknown device.
pub fn check(config: &Config, device: &str, brought: Brought, purpose: Purpose) -> Result<(), Error> {
    if !device::find(device)?.on_host {
        return Ok(());
    }
    let Some(available) = memory::available_bytes() else { return Ok(()) };
    Ok(fits(config, brought, purpose, available as f64)?)
}

fn fits(config: &Config, brought: Brought, purpose: Purpose, available: f64) -> Result<(), TooLarge> {
    let estimate = Estimate::of(config, brought);
    let (needed, parts) = match purpose {
        Purpose::Look => (estimate.weights, format!("its weights; to train it {}", bytes(estimate.total()))),
        Purpose::Train => (estimate.total(), estimate.parts()),
    };
    if needed <= available {
        return Ok(());
    }
    let by_batch = purpose == Purpose::Train && estimate.activations > estimate.weights + estimate.updates;
    Err(TooLarge { needed, available, parts, keys: keys(config, brought, by_batch) })
}

/// The keys that decide the larger part, with their values.
fn keys(config: &Config, brought: Brought, by_batch: bool) -> String {
    let mut keys = Vec::new();
    let mut add = |key: &str, value: usize| keys.push(format!("`{key}` ({value})"));
    if by_batch {
        add("train.batch", config.train.batch);
    }
    match &config.model {
        NetworkConfig::Decoder(model) => {
            if by_batch {
                add("model.context", model.context);
            }
            add("model.d_model", model.d_model);
            add("model.layers", model.layers);
            add("model.hidden", model.hidden);
            if model.head_dim > 0 {
                add("model.heads", model.heads);
                add("model.head_dim", model.head_dim);
            }
            if model.experts > 0 {
                add("model.experts", model.experts);
            }
        }
        NetworkConfig::Mlp(mlp) => {
            add("model.width", mlp.width);
            add("model.depth", mlp.depth);
        }
    }
    let vocabulary = match brought {
        Brought::Vocabulary(vocabulary) => format!(" or the vocabulary ({vocabulary})"),
        Brought::Images { .. } => String::new(),
    };
    format!("{}{vocabulary}", keys.join(", "))
}

/// A number of bytes with its unit.
pub fn bytes(number: f64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut scaled = number / 1e3;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while scaled >= 999.5 {
        let Some(next) = units.next() else { break };
        (scaled, unit) = (scaled / 1e3, Some(next));
    }
    let unit = unit.copied().unwrap_or_default();
    if scaled < 9.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Layers;

    fn with_sets(sets: &[(&str, &str)]) -> Config {
        let sets = sets.iter().map(|(key, raw)| ((*key).into(), (*raw).into())).collect();
        Layers { sets, ..Layers::default() }.resolve().unwrap()
    }

    #[test]
    fn the_parts_are_counted_from_the_sizes() {
        let config = with_sets(&[("optimizer.stack", "adamw"), ("train.accumulation", "2")]);
        let estimate = Estimate::of(&config, Brought::Vocabulary(65));
        assert_eq!((estimate.weights, estimate.updates), (4.0 * 221_888.0, 3.0 * 4.0 * 221_888.0));
        let tokens = (config.train.batch * 64) as f64;
        let kept = 4.0 * (4.0 * 64.0 + 64.0 + 64.0 + 2.0 * 192.0) + 65.0;
        assert_eq!(estimate.activations, tokens / 2.0 * kept * 4.0 + tokens * 8.0);
    }

    #[test]
    fn what_does_not_fit_names_figures_and_keys() {
        let config = with_sets(&[("model.d_model", "1000000")]);
        let said = fits(&config, Brought::Vocabulary(65), Purpose::Train, 16e9).unwrap_err().to_string();
        for fragment in ["at least 576 TB", "16 GB are available", "weights 192 TB", "`model.d_model` (1000000)"] {
            assert!(said.contains(fragment), "{fragment}: {said}");
        }
        let config = with_sets(&[("train.batch", "200000")]);
        let said = fits(&config, Brought::Vocabulary(65), Purpose::Train, 16e9).unwrap_err().to_string();
        assert!(said.contains("lower `train.batch` (200000)"), "{said}");
        fits(&config, Brought::Vocabulary(65), Purpose::Look, 16e9).unwrap();
    }

    #[test]
    fn what_fits_is_not_refused() {
        for preset in ["llama-d64", "llama-d256", "olmoe-tiny", "gpt-oss-tiny", "gemma3-tiny"] {
            let config = with_sets(&[("model.preset", preset)]);
            fits(&config, Brought::Vocabulary(256), Purpose::Train, 1e9).unwrap();
        }
    }

    #[test]
    fn bytes_have_a_unit() {
        for (number, text) in
            [(0.0, "0.0 kB"), (1.5e6, "1.5 MB"), (16e9, "16 GB"), (999.6e9, "1.0 TB"), (1e22, "10000 EB")]
        {
            assert_eq!(bytes(number), text);
        }
    }
}
