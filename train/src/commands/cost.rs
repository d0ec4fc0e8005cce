//! What a step and a run cost: operations, memory, and an estimate of the time.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use polaron::layerwise::Plan;
use polaron_common::thousands;

use crate::error::Error;
use crate::host::device;
use crate::host::progress::duration;
use crate::networks::data::DataSizes;
use crate::networks::family::Work;
use crate::run::estimate::Estimate;
use crate::run::operations;
use crate::settings::config::Config;

/// Side of the square matrices whose product is timed.
const SIDE: usize = 1024;
/// How often it is timed; the fastest counts, since other programs can only slow it down.
const PRODUCTS: usize = 5;
/// The rate of forward and backward relative to that of the product: between 0.35 (small mixtures) and 0.75 (wide decoders).
const RATE: f64 = 0.6;
/// Recomputing adds a forward pass to a forward and a backward pass, which is twice as much work.
const RECOMPUTED: f64 = 4.0 / 3.0;

/// The lines about operations and memory.
pub fn facts(config: &Config, sizes: DataSizes, plan: &Plan) -> Vec<[String; 2]> {
    let batch = config.train.batch;
    let rows = match config.model.tokens_per_row() {
        1 => String::new(),
        each => format!("{batch} x {each} = "),
    };
    let step = format!("{rows}{} {}", config.tokens_per_step(), config.model.unit().many);
    let (passes, updates) = (passes(config, sizes, plan), updates(plan));
    let steps = config.train.steps;
    let all = steps as f64 * (passes + updates);
    let estimate = Estimate::of(config, sizes, plan, 1);
    let megabytes = |bytes: f64| format!("about {} MB", thousands((bytes / 1e6) as u64));
    let memory = format!("{} to train ({})", megabytes(estimate.needed(config)), estimate.parts(config));
    let other = match (config.train.recompute, estimate.recomputed_peak) {
        (false, Some(peak)) => format!("; {} with train.recompute", megabytes(peak)),
        _ => String::new(),
    };
    let steps = thousands(steps);
    let step = format!("{step}, {} forward and backward, {} in the optimizer", counted(passes), counted(updates));
    vec![
        ["step".into(), step],
        ["run".into(), format!("{steps} steps, {}", counted(all))],
        ["memory".into(), format!("{memory}{other}")],
    ]
}

/// An estimate of the time of a step and of the run, from a matrix product that is timed now.
///
/// # Errors
///
/// When the device cannot be opened.
pub fn time(config: &Config, sizes: DataSizes, plan: &Plan) -> Result<String, Error> {
    let threads = device::set_threads(config.device.threads);
    let rate = product_rate(&device::open(device::default_name())?);
    let step = passes(config, sizes, plan) / (RATE * rate) + updates(plan) / rate;
    Ok(format!(
        "about {} a step, {} the run, if forward and backward reach {:.0} % of the rate of a product of two {SIDE} x {SIDE} \
         matrices, which is {:.0} GFLOP/s now ({threads} threads)",
        if step < 10.0 { format!("{step:.2} s") } else { duration(step) },
        duration(step * config.train.steps as f64),
        100.0 * RATE,
        rate / 1e9
    ))
}

/// A number of operations with its unit.
fn counted(number: f64) -> String {
    let units = [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP")];
    let (size, unit) = units.into_iter().find(|(size, _)| number >= *size).unwrap_or((1e9, "GFLOP"));
    format!("{:.2} {unit}", number / size)
}

/// Operations of the forward and backward passes of a step.
fn passes(config: &Config, sizes: DataSizes, plan: &Plan) -> f64 {
    let again = if config.train.recompute { RECOMPUTED } else { 1.0 };
    let Work { active, flops_per_row } = config.model.work(sizes);
    let idle = active.map_or(0, |active| config.model.memory(sizes).parameters.saturating_sub(active));
    let difference = operations::difference(plan, idle) * config.model.tokens_per_row() as f64;
    (flops_per_row + difference) * config.train.batch as f64 * again
}

/// Operations of the matrix products of the optimizer in a step.
fn updates(plan: &Plan) -> f64 {
    plan.entries().iter().map(|entry| entry.product_operations()).sum()
}

/// Operations per second of a matrix product.
fn product_rate(device: &Device) -> f64 {
    let [x, y] = [0.5, 0.25].map(|value| Tensor::<2>::full([SIDE, SIDE], value, device));
    let seconds = (0..PRODUCTS).map(|_| {
        let start = Instant::now();
        // Reading the result waits until it is computed.
        let _ = x.clone().matmul(y.clone()).into_data();
        start.elapsed().as_secs_f64()
    });
    2.0 * (SIDE as f64).powi(3) / seconds.fold(f64::INFINITY, f64::min)
}
