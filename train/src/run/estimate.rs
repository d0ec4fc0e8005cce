//! An estimate of the memory that a run needs, made before any of it is allocated.

use polaron::layerwise::Plan;
use polaron::wrappers::WrapperConfig;

use crate::error::{Error, TooLarge, bytes};
use crate::host::device;
use crate::host::memory;
use crate::host::ranks::local_ranks;
use crate::networks::data::DataSizes;
use crate::run::spectra::Spectra;
use crate::settings::config::{Config, RECOMPUTE};

/// Bytes per number in weights, gradients, states and activations.
const FLOAT: f64 = 4.0;
/// Bytes per token of a batch: one number for the input, one for the target.
const TOKEN: f64 = 8.0;
/// The program itself, its data and its threads, as measured with the smallest model: 90 to 92 MB.
const PROGRAM: f64 = 90e6;
/// What the backward pass of a block needs beside what its forward pass kept, as measured.
const TEMPORARY: f64 = 1.0;
/// The share of the activations, or of the gradients if they are smaller, whose memory the gradients take over, as measured:
/// the sizes of the tensors differ, so the allocator keeps the rest.
const TAKEN_OVER: f64 = 0.3;
/// How much of the available memory a run may take: the estimate is not exact, and other programs need some too.
const SHARE: f64 = 0.9;

/// Memory of a run in bytes, with the fused layers of the CPU device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Weights.
    pub weights: f64,
    /// Gradients, of every worker and of the micro-batches before.
    pub gradients: f64,
    /// What the optimizer keeps between steps, with the copies of the weights of a wrapper, an average and the recorded spectra.
    pub states: f64,
    /// What the forward pass of a micro-batch keeps of the blocks for the backward pass.
    pub activations: f64,
    /// The same with `train.recompute`; None where the family keeps everything.
    pub recomputed: Option<f64>,
    /// The input of the head, and the logits that exist at one time.
    pub logits: f64,
    /// The most that is needed at one time.
    pub peak: f64,
    /// The same with `train.recompute`.
    pub recomputed_peak: Option<f64>,
}

/// How the passes over a batch use memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Passes {
    /// Rows whose activations exist at one time.
    rows: f64,
    /// Threads that compute at one time.
    workers: f64,
    /// Gradients of all parameters that exist at one time.
    gradients: f64,
}

impl Passes {
    fn of(config: &Config, ranks: usize) -> Self {
        let train = &config.train;
        let threads = device::workers(&config.device.name, config.device.threads).unwrap_or(0).max(1);
        let leaves = train.grains * train.accumulation;
        if leaves == 0 {
            let rows = train.batch as f64 / train.accumulation as f64;
            let workers = (threads as f64).min(rows.max(1.0));
            let earlier = if train.accumulation > 1 { 1.0 } else { 0.0 };
            return Self { rows, workers, gradients: workers + earlier };
        }
        let own = leaves.div_ceil(ranks);
        let workers = threads.min(own);
        // A worker keeps a sum for every level of the tree over its grains.
        let levels = own.div_ceil(workers).ilog2() + 1;
        let rows = workers * train.batch.div_ceil(leaves);
        Self { rows: rows as f64, workers: workers as f64, gradients: (workers * levels as usize) as f64 }
    }
}

impl Estimate {
    /// The estimate for a configuration, the sizes that its data determine, and the plan of its optimizer; for one of so many
    /// processes that train together, the one that writes the checkpoints.
    pub fn of(config: &Config, sizes: DataSizes, plan: &Plan, ranks: usize) -> Self {
        let (model, train) = (config.model.memory(sizes), &config.train);
        let Passes { rows, workers, gradients } = Passes::of(config, ranks);
        let weights = FLOAT * plan.entries().iter().map(|entry| entry.count() as f64).sum::<f64>();
        let states =
            FLOAT * plan.entries().iter().filter_map(|entry| entry.state()).map(|state| state as f64).sum::<f64>();
        let trained = weights - FLOAT * plan.frozen() as f64;
        let recorded = if train.spectra_every > 0 { Spectra::COPIES } else { 0 };
        let copies =
            plan.wrapper().map_or(0, |_| WrapperConfig::COPIES) + usize::from(train.average.is_some()) + recorded;
        let (all_states, states) = (states, states / ranks as f64 + trained * copies as f64);
        let gradients = trained * gradients;
        let at_once = (rows * model.row.logits).min(workers * model.row.logits_at_once);
        let (table, logits) = (FLOAT * workers * model.table, FLOAT * (rows * model.row.head + at_once));
        let block = FLOAT * rows * model.row.largest_block;
        let (blocks, inputs) = (FLOAT * rows * model.row.blocks, FLOAT * rows * model.row.inputs);
        // The backward pass begins with all activations and ends with all gradients.
        let backward =
            |kept: f64| kept + gradients - TAKEN_OVER * kept.min(gradients) + logits + table + TEMPORARY * block;
        let (kept, recomputed) = (backward(blocks), backward(inputs + block));
        let program = PROGRAM + TOKEN * config.tokens_per_step() as f64;
        // A checkpoint copies the weights, then the states: those of other processes as they come, and as they are stored.
        let stored = if ranks > 1 { 2.0 * all_states } else { states };
        // What is sent to other processes, and what they send.
        let messages = if ranks > 1 { 2.0 * trained } else { 0.0 };
        let peak = |backward: f64| program + weights + states + backward.max(weights).max(stored).max(messages);
        Self {
            weights,
            gradients,
            states,
            activations: blocks,
            recomputed: config.model.recomputes().then_some(inputs + block),
            logits,
            peak: peak(kept),
            recomputed_peak: config.model.recomputes().then(|| peak(recomputed)),
        }
    }

