//! Gradients of any size: f32 and the half precisions must give the results of f64, or the nearest number that they can
//! hold.
//!
//! The settings are not listed here: [`OptimizerConfig::choices`] knows every key and every value of it.

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::OptimizerConfig;
use polaron::matrix::{Axis, Layout, Placement};
use polaron::rule::Pipeline;
use polaron::rule::State;
use polaron::rules::soap::SoapForm;
use polaron_common::splitmix64;
use serde_json::{Map, Value};

const SEED: u64 = 20;

/// Sizes of gradients; f32 cannot hold the squares of the outer ones.
const SIZES: [f64; 7] = [1e-30, 1e-20, 1e-12, 1.0, 1e12, 1e20, 1e30];

/// Tall, wide, square, a row, a column, a stack of experts.
const SHAPES: [[usize; 3]; 6] = [[1, 7, 3], [1, 4, 9], [1, 5, 5], [1, 1, 6], [1, 6, 1], [3, 4, 6]];

/// Keys that every matrix rule has: they act before or after the rule, so they are changed one at a time.
const SHARED: [&str; 9] = [
    "weight_decay",
    "cautious",
    "decay",
    "norm_control",
    "momentum",
    "momentum_form",
    "nesterov",
    "second_moment",
    "scale",
];

/// Every setting of a kind: the defaults, each key changed to each of its values, and each pair of the kind's own keys; a value
/// that is refused alone in each pair with another key.
fn settings(kind: &str) -> Vec<OptimizerConfig> {
    let choices = OptimizerConfig::choices(kind).expect("the kind exists");
    let single: Vec<(&str, Value)> =
        choices.iter().flat_map(|(key, values)| values.iter().map(|value| (*key, value.clone()))).collect();
    let base = OptimizerConfig::of_kind(kind).expect("the kind exists");
    let merge = |change: Vec<&(&str, Value)>| {
        let keys = Map::from_iter(change.into_iter().map(|(key, value)| (key.to_string(), value.clone())));
        base.merge(&keys).ok() // two values may exclude each other
    };
    let mut changes: Vec<Vec<&(&str, Value)>> = vec![Vec::new()];
    for (index, first) in single.iter().enumerate() {
        changes.push(vec![first]);
        let others = single[index + 1..].iter().filter(|second| second.0 != first.0);
        let own = |key: &str| !SHARED.contains(&key);
        let alone = merge(vec![first]).is_some();
        changes.extend(
            others.filter(|second| !alone || (own(first.0) && own(second.0))).map(|second| vec![first, second]),
        );
    }
    changes.into_iter().filter_map(merge).collect()
}

fn numbers(shape: [usize; 3], seed: u64) -> Vec<f64> {
    let entry = |i: u64| (splitmix64(SEED << 40 | seed << 20 | i) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    (0..shape.iter().product::<usize>() as u64).map(entry).collect()
}

/// Where a step is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    /// f64, the reference.
    Exact,
    /// This dtype, in place if possible.
    Fast(DType),
    /// f32 by Burn's operations, as on every other device.
    Operations,
}

impl Path {
    fn dtype(self) -> DType {
        match self {
            Path::Exact => DType::F64,
            Path::Fast(dtype) => dtype,
            Path::Operations => DType::F32,
        }
    }

    fn tensor(self, values: &[f64], shape: [usize; 3]) -> Tensor<3> {
        let data = TensorData::new(values.to_vec(), shape).convert_dtype(self.dtype());
        let plain = Tensor::from_data(data, (&Device::flex(), self.dtype()));
        // A tensor on the autodiff device is never updated in place.
        if self == Path::Operations { Tensor::from_inner(plain) } else { plain }
    }
}

fn values(tensor: Tensor<3>) -> Vec<f64> {
    tensor.into_data().convert_dtype(DType::F64).iter::<f64>().collect()
}

/// The weights after each step from zero: the updates, with all their digits. Steps that depend on the norm of the weights
/// start from weights of about 1.
fn walk(optimizer: &Pipeline, shape: [usize; 3], gradients: &[Vec<f64>], path: Path) -> Vec<Vec<f64>> {
    let start = match optimizer.norm_control() {
        Some(_) => numbers(shape, 99),
        None => vec![0.0; shape.iter().product()],
    };
    let mut weights = path.tensor(&start, shape);
    let mut state: Option<State<3>> = None;
    gradients
        .iter()
        .map(|gradient| {
            (weights, state) = optimizer.step(1.0, weights.clone(), path.tensor(gradient, shape), state.take());
            values(weights.clone())
        })
        .collect()
}

/// These numbers rounded to a dtype.
fn rounded(values: &[f64], dtype: DType) -> Vec<f64> {
    TensorData::new(values.to_vec(), [values.len()]).convert_dtype(dtype).convert_dtype(DType::F64).iter().collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

fn placements() -> [Placement; 3] {
    let plain = Placement::new(Layout::InOut);
    [plain, Placement::new(Layout::OutIn), plain.with_blocks(Axis::Output, 1)]
}

/// The share of the largest update by which a dtype may miss f64: rounding, times its growth by the rules.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-3,
        DType::F16 => 2e-2,
        _ => 6e-2,
    }
}

