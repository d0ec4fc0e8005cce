//! The time of every matrix function and of a step of every kind, compared with the product of the same matrices.
//!
//! ```text
//! cargo bench -p polaron-benches --bench optimizers                       # all of it
//! cargo bench -p polaron-benches --bench optimizers -- --quick            # no large matrices; a minute
//! RAYON_NUM_THREADS=1 cargo bench -p polaron-benches --bench optimizers -- 'product|newton'   # one thread, some benches
//! ```
//!
//! Prints a table at the end. Its columns compare with the product `X Xᵀ`, `2 r²R` operations for an `r x R`
//! matrix, measured before and after in the same run (the faster one counts): absolute times change on shared machines.
//! Rules without matrix products are compared too: "products" is how many such products would take the same time, and the
//! last column compares with a step of Muon. MFLOP is the nominal work of an iteration, `20 r²R + 10 r³` for five steps,
//! whichever form of it is computed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion};
use polaron::OptimizerConfig;
use polaron::matrix::{self, Axis, EpsMode, Layout, Matrix, Norm, POLAR_EXPRESS_LIMIT, Placement};
use polaron::rule::Pipeline;
use polaron::rule::{OneSided, Polar};
use polaron_benches::{digits, quick, random, table};
use serde_json::{Map, Value, json};

const SHAPES: [[usize; 2]; 5] = [[64, 64], [128, 128], [128, 384], [256, 704], [768, 3072]];
/// Matrices in a stack, like those of experts and blocks.
const STACK: usize = 16;
const STACKED: [[usize; 2]; 2] = [[64, 64], [128, 384]];
/// The short form decomposes at most this many rows, counted over all matrices of a stack.
const DECOMPOSED: usize = 128;

/// A bench that may have run: where criterion stores its result, and what it computes.
struct Line {
    group: &'static str,
    name: String,
    stack: usize,
    shape: [usize; 2],
    flop: Option<f64>,
}

impl Line {
    fn shape(&self) -> String {
        let [a, b] = self.shape;
        if self.stack == 1 { format!("{a}x{b}") } else { format!("{}x{a}x{b}", self.stack) }
    }

    /// Seconds of the run that began at `start`, if this bench was part of it.
    fn seconds(&self, folder: &Path, start: SystemTime) -> Option<f64> {
        let path = folder.join(self.group).join(&self.name).join(self.shape()).join("new/estimates.json");
        if fs::metadata(&path).ok()?.modified().ok()? < start {
            return None;
        }
        let estimates: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        Some(estimates["median"]["point_estimate"].as_f64()? * 1e-9)
    }
}

struct Suite {
    criterion: Criterion,
    lines: Vec<Line>,
}

impl Suite {
    fn bench(&mut self, line: Line, mut run: impl FnMut()) {
        let large = line.shape[0] > 256;
        let mut group = self.criterion.benchmark_group(line.group);
        group.sample_size(if large { 10 } else { 20 });
        group.bench_function(BenchmarkId::new(&line.name, line.shape()), |b| b.iter(&mut run));
        group.finish();
        self.lines.push(line);
    }
}

fn main() {
    // Inside the thread pool, like a training run: from outside, every operation would be handed over and awaited.
    rayon::scope(|_| run());
}

fn run() {
    let start = SystemTime::now();
    let folder = folder();
    let criterion = Criterion::default()
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(if quick() { 500 } else { 2000 }))
        .output_directory(&folder);
    let mut suite = Suite { criterion: criterion.configure_from_args(), lines: Vec::new() };
    for (stack, shape) in shapes() {
        products(&mut suite, "before", stack, shape);
        functions(&mut suite, stack, shape);
        steps(&mut suite, stack, shape);
        products(&mut suite, "after", stack, shape);
    }
    let rows = rows(&suite.lines, &folder, start);
    if !rows.is_empty() {
        let head = ["bench", "shape", "time, µs", "MFLOP", "GFLOP/s", "of the product's", "products", "of Muon's"];
        println!("\n{} thread(s)\n\n{}", polaron_train::host::device::set_threads(0), table(&head, rows));
    }
}

