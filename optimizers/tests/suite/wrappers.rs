//! Wrappers: known answers in one dimension, reductions to the plain run, records, frozen and half-precision parameters.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::Rule;
use polaron::rules::SgdConfig;
use polaron::wrappers::{
    EmaNesterovConfig, Moment, OuterNesterovConfig, ScheduleFreeConfig, Trained, WeightAverage, WeightAverageConfig,
    Wrap, WrapperConfig,
};
use polaron::{Layerwise, LayerwiseConfig, LayerwiseOptimizer, LayerwiseRecord};

use crate::model::Model;

fn device() -> Device {
    Device::flex().autodiff()
}

/// A point w with the loss w² / 2, whose gradient is w.
#[derive(Module, Debug)]
struct Point {
    w: Param<Tensor<1>>,
}

impl Point {
    fn new() -> Self {
        let one = TensorData::new(vec![1.0_f64], [1]);
        Self { w: Param::from_tensor(Tensor::from_data(one, (&device(), DType::F64))) }
    }

    fn at(&self) -> f64 {
        self.w.val().into_scalar::<f64>()
    }
}

/// Five steps of gradient descent with rate 0.1 times these factors: after each, the trained and the evaluated point.
fn descent(wrapper: WrapperConfig, factors: [f64; 5]) -> Vec<(f64, f64)> {
    let mut point = Point::new();
    let rule = Rule::path("w", SgdConfig::new().with_momentum(0.0)).unwrap().with_lr(0.1);
    let mut optimizer = Layerwise::new().rule(rule).wrapper(wrapper).build(&point).unwrap();
    let step = |(index, factor): (usize, f64)| {
        optimizer.set_progress(index as f64 / 5.0).unwrap();
        let ahead = optimizer.before_forward(factor, point.clone()).unwrap();
        let loss = ahead.w.val().square().sum() * 0.5;
        let gradients = GradientsParams::from_grads(loss.backward(), &ahead);
        point = optimizer.step(factor, ahead, gradients);
        (point.at(), optimizer.evaluation_weights(point.clone()).unwrap().at())
    };
    factors.into_iter().enumerate().map(step).collect()
}

#[track_caller]
fn close(got: impl IntoIterator<Item = f64>, wanted: [f64; 5]) {
    let got: Vec<f64> = got.into_iter().collect();
    // Every step is a dozen roundings of 1e-16 in f64.
    assert!(got.len() == 5 && got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-14), "{got:?}");
}

/// By the formulas in double precision, in another language.
#[test]
fn ema_nesterov_follows_its_formula() {
    let settings = EmaNesterovConfig::new().with_strength(0.5).with_beta(0.9).with_prefill(2).with_until(0.8);
    let path = descent(settings.into(), [1.0, 1.0, 0.5, 0.5, 0.25]);
    close(path.iter().map(|(w, _)| *w), [0.9, 0.81, 0.765225, 0.72205284375, 0.70400152265625]);
    close(path.iter().map(|(_, w)| *w), [0.9, 0.81, 0.765225, 0.72205284375, 0.70400152265625]);
}

#[test]
fn outer_nesterov_follows_its_formula() {
    let path = descent(OuterNesterovConfig::new().with_every(2).into(), [1.0; 5]);
    close(path.iter().map(|(w, _)| *w), [0.9, 0.7473, 0.67257, 0.45072729, 0.405654561]);
}

#[test]
fn schedule_free_follows_its_formula() {
    let path = descent(ScheduleFreeConfig::new().into(), [0.5, 1.0, 1.0, 0.5, 1.0]);
    close(path.iter().map(|(z, _)| *z), [0.95, 0.855, 0.76779, 0.72674525, 0.6478368213461538]);
    let evaluated = [0.95, 0.874, 0.826_795_555_555_555_5, 0.796_010_846_153_846_1, 0.761_146_369_728_506_7];
    close(path.iter().map(|(_, x)| *x), evaluated);
}

#[test]
fn the_weight_average_follows_its_formula() {
    let settings = WeightAverageConfig::new().with_horizon(4.0).with_mix(0.6);
    let mut average = WeightAverage::new(&settings, Trained::of(&Point::new(), |_| true)).unwrap();
    let mut point = Point::new();
    let evaluated = [0.9, 0.81, 0.729, 0.6561, 0.59049].map(|weight| {
        let data = TensorData::new(vec![weight], [1]);
        point.w = Param::from_tensor(Tensor::from_data(data, (&device(), DType::F64)));
        let moment = Moment { factor: 1.0, progress: 0.0 };
        point = average.after_step(point.clone(), moment).unwrap();
        average.evaluation_weights(point.clone()).unwrap().at()
    });
    close(evaluated, [0.9, 0.8505, 0.795825, 0.73902375, 0.6822073125]);
}

