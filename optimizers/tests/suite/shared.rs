//! One parameter at several paths, and models that change after the optimizer was built.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use polaron::{Layerwise, LayerwiseError, LayerwiseOptimizer};

#[derive(Module, Debug)]
struct Two {
    first: Linear,
    second: Linear,
}

#[derive(Module, Debug)]
struct Deep {
    blocks: Vec<Two>,
}

#[derive(Module, Debug)]
struct MaybeHead {
    hidden: Linear,
    head: Option<Linear>,
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn linear(inputs: usize, outputs: usize) -> Linear {
    crate::numbers::repeatable(LinearConfig::new(inputs, outputs).with_bias(false).init(&device()))
}

fn two() -> Two {
    Two { first: linear(4, 4), second: linear(4, 4) }
}

fn gradients(model: &Two) -> GradientsParams {
    let x = Tensor::<2>::ones([3, model.first.weight.dims()[0]], &device());
    let loss = model.second.forward(model.first.forward(x)).square().mean();
    GradientsParams::from_grads(loss.backward(), model)
}

fn built(model: &Two) -> LayerwiseOptimizer {
    Layerwise::sgd().build(model).unwrap()
}

fn says(error: &LayerwiseError, parts: &[&str]) {
    for part in parts {
        assert!(error.to_string().contains(part), "no {part} in: {error}");
    }
}

fn weights(model: &Two) -> [Vec<u8>; 2] {
    [&model.first, &model.second].map(|linear| linear.weight.val().into_data().as_bytes().to_vec())
}

#[test]
fn a_parameter_at_two_paths_is_refused_with_both() {
    let first = linear(4, 4);
    let tied = Two { second: first.clone(), first };
    let parts = ["\"first.weight\" and \"second.weight\"", "transpose()", "new id"];
    says(&Layerwise::sgd().build(&tied).unwrap_err(), &parts);
    says(&Layerwise::muon().clip(None).build_module_optimizer(&tied, |_| 1.0).err().unwrap(), &parts);
}

#[test]
fn blocks_that_are_clones_of_one_are_refused_with_every_path() {
    let deep = Deep { blocks: vec![two(); 3] };
    let paths = ["blocks.0.first.weight", "blocks.1.first.weight", "blocks.2.first.weight"];
    says(&Layerwise::adamw().build(&deep).unwrap_err(), &paths);
}

#[test]
fn a_copy_with_a_new_id_is_a_parameter_of_its_own_and_trains() {
    let first = linear(4, 4);
    let mut second = first.clone();
    second.weight = Param::from_tensor(first.weight.val().detach());
    let model = Two { first, second };
    let mut optimizer = built(&model);
    let before = weights(&model);
    let grads = gradients(&model);
    assert_eq!(grads.len(), 2);
    let after = weights(&optimizer.step(1.0, model, grads));
    assert!(before[0] != after[0] && before[1] != after[1]);
}

#[test]
fn a_parameter_that_became_shared_after_building_is_refused_with_both_paths() {
    let mut model = two();
    let mut optimizer = built(&model);
    model.second = model.first.clone();
    let grads = gradients(&model);
    let error = optimizer.try_step(1.0, model, grads).unwrap_err();
    says(&error, &["\"first.weight\" and \"second.weight\""]);
}

#[test]
fn a_head_swapped_in_mid_run_is_refused_with_its_path_and_both_shapes() {
    let mut model = two();
    let mut optimizer = built(&model);
    let grads = gradients(&model);
    model = optimizer.step(1.0, model, grads);
    let before = optimizer.to_record().to_safetensors().unwrap();
    model.second = linear(4, 6);
    let grads = gradients(&model);
    let error = optimizer.try_step(1.0, model.clone(), grads).unwrap_err();
    assert!(matches!(error, LayerwiseError::Changed { .. }));
    says(&error, &["\"second.weight\"", "[4, 4]", "[4, 6]", "build"]);
    assert_eq!(optimizer.to_record().to_safetensors().unwrap(), before, "no state changed");
    // With the same shape, it is a fresh start of that layer, with any id.
    model.second = linear(4, 4);
    let grads = gradients(&model);
    assert!(optimizer.try_step(1.0, model, grads).is_ok());
}

#[test]
#[should_panic(expected = "parameter \"second.weight\" was [4, 4] of F32 and is now [4, 6] of F32: the model changed")]
fn step_panics_with_the_message_of_try_step() {
    let mut model = two();
    let mut optimizer = built(&model);
    model.second = linear(4, 6);
    let grads = gradients(&model);
    optimizer.step(1.0, model, grads);
}

#[test]
fn a_gradient_of_another_shape_rank_or_dtype_is_refused_with_its_path() {
    let model = two();
    let mut optimizer = built(&model);
    let id = model.second.weight.id;
    let plain = Device::flex();
    let with = |register: &dyn Fn(&mut GradientsParams)| {
        let mut grads = gradients(&model);
        register(&mut grads);
        grads
    };
    let cases = [
        (with(&|grads| grads.register(id, Tensor::<2>::ones([4, 1], &plain))), "[4, 1]"),
        (with(&|grads| grads.register(id, Tensor::<2>::ones([4, 4], (&plain, DType::F64)))), "F64"),
        (with(&|grads| grads.register(id, Tensor::<2>::ones([4, 4], (&plain, DType::BF16)))), "BF16"),
        (with(&|grads| grads.register(id, Tensor::<1>::ones([4], &plain))), "[4]"),
        (with(&|grads| grads.register(id, Tensor::<3>::ones([1, 4, 4], &plain))), "[1, 4, 4]"),
    ];
    let before = weights(&model);
    for (grads, part) in cases {
        let error = optimizer.try_step(1.0, model.clone(), grads).unwrap_err();
        assert!(matches!(error, LayerwiseError::Gradient { .. }), "{error}");
        says(&error, &["\"second.weight\"", "[4, 4] of F32", part]);
    }
    assert_eq!(weights(&model), before);
    assert!(optimizer.to_record().tensors().is_empty());
}

#[test]
fn a_parameter_more_or_less_than_the_plan_has_is_refused() {
    let forward = |model: &MaybeHead| {
        let x = model.hidden.forward(Tensor::<2>::ones([2, 4], &device()));
        let loss = model.head.as_ref().map_or(x.clone(), |head| head.forward(x)).mean();
        GradientsParams::from_grads(loss.backward(), model)
    };
    let with = MaybeHead { hidden: linear(4, 4), head: Some(linear(4, 2)) };
    let without = MaybeHead { hidden: linear(4, 4), head: None };
    let mut optimizer = Layerwise::sgd().build(&without).unwrap();
    let error = optimizer.try_step(1.0, with.clone(), forward(&with)).unwrap_err();
    says(&error, &["\"head.weight\" is not in the plan"]);
    let mut optimizer = Layerwise::sgd().build(&with).unwrap();
    let error = optimizer.try_step(1.0, without.clone(), forward(&without)).unwrap_err();
    says(&error, &["\"head.weight\" of the plan is not in the model"]);
}

#[test]
fn a_model_cast_to_another_working_precision_is_refused() {
    let model = two();
    let mut optimizer = built(&model);
    let grads = gradients(&model);
    let mut model = optimizer.step(1.0, model, grads);
    model.first.weight = model.first.weight.map(|weight| weight.cast(DType::F64));
    let mut grads = GradientsParams::new();
    grads.register(model.first.weight.id, Tensor::<2>::ones([4, 4], (&Device::flex(), DType::F64)));
    let error = optimizer.try_step(1.0, model, grads).unwrap_err();
    says(&error, &["\"first.weight\"", "F32", "F64"]);
}

#[test]
fn the_shape_of_a_linear_stored_by_columns_is_the_one_it_trains_in() {
    let second = LinearConfig::new(4, 6).with_bias(false).with_layout(LinearLayout::Col).init(&device());
    let model = Two { first: linear(4, 4), second };
    let mut optimizer = built(&model);
    assert_eq!(optimizer.plan().entries()[1].shape, [4, 6]);
    let grads = gradients(&model);
    let model = optimizer.step(1.0, model, grads);
    let record = optimizer.to_record();
    let mut resumed = built(&model);
    resumed.load_record(record, &device()).unwrap();
}