/// Where criterion writes: `criterion` in the target folder.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("criterion")
}

fn shapes() -> Vec<(usize, [usize; 2])> {
    let (single, stacked) = if quick() { (&SHAPES[..4], &STACKED[..1]) } else { (&SHAPES[..], &STACKED[..]) };
    let single = single.iter().map(|shape| (1, *shape));
    single.chain(stacked.iter().map(|shape| (STACK, *shape))).collect()
}

fn flex<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    random(shape, DType::F32, &Device::flex())
}

/// `X Xᵀ`, the product that all other benches are compared with, measured before and after them.
fn products(suite: &mut Suite, when: &str, stack: usize, shape: [usize; 2]) {
    let [a, b] = shape;
    let (x, y) = (flex([stack, a, b]), flex([stack, b, a]));
    let line = Line { group: "product", name: when.into(), stack, shape, flop: Some(product(shape) * stack as f64) };
    suite.bench(line, || drop(x.clone().matmul(y.clone())));
}

/// `2 r²R`
fn product(shape: [usize; 2]) -> f64 {
    let [r, long] = sides(shape);
    2.0 * r * r * long
}

/// The short side r and the long side R.
fn sides([a, b]: [usize; 2]) -> [f64; 2] {
    [a.min(b) as f64, a.max(b) as f64]
}

/// Operations of the polynomial iteration: `4 r²R + 2 r³` a step.
fn polynomial(shape: [usize; 2], steps: usize) -> f64 {
    let [r, long] = sides(shape);
    steps as f64 * (4.0 * r * r * long + 2.0 * r.powi(3))
}

/// Operations of the coupled iteration: the Gram matrix, four products of r x r matrices a step, one product at the end.
fn coupled(shape: [usize; 2], steps: usize) -> f64 {
    let [r, long] = sides(shape);
    4.0 * r * r * long + steps as f64 * 8.0 * r.powi(3)
}

/// Operations of Freon's power: two products of the matrix, and 16 of `r x r` matrices.
fn power(shape: [usize; 2]) -> f64 {
    let [r, long] = sides(shape);
    4.0 * r * r * long + 32.0 * r.powi(3)
}

/// Whether the short form skips decompositions of this size on the host.
fn too_slow([a, _]: [usize; 2], stack: usize) -> bool {
    quick() && a * stack > DECOMPOSED
}

fn functions(suite: &mut Suite, stack: usize, shape: [usize; 2]) {
    let x = flex([stack, shape[0], shape[1]]);
    let line = |name: &str, flop: Option<f64>| {
        let flop = flop.map(|flop| flop * stack as f64);
        Line { group: "matrix", name: name.into(), stack, shape, flop }
    };
    let stored = Matrix::new(x.clone(), Layout::default());
    let (norm, coefficients) = (Norm::Frobenius, vec![POLAR_EXPRESS_LIMIT; 3].into());
    let express = Polar::PolarExpress { steps: 5, eps: 1e-6, norm };
    let limit = Polar::Polynomial { coefficients, norm_factor: 1.0, eps: 1e-7, norm };
    let minimax = [4, 3].map(|steps| Polar::Minimax { steps });
    for polar in [Polar::default(), express, limit].into_iter().chain(minimax) {
        let steps = polar.schedule().len();
        let work = line(&polar.label(), Some(polynomial(shape, steps)));
        suite.bench(work, || drop(polar.apply(stored.clone())));
    }
    for dtype in [DType::F16, DType::BF16].into_iter().filter(|dtype| Device::flex().supports_dtype(*dtype)) {
        let low = stored.clone().map(|x| x.cast(dtype));
        let work = line(&format!("newton_schulz5 {dtype:?}"), Some(polynomial(shape, 5)));
        suite.bench(work, || drop(Polar::default().apply(low.clone())));
    }
    let root = |one_sided: OneSided| {
        let stored = stored.clone();
        move || drop(one_sided.apply(stored.clone(), Axis::Output, 1e-6, EpsMode::Relative))
    };
    suite.bench(line("gram_polar_express5", Some(coupled(shape, 5))), root(OneSided::GramPolarExpress { steps: 5 }));
    if !too_slow(shape, stack) {
        let svd = Polar::Svd { rcond: 1e-5 };
        suite.bench(line("svd", None), || drop(svd.apply(stored.clone())));
        suite.bench(line("gram_eigh", None), root(OneSided::GramEigh));
        suite.bench(line("map_singular_values", None), || {
            drop(matrix::map_singular_values(x.clone(), |_, s| s.to_vec()));
        });
    }
    suite.bench(line("frobenius_norm", None), || drop(matrix::frobenius_norm(x.clone())));
    suite.bench(line("inner_product", None), || drop(matrix::inner_product(x.clone(), x.clone())));
    for axis in [Axis::Output, Axis::Input] {
        suite.bench(line(&format!("unit_sums {}", axis.name()), None), || drop(matrix::unit_sums(&stored, axis)));
        suite.bench(line(&format!("normalize_units {}", axis.name()), None), || {
            drop(matrix::normalize_units(stored.clone(), axis, 1e-8, EpsMode::Relative));
        });
        suite.bench(line(&format!("center {}", axis.name()), None), || drop(matrix::center(stored.clone(), axis)));
    }
}

