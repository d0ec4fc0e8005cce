//! How many kernels a step launches on a GPU: with small matrices, their number decides how long a step takes there.
//!
//! ```text
//! cargo bench -p polaron-benches --features wgpu --bench launches
//! cargo bench -p polaron-benches --features fusion --bench launches     # or autotune; the counts hold for that build
//! ```
//!
//! Any driver works, also one that computes on the CPU: the counts do not depend on speed. The optimizers' reference
//! vectors are checked on the device first; the exit code is 1 if one does not match, because counts of launches that
//! compute wrong results are useless.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::optim::Optimizer;
use burn::tensor::{DType, Device};
use cubecl_runtime::logging::{LaunchObservation, LaunchObserver};
use polaron::OptimizerConfig;
use polaron::matrix::Placement;
use polaron::rule::Pipeline;
use polaron_benches::{random, table, training};
use polaron_train::Error;
use polaron_train::commands::verify;
use polaron_train::host::device;

const SHAPE: [usize; 2] = [128, 384];
const STACK: [usize; 3] = [16, 64, 64];
/// Steps before the one that is counted: after them the state exists, and kernels have been chosen.
const WARM_UP: usize = 2;
const PRESETS: [&str; 4] = ["nanogpt-char", "llama-d64", "olmoe-tiny", "mlp"];

/// Launches so far.
#[derive(Default)]
struct Counter(AtomicUsize);

impl LaunchObserver for Counter {
    fn launched(&self, _kernel: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn main() -> ExitCode {
    // `cargo test` runs this program without the flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Error> {
    let device = device::open("wgpu")?;
    let build = match (cfg!(feature = "fusion"), cfg!(feature = "autotune")) {
        (false, false) => "neither fusion nor autotune",
        (true, false) => "fusion",
        (false, true) => "autotune",
        (true, true) => "fusion and autotune",
    };
    let (report, passed) = verify::verify(&[], &device)?;
    if !passed {
        println!("{report}");
    }
    println!("Built with {build}; verify: {}\n", if passed { "ok" } else { "MISS, see above" });
    let counter = Arc::new(Counter::default());
    let _observation = LaunchObservation::new(counter.clone());
    println!("{}", table(&["kind", "128x384", "16x64x64"], kinds(&counter, &device)));
    let head = ["preset, optimizer", "forward", "backward", "clip", "optimizer", "step"];
    println!("{}", table(&head, presets(&counter, &device)?));
    Ok(passed)
}

/// Launches of one step of every kind.
fn kinds(counter: &Counter, device: &Device) -> Vec<Vec<String>> {
    let row = |kind: &&'static str| {
        eprintln!("{kind}");
        let config = OptimizerConfig::of_kind(kind).expect("the defaults of every kind are valid");
        let host = config.describe().cost.on_host;
        let optimizer = config.build(Placement::default()).expect("the defaults of every kind are valid");
        let [single, stack] = [step(counter, device, &optimizer, SHAPE), step(counter, device, &optimizer, STACK)];
        let name = if host { format!("{kind} (besides the decomposition on the host)") } else { kind.to_string() };
        vec![name, single.to_string(), stack.to_string()]
    };
    OptimizerConfig::KINDS.iter().map(row).collect()
}

fn step<const D: usize>(counter: &Counter, device: &Device, optimizer: &Pipeline, shape: [usize; D]) -> usize {
    let gradient = random(shape, DType::F32, device);
    let mut weights = (random(shape, DType::F32, device), None);
    let mut launched = 0;
    for _ in 0..=WARM_UP {
        device.sync().expect("the device works");
        let before = counter.now();
        weights = optimizer.step(1e-3, weights.0, gradient.clone(), weights.1);
        device.sync().expect("the device works");
        launched = counter.now() - before;
    }
    launched
}

/// Launches of one training step on two rows, by phase; they do not depend on the number of rows.
fn presets(counter: &Counter, device: &Device) -> Result<Vec<Vec<String>>, Error> {
    let mut rows = Vec::new();
    for (preset, stack) in PRESETS.iter().flat_map(|preset| ["adamw", "muon"].map(|stack| (preset, stack))) {
        eprintln!("{preset}, {stack}");
        let mut training = training(preset, stack, Some(2), device)?;
        let mut marks = Vec::new();
        for _ in 0..=WARM_UP {
            marks.clear();
            training.step(&mut || marks.push(counter.now()))?;
        }
        let phases = marks.windows(2).map(|pair| pair[1] - pair[0]);
        let all = marks.last().zip(marks.first()).map_or(0, |(last, first)| last - first);
        let counts = phases.chain([all]).map(|count| count.to_string());
        rows.push([format!("{preset}, {stack}")].into_iter().chain(counts).collect());
    }
    Ok(rows)
}