/// The largest number of a dtype, less what rounding may add.
fn limit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 6.0e4,
        _ => 1e35,
    }
}

/// The exact result, and its distance from that of an input with an error in the last digit of f32.
struct Reference {
    exact: Vec<Vec<f64>>,
    nearby: Vec<Vec<f64>>,
}

impl Reference {
    fn of(optimizer: &Pipeline, shape: [usize; 3], gradients: &[Vec<f64>]) -> Self {
        let wrong = |(i, x): (usize, &f64)| x * (1.0 + 1e-7 * ((i % 3) as f64 - 1.0));
        let nearby: Vec<Vec<f64>> =
            gradients.iter().map(|gradient| gradient.iter().enumerate().map(wrong).collect()).collect();
        let walk = |gradients| walk(optimizer, shape, gradients, Path::Exact);
        Self { exact: walk(gradients), nearby: walk(&nearby) }
    }
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn compare(label: &str, reference: &Reference, got: &[Vec<f64>], dtype: DType, failures: &mut Vec<String>) {
    for (step, (exact, got)) in reference.exact.iter().zip(got).enumerate() {
        let size = largest(exact);
        if !got.iter().all(|x| x.is_finite()) {
            failures.push(format!("{label}, step {}: not finite {got:?}, f64 {exact:?}", step + 1));
            return;
        }
        // Beyond its range a dtype saturates; the steps after that start elsewhere.
        if size > limit(dtype) {
            return;
        }
        let floor = match dtype {
            DType::F16 => 1e-7,
            // `muon_eq` with `both` and the exponent -1 is of degree -3 in the gradient.
            _ if label.contains("muon_eq") => 1e-25,
            _ => 1e-36,
        };
        let condition = 100.0 * difference(exact, &reference.nearby[step]);
        let error = difference(exact, got);
        // The signs that a second moment leaves in the first step may form a singular matrix.
        let slack = if label.contains("\"second_moment\":{") { 2.0 } else { 1.0 };
        if error > slack * tolerance(dtype) * size + condition + floor {
            failures.push(format!("{label}, step {}: {:.1e} of {size:.1e}", step + 1, error / size));
            return;
        }
    }
}

/// The strict map of Kaon sends single rows and columns to 0, so only rounding is left. SOAP's form by divergence divides by
/// eigenvalues, of which a matrix that is not square leaves some at 0: eps then decides, and the Gram matrices span more
/// than f32 holds. SOAP-Muon divides by the root of a moment that a small beta2 makes that of one gradient: only signs are left,
/// of which rounding decides those of directions that the gradient hardly has, as in the null space of a matrix that is not square.
fn is_nothing_but_rounding(config: &OptimizerConfig, shape: [usize; 3]) -> bool {
    match config {
        OptimizerConfig::Kaon(kaon) => !kaon.vector_fallback && shape[1].min(shape[2]) == 1,
        OptimizerConfig::Soap(soap) => soap.form == SoapForm::Kl && shape[1] != shape[2],
        OptimizerConfig::SoapMuon(soap) => shape[1] != shape[2] || soap.beta2 < 0.9 || soap.eps == 0.0,
        // Dividing by the second moment leaves signs in the first step: matrices with equal singular values.
        OptimizerConfig::RandomSpectrum(random) => random.second_moment.is_some(),
        _ => false,
    }
}

fn report(failures: Vec<String>) {
    let shown: Vec<&str> = failures.iter().take(60).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} failures with seed {SEED}:\n{}", failures.len(), shown.join("\n"));
}

fn each_setting(mut f: impl FnMut(usize, &OptimizerConfig)) {
    for kind in OptimizerConfig::KINDS {
        settings(kind).iter().enumerate().for_each(|(index, config)| f(index, config));
    }
}

fn label(config: &OptimizerConfig, shape: [usize; 3], size: f64, path: Path) -> String {
    format!("{} {shape:?}, gradients of {size:e}, {path:?}", serde_json::to_string(config).expect("JSON"))
}

#[test]
fn gradients_of_every_size_give_in_f32_what_f64_gives() {
    let mut failures = Vec::new();
    each_setting(|index, config| {
        for (turn, size) in SIZES.into_iter().enumerate() {
            let shape = SHAPES[(index + turn) % SHAPES.len()];
            if is_nothing_but_rounding(config, shape) {
                continue;
            }
            let optimizer = config.build(placements()[index % 3]).expect("valid");
            let gradients: Vec<Vec<f64>> = (0..3)
                .map(|step| rounded(&numbers(shape, step).iter().map(|x| x * size).collect::<Vec<_>>(), DType::F32))
                .collect();
            let exact = Reference::of(&optimizer, shape, &gradients);
            for path in [Path::Fast(DType::F32), Path::Operations] {
                let got = walk(&optimizer, shape, &gradients, path);
                compare(&label(config, shape, size, path), &exact, &got, DType::F32, &mut failures);
            }
        }
    });
    report(failures);
}