/// A kind with its defaults, or with other keys.
struct Rule {
    name: String,
    config: OptimizerConfig,
    work: Work,
}

/// What a step computes besides passes over the entries.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// Nothing.
    Entries,
    /// Decompositions on the host.
    Host,
    /// Bases of both sides, on the host.
    Bases,
    /// This many steps of a polynomial iteration.
    Polynomial(usize),
    /// The same on an `r x (R + r)` matrix.
    Widened(usize),
    /// This many steps of the coupled iteration.
    Coupled(usize),
    /// A power by products.
    Power,
}

impl Work {
    fn flop(self, shape: [usize; 2]) -> Option<f64> {
        let [a, b] = shape;
        match self {
            Work::Entries | Work::Host | Work::Bases => None,
            Work::Polynomial(steps) => Some(polynomial(shape, steps)),
            Work::Widened(steps) => Some(polynomial([a.min(b), a + b], steps)),
            Work::Coupled(steps) => Some(coupled(shape, steps)),
            Work::Power => Some(power(shape)),
        }
    }
}

/// Every kind, and the kinds whose target is exact a second time, with a shorter iteration and with a decomposition.
fn rules() -> Vec<Rule> {
    let default = |kind: &&'static str| Rule { name: kind.to_string(), config: of_kind(kind), work: work(kind) };
    let express = json!({"polar": {"method": "polar_express"}});
    let gram = json!({"polar": {"method": "gram_polar_express"}});
    let svd = json!({"polar": {"method": "svd"}});
    let sphere = json!({"norm_control": {"method": "hyperball"}, "weight_decay": 0.0});
    let exact = json!({"polar": {"method": "gram_eigh"}});
    let variant = |(kind, keys, name, work): (&str, &Value, &str, Work)| {
        let keys: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
        let config = of_kind(kind).merge(&keys).expect("the keys are those of this kind");
        Rule { name: format!("{kind} {name}"), config, work }
    };
    let variants = [
        ("muon", &json!({"polar": {"method": "minimax"}}), "minimax", Work::Polynomial(4)),
        ("muon", &json!({"second_moment": {}}), "second_moment", Work::Polynomial(5)),
        ("muon", &sphere, "hyperball", Work::Polynomial(5)),
        ("muon_eq", &json!({"equilibrate": "longer", "iterations": 2}), "Aurora", Work::Polynomial(10)),
        ("soap", &json!({"form": "kl"}), "kl", Work::Bases),
        ("regularized_muon", &express, "polar_express", Work::Widened(5)),
        ("error_feedback_muon", &express, "polar_express", Work::Polynomial(5)),
        ("ssd", &express, "polar_express", Work::Polynomial(5)),
        ("polar_grad", &express, "polar_express", Work::Polynomial(5)),
        ("spectral", &gram, "gram_polar_express", Work::Coupled(5)),
        ("hybrid", &gram, "gram_polar_express", Work::Coupled(5)),
        ("freon", &json!({"method": "svd"}), "svd", Work::Host),
        ("polar_grad", &svd, "svd", Work::Host),
        ("spectral", &exact, "gram_eigh", Work::Host),
        ("freon", &json!({"method": "rational"}), "rational", Work::Host),
    ];
    OptimizerConfig::KINDS.iter().map(default).chain(variants.into_iter().map(variant)).collect()
}

