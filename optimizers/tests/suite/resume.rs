//! State round trips, resuming, both forms of an optimizer, clipping.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::matrix::Placement;
use polaron::rule::State;
use polaron::{Layerwise, LayerwiseRecord, OptimizerConfig, Role, first_non_finite};

use crate::model::Model;

fn device() -> Device {
    Device::flex().autodiff()
}

fn builder() -> Layerwise {
    Layerwise::muon().assign("head", Role::Head)
}

#[test]
fn a_state_survives_its_record_byte_for_byte_in_every_dtype() {
    for kind in OptimizerConfig::KINDS {
        let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(Placement::default()).unwrap();
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let tensor = |seed: f64| {
                let values: Vec<f64> = (0..12).map(|i| (seed + f64::from(i)).sin()).collect();
                let data = TensorData::new(values, [3, 4]).convert_dtype(dtype);
                Tensor::<2>::from_data(data, (&Device::flex(), dtype))
            };
            let (weights, state) = optimizer.step(0.1, tensor(0.0), tensor(1.0), None);
            let mut sink = StateSink::default();
            let state: State<2> = state.unwrap();
            state.state_flatten("p", &mut sink);
            let mut source = StateSource::new(sink.scalars.into_iter().collect());
            sink.tensors.into_iter().for_each(|(name, data)| source.insert_tensor(name, data));
            let restored = State::<2>::state_unflatten("p", &mut source, &Device::flex()).unwrap();
            let (a, _) = optimizer.step(0.1, weights.clone(), tensor(2.0), Some(state));
            let (b, _) = optimizer.step(0.1, weights, tensor(2.0), Some(restored));
            assert_eq!(a.into_data(), b.into_data(), "{kind} {dtype:?}");
        }
    }
}

#[test]
fn resuming_from_a_record_equals_going_on_byte_for_byte() {
    let mut model = Model::new(&device());
    let mut straight = builder().build(&model).unwrap();
    for step in 0..3 {
        let grads = model.gradients(step);
        model = straight.step(1.0, model, grads);
    }
    let bytes = straight.to_record().to_safetensors().unwrap();
    // Loading weights adopts the stored ids, which must not affect a plan by path.
    let reloaded = Model::new(&device()).load_record(model.clone().into_record());
    let mut resumed = builder().build(&reloaded).unwrap();
    resumed.load_record(LayerwiseRecord::from_safetensors(&bytes).unwrap(), &device()).unwrap();
    let (mut a, mut b) = (model, reloaded);
    for step in 3..6 {
        let grads = a.gradients(step);
        a = straight.step(0.5, a, grads);
        let grads = b.gradients(step);
        b = resumed.step(0.5, b, grads);
    }
    assert_eq!(a.bytes(), b.bytes());
    assert_eq!(straight.to_record().to_safetensors().unwrap(), resumed.to_record().to_safetensors().unwrap());
}

#[test]
fn a_record_of_another_plan_is_refused_and_changes_nothing() {
    let model = Model::new(&device());
    let mut muon = builder().build(&model).unwrap();
    let model = muon.step(1.0, model.clone(), model.gradients(0));
    let record = muon.to_record();
    let mut adamw = Layerwise::adamw().build(&model).unwrap();
    let error = adamw.load_record(record.clone(), &device()).unwrap_err();
    assert!(error.to_string().contains("was updated by muon and is now updated by adamw"), "{error}");
    let bytes = record.to_safetensors().unwrap();
    assert!(LayerwiseRecord::from_safetensors(&bytes[..bytes.len() / 2]).is_err());
}

#[test]
fn the_plain_burn_form_gives_the_same_bytes() {
    let start = Model::new(&device());
    let factor = |step: u64| 1.0 / (1.0 + step as f64);
    let mut layerwise = builder().clip(None).build(&start).unwrap();
    let (mut module_optimizer, mut scheduler): (ModuleOptimizer, _) =
        builder().clip(None).build_module_optimizer(&start, factor).unwrap();
    let (mut a, mut b) = (start.clone(), start);
    for step in 0..4 {
        let grads = a.gradients(step);
        a = layerwise.step(factor(step as u64), a, grads);
        let grads = b.gradients(step);
        b = module_optimizer.step(scheduler.step(), b, grads);
    }
    assert_eq!(a.bytes(), b.bytes());
}

/// Norm of all gradients, in f64 on the host.
fn norm(model: &Model, grads: &GradientsParams) -> f64 {
    struct Sum<'a>(&'a GradientsParams, f64);
    impl burn::module::ModuleVisitor for Sum<'_> {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            let grad = self.0.get::<D>(param.id).unwrap().into_data();
            self.1 += grad.iter::<f64>().map(|g| g * g).sum::<f64>();
        }
    }
    let mut sum = Sum(grads, 0.0);
    model.visit(&mut sum);
    sum.1.sqrt()
}

#[test]
fn clipping_brings_the_norm_over_all_parameters_to_the_threshold() {
    let model = Model::new(&device());
    let threshold = 0.5 * norm(&model, &model.gradients(0));
    let optimizer = builder().clip(threshold).build(&model).unwrap();
    let (clipped, before) = optimizer.clip(&model, model.gradients(0));
    assert!((before / threshold - 2.0).abs() < 1e-6);
    // 1e-6 is torch's guard in the denominator, the rest f32 rounding
    assert!((norm(&model, &clipped) / threshold - 1.0).abs() < 1e-5);
    let loose = builder().clip(1e9).build(&model).unwrap();
    let (same, _) = loose.clip(&model, model.gradients(0));
    assert_eq!(norm(&model, &same), norm(&model, &model.gradients(0)));
}

#[test]
fn the_first_bad_gradient_is_named() {
    let model = Model::new(&device());
    let mut grads = model.gradients(0);
    assert_eq!(first_non_finite(&model, &grads), None);
    let id = model.norm.gamma.id;
    let bad = grads.remove::<1>(id).unwrap() * f64::INFINITY;
    grads.register(id, bad);
    assert_eq!(first_non_finite(&model, &grads), Some("norm.gamma".into()));
}

#[test]
fn parameters_without_a_gradient_stay_as_they_are() {
    let model = Model::new(&device());
    let mut optimizer = builder().build(&model).unwrap();
    let mut grads = model.gradients(0);
    grads.remove::<2>(model.head.weight.id);
    let after = optimizer.step(1.0, model.clone(), grads);
    assert_eq!(after.head.weight.val().into_data(), model.head.weight.val().into_data());
    assert_ne!(after.embed.weight.val().into_data(), model.embed.weight.val().into_data());
}

#[test]
#[should_panic(expected = "the record was written with other blocks or another axis")]
fn a_memory_of_another_shape_is_not_broadcast() {
    let build = |keys: &str| -> polaron::rule::Pipeline {
        serde_json::from_str::<OptimizerConfig>(keys).unwrap().build(Placement::default()).unwrap()
    };
    let weights = Tensor::<2>::ones([3, 4], &Device::flex());
    let output = build(r#"{"kind": "normuon"}"#);
    let (weights, state) = output.step(0.1, weights.clone(), weights, None);
    let input = build(r#"{"kind": "normuon", "axis": "input"}"#);
    let _ = input.step(0.1, weights.clone(), weights, state);
}