const FACTORS: [f64; 6] = [0.25, 0.5, 1.0, 1.0, 0.75, 0.5];

fn step(optimizer: &mut LayerwiseOptimizer, model: Model, index: usize) -> Model {
    let model = optimizer.before_forward(FACTORS[index], model).unwrap();
    let gradients = model.gradients(index as i64);
    optimizer.step(FACTORS[index], model, gradients)
}

fn six_steps(builder: Layerwise) -> (Model, LayerwiseOptimizer) {
    let model = Model::new(&device());
    let mut optimizer = builder.build(&model).unwrap();
    let model = (0..6).fold(model, |model, index| step(&mut optimizer, model, index));
    (model, optimizer)
}

/// All kinds, with settings under which six steps show everything.
fn wrappers() -> [WrapperConfig; 3] {
    [
        EmaNesterovConfig::new().with_prefill(2).with_beta(0.5).into(),
        OuterNesterovConfig::new().with_every(2).into(),
        ScheduleFreeConfig::new().into(),
    ]
}

#[test]
fn the_list_of_wrappers_has_every_kind() {
    assert_eq!(wrappers().map(|wrapper| wrapper.kind()), WrapperConfig::KINDS);
}

#[test]
fn a_wrapper_that_does_nothing_leaves_the_plain_run_to_the_bit() {
    let plain = six_steps(Layerwise::muon()).0.bytes();
    let idle: [WrapperConfig; 5] = [
        EmaNesterovConfig::new().with_strength(0.0).with_prefill(0).into(),
        EmaNesterovConfig::new().with_prefill(6).into(),
        EmaNesterovConfig::new().with_prefill(0).with_until(0.0).into(),
        OuterNesterovConfig::new().with_every(7).into(),
        ScheduleFreeConfig::new().with_beta(0.0).into(),
    ];
    for wrapper in idle {
        assert_eq!(six_steps(Layerwise::muon().wrapper(wrapper.clone())).0.bytes(), plain, "{wrapper}");
    }
    for wrapper in wrappers() {
        assert_ne!(six_steps(Layerwise::muon().wrapper(wrapper.clone())).0.bytes(), plain, "{wrapper}");
    }
}

#[test]
fn an_average_without_a_share_evaluates_the_trained_weights_to_the_bit() {
    let (model, optimizer) = six_steps(Layerwise::muon());
    let settings = WeightAverageConfig::new().with_mix(0.0).with_horizon(2.0);
    let mut average = WeightAverage::new(&settings, optimizer.trained(&model)).unwrap();
    let moment = Moment { factor: 1.0, progress: 0.0 };
    let other = average.after_step(Model::new(&device()), moment).unwrap();
    assert_ne!(other.bytes(), model.bytes());
    let model = average.after_step(model, moment).unwrap();
    assert_eq!(average.evaluation_weights(model.clone()).unwrap().bytes(), model.bytes());
}

#[test]
fn a_run_goes_on_from_a_record_to_the_bit_under_every_stack_and_wrapper() {
    for stack in LayerwiseConfig::STACKS {
        for wrapper in wrappers() {
            let builder = || Layerwise::stack(stack).unwrap().wrapper(wrapper.clone());
            goes_on(&builder, &format!("{stack} {wrapper}"));
        }
    }
}

#[test]
fn every_setting_of_every_wrapper_trains_and_goes_on_from_a_record_to_the_bit() {
    for kind in WrapperConfig::KINDS {
        for (key, values) in WrapperConfig::choices(kind).unwrap() {
            assert!(!values.is_empty());
            for value in values {
                let wrapper = serde_json::json!({ "kind": kind, key: value });
                let wrapper: WrapperConfig = serde_json::from_value(wrapper).unwrap();
                goes_on(&|| Layerwise::muon().wrapper(wrapper.clone()), &format!("{kind}.{key} = {value}"));
            }
        }
    }
}

