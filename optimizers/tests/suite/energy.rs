//! The energy of smoothed Muon: that it falls, what it is made of, and where it is refused.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{EnergyError, Rule};
use polaron::matrix::{Axis, Blocks, Layout};
use polaron::wrappers::WrapperConfig;
use polaron::{Layerwise, LayerwiseError, LayerwiseOptimizer, OptimizerConfig, Role};

/// W, output x input, with the loss `‖(W - T) C^½‖² / 2`, where C is diagonal.
#[derive(Module, Debug)]
struct Quadratic {
    w: Param<Tensor<2>>,
}

const SHAPE: [usize; 2] = [20, 12];

fn tensor(values: Vec<f64>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
}

/// Numbers between -1 and 1 without a pattern.
fn target() -> Tensor<2> {
    tensor((0..SHAPE[0] * SHAPE[1]).map(|i| ((i * i + 3 * i) as f64).sin()).collect(), SHAPE)
}

/// Curvatures of the rows, from 0.1 to 1.
fn curvature() -> Tensor<2> {
    tensor((0..SHAPE[0]).map(|i| 0.1 + 0.9 * i as f64 / 19.0).collect(), [SHAPE[0], 1])
}

impl Quadratic {
    fn new() -> Self {
        Self { w: Param::from_tensor(target() * 2.0) }
    }

    fn gradient(&self) -> Tensor<2> {
        (self.w.val() - target()) * curvature()
    }

    fn loss(&self) -> f64 {
        ((self.w.val() - target()).square() * curvature()).sum().into_scalar::<f64>() / 2.0
    }

    fn gradients(&self) -> GradientsParams {
        let mut gradients = GradientsParams::new();
        gradients.register(self.w.id, self.gradient());
        gradients
    }

    fn optimizer(&self, json: &str, lr: f64) -> LayerwiseOptimizer {
        let config: OptimizerConfig = serde_json::from_str(json).unwrap();
        let rule = Rule::path("w", config).unwrap().with_layout(Layout::OutIn).with_lr(lr);
        Layerwise::new().rule(rule).build(self).unwrap()
    }
}

fn smoothed(momentum: f64) -> String {
    format!(
        r#"{{"kind": "regularized_muon", "momentum": {momentum}, "scale": "none", "eps": 0.1, "eps_mode": "absolute",
            "weight_decay": 0.0, "polar": {{"method": "svd"}}}}"#
    )
}

/// Rises of the energy, and the share of its loss that is not dissipated, over a time of 20 in steps of dt.
fn run(dt: f64) -> (usize, f64) {
    let mut model = Quadratic::new();
    let mut optimizer = model.optimizer(&smoothed(1.0 - dt), dt);
    assert_eq!(optimizer.energy(1.0).unwrap().kinetic, 0.0);
    let first = model.loss();
    let (mut energy, mut rises, mut spent) = (first, 0, 0.0);
    for _ in 0..(20.0 / dt) as usize {
        let gradients = model.gradients();
        model = optimizer.step(1.0, model, gradients);
        let part = optimizer.energy(1.0).unwrap();
        let now = model.loss() + part.kinetic;
        // 1e-12: rounding of the sums
        rises += usize::from(now > energy + 1e-12);
        spent += part.dissipated;
        energy = now;
    }
    (rises, ((first - energy) - spent).abs() / (first - energy))
}

#[test]
fn over_the_full_batch_the_energy_never_rises_and_is_dissipated_to_first_order() {
    let mut before = f64::INFINITY;
    for dt in [0.2, 0.1, 0.05, 0.02] {
        let (rises, residual) = run(dt);
        assert_eq!(rises, 0, "dt {dt}");
        // of first order: about as much smaller as dt; 0.8 leaves room for the higher orders
        assert!(residual < 0.8 * before && residual < 0.6 * dt, "dt {dt}: {residual}");
        before = residual;
    }
}

#[test]
fn a_step_too_long_for_the_level_raises_the_energy() {
    let mut model = Quadratic::new();
    let json = smoothed(0.95).replace("\"eps\": 0.1", "\"eps\": 0.01");
    let mut optimizer = model.optimizer(&json, 1.0);
    let (mut energy, mut rises) = (model.loss(), 0);
    for _ in 0..200 {
        let gradients = model.gradients();
        model = optimizer.step(1.0, model, gradients);
        let now = model.loss() + optimizer.energy(1.0).unwrap().kinetic;
        rises += usize::from(now > energy + 1e-12);
        energy = now;
    }
    assert!(rises > 0);
}