fn of_kind(kind: &str) -> OptimizerConfig {
    OptimizerConfig::of_kind(kind).expect("the defaults of every kind are valid")
}

/// The work of a kind with its defaults.
fn work(kind: &str) -> Work {
    match kind {
        "sgd" | "adamw" | "row_norm" => Work::Entries,
        "muon" | "muon_eq" | "normuon" | "adamuon" | "kaon" | "scion" | "muown" => Work::Polynomial(5),
        "soap" | "soap_muon" => Work::Bases,
        "freon" => Work::Power,
        "ssd" | "polar_grad" => Work::Polynomial(10),
        "regularized_muon" | "spectral" | "hybrid" => Work::Widened(10),
        _ => Work::Host,
    }
}

fn steps(suite: &mut Suite, stack: usize, shape: [usize; 2]) {
    let [a, b] = shape;
    for Rule { name, config, work } in rules() {
        let skipped = match work {
            Work::Host => too_slow(shape, stack),
            // The bases of a side of 3072 take minutes.
            Work::Bases => too_slow(shape, stack) || shape[1] > 704,
            _ => false,
        };
        if skipped {
            continue;
        }
        let optimizer = config.build(Placement::default()).expect("the defaults of every kind are valid");
        let flop = work.flop(shape).map(|flop| flop * stack as f64);
        let line = Line { group: "step", name, stack, shape, flop };
        match stack {
            1 => step(suite, line, &optimizer, [a, b]),
            _ => step(suite, line, &optimizer, [stack, a, b]),
        }
    }
}

/// A step that updates weights and state in place.
fn step<const D: usize>(suite: &mut Suite, line: Line, optimizer: &Pipeline, shape: [usize; D]) {
    let gradient = flex(shape);
    let mut weights = Some(optimizer.step(1e-3, flex(shape), gradient.clone(), None));
    suite.bench(line, || {
        let (tensor, state) = weights.take().expect("put back after every step");
        weights = Some(optimizer.step(1e-3, tensor, gradient.clone(), state));
    });
}

/// The rows of the table: every bench that ran, compared with the product of the same matrices.
fn rows(lines: &[Line], folder: &Path, start: SystemTime) -> Vec<Vec<String>> {
    let rate = |shape: [usize; 2]| {
        let same = lines.iter().filter(|line| line.group == "product" && line.stack == 1 && line.shape == shape);
        same.filter_map(|line| Some(product(shape) / line.seconds(folder, start)?)).reduce(f64::max)
    };
    let muon = |of: &Line| {
        let same = |line: &&Line| line.name == "muon" && (line.stack, line.shape) == (of.stack, of.shape);
        lines.iter().find(same).and_then(|line| line.seconds(folder, start)).filter(|_| of.group == "step")
    };
    let row = |line: &Line| {
        let seconds = line.seconds(folder, start)?;
        let (rate, speed) = (rate(line.shape), line.flop.map(|flop| flop / seconds));
        let one = product(line.shape) * line.stack as f64;
        let show = |value: Option<f64>| value.map_or_else(|| "–".into(), digits);
        Some(vec![
            format!("{}: {}", line.group, line.name),
            line.shape(),
            digits(1e6 * seconds),
            show(line.flop.map(|flop| flop / 1e6)),
            show(speed.map(|speed| speed / 1e9)),
            speed.zip(rate).map_or_else(|| "–".into(), |(speed, rate)| format!("{:.0} %", 100.0 * speed / rate)),
            show(rate.map(|rate| seconds * rate / one)),
            show(muon(line).map(|muon| seconds / muon)),
        ])
    };
    lines.iter().filter_map(row).collect()
}
