//! The keys that act around every rule: `second_moment`, `norm_control`, `decay`.

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::Rule;
use polaron::matrix::{Axis, Layout, Placement, frobenius_norm};
use polaron::rule::{Pipeline, State};
use polaron::{Layerwise, LayerwiseError, OptimizerConfig, Role};
use serde_json::{Map, Value, json};

use crate::numbers::random;

fn merged(kind: &str, keys: Value) -> OptimizerConfig {
    let Value::Object(keys) = keys else { unreachable!("keys are an object") };
    OptimizerConfig::of_kind(kind).unwrap().merge(&keys).unwrap_or_else(|error| panic!("{kind} {keys:?}: {error}"))
}

/// The kinds that have the keys around the rule: Muown learns norms of its own from the gradient as it is.
fn kinds() -> impl Iterator<Item = &'static str> {
    OptimizerConfig::KINDS.iter().copied().filter(|kind| *kind != "muown")
}

/// A kind with some norm control; scion's ball would contradict it, and the decay of soap.
fn controlled(kind: &str, control: &Value) -> OptimizerConfig {
    match kind {
        "soap" => merged(kind, json!({"weight_decay": 0.0, "norm_control": control})),
        "scion" => merged(kind, json!({"constrained": false, "norm_control": control})),
        _ => merged(kind, json!({"norm_control": control})),
    }
}

/// The values of a key of every kind that has it.
fn values_of(key: &str) -> Vec<(&'static str, Value)> {
    let of_kind = |kind: &'static str| {
        let choices = OptimizerConfig::choices(kind).unwrap().into_iter().filter(|(name, _)| *name == key);
        choices.flat_map(|(_, values)| values).map(|value| (kind, value)).collect::<Vec<_>>()
    };
    kinds().flat_map(of_kind).filter(|(_, value)| !value.is_null()).collect()
}

fn build(config: &OptimizerConfig) -> Pipeline {
    config.build(Placement::default()).unwrap()
}

fn norms(stack: Tensor<3>) -> Vec<f64> {
    frobenius_norm(stack.cast(DType::F64)).into_data().try_to_vec().unwrap()
}

/// The weights after steps with numbers of the seeds as gradients.
fn walk<const D: usize>(optimizer: &Pipeline, start: Tensor<D>, seeds: std::ops::Range<u64>) -> Tensor<D> {
    let mut state: Option<State<D>> = None;
    seeds.fold(start, |weights, seed| {
        let gradient = random(weights.dims(), seed).cast(weights.dtype());
        let gradient = if weights.device() == gradient.device() { gradient } else { Tensor::from_inner(gradient) };
        let (weights, new) = optimizer.step(0.05, weights, gradient, state.take());
        state = new;
        weights
    })
}

#[test]
fn the_known_step_of_hyperball_is_met() {
    let matrix = |values: [f64; 12]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), [3, 4]), (&Device::flex(), DType::F64))
    };
    let weights = matrix(std::array::from_fn(|i| (i + 1) as f64 / 10.0));
    let gradient = matrix([1.0, 2.0, 0.0, -1.0, 0.0, 3.0, -2.0, 1.0, 4.0, -1.0, 1.0, 2.0]);
    let config = merged("muon", json!({"norm_control": {"method": "hyperball"}, "polar": {"method": "svd"}}));
    let optimizer = config.build(Placement::new(Layout::OutIn)).unwrap();
    let (after, _) = optimizer.step(0.1, weights.clone(), gradient, None);
    let found: Vec<f64> = after.clone().into_data().try_to_vec().unwrap();
    for (found, wanted) in found.iter().zip([0.0389725103, 0.111152385, 0.2781697887, 0.5078633832]) {
        assert!((found - wanted).abs() < 1e-9, "{found} instead of {wanted}"); // its digits
    }
    let [before, after] = [weights, after].map(|weights| norms(weights.unsqueeze())[0]);
    assert!((before - 2.549_509_756_796_392_2).abs() < 1e-14 && (after - before).abs() < 1e-14, "{before} {after}");
}

#[test]
fn hyperball_keeps_the_norm_of_every_expert_and_block_for_a_hundred_steps_of_every_kind() {
    for kind in kinds() {
        let config = controlled(kind, &json!({"method": "hyperball"}));
        let placement = Placement::default().with_blocks(Axis::Output, 2);
        let optimizer = config.build(placement).unwrap();
        let start =
            random([2, 5, 6], 1).cast(DType::F32) * Tensor::<3>::from_floats([[[1.0]], [[1e-4]]], &Device::flex());
        let after = walk(&optimizer, start.clone(), 2..102);
        let [before, after] = [start, after].map(|stack| norms(placement.split(stack).into_tensor()));
        for (before, after) in before.iter().zip(&after) {
            // a rounding of f32 for every step
            assert!((after / before - 1.0).abs() < 100.0 * 2f64.powi(-23), "{kind}: {before} {after}");
        }
    }
}

