//! Numbers with which training would fail, and the global norm of very large, very small and half-precision
//! gradients.

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{AnyOptimizer, LayerwiseConfig, Rule, clip_heads};
use polaron::rules::SgdConfig;
use polaron::{Layerwise, LayerwiseError, Role};

#[derive(Module, Debug)]
struct Net {
    a: Param<Tensor<2>>,
    b: Param<Tensor<1>>,
}

fn values<const D: usize>(shape: [usize; D], value: impl Fn(usize) -> f64, dtype: DType) -> Tensor<D> {
    let entries: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(entries, shape).convert_dtype(dtype), (&Device::flex(), dtype))
}

fn net(dtype: DType) -> Net {
    Net {
        a: Param::from_tensor(Tensor::from_inner(values([2, 3], |_| 1.0, dtype))),
        b: Param::from_tensor(Tensor::from_inner(values([4], |_| 1.0, dtype))),
    }
}

/// Gradients whose ten entries are `size` times 1, -2, 3, … in order.
fn gradients(net: &Net, size: f64, dtype: DType) -> GradientsParams {
    let entry = |i: usize| size * (i as f64 + 1.0) * if i % 2 == 1 { -1.0 } else { 1.0 };
    let mut grads = GradientsParams::new();
    grads.register(net.a.id, values([2, 3], entry, dtype));
    grads.register(net.b.id, values([4], |i| entry(i + 6), dtype));
    grads
}

/// √(1² + … + 10²)
fn length() -> f64 {
    385.0_f64.sqrt()
}

fn builder() -> Layerwise {
    let sgd = SgdConfig::new().with_momentum(0.0);
    Layerwise::new().lr(1.0).rule(Rule::path("/.*/", sgd).unwrap())
}

fn refused(builder: Layerwise, parts: &[&str]) {
    let error = builder.build(&net(DType::F32)).expect_err("must be refused");
    for part in parts {
        assert!(error.to_string().contains(part), "no {part} in: {error}");
    }
}

#[test]
fn a_threshold_is_none_zero_or_above_zero_in_rust_and_in_toml() {
    for (off, threshold) in [(true, None), (true, Some(0.0)), (true, Some(-0.0)), (false, Some(2.0))] {
        let model = net(DType::F32);
        let optimizer = builder().clip(threshold).build(&model).unwrap();
        let (clipped, norm) = optimizer.clip(&model, gradients(&model, 1.0, DType::F32));
        assert!((norm / length() - 1.0).abs() < 1e-6);
        let first = clipped.get::<2>(model.a.id).unwrap().into_data().iter::<f64>().next().unwrap();
        assert_eq!(first == 1.0, off, "{threshold:?}: {first}");
    }
    for (value, text) in [(-1.0, "got -1"), (f64::NAN, "got NaN"), (f64::INFINITY, "got inf")] {
        refused(builder().clip(value), &["clip must be a finite number above 0", text]);
        refused(builder().qk_clip(value), &["qk_clip must be a finite number above 0", text]);
        let config = LayerwiseConfig { clip: Some(value), ..LayerwiseConfig::stack("muon").unwrap() };
        assert!(Layerwise::from_config(&config).unwrap_err().to_string().contains(text));
    }
    for (text, clip) in [("clip = 0", None), ("clip = 0.0", None), ("clip = 0.5", Some(0.5))] {
        assert_eq!(LayerwiseConfig::from_toml(text).unwrap().clip, clip);
    }
    for text in ["clip = -1.0", "weight_decay = -1.0", "lr = -0.5", "adamw = { lr = -1.0 }"] {
        let key = text.split(" = ").next().unwrap();
        let error = Layerwise::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(&format!("optimizer.{key}")), "{text}: {error}");
    }
}

#[test]
fn rates_and_factors_that_are_negative_or_not_finite_are_refused_by_name() {
    for value in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let got = format!("got {value}");
        refused(builder().lr(value), &["lr must be", &got]);
        let rule = Rule::path("a", SgdConfig::new()).unwrap().with_lr(value);
        refused(builder().rule(rule), &["lr of the rule \"a\"", &got]);
        refused(builder().adamw_lr_factors(move |_| value), &["factor of AdamW's", &got]);
        refused(Layerwise::muon().lr(value).assign("a", Role::Hidden), &["lr must be", &got]);
        refused(Layerwise::muon().adamw_lr(value).assign("a", Role::Hidden), &["adamw.lr must be", &got]);
        refused(Layerwise::muon().weight_decay(value).assign("a", Role::Hidden), &["weight_decay must be", &got]);
    }
    assert!(builder().lr(0.0).build(&net(DType::F32)).is_ok());
}

