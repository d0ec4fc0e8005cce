//! Properties of the rules on random matrices.

use burn::optim::Optimizer;
use burn::tensor::{DType, Device, FloatDType, Tensor};
use polaron::matrix::{Axis, Layout, Norm, Placement};
use polaron::rule::{Decay, Pipeline, Polar, Rates, Scale, State};
use polaron::{OptimizerConfig, rules::MuonConfig};

use crate::numbers::random;

fn muon(polar: Polar) -> Pipeline {
    OptimizerConfig::Muon(MuonConfig::new().with_polar(polar)).build(Placement::default()).unwrap()
}

fn largest<const D: usize>(tensor: Tensor<D>) -> f64 {
    tensor.abs().max().into_scalar::<f64>()
}

/// An orthogonal matrix: the exact polar factor of a random one.
fn orthogonal(n: usize, seed: u64) -> Tensor<2> {
    polaron::matrix::polar_svd(random([n, n], seed).unsqueeze(), 0.0).squeeze_dim(0)
}

/// The weights after three steps from zero with gradients `g(step)`.
fn walk(optimizer: &Pipeline, shape: [usize; 2], g: impl Fn(u64) -> Tensor<2>) -> Tensor<2> {
    let mut weights = Tensor::<2>::zeros(shape, (&Device::flex(), DType::F64));
    let mut state: Option<State<2>> = None;
    for step in 1..=3 {
        (weights, state) = optimizer.step(0.1, weights, g(step), state);
    }
    weights
}

const POLARS: [Polar; 3] = [
    Polar::NewtonSchulz { steps: 5, eps: 1e-7, norm: Norm::Frobenius },
    Polar::PolarExpress { steps: 5, eps: 1e-6, norm: Norm::Frobenius },
    Polar::Svd { rcond: 1e-5 },
];

#[test]
fn muon_commutes_with_rotations_of_outputs_and_of_inputs() {
    for polar in POLARS {
        let optimizer = muon(polar);
        for [n, m] in [[6, 20], [24, 10]] {
            let (inputs, outputs) = (orthogonal(n, 1), orthogonal(m, 2));
            let plain = walk(&optimizer, [n, m], |step| random([n, m], 10 + step));
            let rotated = walk(&optimizer, [n, m], |step| {
                inputs.clone().matmul(random([n, m], 10 + step)).matmul(outputs.clone())
            });
            let difference = largest(inputs.matmul(plain).matmul(outputs) - rotated);
            assert!(difference < 1e-9, "{difference}"); // f64 rounding through five products per step
        }
    }
}

#[test]
fn adamw_does_not_commute_with_rotations() {
    // The counterpart shows that the test of equivariance can fail.
    let optimizer = OptimizerConfig::of_kind("adamw").unwrap().build(Placement::default()).unwrap();
    let (n, m) = (6, 20);
    let inputs = orthogonal(n, 1);
    let plain = walk(&optimizer, [n, m], |step| random([n, m], 10 + step));
    let rotated = walk(&optimizer, [n, m], |step| inputs.clone().matmul(random([n, m], 10 + step)));
    assert!(largest(inputs.matmul(plain) - rotated) > 1e-2);
}

#[test]
fn muon_does_not_depend_on_the_size_of_the_gradient() {
    let optimizer = muon(Polar::NewtonSchulz { steps: 5, eps: 0.0, norm: Norm::Frobenius });
    let shape = [7, 5];
    let plain = walk(&optimizer, shape, |step| random(shape, step));
    for factor in [1e-12, 1e12] {
        let scaled = walk(&optimizer, shape, |step| random(shape, step) * factor);
        assert!(largest(plain.clone() - scaled) < 1e-12);
    }
}