#[test]
fn relative_moves_every_matrix_by_the_share_lr_of_its_norm() {
    // SOAP's first gradient moves nothing.
    for kind in kinds().filter(|kind| *kind != "soap") {
        let optimizer = build(&controlled(kind, &json!({"method": "relative"})));
        let start = random([3, 4, 6], 1)
            * Tensor::<3>::from_floats([[[1.0]], [[1e-6]], [[1e3]]], &Device::flex()).cast(DType::F64);
        let moved = start.clone() - walk(&optimizer, start.clone(), 2..3);
        for (moved, was) in norms(moved).into_iter().zip(norms(start)) {
            assert!((moved / (0.05 * was) - 1.0).abs() < 1e-9, "{kind}: {moved} of {was}"); // f64 rounding, cancellation
        }
    }
}

#[test]
fn a_brake_halves_growth_and_leaves_losses_and_a_floor_lifts_short_updates_only() {
    let weights = || Tensor::<3>::from_floats([[[3.0, 4.0]]], &Device::flex()).cast(DType::F64);
    let step = |control: Value, gradient: [f64; 2]| -> Vec<f64> {
        let keys = json!({"momentum": 0.0, "norm_control": control});
        let gradient = Tensor::<3>::from_data([[gradient]], (&Device::flex(), DType::F64));
        build(&merged("sgd", keys)).step(0.5, weights(), gradient, None).0.into_data().try_to_vec().unwrap()
    };
    let close = |found: Vec<f64>, wanted: [f64; 2]| {
        assert!(found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-12), "{found:?} {wanted:?}");
    };
    let brake = json!({"method": "radial_brake"});
    close(step(brake.clone(), [-6.0, -8.0]), [4.5, 6.0]); // would be [6, 8]
    close(step(brake, [3.0, 4.0]), [1.5, 2.0]);
    let floor = json!({"method": "floor", "ratio": 2.0});
    close(step(floor.clone(), [0.0, 0.1]), [3.0, -1.0]); // as long as 10
    close(step(floor.clone(), [0.0, 12.0]), [3.0, -2.0]);
    close(step(floor, [0.0, 0.0]), [3.0, 4.0]);
}

#[test]
fn a_zero_matrix_or_a_zero_gradient_gives_finite_weights_under_every_norm_control() {
    for (kind, control) in values_of("norm_control") {
        let optimizer = build(&controlled(kind, &control));
        let zero = Tensor::<3>::zeros([2, 4, 3], &Device::flex());
        let weights = random([2, 4, 3], 1).cast(DType::F32);
        for (start, gradient) in
            [(zero.clone(), weights.clone()), (weights, zero.clone()), (zero.clone(), zero.clone())]
        {
            let (once, state) = optimizer.step(0.1, start, gradient.clone(), None);
            let (twice, _) = optimizer.step(0.1, once, gradient, state);
            assert!(twice.is_finite().all().into_scalar::<bool>(), "{kind} {control}");
        }
    }
}

#[test]
fn steps_in_place_are_those_of_burns_operations_to_the_bit() {
    // Kinds without a polynomial, which flex rounds in another order.
    let elementary = ["sgd", "adamw", "row_norm"];
    let options = ["norm_control", "second_moment", "decay"]
        .map(|key| values_of(key).into_iter().map(move |(kind, value)| (kind, key, value)));
    let options = options.into_iter().flatten().filter(|(kind, ..)| elementary.contains(kind));
    for (kind, key, value) in options {
        let decay = if value == json!({"method": "hyperball"}) { 0.0 } else { 0.1 };
        let optimizer = build(&merged(kind, json!({key: value, "weight_decay": decay})));
        let start = random([2, 5, 6], 1).cast(DType::F32);
        let here = walk(&optimizer, start.clone(), 2..6);
        // An autodiff tensor takes Burn's operations.
        let there = walk(&optimizer, Tensor::from_inner(start), 2..6).inner();
        assert_eq!(here.into_data(), there.into_data(), "{kind} {key}");
    }
}