    /// What a run of this configuration needs at most at one time.
    pub fn needed(&self, config: &Config) -> f64 {
        self.recomputed_peak.filter(|_| config.train.recompute).unwrap_or(self.peak)
    }

    /// The parts as text.
    pub fn parts(&self, config: &Config) -> String {
        let activations = self.recomputed.filter(|_| config.train.recompute).unwrap_or(self.activations);
        format!(
            "weights {}, gradients {}, optimizer states {}, activations {}, logits {}",
            bytes(self.weights),
            bytes(self.gradients),
            bytes(self.states),
            bytes(activations),
            bytes(self.logits)
        )
    }
}

/// Refuses a model whose weights alone are larger than the memory of this machine, before it is built. Nothing is refused if
/// the system does not report its available memory, or if the device has its own memory.
///
/// # Errors
///
/// [`TooLarge`] with figures and keys; an unknown device.
pub fn check_weights(config: &Config, device: &str, sizes: DataSizes) -> Result<(), Error> {
    let Some(available) = available(device)? else { return Ok(()) };
    Ok(weights_fit(config, sizes, available)?)
}

/// The same for a run of so many processes that would need more than nine tenths of the available memory.
///
/// # Errors
///
/// [`TooLarge`] with figures, and with what would need less; an unknown device.
pub fn check_training(config: &Config, sizes: DataSizes, plan: &Plan, ranks: usize) -> Result<(), Error> {
    let Some(available) = available(&config.device.name)? else { return Ok(()) };
    Ok(training_fits(config, sizes, &Estimate::of(config, sizes, plan, ranks), available)?)
}

fn available(device: &str) -> Result<Option<f64>, Error> {
    if !device::find(device)?.on_host {
        return Ok(None);
    }
    // The processes of a run on this machine take about as much each.
    Ok(memory::available_bytes().map(|bytes| bytes as f64 / local_ranks() as f64))
}

fn weights_fit(config: &Config, sizes: DataSizes, available: f64) -> Result<(), TooLarge> {
    let needed = FLOAT * config.model.memory(sizes).parameters as f64;
    if needed <= available {
        return Ok(());
    }
    Err(TooLarge::Weights { needed, available, keys: keys(config, sizes, false) })
}

fn training_fits(config: &Config, sizes: DataSizes, estimate: &Estimate, available: f64) -> Result<(), TooLarge> {
    let (needed, share) = (estimate.needed(config), 100.0 * SHARE);
    if needed <= SHARE * available {
        return Ok(());
    }
    let (parts, remedy) = (estimate.parts(config), remedy(config, sizes, estimate));
    Err(TooLarge::Training { needed, available, share, parts, remedy })
}

/// What needs less memory, the cheapest first.
fn remedy(config: &Config, sizes: DataSizes, estimate: &Estimate) -> String {
    let train = &config.train;
    let recomputed = estimate.recomputed_peak.filter(|peak| !train.recompute && *peak < SHARE * estimate.peak);
    let mut remedies: Vec<String> = recomputed.map(|_| format!("set `{RECOMPUTE}`")).into_iter().collect();
    let by_batch = estimate.needed(config) > 2.0 * (estimate.weights + estimate.gradients + estimate.states);
    if by_batch && train.batch > train.accumulation {
        remedies.push(format!("raise `train.accumulation` ({})", train.accumulation));
    }
    remedies.push(format!("lower {}", keys(config, sizes, by_batch)));
    remedies.join(", ")
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
#[path = "estimate_tests.rs"]
mod tests;