#[test]
fn the_layouts_give_each_others_transpose() {
    for kind in OptimizerConfig::KINDS {
        for blocks in [None, Some((Axis::Output, 2)), Some((Axis::Input, 3))] {
            let place = |layout| match blocks {
                Some((axis, count)) => Placement::new(layout).with_blocks(axis, count),
                None => Placement::new(layout),
            };
            let build = |layout| OptimizerConfig::of_kind(kind).unwrap().build(place(layout)).unwrap();
            let in_out = walk(&build(Layout::InOut), [6, 8], |step| random([6, 8], step));
            let out_in = walk(&build(Layout::OutIn), [8, 6], |step| random([6, 8], step).transpose());
            // f64 rounding: the products run in another order. Eigenvectors multiply it by their condition.
            let rounding = if kind.starts_with("soap") { 1e-10 } else { 1e-13 };
            assert!(largest(in_out.transpose() - out_in) < rounding, "{kind} {blocks:?}");
        }
    }
}

/// The defaults of a kind with some keys replaced.
fn configured(kind: &str, keys: &str) -> OptimizerConfig {
    let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(keys).unwrap();
    OptimizerConfig::of_kind(kind).unwrap().merge(&keys).unwrap()
}

#[test]
fn a_zero_gradient_moves_nothing_but_the_decay() {
    // SOAP's first gradient moves nothing at all.
    for kind in OptimizerConfig::KINDS.iter().filter(|kind| **kind != "soap") {
        let keys = match *kind {
            "scion" => r#"{"weight_decay": 0.5, "constrained": false}"#,
            _ => r#"{"weight_decay": 0.5}"#,
        };
        let decayed = configured(kind, keys).build(Placement::default()).unwrap();
        let weights = random([4, 6], 3);
        let zero = weights.zeros_like();
        let (after, _) = decayed.step(0.1, weights.clone(), zero, None);
        // Muown computes the weights again from the norms of their units: f64 rounding.
        let rounding = if *kind == "muown" { 1e-15 } else { 0.0 };
        assert!(largest(weights * (1.0 - 0.1 * 0.5) - after) <= rounding, "{kind}");
    }
}

