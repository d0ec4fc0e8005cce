//! An estimate of the memory that a model needs, made before any of it is allocated.

use crate::error::{Error, TooLarge, bytes};
use crate::host::device;
use crate::host::memory;
use crate::networks::data::DataSizes;
use crate::settings::config::Config;

/// Bytes per number in weights, gradients, states and activations.
const FLOAT: f64 = 4.0;
/// Bytes per token of a batch: one number for the input, one for the target.
const TOKEN: f64 = 8.0;

/// What a model is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Only its weights.
    Look,
    /// Training: weights, gradients, optimizer states and activations.
    Train,
}

/// Memory of a run in bytes. Every part is a lower bound, so that no model that fits is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Weights.
    pub weights: f64,
    /// Gradients and optimizer states.
    pub updates: f64,
    /// A batch, and what its forward pass keeps for the backward pass.
    pub activations: f64,
}

impl Estimate {
    /// The estimate for a configuration and the sizes that its data determine.
    pub fn of(config: &Config, sizes: DataSizes) -> Self {
        let model = config.model.memory(sizes);
        let train = &config.train;
        let rows = train.batch as f64 / train.accumulation as f64;
        let states = match config.optimizer.stack.as_str() {
            "adamw" => 2.0,
            "sgd" => 0.0,
            _ => 1.0,
        };
        let weights = model.parameters as f64 * FLOAT;
        let batch = config.tokens_per_step() as f64 * TOKEN;
        Self { weights, updates: weights * (1.0 + states), activations: rows * model.kept_per_row * FLOAT + batch }
    }

    /// The sum of all parts, in bytes.
    pub fn total(&self) -> f64 {
        self.weights + self.updates + self.activations
    }

    /// The parts as text.
    pub fn parts(&self) -> String {
        format!(
            "weights {}, gradients and optimizer {}, activations {}",
            bytes(self.weights),
            bytes(self.updates),
            bytes(self.activations)
        )
    }
}

/// Refuses a model that cannot fit into the memory of this machine, before it is built. Nothing is refused if the system
/// does not report its available memory, or if the device has its own memory.
///
/// # Errors
///
/// [`TooLarge`] with figures and keys; an unknown device.
pub fn check(config: &Config, device: &str, sizes: DataSizes, purpose: Purpose) -> Result<(), Error> {
    if !device::find(device)?.on_host {
        return Ok(());
    }
    let Some(available) = memory::available_bytes() else { return Ok(()) };
    Ok(fits(config, sizes, purpose, available as f64)?)
}

fn fits(config: &Config, sizes: DataSizes, purpose: Purpose, available: f64) -> Result<(), TooLarge> {
    let estimate = Estimate::of(config, sizes);
    let (needed, parts) = match purpose {
        Purpose::Look => (estimate.weights, format!("its weights alone; training needs {}", bytes(estimate.total()))),
        Purpose::Train => (estimate.total(), estimate.parts()),
    };
    if needed <= available {
        return Ok(());
    }
    let by_batch = purpose == Purpose::Train && estimate.activations > estimate.weights + estimate.updates;
    Err(TooLarge { needed, available, parts, keys: keys(config, sizes, by_batch) })
}

/// The keys that determine the larger part, with their values.
fn keys(config: &Config, sizes: DataSizes, by_batch: bool) -> String {
    let batch = by_batch.then_some(("train.batch", config.train.batch));
    let keys = batch.into_iter().chain(config.model.size_keys(by_batch));
    let keys: Vec<String> = keys.map(|(key, value)| format!("`{key}` ({value})")).collect();
    let vocabulary =
        if config.model.is_text() { format!(" or the vocabulary ({})", sizes.inputs) } else { String::new() };
    format!("{}{vocabulary}", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::decoder::vocabulary;
    use crate::settings::layers::Layers;

    fn with_sets(sets: &[(&str, &str)]) -> Config {
        let sets = sets.iter().map(|(key, raw)| ((*key).into(), (*raw).into())).collect();
        Layers { sets, ..Layers::default() }.resolve().unwrap()
    }

    #[test]
    fn the_parts_are_counted_from_the_sizes() {
        let config = with_sets(&[("optimizer.stack", "adamw"), ("train.accumulation", "2")]);
        let estimate = Estimate::of(&config, vocabulary(65));
        assert_eq!((estimate.weights, estimate.updates), (4.0 * 221_888.0, 3.0 * 4.0 * 221_888.0));
        let tokens = (config.train.batch * 64) as f64;
        let kept = 4.0 * (4.0 * 64.0 + 64.0 + 64.0 + 2.0 * 192.0) + 65.0;
        assert_eq!(estimate.activations, tokens / 2.0 * kept * 4.0 + tokens * 8.0);
    }

    #[test]
    fn what_does_not_fit_names_figures_and_keys() {
        let config = with_sets(&[("model.d_model", "1000000")]);
        let said = fits(&config, vocabulary(65), Purpose::Train, 16e9).unwrap_err().to_string();
        for fragment in ["at least 576 TB", "16 GB are available", "weights 192 TB", "`model.d_model` (1000000)"] {
            assert!(said.contains(fragment), "{fragment}: {said}");
        }
        let config = with_sets(&[("train.batch", "200000")]);
        let said = fits(&config, vocabulary(65), Purpose::Train, 16e9).unwrap_err().to_string();
        assert!(said.contains("lower `train.batch` (200000)"), "{said}");
        fits(&config, vocabulary(65), Purpose::Look, 16e9).unwrap();
    }

    #[test]
    fn what_fits_is_not_refused() {
        for preset in ["llama-d64", "llama-d256", "olmoe-tiny", "gpt-oss-tiny", "gemma3-tiny"] {
            let config = with_sets(&[("model.preset", preset)]);
            fits(&config, vocabulary(256), Purpose::Train, 1e9).unwrap();
        }
    }
}