/// Kinetic and dissipated energy after one step of size 1/2 with this gradient, and momentum 3/4.
fn after_one_step(gradient: &Tensor<2>, keys: &str, blocks: Option<Blocks>) -> [f64; 2] {
    let model = Quadratic { w: Param::from_tensor(gradient.zeros_like()) };
    let common = r#""momentum": 0.75, "nesterov": false, "scale": "none", "weight_decay": 0.0"#;
    let table: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!("{{{common}}}")).unwrap();
    let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!("{{{keys}}}")).unwrap();
    let config: OptimizerConfig = serde_json::from_value(table.into_iter().chain(changes).collect()).unwrap();
    let rule = Rule::path("w", config).unwrap().with_layout(Layout::OutIn).with_lr(1.0);
    let rule = blocks.into_iter().fold(rule, Rule::with_blocks);
    let mut optimizer = Layerwise::new().rule(rule).build(&model).unwrap();
    let mut gradients = GradientsParams::new();
    gradients.register(model.w.id, gradient.clone());
    optimizer.step(0.5, model, gradients);
    let energy = optimizer.energy(0.5).unwrap();
    [energy.kinetic, energy.dissipated]
}

fn near(found: [f64; 2], wanted: [f64; 2], what: &str) {
    let close = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-12 * wanted.max(1.0));
    assert!(close, "{what}: {found:?} instead of {wanted:?}");
}

#[test]
fn the_energy_is_the_smooth_nuclear_norm_of_the_average_of_gradients() {
    // M = G/4 has the singular values 3/4 and 1; lr / (1-μ) is 2.
    let gradient = tensor(vec![3.0, 0.0, 0.0, 4.0], [2, 2]);
    let check = |keys: &str, blocks: Option<Blocks>, scale: f64, level: [f64; 2]| {
        let parts = [0.75_f64, 1.0].into_iter().zip(level);
        let psi: f64 = parts.clone().map(|(s, level)| s.hypot(level) - level).sum();
        let lost: f64 = parts.map(|(s, level)| s * s / s.hypot(level)).sum();
        near(after_one_step(&gradient, keys, blocks), [2.0 * scale * psi, 0.5 * scale * lost], keys);
    };
    let muon = r#""kind": "muon""#;
    check(muon, None, 1.0, [0.0; 2]);
    check(&format!(r#"{muon}, "nesterov": true"#), None, 1.0, [0.0; 2]);
    check(&format!(r#"{muon}, "momentum_form": "heavy_ball""#), None, 1.0, [0.0; 2]);
    check(&format!(r#"{muon}, "momentum_form": "ema_debiased""#), None, 1.0, [0.0; 2]);
    check(&format!(r#"{muon}, "scale": "match_rms_adamw""#), None, 0.2 * 2_f64.sqrt(), [0.0; 2]);
    let smooth = r#""kind": "regularized_muon", "eps": 0.3"#;
    check(&format!(r#"{smooth}, "eps_mode": "absolute""#), None, 1.0, [0.3; 2]);
    check(smooth, None, 1.0, [0.3 * (1.5625_f64 / 2.0).sqrt(); 2]);
    check(smooth, Some(Blocks::equal(Axis::Output, 2)), 1.0, [0.3 * 0.75, 0.3]);
}

#[test]
fn parts_of_different_sizes_have_the_energies_of_their_own() {
    let gradient = tensor((0..20).map(|i| f64::from(i * i).cos()).collect(), [5, 4]);
    let of = |gradient: &Tensor<2>, blocks| after_one_step(gradient, r#""kind": "muon", "scale": "original""#, blocks);
    let together = of(&gradient, Some(Blocks::of_sizes(Axis::Output, &[2, 3]).unwrap()));
    let [first, second] = [of(&gradient.clone().narrow(0, 0, 2), None), of(&gradient.narrow(0, 2, 3), None)];
    near(together, [first[0] + second[0], first[1] + second[1]], "parts");
}

#[test]
fn an_energy_that_is_not_known_is_refused_with_its_reason() {
    let model = Quadratic::new();
    let refusal = |json: &str| match model.optimizer(json, 0.1).energy(1.0) {
        Err(LayerwiseError::Energy(error)) => error,
        other => panic!("{json}: {other:?}"),
    };
    assert_eq!(refusal(r#"{"kind": "adamw"}"#), EnergyError::Nothing);
    assert_eq!(refusal(r#"{"kind": "regularized_muon", "rms_restore": true}"#), EnergyError::Nothing);
    for (keys, option) in [
        (r#""weight_decay": 0.01"#, "a weight decay"),
        (r#""weight_decay": 0.0, "momentum": 0.0, "nesterov": false"#, "momentum 0"),
        (r#""weight_decay": 0.0, "norm_control": {"method": "hyperball"}"#, "a norm_control"),
        (r#""weight_decay": 0.0, "second_moment": {}"#, "a second_moment"),
    ] {
        let message = refusal(&format!(r#"{{"kind": "muon", {keys}}}"#)).to_string();
        assert!(message.contains("\"w\"") && message.contains(option), "{message}");
    }
    let around = WrapperConfig::of_kind("ema_nesterov").unwrap();
    let optimizer = Layerwise::muon().assign("w", Role::Hidden).wrapper(around).build(&model).unwrap();
    let error = optimizer.energy(1.0).unwrap_err().to_string();
    assert!(error.contains("ema_nesterov"), "{error}");
}