#[test]
fn constrained_scion_keeps_its_weights_inside_the_ball() {
    let optimizer = configured("scion", r#"{"lmo": "sign", "radius": 3.0}"#).build(Placement::default()).unwrap();
    let after = walk(&optimizer, [4, 6], |step| random([4, 6], step));
    // entries of the sign oracle are at most radius / inputs
    assert!(largest(after) <= 3.0 / 4.0 + 1e-12);
}

#[test]
fn no_rule_changes_the_gradient_or_the_momentum_it_is_given() {
    // AdamW and SOAP have other keys; Muown averages gradients of its directions.
    for kind in OptimizerConfig::KINDS.iter().filter(|kind| !["adamw", "muown", "soap"].contains(kind)) {
        // A plain average, so that buffer and direction are one tensor.
        let keys = r#"{"momentum": 0.5, "momentum_form": "ema", "nesterov": false}"#;
        let optimizer = configured(kind, keys).build(Placement::default()).unwrap();
        let gradient = random([5, 8], 4);
        let kept = gradient.to_data();
        let (_, state) = optimizer.step(0.1, random([5, 8], 5), gradient.clone(), None);
        assert_eq!(gradient.into_data(), kept, "{kind}");
        let expected = Tensor::<2>::from_data(kept, (&Device::flex(), DType::F64)) * 0.5;
        assert_eq!(state.unwrap().buffer("momentum").unwrap().into_data(), expected.into_data(), "{kind}");
    }
}

#[test]
fn smoothed_muon_without_smoothing_is_muon() {
    for polar in [r#"{"method": "svd"}"#, r#"{"method": "newton_schulz"}"#, r#"{"method": "polar_express"}"#] {
        let build = |kind, eps| {
            let keys = format!(r#"{{"polar": {polar}, "nesterov": false{eps}}}"#);
            configured(kind, &keys).build(Placement::default()).unwrap()
        };
        let run = |optimizer| walk(&optimizer, [6, 9], |step| random([6, 9], step));
        let smoothed = run(build("regularized_muon", r#", "eps": 0.0"#));
        assert_eq!(smoothed.into_data(), run(build("muon", "")).into_data(), "{polar}");
    }
}

/// Singular values from 1 down to 1 / condition.
fn conditioned(shape: [usize; 2], condition: f64, seed: u64) -> Tensor<2> {
    let stack = random(shape, seed).unsqueeze::<3>();
    let spread = |_: usize, s: &[f64]| -> Vec<f64> {
        (0..s.len()).map(|i| condition.powf(-(i as f64) / (s.len() - 1) as f64)).collect()
    };
    polaron::matrix::map_singular_values(stack, spread).squeeze_dim(0)
}

#[test]
fn badly_conditioned_f32_gradients_give_about_the_update_of_f64() {
    let shape = [8, 12];
    // Random spectra differ; SOAP's first gradient moves nothing.
    for kind in OptimizerConfig::KINDS.iter().filter(|kind| !["random_spectrum", "soap"].contains(kind)) {
        let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(Placement::default()).unwrap();
        for condition in [1e2, 1e6] {
            let gradient = conditioned(shape, condition, 7);
            let step =
                |gradient: Tensor<2>| optimizer.step(1.0, gradient.zeros_like(), gradient, None).0.cast(DType::F64);
            let exact = step(gradient.clone());
            let single = step(gradient.clone().cast(DType::F32));
            // Rounding the gradient to f32 moves singular values by 1e-7 of the largest, and with a condition of 1e6 the
            // smallest by a tenth of itself, together with its directions. Measured: 2e-6 and 3e-4 at most. The ten steps of
            // `converged` round too, and keep a third of the smallest, which `svd` drops: over 300 such matrices 4e-4 and 6e-3. The
            // products of `freon` round to 5e-5 with a condition of 1e2.
            let by_products = ["freon", "regularized_muon", "spectral", "hybrid", "ssd", "polar_grad"].contains(kind);
            let limit = match (by_products, condition > 1e3) {
                (false, false) => 1e-5,
                (true, false) => 1e-3,
                (false, true) => 1e-3,
                (true, true) => 2e-2,
            };
            let error = largest(exact.clone() - single) / largest(exact);
            assert!(error < limit, "{kind}, condition {condition:e}: {error:e}");
        }
    }
}

#[test]
fn rules_of_degree_0_ignore_the_size_of_the_gradient() {
    let shape = [7, 5];
    for (kind, keys) in [
        ("muon_eq", r#"{"polar": {"method": "newton_schulz", "eps": 0.0}}"#),
        ("muon_eq", r#"{"equilibrate": "both", "exponent": -0.25, "polar": {"method": "newton_schulz", "eps": 0.0}}"#),
        ("normuon", r#"{"polar": {"method": "newton_schulz", "eps": 0.0}}"#),
        ("adamuon", "{}"),
        ("regularized_muon", "{}"),
        ("freon", "{}"),
        ("freon", r#"{"method": "rational"}"#),
        ("kaon", "{}"),
        ("row_norm", "{}"),
        ("row_norm", r#"{"centered": true}"#),
        ("hybrid", "{}"),
        ("hybrid", r#"{"polar": {"method": "gram_polar_express"}}"#),
        ("scion", r#"{"polar": {"method": "newton_schulz", "eps": 0.0}}"#),
    ] {
        let optimizer = configured(kind, keys).build(Placement::default()).unwrap();
        let plain = walk(&optimizer, shape, |step| random(shape, step));
        for factor in [1e-12, 1e12] {
            let scaled = walk(&optimizer, shape, |step| random(shape, step) * factor);
            let error = largest(plain.clone() - scaled) / largest(plain.clone());
            // f64 rounding, times up to a thousand for Kaon's map
            assert!(error < 1e-10, "{kind} {keys} {factor:e}: {error:e}");
        }
    }
}

#[test]
fn extreme_gradients_stay_finite_in_f32() {
    let device = Device::flex();
    for kind in OptimizerConfig::KINDS {
        let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(Placement::default()).unwrap();
        for size in [1e-12, 1e12] {
            let gradient = random([6, 9], 1).cast(DType::F32) * size;
            let rank_one = gradient.clone().narrow(0, 0, 1).repeat_dim(0, 6);
            for gradient in [gradient, rank_one] {
                let weights = Tensor::<2>::ones([6, 9], &device);
                let (after, _) = optimizer.step(1e-3, weights, gradient, None);
                assert!(after.is_finite().all().into_scalar::<bool>(), "{kind} {size}");
            }
        }
    }
}

#[test]
fn the_update_of_a_linear_layer_is_scaled_by_its_outputs_over_its_inputs() {
    // Burn stores [d_in, d_out]: 64 -> 256 features is the one with the factor 2.
    for ([d_in, d_out], factor) in [([64, 256], 2.0), ([256, 64], 1.0)] {
        let gradient = random([d_in, d_out], 9);
        let update = |scale| {
            let config = MuonConfig::new().with_scale(scale);
            let zero = gradient.zeros_like();
            config.build().step(1.0, zero, gradient.clone(), None).0
        };
        let ratio = largest(update(Scale::Original)) / largest(update(Scale::None));
        assert!((ratio - factor).abs() < 1e-12, "{d_in} -> {d_out}: {ratio}");
    }
}

#[test]
fn every_expert_is_a_matrix_of_its_own() {
    // Random spectra differ by position in the stack, as they should.
    for kind in OptimizerConfig::KINDS.iter().filter(|kind| **kind != "random_spectrum") {
        let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(Placement::default()).unwrap();
        let stack = Tensor::cat(vec![random([4, 6], 1).unsqueeze::<3>(), random([4, 6], 2).unsqueeze()], 0);
        let (together, _) = optimizer.step(0.1, stack.zeros_like(), stack, None);
        for i in 0..2 {
            let alone = random([4, 6], 1 + i);
            let (alone, _) = optimizer.step(0.1, alone.zeros_like(), alone, None);
            let part = together.clone().narrow(0, i as usize, 1).squeeze_dim::<2>(0);
            assert_eq!(part.into_data(), alone.into_data(), "{kind}");
        }
    }
}

#[test]
fn cautious_decay_spares_entries_that_the_update_moves_away_from_zero() {
    let device = Device::flex();
    let weights = Tensor::<3>::from_floats([[[1.0, 1.0, -1.0, -1.0]]], &device);
    let update = Tensor::<3>::from_floats([[[1.0, -1.0, 1.0, 0.0]]], &device);
    let decay = Decay { rate: 0.5, cautious: true, ..Decay::default() };
    let after: Vec<f32> = decay.update(weights, update, Rates::constant(0.1)).into_data().try_to_vec().unwrap();
    // decayed where signs agree or the update is 0: entries 0 and 3
    for (got, want) in after.into_iter().zip([0.85_f32, 1.1, -1.1, -0.95]) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
}

#[test]
fn half_precision_parameters_keep_their_dtype_and_an_f32_state() {
    let device = Device::flex();
    for kind in OptimizerConfig::KINDS {
        let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(Placement::default()).unwrap();
        for dtype in [FloatDType::F16, FloatDType::BF16] {
            let weights = Tensor::<2>::ones([4, 4], &device).cast(dtype);
            let gradient = random([4, 4], 1).cast(dtype);
            let (after, state) = optimizer.step(0.1, weights.clone(), gradient, None);
            assert_eq!(after.dtype(), weights.dtype(), "{kind}");
            assert!(after.is_finite().all().into_scalar::<bool>(), "{kind}");
            let state = state.unwrap();
            let memory = state.memory();
            let dtypes: Vec<_> = memory.names().filter_map(|name| memory.get(name)).map(Tensor::dtype).collect();
            assert!(dtypes.iter().all(|dtype| *dtype == DType::F32), "{kind}: {dtypes:?}");
        }
    }
}
