//! Orthogonalisation and whole optimizer steps beside a matrix product of the same size.
//!
//! ```text
//! cargo bench -p polaron-benches
//! RAYON_NUM_THREADS=1 cargo bench -p polaron-benches -- polar    # one thread
//! ```
//!
//! Absolute times drift on shared machines: compare with the `gemm` line of the same run.

use burn::optim::Optimizer;
use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polaron::OptimizerConfig;
use polaron::matrix::{Placement, Polar};

const SHAPES: [[usize; 2]; 4] = [[64, 64], [128, 384], [256, 704], [768, 3072]];

fn random(shape: [usize; 2]) -> Tensor<2> {
    Tensor::random(shape, Distribution::Default, &Device::flex())
}

/// Multiply-adds of five Newton–Schulz steps: 20 r² R + 10 r³ floating-point operations.
fn newton_schulz_flop([a, b]: [usize; 2]) -> u64 {
    let (r, long) = (a.min(b) as u64, a.max(b) as u64);
    20 * r * r * long + 10 * r * r * r
}

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for n in [64, 128, 256, 512, 768] {
        let (x, y) = (random([n, n]), random([n, n]));
        group.throughput(Throughput::Elements(2 * (n as u64).pow(3)));
        group.bench_function(BenchmarkId::from_parameter(n), |b| b.iter(|| x.clone().matmul(y.clone())));
    }
    group.finish();
}

fn polar(c: &mut Criterion) {
    let mut group = c.benchmark_group("polar");
    for shape in SHAPES {
        let stack = random(shape).unsqueeze::<3>();
        group.throughput(Throughput::Elements(newton_schulz_flop(shape)));
        let id = BenchmarkId::new("newton_schulz5", format!("{}x{}", shape[0], shape[1]));
        group.bench_function(id, |b| b.iter(|| Polar::default().apply(stack.clone())));
    }
    group.finish();
}

fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    for kind in OptimizerConfig::KINDS {
        let optimizer = OptimizerConfig::of_kind(kind)
            .and_then(|config| config.build(Placement::default()))
            .expect("the defaults of every kind are valid");
        for shape in &SHAPES[..3] {
            let gradient = random(*shape);
            let mut weights = Some((random(*shape), None));
            let id = BenchmarkId::new(*kind, format!("{}x{}", shape[0], shape[1]));
            group.bench_function(id, |b| {
                b.iter(|| {
                    let (tensor, state) = weights.take().expect("put back after every step");
                    weights = Some(optimizer.step(1e-3, tensor, gradient.clone(), state));
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = gemm, polar, step
}
criterion_main!(benches);
