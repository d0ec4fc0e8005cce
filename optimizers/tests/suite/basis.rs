//! Parameters whose basis was changed: momenta and copies turn with them, other states begin anew.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{BasisChange, Rule};
use polaron::matrix::{Axis, Blocks, refactored};
use polaron::wrappers::{EmaNesterovConfig, OuterNesterovConfig, ScheduleFreeConfig, WrapperConfig};
use polaron::{Layerwise, LayerwiseOptimizer, LayerwiseRecord, OptimizerConfig, Role};

/// A factor, a stack of two, and a parameter whose basis stays.
#[derive(Module, Debug)]
struct Factors {
    b: Param<Tensor<2>>,
    stack: Param<Tensor<3>>,
    other: Param<Tensor<2>>,
}

const B: [usize; 2] = [3, 5];
const STACK: [usize; 3] = [2, 4, 6];

fn device() -> Device {
    Device::flex().autodiff()
}

/// The same numbers for the same seed, between -1 and 1.
fn numbers<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let entry = |i: u64| (0.7 * (seed * 31 + i * 7 + 3) as f64).sin() * (1.3 * (i + seed) as f64).cos();
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(entry).collect();
    Tensor::from_data(TensorData::new(values, shape), (&device(), DType::F64))
}

fn factors() -> Factors {
    let param = |tensor: Tensor<2>| Param::from_tensor(tensor.detach()).set_require_grad(true);
    let stack = Param::from_tensor(numbers(STACK, 2).detach()).set_require_grad(true);
    Factors { b: param(numbers(B, 1)), stack, other: param(numbers(B, 3)) }
}

/// Orthogonal matrices.
fn rotation(batch: usize, rank: usize, seed: u64) -> TensorData {
    refactored(numbers([batch, rank, rank], seed), numbers([batch, rank, rank], seed + 1)).a.into_data()
}

fn changes() -> [BasisChange; 2] {
    [("b", rotation(1, B[0], 8)), ("stack", rotation(2, STACK[1], 5))]
        .map(|(path, rotation)| BasisChange { path: path.into(), rotation })
}

/// `rotation · x` by Burn.
fn turned<const D: usize>(change: &BasisChange, x: Tensor<D>) -> Tensor<D> {
    let shape = x.dims();
    let turn = Tensor::<3>::from_data(change.rotation.clone(), (&x.device(), x.dtype()));
    turn.clone().matmul(x.reshape([turn.dims()[0], shape[D - 2], shape[D - 1]])).reshape(shape)
}

fn in_the_new_basis(model: Factors) -> Factors {
    let [b, stack] = changes();
    let turn = |tensor: Tensor<2>| turned(&b, tensor).detach().set_require_grad(true);
    let stack = |tensor: Tensor<3>| turned(&stack, tensor).detach().set_require_grad(true);
    Factors { b: model.b.map(turn), stack: model.stack.map(stack), ..model }
}

/// Gradients that do not depend on the weights, optionally in the new basis.
fn gradients(model: &Factors, step: u64, in_new_basis: bool) -> GradientsParams {
    let (mut b, mut stack) = (numbers(B, 40 + step), numbers(STACK, 50 + step));
    if in_new_basis {
        let changes = changes();
        (b, stack) = (turned(&changes[0], b), turned(&changes[1], stack));
    }
    let other = numbers(B, 60 + step);
    let loss = (model.b.val() * b).sum() + (model.stack.val() * stack).sum() + (model.other.val() * other).sum();
    GradientsParams::from_grads(loss.backward(), model)
}

