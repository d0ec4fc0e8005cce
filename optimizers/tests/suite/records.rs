//! Records that do not fit are refused with path and both shapes, and change nothing; those that fit come back bit for bit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::Rule;
use polaron::matrix::Placement;
use polaron::{Layerwise, LayerwiseError, LayerwiseOptimizer, LayerwiseRecord, OptimizerConfig, tensor_file};
use polaron_common::splitmix64;

#[derive(Module, Debug)]
struct One {
    w: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Stack {
    w: Param<Tensor<3>>,
}

const SEED: u64 = 0x5eed;

fn numbers<const D: usize>(shape: [usize; D], seed: u64, dtype: DType) -> Tensor<D> {
    let entry = |i| splitmix64((SEED + seed) << 32 | i) as f64 / u64::MAX as f64 - 0.5;
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(entry).collect();
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (&Device::flex(), dtype))
}

fn one(shape: [usize; 2], dtype: DType) -> One {
    One { w: Param::from_tensor(Tensor::from_inner(numbers(shape, 0, dtype))) }
}

/// An optimizer for the parameter, by the keys of a rule in TOML.
fn built<M: Module>(model: &M, keys: &str) -> LayerwiseOptimizer {
    let text = format!("stack = \"sgd\"\nlr = 0.1\nclip = 0\n[[rule]]\nmatch = \"w\"\n{keys}");
    Layerwise::from_toml(&text).unwrap().build(model).unwrap_or_else(|error| panic!("{keys}: {error}"))
}

fn stepped(model: One, optimizer: &mut LayerwiseOptimizer, seeds: std::ops::Range<u64>) -> One {
    seeds.fold(model, |model, seed| {
        let mut grads = GradientsParams::new();
        let weights = model.w.val();
        grads.register(model.w.id, numbers(weights.dims(), seed, weights.dtype()));
        optimizer.step(1.0, model, grads)
    })
}

/// The record of three steps.
fn record(shape: [usize; 2], dtype: DType, keys: &str) -> LayerwiseRecord {
    let model = one(shape, dtype);
    let mut optimizer = built(&model, keys);
    stepped(model, &mut optimizer, 1..4);
    optimizer.to_record()
}

/// Loads a record into an optimizer that has stepped itself, which must refuse it and stay as it was.
fn refused(record: LayerwiseRecord, shape: [usize; 2], dtype: DType, keys: &str) -> String {
    let model = one(shape, dtype);
    let mut optimizer = built(&model, keys);
    stepped(model, &mut optimizer, 5..7);
    let before = optimizer.to_record().to_safetensors().unwrap();
    let error = optimizer.load_record(record, &Device::flex()).expect_err(keys);
    assert!(matches!(error, LayerwiseError::Record(_)));
    assert_eq!(optimizer.to_record().to_safetensors().unwrap(), before, "{error}");
    error.to_string()
}

#[test]
fn a_record_of_another_shape_is_refused_with_path_and_both_shapes_and_changes_nothing() {
    for kind in OptimizerConfig::KINDS {
        let keys = format!("kind = \"{kind}\"");
        for (was, is) in [([6, 1], [6, 10]), ([8, 14], [8, 10]), ([50, 8], [60, 8]), ([8, 6], [6, 8]), ([1, 1], [4, 4])]
        {
            let said = refused(record(was, DType::F32, &keys), is, DType::F32, &keys);
            for part in ["\"w\"".to_string(), format!("{was:?}"), format!("{is:?}")] {
                assert!(said.contains(&part), "{kind}: no {part} in: {said}");
            }
        }
    }
}

#[test]
fn a_record_of_another_rank_is_refused_with_its_path() {
    for kind in ["sgd", "adamw", "muon", "normuon"] {
        let keys = format!("kind = \"{kind}\"");
        let stack = Stack { w: Param::from_tensor(Tensor::from_inner(numbers([1, 4, 6], 0, DType::F32))) };
        let mut optimizer = built(&stack, &keys);
        let error = optimizer.load_record(record([4, 6], DType::F32, &keys), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("\"w\"") && error.contains("[1, 4, 6]"), "{kind}: {error}");
    }
}

#[test]
fn a_record_of_another_element_type_is_refused_and_half_precision_shares_that_of_f32() {
    for (was, is) in [(DType::F32, DType::F64), (DType::F64, DType::F32)] {
        let said = refused(record([4, 6], was, "kind = \"adamw\""), [4, 6], is, "kind = \"adamw\"");
        assert!(said.contains("\"w\"") && said.contains("F32") && said.contains("F64"), "{said}");
    }
    for half in [DType::F16, DType::BF16] {
        let mut optimizer = built(&one([4, 6], DType::F32), "kind = \"adamw\"");
        optimizer.load_record(record([4, 6], half, "kind = \"adamw\""), &Device::flex()).unwrap();
    }
}