#[test]
fn a_second_moment_is_the_rule_on_divided_gradients() {
    let mut tried = 0;
    // The Gram matrices of SOAP-Muon are those of gradients that are not divided.
    for (kind, value) in values_of("second_moment").into_iter().filter(|(kind, _)| *kind != "soap_muon") {
        // The order of rule and momentum is not seen without momentum, so `polar_first` keeps it.
        let mut keys = vec![json!({"momentum": 0.0})];
        if kind == "polar_grad" {
            keys.push(json!({"order": "polar_first"}));
        }
        for keys in keys {
            let given = [("beta", 0.95), ("eps", 1e-10)]
                .map(|(key, default)| value.get(key).map_or(default, |v| v.as_f64().unwrap()));
            let [beta, eps] = given;
            let plain = merged(kind, keys.clone());
            let divided = plain.merge(&Map::from_iter([("second_moment".to_string(), value.clone())])).unwrap();
            let [plain, divided] = [plain, divided].map(|config| build(&config));
            let start = random([2, 4, 6], 1);
            let (mut a, mut b) = ((start.clone(), None), (start.clone(), None));
            let mut second = start.zeros_like();
            for seed in 2..6 {
                let gradient = random([2, 4, 6], seed);
                second = second * beta + gradient.clone().square() * (1.0 - beta);
                a = divided.step(0.05, a.0, gradient.clone(), a.1);
                b = plain.step(0.05, b.0, gradient / (second.clone().sqrt() + eps), b.1);
                let difference = (a.0.clone() - b.0.clone()).abs().max().into_scalar::<f64>();
                assert!(difference < 1e-9, "{kind} {keys} {value}: {difference:e}"); // f64 rounding, times Kaon's map
            }
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}

#[test]
fn a_second_moment_does_not_depend_on_blocks() {
    let config = merged("muon", json!({"second_moment": {}}));
    let moment = |placement: Placement| {
        let optimizer = config.build(placement).unwrap();
        let (_, state) = optimizer.step(0.1, random([4, 6], 1), random([4, 6], 2), None);
        state.unwrap().buffer("gradient_second_moment").unwrap().into_data()
    };
    assert_eq!(moment(Placement::default()), moment(Placement::default().with_blocks(Axis::Output, 3)));
}

#[test]
fn options_that_do_not_go_together_are_refused_with_what_to_do() {
    let refused = |config: Value, parts: &[&str]| {
        let said = match serde_json::from_value::<OptimizerConfig>(config.clone()) {
            Ok(config) => config.build(Placement::default()).expect_err("must be refused").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(parts.iter().all(|part| said.contains(part)), "{config}: {said}");
    };
    let hyperball = json!({"method": "hyperball"});
    for key in ["norm_control", "second_moment"] {
        let value = if key == "norm_control" { hyperball.clone() } else { json!({}) };
        refused(json!({"kind": "muown", key: value}), &[&format!("muown.{key}"), "left out", "choose muon"]);
    }
    for kind in kinds().filter(|kind| *kind != "scion") {
        let config = json!({"kind": kind, "norm_control": hyperball, "weight_decay": 0.1});
        refused(config, &[&format!("{kind}.weight_decay"), "must be 0", "hyperball", "0.1"]);
        let config = json!({"kind": kind, "decay": "independent", "weight_decay": 1.5});
        refused(config, &[&format!("{kind}.weight_decay"), "at most 1", "independent", "1.5"]);
    }
    for (_, control) in values_of("norm_control").into_iter().filter(|(kind, _)| *kind == "scion") {
        refused(json!({"kind": "scion", "norm_control": control}), &["scion.norm_control", "constrained = false"]);
    }
    refused(json!({"kind": "scion", "decay": "independent"}), &["scion.decay", "constrained = false"]);
    refused(json!({"kind": "adamw", "second_moment": {}}), &["adamw", "second_moment"]);
    refused(json!({"kind": "muon", "norm_control": {"method": "hyperbal"}}), &["did you mean `hyperball`"]);
    refused(json!({"kind": "muon", "norm_control": {}}), &["missing \"method\"", "radial_brake"]);
    let misspelt = json!({"kind": "muon", "norm_control": {"method": "floor", "ration": 0.5}});
    refused(misspelt, &["floor", "did you mean `ratio`"]);
    refused(
        json!({"kind": "muon", "norm_control": {"method": "floor", "ratio": "1"}}),
        &["norm_control.ratio", "number"],
    );
    refused(json!({"kind": "muon", "norm_control": {"method": "relative", "ratio": 1}}), &["relative", "ratio"]);
    refused(json!({"kind": "muon", "second_moment": {"bta": 0.5}}), &["did you mean `beta`"]);
    refused(json!({"kind": "muon", "second_moment": {"beta": 1.0}}), &["muon.second_moment.beta", "[0, 1)"]);
    let brake = json!({"method": "radial_brake", "outward": 1.5});
    refused(json!({"kind": "muon", "norm_control": brake}), &["muon.norm_control.outward", "from 0 to 1", "1.5"]);
}

#[test]
fn absent_options_are_not_written_and_given_ones_are() {
    for kind in OptimizerConfig::KINDS {
        let written = serde_json::to_value(OptimizerConfig::of_kind(kind).unwrap()).unwrap();
        for key in ["norm_control", "second_moment", "decay"] {
            assert!(written.get(key).is_none(), "{kind}: {written}");
        }
        let config = merged(
            kind,
            json!({"decay": "independent"})
                .as_object()
                .filter(|_| *kind != "scion")
                .map_or(json!({}), |keys| json!(keys)),
        );
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<OptimizerConfig>(&text).unwrap(), config);
    }
    let keys = json!({"second_moment": {}, "norm_control": {"method": "radial_brake"}, "decay": "independent"});
    let config = merged("muon", keys);
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["norm_control"], json!({"method": "radial_brake", "outward": 0.5, "inward": 1.0}));
    assert_eq!(written["second_moment"], json!({"beta": 0.95, "eps": 1e-10}));
    assert_eq!(written["decay"], json!("independent"));
    assert_eq!(toml::from_str::<OptimizerConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn plans_and_descriptions_say_which_options_are_on() {
    let keys = json!({"second_moment": {"beta": 0.9}, "norm_control": {"method": "floor"}, "decay": "independent", "weight_decay": 0.1});
    let config = merged("muon", keys);
    assert_eq!(config.label(), "muon (newton_schulz5, second_moment 0.9, floor 0.35, independent decay)");
    let about = config.describe();
    for part in ["d/(√v + 0.0000000001)", "v ← 0.9 v", "0.35 ‖W‖/‖U‖", "(1 - f wd) W"] {
        assert!(about.formula.contains(part), "no {part} in {}", about.formula);
    }
    assert_eq!(about.state(), "2 buffers");
    assert!(about.cost.to_string().ends_with("+ 7 mn + 6 mn"), "{}", about.cost);
    let plain = OptimizerConfig::of_kind("muon").unwrap();
    assert_eq!((plain.label().as_str(), plain.describe().state().as_str()), ("muon (newton_schulz5)", "1 buffer"));
}

/// Two matrices, a stack of experts and a vector.
#[derive(Module, Debug)]
struct Net {
    first: Param<Tensor<2>>,
    experts: Param<Tensor<3>>,
    bias: Param<Tensor<1>>,
}

fn parameter<const D: usize>(values: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_inner(values.cast(DType::F32)))
}

fn net() -> Net {
    Net {
        first: parameter(random([4, 6], 1)),
        experts: parameter(random([2, 4, 6], 2)),
        bias: parameter(random([6], 3)),
    }
}

fn builder(stack: &str, matrix: &str) -> Layerwise {
    let text = format!("stack = \"{stack}\"\nlr = 0.1\nweight_decay = 0\nclip = 0\nmatrix = {matrix}");
    let builder = Layerwise::from_toml(&text).unwrap().assign("first", Role::Hidden);
    builder.assign("experts", Role::ExpertUp).assign("bias", Role::Bias)
}

#[test]
fn a_matrix_of_zeros_that_could_never_change_is_refused_when_the_optimizer_is_built() {
    let half = |experts: Tensor<3>| {
        Tensor::cat(vec![experts.clone().narrow(0, 0, 1), experts.narrow(0, 1, 1).zeros_like()], 0)
    };
    let whole = Net { first: parameter(random([4, 6], 1) * 0.0), ..net() };
    let expert = Net { experts: parameter(half(random([2, 4, 6], 2))), ..net() };
    let outputs = vec![random([4, 3], 1), random([4, 3], 1) * 0.0];
    let block = Net { first: parameter(Tensor::cat(outputs, 1)), ..net() };
    for method in ["hyperball", "relative"] {
        let builder = || builder("muon", &format!("{{ norm_control = {{ method = \"{method}\" }} }}"));
        let two = r#"{"axis": "output", "count": 2}"#;
        let rule = || Rule::path("first", polaron::layerwise::RuleOptimizer::inherited()).unwrap();
        let in_blocks = || builder().rule(rule().with_blocks(serde_json::from_str(two).unwrap()));
        for (builder, model, path) in
            [(builder(), &whole, "first"), (builder(), &expert, "experts"), (in_blocks(), &block, "first")]
        {
            for error in
                [builder.clone().build(model).err(), builder.clone().build_module_optimizer(model, |_| 1.0).err()]
            {
                let error = error.expect("must be refused");
                assert!(matches!(&error, LayerwiseError::ZeroMatrix { path: its, .. } if its == path), "{error}");
                assert!(error.to_string().contains(method) && error.to_string().contains("initialise"), "{error}");
            }
            // Shapes are enough for a plan, and frozen parameters need no norm.
            assert_eq!(builder.plan(model).unwrap().entries().len(), 3);
            let frozen = builder.freeze(path).build(model);
            assert!(!matches!(frozen, Err(LayerwiseError::ZeroMatrix { .. })));
        }
        assert!(builder().build(&block).is_ok() && builder().build(&net()).is_ok());
    }
    for method in ["radial_brake", "floor"] {
        assert!(builder("muon", &format!("{{ norm_control = {{ method = \"{method}\" }} }}")).build(&whole).is_ok());
    }
}

#[test]
fn entrywise_stacks_control_the_norms_of_matrices_only_and_refuse_vectors() {
    for stack in ["adamw", "sgd"] {
        let builder = builder(stack, "{ norm_control = { method = \"hyperball\" } }");
        let optimizer = builder.clone().build(&net()).unwrap();
        let labels: Vec<String> = optimizer.plan().entries().iter().map(|entry| entry.label()).collect();
        let hyperball = format!("{stack} (hyperball)");
        assert_eq!(labels, [hyperball.as_str(), hyperball.as_str(), stack]);
        let config = merged(stack, json!({"norm_control": {"method": "floor"}}));
        let error = builder.rule(Rule::path("bias", config).unwrap()).build(&net()).unwrap_err().to_string();
        assert!(error.contains("\"bias\"") && error.contains("without norm_control"), "{error}");
    }
}

#[test]
fn independent_decay_follows_the_schedule_but_neither_the_learning_rate_nor_the_width() {
    let decayed = |form: &str, lr: f64, width: f64, factor: f64| -> f64 {
        let text =
            format!("stack = \"adamw\"\nlr = {lr}\nweight_decay = 0.2\nclip = 0\nmatrix = {{ decay = \"{form}\" }}");
        let builder = Layerwise::from_toml(&text).unwrap().assign("first", Role::Hidden);
        let builder = builder.assign("experts", Role::ExpertUp).assign("bias", Role::Bias).width(width);
        let model = net();
        let mut optimizer = builder.build(&model).unwrap();
        let mut gradients = GradientsParams::new();
        gradients.register(model.first.id, Tensor::<2>::zeros([4, 6], &Device::flex()));
        let before = model.first.val().inner();
        let after = optimizer.step(factor, model, gradients).first.val().inner();
        (after / before).mean().into_scalar::<f64>()
    };
    for (lr, width, factor) in [(0.1, 1.0, 1.0), (0.001, 1.0, 0.5), (0.1, 4.0, 0.25), (0.0, 1.0, 0.5)] {
        let share = 1.0 - decayed("independent", lr, width, factor);
        assert!((share - factor * 0.2).abs() < 1e-6, "{lr} {width} {factor}: {share}"); // f32 rounding
        let share = 1.0 - decayed("coupled", lr, width, factor);
        assert!((share - factor * lr / width * 0.2).abs() < 1e-6, "{lr} {width} {factor}: {share}");
    }
    let builder = builder("muon", "{ decay = \"independent\", weight_decay = 0.1 }");
    assert!(builder.clone().build(&net()).is_ok());
    let error = builder.build_module_optimizer(&net(), |_| 1.0).err().expect("must be refused");
    assert!(matches!(&error, LayerwiseError::NoFactor { path, .. } if path == "first"), "{error}");
    assert!(error.to_string().contains("coupled"), "{error}");
}

#[test]
fn learning_rates_that_follow_the_width_refuse_steps_that_follow_the_weights() {
    for method in ["hyperball", "relative", "floor"] {
        let config = controlled("muon", &json!({"method": method}));
        assert!(config.width_exponent(Role::Up, [64, 64]).unwrap_err().contains("radial_brake"));
    }
    assert_eq!(controlled("muon", &json!({"method": "radial_brake"})).width_exponent(Role::Up, [64, 64]), Ok(0.0));
}