fn built(config: OptimizerConfig, wrapper: Option<WrapperConfig>) -> LayerwiseOptimizer {
    let rule = Rule::path("**", config).unwrap().with_lr(0.05);
    let builder = Layerwise::new().assign("**", Role::LoraB).rule(rule).clip(None);
    let builder = wrapper.into_iter().fold(builder, Layerwise::wrapper);
    builder.build(&factors()).unwrap()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn apart(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

fn stepped(optimizer: &mut LayerwiseOptimizer, model: Factors, steps: std::ops::Range<u64>, new: bool) -> Factors {
    steps.fold(model, |model, step| {
        let model = optimizer.before_forward(1.0, model).unwrap();
        let gradients = gradients(&model, step, new);
        optimizer.step(1.0, model, gradients)
    })
}

#[test]
fn steps_after_a_change_are_those_without_it_in_the_new_basis() {
    let wrappers = [
        None,
        Some(OuterNesterovConfig::new().with_every(2).into()),
        Some(EmaNesterovConfig::new().with_prefill(1).into()),
        Some(ScheduleFreeConfig::new().into()),
    ];
    for (kind, wrapper) in ["sgd", "muon", "regularized_muon", "polar_grad", "kaon"]
        .into_iter()
        .zip([&wrappers; 5])
        .flat_map(|(kind, wrappers)| wrappers.iter().map(move |wrapper| (kind, wrapper.clone())))
    {
        let what = format!("{kind} {wrapper:?}");
        let config = OptimizerConfig::of_kind(kind).unwrap();
        let mut optimizer = built(config, wrapper);
        let model = stepped(&mut optimizer, factors(), 0..3, false);
        let (mut follows, mut stays) = (optimizer.clone(), optimizer.clone());
        let plain = stepped(&mut optimizer, model.clone(), 3..6, false);
        follows.change_basis(&changes(), &device()).unwrap();
        let new = stepped(&mut follows, in_the_new_basis(model.clone()), 3..6, true);
        let wanted = in_the_new_basis(plain.clone());
        // Of order 1; polynomials of degree 5 amplify rounding by about a thousand.
        assert!(apart(&values(new.b.val()), &values(wanted.b.val())) < 1e-11, "{what}");
        assert!(apart(&values(new.stack.val()), &values(wanted.stack.val())) < 1e-11, "{what}");
        assert_eq!(values(new.other.val()), values(plain.other.val()), "{what}");
        let evaluated = follows.evaluation_weights(new).unwrap();
        let wanted = in_the_new_basis(optimizer.evaluation_weights(plain).unwrap());
        assert!(apart(&values(evaluated.b.val()), &values(wanted.b.val())) < 1e-11, "{what}");
        // A state that stays behind leads elsewhere.
        let lost = stepped(&mut stays, in_the_new_basis(model), 3..6, true);
        assert!(apart(&values(lost.b.val()), &values(evaluated.b.val())) > 1e-3, "{what}");
    }
}

/// The kinds of which nothing is kept but a momentum.
const TURNING: [&str; 14] = [
    "sgd",
    "muon",
    "muon_eq",
    "regularized_muon",
    "freon",
    "kaon",
    "random_spectrum",
    "row_norm",
    "spectral",
    "hybrid",
    "ssd",
    "polar_grad",
    "scion",
    "truncated_sgd",
];

#[test]
fn every_kind_either_turns_its_momentum_or_begins_anew() {
    for kind in OptimizerConfig::KINDS {
        let mut optimizer = built(OptimizerConfig::of_kind(kind).unwrap(), None);
        let turning = optimizer.plan().entries().iter().all(|entry| entry.turns());
        assert_eq!(turning, TURNING.contains(kind), "{kind}");
        let model = stepped(&mut optimizer, factors(), 0..3, false);
        let before = optimizer.to_record();
        optimizer.change_basis(&changes(), &device()).unwrap();
        let after = optimizer.to_record();
        let of = |record: &LayerwiseRecord, path: &str| -> Vec<(String, Vec<f64>)> {
            let own = record.tensors().iter().filter(|(name, _)| name.starts_with(&format!("{path}.")));
            own.map(|(name, data)| (name.clone(), data.iter().collect())).collect()
        };
        assert_eq!(of(&before, "other"), of(&after, "other"), "{kind}");
        for change in changes() {
            let (old, new) = (of(&before, &change.path), of(&after, &change.path));
            // One kind keeps nothing at all by default.
            assert_eq!(old.is_empty(), *kind == "ssd", "{kind}");
            if !turning {
                assert!(new.is_empty(), "{kind}");
                continue;
            }
            for ((name, old), (same, new)) in old.into_iter().zip(new) {
                assert_eq!(name, same, "{kind}");
                let old = TensorData::new(old, if change.path == "b" { B.to_vec() } else { STACK.to_vec() });
                let wanted = match change.path.as_str() {
                    "b" => values(turned(&change, Tensor::<2>::from_data(old, (&device(), DType::F64)))),
                    _ => values(turned(&change, Tensor::<3>::from_data(old, (&device(), DType::F64)))),
                };
                assert!(apart(&new, &wanted) < 1e-15, "{kind} {name}");
            }
        }
        if !turning {
            // As in the first step of a training: the same as a new optimizer, but for `other`.
            let fresh = stepped(&mut built(OptimizerConfig::of_kind(kind).unwrap(), None), model.clone(), 3..4, false);
            let anew = stepped(&mut optimizer, model, 3..4, false);
            assert_eq!(values(anew.b.val()), values(fresh.b.val()), "{kind}");
            assert_eq!(values(anew.stack.val()), values(fresh.stack.val()), "{kind}");
        }
    }
}

#[test]
fn a_second_moment_or_blocks_make_a_state_begin_anew() {
    let with_moment = r#"{"kind": "muon", "second_moment": {"beta": 0.9}}"#;
    let optimizer = built(serde_json::from_str(with_moment).unwrap(), None);
    assert!(optimizer.plan().entries().iter().all(|entry| !entry.turns()));
    // Parts of different sizes have a momentum each, which is not stored in the shape of the parameter.
    let blocks = Blocks::of_sizes(Axis::Output, &[3, 2]).unwrap();
    let muon = |path: &str| Rule::path(path, OptimizerConfig::of_kind("muon").unwrap()).unwrap().with_lr(0.05);
    let builder = Layerwise::new().assign("**", Role::LoraB).rule(muon("**")).rule(muon("b").with_blocks(blocks));
    let mut optimizer = builder.build(&factors()).unwrap();
    let turning = optimizer.plan().entries().iter().map(|entry| entry.turns());
    assert_eq!(turning.collect::<Vec<_>>(), [false, true, true]);
    stepped(&mut optimizer, factors(), 0..2, false);
    let of_b = |optimizer: &LayerwiseOptimizer| {
        optimizer.to_record().tensors().keys().filter(|name| name.starts_with("b.")).count()
    };
    assert_eq!(of_b(&optimizer), 2);
    optimizer.change_basis(&changes(), &device()).unwrap();
    assert_eq!(of_b(&optimizer), 0);
}

#[test]
fn a_change_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut optimizer = built(OptimizerConfig::of_kind("muon").unwrap(), None);
    stepped(&mut optimizer, factors(), 0..2, false);
    let bytes = |optimizer: &LayerwiseOptimizer| optimizer.to_record().to_safetensors().unwrap();
    let before = bytes(&optimizer);
    for (path, rotation, said) in [
        ("c", rotation(1, 3, 8), "\"c\" cannot be given another basis: it is not in the plan"),
        ("b", rotation(1, 4, 8), "rotations of shape [1, 4, 4] do not fit a tensor of shape [3, 5]"),
        ("stack", rotation(1, 4, 8), "rotations of shape [1, 4, 4] do not fit a tensor of shape [2, 4, 6]"),
    ] {
        let [good, _] = changes();
        let error = optimizer.change_basis(&[good, BasisChange { path: path.into(), rotation }], &device());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(bytes(&optimizer), before);
    }
}