#[test]
fn settings_that_change_what_a_state_is_are_refused_and_those_that_do_not_are_taken() {
    let muon = "kind = \"muon\"";
    for (was, is) in [
        ("kind = \"normuon\"", "kind = \"normuon\"\naxis = \"input\""),
        ("kind = \"normuon\"", "kind = \"normuon\"\nblocks = { axis = \"output\", count = 2 }"),
        ("kind = \"adamuon\"", "kind = \"adamuon\"\nblocks = { axis = \"input\", count = 2 }"),
        ("kind = \"normuon\"", "kind = \"normuon\"\nlayout = \"out_in\""),
        ("kind = \"polar_grad\"", "kind = \"polar_grad\"\norder = \"polar_first\""),
        ("kind = \"polar_grad\"\norder = \"polar_first\"", "kind = \"polar_grad\""),
        ("kind = \"sgd\"\nmomentum = 0.0", "kind = \"sgd\"\nmomentum = 0.9"),
    ] {
        // Square, so that the shape of the parameter does not show the difference.
        let said = refused(record([6, 6], DType::F32, was), [6, 6], DType::F32, is);
        assert!(said.contains("\"w\""), "{was} → {is}: {said}");
    }
    for is in
        ["kind = \"muon\"\nmomentum_form = \"heavy_ball\"", "kind = \"muon\"\nscale = \"spectral\"\nweight_decay = 0.1"]
    {
        let mut optimizer = built(&one([6, 6], DType::F32), is);
        optimizer.load_record(record([6, 6], DType::F32, muon), &Device::flex()).unwrap();
    }
}

/// A record with changed bytes of its safetensors file.
fn changed(
    record: &LayerwiseRecord,
    change: impl FnOnce(&mut std::collections::BTreeMap<String, TensorData>),
) -> LayerwiseRecord {
    let (mut tensors, metadata) = tensor_file::from_bytes(&record.to_safetensors().unwrap()).unwrap();
    change(&mut tensors);
    let bytes = tensor_file::to_bytes(tensors.iter().map(|(name, data)| (name.as_str(), data)), &metadata).unwrap();
    LayerwiseRecord::from_safetensors(&bytes).unwrap()
}

#[test]
fn a_record_with_a_buffer_too_few_or_too_many_is_refused_with_its_name() {
    for (kind, buffers) in [
        ("sgd", vec!["momentum"]),
        ("adamw", vec!["momentum", "second_moment"]),
        ("muon", vec!["momentum"]),
        ("normuon", vec!["momentum", "second_moment"]),
        ("adamuon", vec!["momentum", "second_moment"]),
    ] {
        let keys = format!("kind = \"{kind}\"");
        let whole = record([4, 6], DType::F32, &keys);
        for buffer in buffers {
            let without = changed(&whole, |tensors| drop(tensors.remove(&format!("w.{buffer}")).unwrap()));
            let said = refused(without, [4, 6], DType::F32, &keys);
            assert!(said.contains(buffer) && said.contains("\"w\""), "{kind}: {said}");
        }
        for name in ["w.moment", "v.momentum", "momentum"] {
            let more = changed(&whole, |tensors| {
                tensors.insert(name.into(), TensorData::new(vec![1.0_f32], [1]));
            });
            let said = refused(more, [4, 6], DType::F32, &keys);
            assert!(said.contains(&format!("\"{name}\"")), "{kind}: {said}");
        }
    }
}

#[test]
fn a_state_of_a_parameter_that_is_not_there_is_refused() {
    let bytes = record([4, 6], DType::F32, "kind = \"sgd\"").to_safetensors().unwrap();
    let (tensors, mut metadata) = tensor_file::from_bytes(&bytes).unwrap();
    metadata.insert("with_state".into(), "[\"w\", \"v\"]".into());
    let bytes = tensor_file::to_bytes(tensors.iter().map(|(name, data)| (name.as_str(), data)), &metadata).unwrap();
    let record = LayerwiseRecord::from_safetensors(&bytes).unwrap();
    assert!(refused(record, [4, 6], DType::F32, "kind = \"sgd\"").contains("\"v\""));
}

/// Settings whose states differ in what they hold.
const SETTINGS: &[&str] = &[
    "momentum = 0.0",
    "momentum_form = \"ema_debiased\"",
    "momentum_form = \"heavy_ball\"\nnesterov = true",
    "cautious = true\nweight_decay = 0.1",
    "order = \"polar_first\"",
    "axis = \"input\"",
    "residual = false",
    "blocks = { axis = \"output\", count = 2 }",
    "blocks = { axis = \"input\", count = 2 }",
    "layout = \"out_in\"",
    "second_moment = {}",
    "second_moment = { eps = 0.0 }\nblocks = { axis = \"output\", count = 2 }",
    "norm_control = { method = \"hyperball\" }",
    "norm_control = { method = \"radial_brake\" }\nweight_decay = 0.1\nblocks = { axis = \"input\", count = 2 }",
    "decay = \"independent\"\nweight_decay = 0.1",
];

