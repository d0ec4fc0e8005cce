//! Whole training steps of every preset, split into forward, backward, clip and optimizer, compared with the rate of a
//! matrix product measured before and after.
//!
//! ```text
//! cargo bench -p polaron-benches --bench steps
//! cargo bench -p polaron-benches --bench steps -- llama --quick    # presets with this in their name; few steps
//! RAYON_NUM_THREADS=2 cargo bench -p polaron-benches --bench steps # default: one thread
//! ```

use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::Device;
use polaron_benches::{chosen, digits, gemm_rate, median, quick, table, training};
use polaron_models::ModelConfig;
use polaron_train::Error;
use polaron_train::host::device::set_threads;
use polaron_train::networks::registry::NetworkConfig;

const STACKS: [&str; 2] = ["adamw", "muon"];
/// The presets of the short form.
const SMALL: [&str; 3] = ["nanogpt-char", "llama-d64", "mlp"];
const SIDE: usize = 512;
const HEAD: [&str; 11] = [
    "preset, optimizer",
    "parameters",
    "tokens or images",
    "forward, ms",
    "backward, ms",
    "clip, ms",
    "optimizer, ms",
    "optimizer's share",
    "per second",
    "GFLOP/s of forward and backward",
    "of the product's",
];

fn main() -> ExitCode {
    // `cargo test` runs this program without the flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let threads = set_threads(if std::env::var_os("RAYON_NUM_THREADS").is_some() { 0 } else { 1 });
    // Inside the thread pool, like a training run: from outside, every operation would be handed over and awaited.
    match rayon::scope(|_| rows()) {
        Ok((rows, rates)) => {
            let rate = digits(median(rates) / 1e9);
            println!(
                "\n{threads} thread(s), f32; a product of two {SIDE}x{SIDE} matrices: {rate} GFLOP/s, the median\n"
            );
            print!("{}", table(&HEAD, rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Presets of the sizes of papers, whose steps take seconds, are run only if they are named in full.
fn is_asked_for(preset: &str) -> bool {
    let large = ModelConfig::PRESETS.contains(&preset) && !ModelConfig::SMALL_PRESETS.contains(&preset);
    let named = std::env::args().any(|argument| argument == preset);
    chosen(preset) && (named || !large) && (!quick() || SMALL.contains(&preset))
}

fn rows() -> Result<(Vec<Vec<String>>, Vec<f64>), Error> {
    let presets = NetworkConfig::presets().into_iter().filter(|name| is_asked_for(name));
    let (mut rows, mut rates) = (Vec::new(), Vec::new());
    for preset in presets {
        for stack in STACKS {
            eprintln!("{preset}, {stack}");
            let before = gemm_rate(SIDE, &Device::flex());
            let row = row(preset, stack)?;
            // The faster one: other programs can only slow it down.
            let rate = before.max(gemm_rate(SIDE, &Device::flex()));
            rows.push(row(rate));
            rates.push(rate);
        }
    }
    Ok((rows, rates))
}

/// The medians of the phases after one warm-up step. The row is complete once it is called with the rate of a product.
fn row(preset: &str, stack: &str) -> Result<impl FnOnce(f64) -> Vec<String>, Error> {
    let mut training = training(preset, stack, None, &Device::flex())?;
    let mut phases: [Vec<f64>; 4] = Default::default();
    training.step(&mut || {})?;
    for _ in 0..if quick() { 3 } else { 10 } {
        let mut marks = Vec::with_capacity(5);
        training.step(&mut || marks.push(Instant::now()))?;
        for (phase, pair) in phases.iter_mut().zip(marks.windows(2)) {
            phase.push((pair[1] - pair[0]).as_secs_f64());
        }
    }
    let [forward, backward, clip, optimizer] = phases.map(median);
    let all = forward + backward + clip + optimizer;
    let speed = training.flop() / (forward + backward);
    let milliseconds = [forward, backward, clip, optimizer].map(|seconds| digits(1e3 * seconds));
    let counts = [training.parameters().to_string(), format!("{}", training.tokens())];
    let shares =
        [format!("{:.0} %", 100.0 * optimizer / all), format!("{:.0}", training.tokens() / all), digits(speed / 1e9)];
    let cells = [format!("{preset}, {stack}")].into_iter().chain(counts).chain(milliseconds).chain(shares);
    let cells: Vec<String> = cells.collect();
    Ok(move |rate: f64| cells.into_iter().chain([format!("{:.0} %", 100.0 * speed / rate)]).collect())
}