#[test]
fn a_decay_below_zero_says_what_it_must_be() {
    let rule = Rule::path("a", SgdConfig::new().with_weight_decay(-1.0)).unwrap();
    refused(builder().rule(rule), &["sgd.weight_decay: must be a number from 0 to 1000000, got -1"]);
}

#[test]
fn a_schedule_that_gives_no_factor_is_refused_and_changes_nothing() {
    for factor in [-1.0, f64::NAN, f64::INFINITY] {
        let model = net(DType::F32);
        let mut optimizer = builder().build(&model).unwrap();
        let grads = gradients(&model, 1.0, DType::F32);
        let error = optimizer.try_step(factor, model, grads).unwrap_err();
        assert!(error.to_string().contains(&format!("got {factor}")), "{error}");
        assert!(matches!(error, LayerwiseError::Number { .. }));
    }
    let model = net(DType::F32);
    let mut optimizer = builder().build(&model).unwrap();
    let grads = gradients(&model, 1.0, DType::F32);
    let after = optimizer.try_step(0.0, model.clone(), grads).unwrap();
    assert_eq!(after.a.val().into_data(), model.a.val().into_data());
}

#[test]
#[should_panic(expected = "the factor of the learning rates must be a finite number of at least 0, got NaN")]
fn apply_panics_on_a_factor_that_is_no_number() {
    let model = net(DType::F32);
    let grads = gradients(&model, 1.0, DType::F32);
    builder().build(&model).unwrap().apply(f64::NAN, model, grads);
}

#[test]
#[should_panic(expected = "the factor of step 1 must be")]
fn the_plain_burn_form_panics_on_a_factor_that_is_no_number() {
    let factor = |step: u64| if step == 1 { f64::NAN } else { 1.0 };
    let (_, mut scheduler) = builder().clip(None).build_module_optimizer(&net(DType::F32), factor).unwrap();
    scheduler.step();
    scheduler.step();
}

#[test]
fn the_norm_and_the_clipped_gradients_are_right_from_the_smallest_to_the_largest() {
    for dtype in [DType::F32, DType::F64] {
        let sizes: &[f64] = match dtype {
            DType::F32 => &[1e-40, 1e-37, 1e-30, 1e-19, 1e-11, 1e-9, 1e-3, 1.0, 1e9, 1e18, 1e19, 1e30, 3e37],
            _ => &[1e-300, 1e-160, 1e-40, 1e-9, 1.0, 1e19, 1e30, 1e150, 1e250, 1e300],
        };
        for size in sizes {
            let model = net(dtype);
            // 1e-40 in f32 has few digits
            let within = if dtype == DType::F32 && *size < 1e-38 { 1e-4 } else { 1e-6 };
            let want = size * length();
            for threshold in [1.0, 1e-3] {
                let optimizer = builder().clip(threshold).build(&model).unwrap();
                let (clipped, norm) = optimizer.clip(&model, gradients(&model, *size, dtype));
                assert!((norm / want - 1.0).abs() < within, "{dtype:?} {size:e}: {norm:e} instead of {want:e}");
                let factor = if want > threshold { threshold / (want + 1e-6) } else { 1.0 };
                let last = clipped.get::<1>(model.b.id).unwrap().into_data().iter::<f64>().last().unwrap();
                let want = -10.0 * size * factor;
                assert!((last / want - 1.0).abs() < within, "{dtype:?} {size:e}: {last:e} instead of {want:e}");
            }
        }
    }
}

#[test]
fn gradients_of_zero_have_the_norm_zero() {
    let model = net(DType::F32);
    let optimizer = builder().clip(1.0).build(&model).unwrap();
    assert_eq!(optimizer.clip(&model, gradients(&model, 0.0, DType::F32)).1, 0.0);
    assert_eq!(optimizer.clip(&model, GradientsParams::new()).1, 0.0);
}