/// Six steps in one go, and the same with a stop after three.
fn goes_on(builder: &dyn Fn() -> Layerwise, what: &str) {
    let (straight, optimizer) = six_steps(builder());
    let mut model = Model::new(&device());
    let mut first = builder().build(&model).unwrap();
    for index in 0..3 {
        model = step(&mut first, model, index);
    }
    let bytes = first.to_record().to_safetensors().unwrap();
    let mut resumed = builder().build(&model).unwrap();
    resumed.load_record(LayerwiseRecord::from_safetensors(&bytes).unwrap(), &device()).unwrap();
    for index in 3..6 {
        model = step(&mut resumed, model, index);
    }
    assert_eq!(model.bytes(), straight.bytes(), "{what}");
    let evaluated = |optimizer: &LayerwiseOptimizer, model: Model| {
        let evaluated = optimizer.evaluation_weights(model).unwrap();
        (evaluated.bytes(), optimizer.to_record().to_safetensors().unwrap())
    };
    assert_eq!(evaluated(&resumed, model), evaluated(&optimizer, straight), "{what}");
}

#[test]
fn an_average_goes_on_from_a_record_that_is_stored_with_the_optimizer() {
    let (model, optimizer) = six_steps(Layerwise::muon().wrapper(OuterNesterovConfig::new().with_every(2)));
    let fresh = || WeightAverage::new(&WeightAverageConfig::new(), optimizer.trained(&model)).unwrap();
    let moment = Moment { factor: 1.0, progress: 0.0 };
    let mut average = fresh();
    let _ = average.after_step(Model::new(&device()), moment).unwrap();
    let mut record = optimizer.to_record();
    record.add_wrapper(average.to_record());
    let mut read = LayerwiseRecord::from_safetensors(&record.to_safetensors().unwrap()).unwrap();
    let mut resumed = fresh();
    resumed.load_record(read.take_wrapper(WeightAverageConfig::KIND).unwrap(), &device()).unwrap();
    let mut same = optimizer.clone();
    same.load_record(read, &device()).unwrap();
    for each in [&mut average, &mut resumed] {
        let _ = each.after_step(model.clone(), moment).unwrap();
    }
    let evaluated = |average: &WeightAverage| average.evaluation_weights(model.clone()).unwrap().bytes();
    assert_eq!(evaluated(&resumed), evaluated(&average));
    assert_ne!(evaluated(&average), model.bytes());
}

#[test]
fn a_record_of_another_wrapper_is_refused_and_changes_nothing() {
    let [ema, outer, _] = wrappers();
    let (model, optimizer) = six_steps(Layerwise::muon().wrapper(ema));
    let (_, plain) = six_steps(Layerwise::muon());
    let (_, other) = six_steps(Layerwise::muon().wrapper(outer));
    let cases = [
        (plain.clone(), &optimizer, "written with the wrapper ema_nesterov and is loaded without a wrapper"),
        (optimizer.clone(), &plain, "written without a wrapper and is loaded with the wrapper ema_nesterov"),
        (
            optimizer.clone(),
            &other,
            "written with the wrapper outer_nesterov and is loaded with the wrapper ema_nesterov",
        ),
    ];
    for (mut reader, writer, said) in cases {
        let before = reader.to_record().to_safetensors().unwrap();
        let error = reader.load_record(writer.to_record(), &device()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(reader.to_record().to_safetensors().unwrap(), before);
    }
    let mut frozen = Layerwise::muon().wrapper(wrappers()[0].clone()).freeze("embed*").build(&model).unwrap();
    frozen.load_record(optimizer.to_record(), &device()).unwrap_err();
}

#[test]
fn frozen_parameters_have_no_copies_and_keep_their_bytes() {
    for wrapper in wrappers() {
        let (model, optimizer) = six_steps(Layerwise::muon().wrapper(wrapper).freeze("embed*"));
        let before = Model::new(&device()).bytes();
        let evaluated = optimizer.evaluation_weights(model.clone()).unwrap();
        for bytes in [model.bytes(), evaluated.bytes()] {
            let same: Vec<bool> = bytes.iter().zip(&before).map(|(after, before)| after == before).collect();
            assert_eq!(same, [true, false, false, false, false, false, false]);
        }
        let record = optimizer.to_record().to_safetensors().unwrap();
        let (tensors, _) = polaron::tensor_file::from_bytes(&record).unwrap();
        assert!(!tensors.keys().any(|name| name.starts_with("embed")));
        assert!(tensors.keys().any(|name| name.contains("hidden.0.weight.") && name.contains(wrapper_of(&optimizer))));
    }
}

fn wrapper_of(optimizer: &LayerwiseOptimizer) -> &'static str {
    optimizer.plan().wrapper().unwrap().kind()
}

/// A model in another element type.
fn cast(model: Model, dtype: DType) -> Model {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|old| {
                let data = old.clone().into_data().convert_dtype(self.0);
                Tensor::from_data(data, (&old.device(), self.0)).set_require_grad(true)
            })
        }
    }
    model.map(&mut Cast(dtype))
}