#[test]
fn half_precision_gives_what_f64_gives_wherever_it_holds_the_gradient() {
    let mut failures = Vec::new();
    each_setting(|index, config| {
        // f16 has numbers from 6e-8 to 65,504: gradients of 1e-12 are 0 in it, those of 1e12 infinite.
        for (dtype, sizes) in [(DType::BF16, SIZES.as_slice()), (DType::F16, &[1e-4, 1.0, 1e4])] {
            let turn = index % sizes.len();
            let (size, shape) = (sizes[turn], SHAPES[(index / sizes.len()) % SHAPES.len()]);
            if is_nothing_but_rounding(config, shape) {
                continue;
            }
            let optimizer = config.build(placements()[index % 3]).expect("valid");
            let gradients: Vec<Vec<f64>> = (0..2)
                .map(|step| rounded(&numbers(shape, step).iter().map(|x| x * size).collect::<Vec<_>>(), dtype))
                .collect();
            let exact = Reference::of(&optimizer, shape, &gradients);
            let path = Path::Fast(dtype);
            let got = walk(&optimizer, shape, &gradients, path);
            compare(&label(config, shape, size, path), &exact, &got, dtype, &mut failures);
        }
    });
    report(failures);
}

#[test]
fn a_spike_and_its_aftermath_are_those_of_f64() {
    let mut failures = Vec::new();
    each_setting(|index, config| {
        let shape = SHAPES[index % SHAPES.len()];
        if is_nothing_but_rounding(config, shape) {
            return;
        }
        let optimizer = config.build(placements()[index % 3]).expect("valid");
        let sizes = [1e-3, [1e30, 1e-30][index % 2], 1e-3, 1e-3];
        let gradients: Vec<Vec<f64>> = sizes
            .iter()
            .enumerate()
            .map(|(step, size)| numbers(shape, step as u64).iter().map(|x| x * size).collect::<Vec<_>>())
            .map(|gradient| rounded(&gradient, DType::F32))
            .collect();
        let exact = Reference::of(&optimizer, shape, &gradients);
        for path in [Path::Fast(DType::F32), Path::Operations] {
            let got = walk(&optimizer, shape, &gradients, path);
            compare(&label(config, shape, sizes[1], path), &exact, &got, DType::F32, &mut failures);
        }
    });
    report(failures);
}

#[test]
fn zero_and_rank_one_gradients_of_every_size_give_finite_updates() {
    let mut failures = Vec::new();
    each_setting(|index, config| {
        let shape = SHAPES[index % SHAPES.len()];
        let optimizer = config.build(placements()[index % 3]).expect("valid");
        for size in [0.0, 1e-30, 1e-12, 1.0, 1e12, 1e30] {
            let [_, height, width] = shape;
            let entry = |i: usize| size * (1.0 + ((i / width) % height) as f64) * (1.0 - 0.5 * (i % width) as f64);
            let gradient: Vec<f64> = (0..shape.iter().product()).map(entry).collect();
            for path in [Path::Fast(DType::F32), Path::Operations, Path::Fast(DType::BF16), Path::Exact] {
                let got = walk(&optimizer, shape, &[gradient.clone(), gradient.clone()], path);
                let label = label(config, shape, size, path);
                let stays = size == 0.0 && optimizer.norm_control().is_none();
                let held = |x: &f64| if stays { *x == 0.0 } else { x.is_finite() };
                if !got.iter().flatten().all(held) {
                    failures.push(format!("{label}: {got:?}"));
                }
            }
        }
    });
    report(failures);
}

/// A NaN is never hidden: its entry becomes NaN at once and stays NaN. Other matrices of the stack are not affected.
#[test]
fn a_nan_shows_in_its_entry_and_leaves_other_matrices_alone() {
    let mut failures = Vec::new();
    let (shape, size) = ([3, 4, 6], 24);
    each_setting(|index, config| {
        let optimizer = config.build(Placement::default()).expect("valid");
        let clean = numbers(shape, 1);
        let mut bad = clean.clone();
        bad[size + 7] = f64::NAN;
        let path = [Path::Fast(DType::F32), Path::Operations, Path::Exact][index % 3];
        let want = walk(&optimizer, shape, &[clean.clone(), clean.clone()], path);
        let got = walk(&optimizer, shape, &[bad, clean], path);
        for (got, want) in got.iter().zip(&want) {
            let others = (0..3 * size).filter(|i| i / size != 1);
            if !got[size + 7].is_nan() || others.into_iter().any(|i| got[i] != want[i]) {
                failures.push(format!("{}: {got:?}", label(config, shape, f64::NAN, path)));
                break;
            }
        }
    });
    report(failures);
}