#[test]
fn a_gradient_that_is_not_finite_is_measured_left_alone_and_not_stepped_on() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for clip in [None, Some(1.0)] {
            let model = net(DType::F32);
            let mut optimizer = builder().clip(clip).build(&model).unwrap();
            let spoiled = || {
                let mut grads = gradients(&model, 1.0, DType::F32);
                grads.register(model.b.id, values([4], |i| if i == 2 { bad } else { 1.0 }, DType::F32));
                grads
            };
            let (grads, norm) = optimizer.clip(&model, spoiled());
            assert!(!norm.is_finite());
            assert_eq!(grads.get::<2>(model.a.id).unwrap().into_data().iter::<f64>().next(), Some(1.0));
            let error = optimizer.try_step(1.0, model.clone(), spoiled()).unwrap_err();
            assert_eq!(error, LayerwiseError::NotFinite { path: "b".into() });
        }
    }
}

#[test]
fn half_precision_is_measured_and_scaled_in_f32() {
    for dtype in [DType::F16, DType::BF16] {
        let model = net(dtype);
        // One entry near the largest of f16, the others small: with factor 2e-5 they are below what f16 has.
        let large = 45_216.0;
        let grads = || {
            let mut grads = gradients(&model, 1.0, dtype);
            grads.register(model.a.id, values([2, 3], |i| if i == 0 { large } else { 1e-3 }, dtype));
            grads.register(model.b.id, values([4], |_| 1e-3, dtype));
            grads
        };
        let small = values([1], |_| 1e-3, dtype).into_data().iter::<f64>().next().unwrap();
        let large = values([1], |_| large, dtype).into_data().iter::<f64>().next().unwrap();
        let optimizer = builder().clip(1.0).build(&model).unwrap();
        let (clipped, norm) = optimizer.clip(&model, grads());
        assert!((norm / large - 1.0).abs() < 1e-6, "{dtype:?}: {norm}");
        let entries: Vec<f64> = clipped.get::<1>(model.b.id).unwrap().into_data().iter::<f64>().collect();
        assert!(entries.iter().all(|entry| (entry * large / small - 1.0).abs() < 1e-5), "{dtype:?}: {entries:?}");
        // A rate that makes the scaled gradient a step of 0.25, which half precision has.
        let mut optimizer = builder().lr(0.25 * large / small).clip(1.0).build(&model).unwrap();
        let after = optimizer.step(1.0, model.clone(), grads());
        let moved: Vec<f64> = after.b.val().into_data().iter::<f64>().collect();
        assert!(moved.iter().all(|weight| (weight - 0.75).abs() < 1e-2), "{dtype:?}: {moved:?}");
        assert_eq!(after.b.val().dtype(), dtype);
    }
}

/// The simplest optimizer of another crate.
#[derive(Clone)]
pub(crate) struct Plain;

impl Optimizer for Plain {
    type State<const D: usize> = ();

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        _: Option<()>,
    ) -> (Tensor<D>, Option<()>) {
        (tensor - grad * lr, None)
    }

    fn to_device<const D: usize>(_: (), _: &Device) {}
}

#[test]
fn an_optimizer_of_your_own_takes_clipped_gradients_in_half_precision() {
    for dtype in [DType::F16, DType::BF16] {
        let model = net(dtype);
        let rule = Rule::path("/.*/", AnyOptimizer::new(Plain)).unwrap();
        let mut optimizer = Layerwise::new().lr(0.5).clip(length() / 2.0).rule(rule).build(&model).unwrap();
        let grads = gradients(&model, 1.0, dtype);
        let after = optimizer.step(1.0, model, grads);
        // 1 - 0.5 · 10 / 2 with the sign of the last entry
        let last = after.b.val().into_data().iter::<f64>().last().unwrap();
        assert!((last - 3.5).abs() < 0.02 && after.b.val().dtype() == dtype, "{dtype:?}: {last}");
    }
}

#[test]
fn heads_are_not_cut_by_a_threshold_that_is_none() {
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let error = clip_heads(net(DType::F32), &[], bad).unwrap_err().to_string();
        assert!(error.contains("qk_clip"), "{error}");
    }
    assert!(clip_heads(net(DType::F32), &[], 0.0).is_ok());
}

#[test]
fn a_clip_that_burns_own_optimizer_cannot_apply_is_refused_with_the_remedy() {
    let model = net(DType::F32);
    for (builder, what) in [(builder().clip(1.0), "clip of 1 "), (builder().qk_clip(100.0), "qk_clip of 100 ")] {
        let error = builder.build_module_optimizer(&model, |_| 1.0).err().unwrap().to_string();
        assert!(error.contains(what) && error.contains("(None)"), "{error}");
    }
    assert!(builder().clip(0.0).build_module_optimizer(&model, |_| 1.0).is_ok());
}