#[test]
fn copies_of_half_precision_weights_are_in_f32_and_the_weights_keep_their_type() {
    for (dtype, copies) in [(DType::F16, DType::F32), (DType::BF16, DType::F32), (DType::F64, DType::F64)] {
        for wrapper in wrappers() {
            let mut model = cast(Model::new(&device()), dtype);
            let mut optimizer = Layerwise::muon().wrapper(wrapper.clone()).build(&model).unwrap();
            for index in 0..3 {
                model = step(&mut optimizer, model, index);
            }
            let evaluated = optimizer.evaluation_weights(model.clone()).unwrap();
            for model in [model, evaluated] {
                assert_eq!(model.hidden[0].weight.val().dtype(), dtype, "{wrapper}");
                assert!(model.hidden[0].weight.val().is_finite().all().into_scalar::<bool>(), "{wrapper}");
            }
            let mut record = optimizer.to_record();
            let record = record.take_wrapper(wrapper.kind()).unwrap();
            assert!(!record.tensors().is_empty() && record.tensors().values().all(|data| data.dtype() == copies));
        }
    }
}

#[test]
fn what_is_called_in_the_wrong_order_or_on_another_model_is_refused() {
    for wrapper in [EmaNesterovConfig::new().into(), WrapperConfig::from(ScheduleFreeConfig::new())] {
        let model = Model::new(&device());
        let mut optimizer = Layerwise::muon().wrapper(wrapper).build(&model).unwrap();
        let gradients = model.gradients(0);
        let error = optimizer.try_step(1.0, model, gradients).unwrap_err().to_string();
        assert!(error.contains("call `before_forward`"), "{error}");
        let mut other = Model::new(&device());
        other.hidden.pop();
        let error = optimizer.before_forward(1.0, other).unwrap_err().to_string();
        assert!(error.contains("hidden.1.weight") && error.contains("is not in the model"), "{error}");
        let other = cast(Model::new(&device()), DType::F64);
        let error = optimizer.before_forward(1.0, other).unwrap_err().to_string();
        assert!(error.contains("embed.weight") && error.contains("is now [11, 8] of F64"), "{error}");
    }
}

#[test]
fn a_step_can_be_left_out_after_the_look_ahead() {
    let plain = six_steps(Layerwise::muon().wrapper(wrappers()[0].clone())).0.bytes();
    let mut model = Model::new(&device());
    let mut optimizer = Layerwise::muon().wrapper(wrappers()[0].clone()).build(&model).unwrap();
    for index in 0..6 {
        let _left_out = optimizer.before_forward(1.0, model.clone()).unwrap();
        model = step(&mut optimizer, model, index);
    }
    assert_eq!(model.bytes(), plain);
}

#[test]
fn a_configuration_has_a_wrapper_and_slips_are_named() {
    let text = "stack = \"muon\"\nwrapper = { kind = \"ema_nesterov\", strength = 0.25 }";
    let config = LayerwiseConfig::from_toml(text).unwrap();
    assert_eq!(config.wrapper, Some(EmaNesterovConfig::new().with_strength(0.25).into()));
    assert_eq!(LayerwiseConfig::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
    let plan = Layerwise::from_toml(text).unwrap().build(&Model::new(&device())).unwrap().plan().to_string();
    assert!(plan.contains("around the steps ema_nesterov: gradients 0.25 of the mean step"), "{plan}");
    assert!(!toml::to_string(&LayerwiseConfig::stack("muon").unwrap()).unwrap().contains("wrapper"));
    let cases = [
        ("wrapper = { kind = \"ema_nestero\" }", "did you mean `ema_nesterov`"),
        ("wrapper = { kind = \"ema_nesterov\", strenght = 0.5 }", "did you mean `strength`"),
        ("wrapper = { strength = 0.5 }", "missing \"kind\""),
        (
            "wrapper = { kind = \"ema_nesterov\", strength = 1.0 }",
            "wrapper.strength: must be a number in [0, 1), got 1",
        ),
        ("wrapper = { kind = \"outer_nesterov\", every = 0 }", "wrapper.every: must be from 1"),
        ("wrapper = { kind = \"schedule_free\", beta = nan }", "finite"),
    ];
    for (text, said) in cases {
        let error = Layerwise::from_toml(text).map(drop).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn the_plain_burn_form_refuses_a_wrapper() {
    let builder = Layerwise::muon().clip(None).wrapper(ScheduleFreeConfig::new());
    let error = builder.build_module_optimizer(&Model::new(&device()), |_| 1.0).map(drop).unwrap_err().to_string();
    assert!(error.contains("no place for the wrapper schedule_free"), "{error}");
}