#[test]
fn every_record_survives_its_bytes_and_goes_on_to_the_bit() {
    let dtypes = [DType::F32, DType::F64, DType::F16, DType::BF16];
    let shapes = [[4, 6], [6, 4], [2, 2], [8, 2]];
    let mut tried = 0;
    for kind in OptimizerConfig::KINDS {
        for (number, settings) in ["", SETTINGS[0]].iter().chain(&SETTINGS[1..]).enumerate() {
            let keys = format!("kind = \"{kind}\"\n{settings}");
            let text = format!("stack = \"sgd\"\n[[rule]]\nmatch = \"w\"\n{keys}");
            // Not every kind has every key.
            let fits = Layerwise::from_toml(&text).and_then(|builder| builder.build(&one([2, 2], DType::F32)));
            if fits.is_err() {
                continue;
            }
            let dtype = dtypes[number % dtypes.len()];
            let shape = shapes[splitmix64(SEED + number as u64) as usize % shapes.len()];
            let model = one(shape, dtype);
            let mut straight = built(&model, &keys);
            let model = stepped(model, &mut straight, 1..4);
            let bytes = straight.to_record().to_safetensors().unwrap();
            let mut resumed = built(&model, &keys);
            resumed.load_record(LayerwiseRecord::from_safetensors(&bytes).unwrap(), &Device::flex()).unwrap();
            assert_eq!(resumed.to_record().to_safetensors().unwrap(), bytes, "{keys} {shape:?} {dtype:?} seed {SEED}");
            let [a, b] = [&mut straight, &mut resumed].map(|optimizer| {
                let model = stepped(model.clone(), optimizer, 4..7);
                model.w.val().into_data()
            });
            assert_eq!(a, b, "{keys} {shape:?} {dtype:?} seed {SEED}");
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
}

#[test]
fn a_record_fits_a_parameter_that_is_still_lazy() {
    use burn::nn::{Linear, LinearConfig};
    let lazy = || -> Linear { LinearConfig::new(4, 6).with_bias(false).init(&Device::flex().autodiff()) };
    let mut optimizer = Layerwise::muon().build(&lazy()).unwrap();
    let model = lazy();
    let mut grads = GradientsParams::new();
    grads.register(model.weight.id, numbers([4, 6], 1, DType::F32));
    optimizer.step(1.0, model, grads);
    let record = optimizer.to_record();
    Layerwise::muon().build(&lazy()).unwrap().load_record(record.clone(), &Device::flex()).unwrap();
    let other: Linear = crate::numbers::repeatable(LinearConfig::new(6, 4).with_bias(false).init(&Device::flex()));
    let error = Layerwise::muon().build(&other).unwrap().load_record(record, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("\"weight\"") && error.contains("[4, 6]") && error.contains("[6, 4]"), "{error}");
}

fn plain(model: &One) -> ModuleOptimizer {
    let config: OptimizerConfig = OptimizerConfig::of_kind("adamw").unwrap();
    let rule = Rule::path("w", config).unwrap();
    Layerwise::new().lr(0.1).rule(rule).build_module_optimizer(model, |_| 1.0).unwrap().0
}

/// The record of Burn's optimizer, for a parameter of this id.
fn plain_record(model: One, seed: u64) -> (One, burn::optim::OptimizerRecord) {
    let mut optimizer = plain(&model);
    let mut grads = GradientsParams::new();
    grads.register(model.w.id, numbers(model.w.val().dims(), seed, DType::F32));
    let model = optimizer.step(0.1, model, grads);
    (model, optimizer.to_record())
}

#[test]
fn the_plain_burn_form_takes_a_record_that_fits() {
    let (model, record) = plain_record(one([4, 6], DType::F32), 1);
    let _ = plain(&model).load_record(record);
}

#[test]
#[should_panic(expected = "the momentum of \"w\" has [6, 1] of F32 and must have [6, 10] of F32")]
fn the_plain_burn_form_panics_on_a_record_of_another_shape() {
    let (_, record) = plain_record(one([6, 1], DType::F32), 1);
    let _ = plain(&one([6, 10], DType::F32)).load_record(record);
}

#[test]
fn a_bare_optimizer_does_not_broadcast_a_state() {
    for kind in ["sgd", "adamw", "muon", "normuon"] {
        let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(Placement::default()).unwrap();
        let narrow = || numbers([6, 1], 0, DType::F32);
        let wide = || numbers([6, 10], 1, DType::F32);
        let (_, state) = optimizer.step(0.1, narrow(), narrow(), None);
        let step = AssertUnwindSafe(|| optimizer.step(0.1, wide(), wide(), state).0);
        let panic = catch_unwind(step).expect_err(kind);
        let said = panic.downcast_ref::<String>().expect("a sentence");
        assert!(said.contains("[6, 1]") && said.contains("[6, 10]"), "{kind}: {said}");
    }
}
