//! Directions that stay as they are: the key `project`, under every kind and every setting.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{AnyOptimizer, BasisChange, HeadLogits, Project, Rule, RuleOptimizer, Stacking};
use polaron::matrix::{Axis, Blocks, Layout, Placement, frobenius_norm};
use polaron::rule::{Pipeline, Projection, State};
use polaron::wrappers::WrapperConfig;
use polaron::{Layerwise, LayerwiseConfig, LayerwiseError, LayerwiseRecord, OptimizerConfig, Role};
use serde_json::{Map, Value, json};

use crate::clipping::Plain;
use crate::numbers::random;

fn data<const D: usize>(tensor: Tensor<D>) -> TensorData {
    tensor.into_data()
}

fn largest<const D: usize>(tensor: Tensor<D>) -> f64 {
    tensor.abs().max().into_scalar::<f64>()
}

fn merged(kind: &str, keys: Value) -> OptimizerConfig {
    let Value::Object(keys) = keys else { unreachable!("keys are an object") };
    OptimizerConfig::of_kind(kind).unwrap().merge(&keys).unwrap_or_else(|error| panic!("{kind} {keys:?}: {error}"))
}

fn sgd(keys: Value) -> Pipeline {
    merged("sgd", keys).build(Placement::new(Layout::OutIn)).unwrap()
}

/// Every kind with its defaults, and with each value of each key where the kind takes it; all decay that can.
fn settings() -> Vec<OptimizerConfig> {
    let of_kind = |kind: &'static str| {
        let choices = OptimizerConfig::choices(kind).unwrap().into_iter();
        let changes = choices.flat_map(|(key, values)| values.into_iter().map(move |value| (key, value)));
        let with = move |(key, value): (&'static str, Value)| {
            let free = json!({"constrained": false});
            let bases = [json!({"weight_decay": 0.1}), json!({"weight_decay": 0.0}), free, json!({})];
            bases.into_iter().find_map(|base| {
                let keys = base.as_object().cloned().unwrap_or_default();
                let keys: Map<String, Value> = keys.into_iter().chain([(key.to_string(), value.clone())]).collect();
                let config = OptimizerConfig::of_kind(kind).unwrap().merge(&keys).ok()?;
                config.build(Placement::default()).ok().map(|_| config)
            })
        };
        std::iter::once(OptimizerConfig::of_kind(kind).unwrap()).chain(changes.filter_map(with)).collect::<Vec<_>>()
    };
    OptimizerConfig::KINDS.iter().flat_map(|kind| of_kind(kind)).collect()
}

/// The weights after steps with random gradients.
fn walk<const D: usize>(optimizer: &Pipeline, start: Tensor<D>, steps: u64) -> Tensor<D> {
    let mut state: Option<State<D>> = None;
    (1..=steps).fold(start, |weights, step| {
        let gradient = random(weights.dims(), 100 + step).cast(weights.dtype());
        let (weights, new) = optimizer.step(0.02, weights, gradient, state.take());
        state = new;
        weights
    })
}

/// The known matrix of arXiv 2605.27676's projection, out × in.
fn known() -> Tensor<2> {
    let values = [[1.0, 2.0, 0.0, -1.0], [0.0, 3.0, -2.0, 1.0], [4.0, -1.0, 1.0, 2.0]];
    Tensor::from_data(values, (&Device::flex(), DType::F64))
}

fn column(values: &[f64]) -> Option<TensorData> {
    Some(TensorData::new(values.to_vec(), [values.len(), 1]))
}

#[test]
fn the_known_projections_of_a_gradient_are_met() {
    let step = |projection: Projection| {
        let optimizer = sgd(json!({"momentum": 0.0})).with_projection(projection);
        let zero = known().zeros_like();
        zero - optimizer.step(1.0, known().zeros_like(), known(), None).0
    };
    let close = |found: Tensor<2>, wanted: &[f64]| {
        for (found, wanted) in found.into_data().iter::<f64>().zip(wanted) {
            assert!((found - wanted).abs() < 1e-10, "{found} instead of {wanted}"); // its digits
        }
    };
    // Not of norm 1: they are made so.
    let (q, p) = (column(&[1.0, 2.0, 2.0, 0.0]), column(&[2.0, 1.0, 2.0]));
    let input = step(Projection::new(q.clone(), None, true).unwrap());
    let rows = [
        [0.4444444444, 0.8888888889, -1.1111111111, -1.0],
        [-0.2222222222, 2.5555555556, -2.4444444444, 1.0],
        [3.5555555556, -1.8888888889, 0.1111111111, 2.0],
    ];
    close(input, rows.as_flattened());
    let both = step(Projection::new(q, p, true).unwrap());
    close(both.clone(), &[-1.2839506173, 0.7654320988, -0.1234567901, -1.6666666667]);
    let norm = both.square().sum().sqrt().into_scalar::<f64>();
    assert!((norm - 5.200_902_105_985_977_5).abs() < 1e-13, "{norm}");
}

/// Directions of the inputs, in their columns, and of the outputs, none of them orthonormal.
fn directions([inputs, outputs]: [usize; 2]) -> [Tensor<2>; 2] {
    [random([inputs, 2], 7), random([outputs, 3], 8)]
}

/// How far the kept directions of matrices `[.., d_in, d_out]` have moved, where those of one stack are kept.
fn drift<const D: usize>(before: Tensor<D>, after: Tensor<D>, [q, p]: &[Tensor<2>; 2]) -> f64 {
    let unit = |x: &Tensor<2>| x.clone() / x.clone().square().sum_dim(0).sqrt();
    let moved = (after - before).cast(DType::F64);
    let [inputs, outputs] = [q, p].map(unit);
    let shape = moved.dims();
    let [a, b] = [shape[D - 2], shape[D - 1]];
    let moved: Tensor<3> = moved.reshape([shape.iter().product::<usize>() / (a * b), a, b]);
    let along_inputs = moved.clone().swap_dims(1, 2).matmul(inputs.unsqueeze::<3>().expand([moved.dims()[0], a, 2]));
    let along_outputs = moved.clone().matmul(outputs.unsqueeze::<3>().expand([moved.dims()[0], b, 3]));
    largest(along_inputs).max(largest(along_outputs))
}

#[test]
fn kept_directions_stay_for_every_kind_with_every_setting() {
    let shape = [8, 9];
    let kept = directions(shape);
    let [q, p] = kept.clone().map(data);
    let projection = Projection::new(Some(q), Some(p), true).unwrap();
    let all = settings();
    assert!(all.len() > 300, "{}", all.len());
    for config in all {
        let optimizer = config.build(Placement::default()).unwrap().with_projection(projection.clone());
        assert!(optimizer.check(&shape).is_ok());
        let start = random(shape, 1).cast(DType::F32) * 0.5;
        let after = walk(&optimizer, start.clone(), 20);
        let moved = largest((after.clone() - start.clone()).cast(DType::F64));
        // Relative to the weights where a setting (a floor of 100 times their norm) makes them large.
        let drift = drift(start, after.clone(), &kept) / largest(after.cast(DType::F64)).max(1.0);
        assert!(drift < 1e-6, "{config:?}: {drift:e}");
        assert!(moved > 1e-3, "{config:?} moved by {moved:e} only");
    }
}

#[test]
fn without_a_projection_they_do_not_stay() {
    // The counterpart shows that the test of the invariant can fail.
    let shape = [8, 9];
    let start = random(shape, 1).cast(DType::F32);
    for kind in OptimizerConfig::KINDS {
        let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(Placement::default()).unwrap();
        let drift = drift(start.clone(), walk(&optimizer, start.clone(), 5), &directions(shape));
        assert!(drift > 1e-3, "{kind}: {drift:e}");
    }
}

#[test]
fn kept_directions_stay_in_stacks_blocks_and_parts_of_either_axis() {
    let kept = directions([8, 9]);
    let [q, p] = kept.clone().map(data);
    let projection = Projection::new(Some(q), Some(p), true).unwrap();
    let sizes = |axis, sizes: &[usize]| Placement {
        blocks: Some(Blocks::of_sizes(axis, sizes).unwrap()),
        ..Placement::default()
    };
    let places = [
        Placement::default(),
        Placement::default().with_blocks(Axis::Output, 3),
        Placement::default().with_blocks(Axis::Input, 4),
        sizes(Axis::Output, &[4, 4, 1]),
        sizes(Axis::Input, &[5, 3]),
    ];
    for kind in OptimizerConfig::KINDS {
        for placement in places {
            let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(placement).unwrap();
            let optimizer = optimizer.with_projection(projection.clone());
            let start = random([2, 8, 9], 1).cast(DType::F32) * 0.5;
            let drift = drift(start.clone(), walk(&optimizer, start, 10), &kept);
            assert!(drift < 1e-6, "{kind} {placement:?}: {drift:e}");
        }
    }
}

#[test]
fn kernels_of_convolutions_keep_the_directions_of_inputs_times_window() {
    for (layout, inputs, outputs) in [(Layout::OutIn, 16, 6), (Layout::InOut, 24, 4)] {
        let placement = Placement::kernel(layout);
        let [q, p] = [random([inputs, 2], 7), random([outputs, 2], 8)];
        let projection = Projection::new(Some(data(q.clone())), Some(data(p.clone())), true).unwrap();
        for kind in OptimizerConfig::KINDS {
            let optimizer = OptimizerConfig::of_kind(kind).unwrap().build(placement).unwrap();
            let optimizer = optimizer.with_projection(projection.clone());
            assert!(optimizer.check(&[6, 4, 2, 2]).is_ok());
            let start = random([6, 4, 2, 2], 1);
            let moved = placement.split(walk(&optimizer, start.clone(), 5) - start).into_tensor().squeeze_dim::<2>(0);
            let moved = if layout == Layout::OutIn { moved.transpose() } else { moved };
            let drift = largest(q.clone().transpose().matmul(moved.clone())).max(largest(moved.matmul(p.clone())));
            assert!(drift < 1e-13, "{kind} {layout:?}: {drift:e}");
        }
    }
}

#[test]
fn the_layouts_keep_each_others_transpose_and_every_expert_its_own_directions() {
    let [q, p] = [random([2, 8, 2], 7), random([2, 9, 3], 8)];
    let projection = Projection::new(Some(data(q.clone())), Some(data(p.clone())), true).unwrap();
    let build = |layout| {
        let optimizer = merged("muon", json!({"weight_decay": 0.1})).build(Placement::new(layout)).unwrap();
        optimizer.with_projection(projection.clone())
    };
    let step = |layout, turn: fn(Tensor<3>) -> Tensor<3>| {
        let (weights, gradient) = (turn(random([2, 8, 9], 1)), turn(random([2, 8, 9], 2)));
        turn(build(layout).step(0.1, weights, gradient, None).0)
    };
    let in_out = step(Layout::InOut, |x| x);
    let out_in = step(Layout::OutIn, |x| x.swap_dims(1, 2));
    assert!(largest(in_out.clone() - out_in) < 1e-13);
    let moved = in_out - random([2, 8, 9], 1);
    assert!(largest(moved.clone().swap_dims(1, 2).matmul(q)) < 1e-13 && largest(moved.matmul(p)) < 1e-13);
}

#[test]
fn the_rest_decays_only_if_it_is_not_preserved() {
    let kept = || Some(data(directions([8, 9])[0].clone()));
    let start = || random([8, 9], 1);
    let decayed = |kind: &str, preserve: bool| {
        let optimizer = merged(kind, json!({"weight_decay": 0.5})).build(Placement::default()).unwrap();
        let optimizer = optimizer.with_projection(Projection::new(kept(), None, preserve).unwrap());
        optimizer.step(0.1, start(), start().zeros_like(), None).0
    };
    for kind in ["sgd", "adamw", "muon"] {
        let whole = decayed(kind, false);
        assert!(largest(whole - start() * 0.95) < 1e-15, "{kind}");
        // What is left across the directions decays, and nothing else.
        let part = decayed(kind, true);
        let q = directions([8, 9])[0].clone();
        let along = |x: Tensor<2>| q.clone().transpose().matmul(x);
        assert!(largest(along(part.clone()) - along(start())) < 1e-14, "{kind}");
        let free = start() - part;
        let twice = decayed(kind, true) - free.clone() * 19.0;
        assert!(largest(twice.clone() - free.zeros_like()) > 0.1 && largest(along(free)) < 1e-15, "{kind}");
    }
}

#[test]
fn norm_controls_act_on_what_may_change() {
    let kept = directions([8, 9]);
    let [q, p] = kept.clone().map(data);
    let projection = Projection::new(Some(q), Some(p), true).unwrap();
    let free = |x: Tensor<2>| {
        // A step of sgd from zero is the projection of the gradient.
        let optimizer = merged("sgd", json!({"momentum": 0.0})).build(Placement::default()).unwrap();
        optimizer.with_projection(projection.clone()).step(1.0, x.zeros_like(), x.neg(), None).0
    };
    let norm = |x: Tensor<2>| frobenius_norm(x.unsqueeze::<3>()).into_scalar::<f64>();
    let step = |kind: &str, method: &str| {
        let keys = match kind {
            "soap" => json!({"weight_decay": 0.0, "norm_control": {"method": method}}),
            "scion" => json!({"constrained": false, "norm_control": {"method": method}}),
            _ => json!({"norm_control": {"method": method}}),
        };
        let optimizer = merged(kind, keys).build(Placement::default()).unwrap().with_projection(projection.clone());
        walk(&optimizer, random([8, 9], 1), if method == "hyperball" { 20 } else { 1 })
    };
    let start = random([8, 9], 1);
    for kind in OptimizerConfig::KINDS.iter().filter(|kind| **kind != "muown") {
        let after = step(kind, "hyperball");
        assert!((norm(after.clone()) / norm(start.clone()) - 1.0).abs() < 1e-12, "{kind}");
        assert!((norm(free(after)) / norm(free(start.clone())) - 1.0).abs() < 1e-12, "{kind}");
        // SOAP's first gradient moves nothing.
        if *kind != "soap" {
            let share = norm(step(kind, "relative") - start.clone()) / norm(free(start.clone()));
            assert!((share / 0.02 - 1.0).abs() < 1e-9, "{kind}: {share}");
        }
    }
}

#[test]
fn directions_that_cannot_be_kept_are_refused_in_one_sentence() {
    let refused = |input: Tensor<2>, part: &str| {
        let error = Projection::new(Some(data(input)), None, true).unwrap_err();
        assert!(error.contains("input directions") && error.contains(part), "{error}");
    };
    refused(random([4, 4], 1), "leaves nothing to train");
    let twice = Tensor::cat(vec![random([4, 1], 1), random([4, 1], 1) * -3.0], 1);
    refused(twice.clone(), "number 2 is a combination");
    refused(Tensor::cat(vec![random([4, 1], 1), random([4, 1], 1) * 0.0], 1), "number 2 is zero");
    refused(random([4, 1], 1) * f64::NAN, "NaN");
    let vector = Projection::new(Some(TensorData::new(vec![1.0_f32], [1])), None, true).unwrap_err();
    assert!(vector.contains("[features, directions]"), "{vector}");
    assert!(Projection::new(None, None, true).unwrap_err().contains("needs directions"));
    // Small and large directions count alike.
    let scaled = Tensor::cat(vec![random([4, 1], 1) * 1e-200, random([4, 1], 2) * 1e200], 1);
    assert!(Projection::new(Some(data(scaled)), None, true).is_ok());

    let muon = |keys: Value, placement: Placement, [q, p]: [Option<TensorData>; 2]| {
        merged("muon", keys).build(placement).unwrap().with_projection(Projection::new(q, p, true).unwrap())
    };
    let six = || Some(data(random([6, 2], 1)));
    let said = muon(json!({}), Placement::default(), [six(), None]).check(&[4, 6]).unwrap_err().to_string();
    assert!(said.contains("6 features") && said.contains("4 inputs") && said.contains("[4, 6]"), "{said}");
    let stack = Some(data(random([3, 4, 2], 1)));
    let said = muon(json!({}), Placement::default(), [stack, None]).check(&[2, 4, 6]).unwrap_err().to_string();
    assert!(said.contains("those of 3 matrices, but there are 2"), "{said}");
    let controlled = json!({"norm_control": {"method": "hyperball"}});
    let heads = Placement::default().with_blocks(Axis::Output, 2);
    let said = muon(controlled.clone(), heads, [None, six()]).check(&[4, 6]).unwrap_err().to_string();
    assert!(said.contains("output blocks") && said.contains("hyperball") && said.contains("leave out"), "{said}");
    assert!(muon(controlled, heads, [six(), None]).check(&[6, 4]).is_ok());
}

#[derive(Module, Debug)]
struct Net {
    first: Param<Tensor<2>>,
    experts: Param<Tensor<3>>,
    second: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Net {
    fn new() -> Self {
        fn parameter<const D: usize>(values: Tensor<D>) -> Param<Tensor<D>> {
            Param::from_tensor(Tensor::from_inner(values.cast(DType::F32) * 0.5))
        }
        Self {
            first: parameter(random([8, 9], 1)),
            experts: parameter(random([2, 8, 9], 2)),
            second: parameter(random([8, 9], 3)),
            bias: parameter(random([9], 4)),
        }
    }

    fn gradients(&self, step: u64) -> GradientsParams {
        let mut grads = GradientsParams::new();
        grads.register(self.first.id, random([8, 9], 10 * step).cast(DType::F32));
        grads.register(self.experts.id, random([2, 8, 9], 10 * step + 1).cast(DType::F32));
        grads.register(self.second.id, random([8, 9], 10 * step + 2).cast(DType::F32));
        grads.register(self.bias.id, random([9], 10 * step + 3).cast(DType::F32));
        grads
    }

    fn bytes(&self) -> Vec<Vec<u8>> {
        fn bytes<const D: usize>(parameter: &Param<Tensor<D>>) -> Vec<u8> {
            parameter.val().into_data().as_bytes().to_vec()
        }
        vec![bytes(&self.first), bytes(&self.experts), bytes(&self.second), bytes(&self.bias)]
    }

    /// How far the kept directions of `first` and `experts` are from where they began.
    fn drift(&self) -> f64 {
        let (start, kept) = (Self::new(), directions([8, 9]));
        let first = drift(start.first.val().inner(), self.first.val().inner(), &kept);
        first.max(drift(start.experts.val().inner(), self.experts.val().inner(), &kept))
    }
}

fn tensors() -> BTreeMap<String, TensorData> {
    let [q, p] = directions([8, 9]).map(data);
    let sides = |path: &str| [(format!("{path}.input"), q.clone()), (format!("{path}.output"), p.clone())];
    ["first", "experts"].iter().flat_map(|path| sides(path)).collect()
}

fn plain(stack: &str) -> Layerwise {
    let builder = Layerwise::stack(stack).unwrap().lr(0.02).weight_decay(if stack == "scion" { 0.0 } else { 0.1 });
    let builder = builder.assign("/first|second/", Role::Hidden).assign("experts", Role::ExpertUp);
    builder.assign("bias", Role::Bias)
}

fn projected(stack: &str) -> Layerwise {
    let project = Project::inputs("task").and_outputs("task");
    let rule = Rule::path("/first|experts/", RuleOptimizer::inherited()).unwrap().with_project(project);
    plain(stack).rule(rule).directions("task", tensors())
}

fn trained(builder: Layerwise, steps: u64) -> Net {
    let model = Net::new();
    let mut optimizer = builder.build(&model).unwrap().with_stacking(Stacking::Always);
    let model = (1..=steps).fold(model, |model, step| {
        let model = optimizer.before_forward(1.0, model).unwrap();
        let grads = model.gradients(step);
        optimizer.step(1.0, model, grads)
    });
    optimizer.evaluation_weights(model).unwrap()
}

#[test]
fn a_rule_keeps_the_directions_of_its_parameters_in_every_stack_and_moves_the_others_as_without_it() {
    for stack in LayerwiseConfig::STACKS {
        let model = trained(projected(stack).clip(None), 6);
        assert!(model.drift() < 1e-6, "{stack}: {:e}", model.drift());
        let without = trained(plain(stack).clip(None), 6);
        assert!(without.drift() > 1e-3, "{stack}");
        assert_eq!(model.bytes()[2..], without.bytes()[2..], "{stack}");
    }
}

#[test]
fn wrappers_and_the_averages_that_they_evaluate_keep_the_directions() {
    for kind in WrapperConfig::KINDS {
        let wrapper: WrapperConfig = serde_json::from_value(json!({ "kind": kind })).unwrap();
        let model = trained(projected("muon").wrapper(wrapper), 12);
        assert!(model.drift() < 1e-6, "{kind}: {:e}", model.drift());
    }
}

#[test]
fn burns_module_optimizer_keeps_them_too() {
    let model = Net::new();
    let (mut optimizer, _) = projected("muon").clip(None).build_module_optimizer(&model, |_| 1.0).unwrap();
    let model = (1..=4).fold(model, |model, step| {
        let grads = model.gradients(step);
        optimizer.step(0.02, model, grads)
    });
    assert!(model.drift() < 1e-6 && model.bytes() != Net::new().bytes(), "{:e}", model.drift());
}

#[test]
fn a_projected_run_goes_on_from_a_record_to_the_bit_and_other_directions_are_refused() {
    for stack in LayerwiseConfig::STACKS {
        let straight = trained(projected(stack), 6);
        let mut model = trained(projected(stack), 0);
        let mut first = projected(stack).build(&model).unwrap();
        let step = |optimizer: &mut polaron::LayerwiseOptimizer, model: Net, number: u64| {
            let grads = model.gradients(number);
            optimizer.step(1.0, model, grads)
        };
        for number in 1..=3 {
            model = step(&mut first, model, number);
        }
        let bytes = first.to_record().to_safetensors().unwrap();
        let record = || LayerwiseRecord::from_safetensors(&bytes).unwrap();
        let mut resumed = projected(stack).build(&model).unwrap();
        resumed.load_record(record(), &Device::flex().autodiff()).unwrap();
        for number in 4..=6 {
            model = step(&mut resumed, model, number);
        }
        assert_eq!(model.bytes(), straight.bytes(), "{stack}");
        let mut others = tensors();
        others.insert("first.input".into(), data(random([8, 2], 70)));
        let mut other = projected(stack).directions("task", others).build(&model).unwrap();
        let error = other.load_record(record(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("\"first\" was updated by") && error.contains("keeps 2 input + 3 output"), "{error}");
    }
}

#[test]
fn a_plan_says_what_stays_and_a_configuration_names_the_files() {
    let text = r#"
        [[rule]]
        match = "/first|experts/"
        project = { input = "a.safetensors", output = "b.safetensors", preserve = false }
    "#;
    let config = LayerwiseConfig::from_toml(text).unwrap();
    assert_eq!(Vec::from_iter(config.direction_files().unwrap()), ["a.safetensors", "b.safetensors"]);
    assert_eq!(LayerwiseConfig::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
    assert!(LayerwiseConfig::stack("muon").unwrap().direction_files().unwrap().is_empty());
    let plan = projected("muon").build(&Net::new()).unwrap().plan().to_string();
    assert!(plan.contains("keeps 2 input + 3 output"), "{plan}");
    assert_eq!(plan.lines().filter(|line| line.contains("keeps")).count(), 2, "{plan}");
}

#[test]
fn a_project_that_does_not_fit_is_refused_with_what_to_do() {
    let refused = |builder: Layerwise, parts: &[&str]| {
        let error = builder.build(&Net::new()).expect_err("must be refused").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let rule = |pattern: &str| Rule::path(pattern, RuleOptimizer::inherited()).unwrap();
    let inputs = |pattern: &str| rule(pattern).with_project(Project::inputs("task"));
    let muon = || plain("muon");
    refused(muon().rule(inputs("first")), &["`task`", "not given", "\"first\"", "Layerwise::directions"]);
    refused(muon().directions("task", tensors()), &["`task`", "no rule names them"]);
    refused(muon().rule(inputs("second")).directions("task", tensors()), &["\"second\"", "no tensor \"second.input\""]);
    refused(muon().rule(inputs("bias")).directions("task", tensors()), &["\"bias\"", "vector"]);
    let with = |name: &str, tensor: Tensor<2>| {
        let mut all = tensors();
        all.insert(name.to_string(), data(tensor));
        muon().rule(inputs("first")).directions("task", all)
    };
    refused(with("frist.input", random([8, 2], 1)), &["\"frist.input\"", "did you mean `first.input`"]);
    refused(with("first.input", random([7, 2], 1)), &["\"first\"", "7 features", "8 inputs"]);
    refused(with("first.input", random([8, 8], 1)), &["\"first\"", "leaves nothing to train"]);
    let own = Rule::path("first", AnyOptimizer::new(Plain)).unwrap();
    refused(
        muon().rule(own.with_project(Project::inputs("task"))).directions("task", tensors()),
        &["\"first\"", "none of this crate"],
    );
    for (text, part) in [
        ("{ inptu = \"a\" }", "did you mean `input`"),
        ("{ preserve = true }", "give it, output, or both"),
        ("{ input = 3 }", "path of a safetensors file"),
        ("{ input = \"a\", preserve = 1 }", "true or false"),
    ] {
        let text = format!("[[rule]]\nmatch = \"first\"\nproject = {text}");
        let config = LayerwiseConfig::from_toml(&text).unwrap();
        let error = config.direction_files().unwrap_err().to_string();
        assert!(error.contains("rule 1") && error.contains(part), "{error}");
    }
}

#[test]
fn what_would_scale_kept_directions_from_outside_is_refused() {
    let model = Net::new();
    let builder = projected("scion");
    let error = builder.build(&model).unwrap().onto_balls(Net::new()).unwrap_err();
    assert!(matches!(&error, LayerwiseError::Project { path, .. } if path == "first"), "{error}");
    assert!(error.to_string().contains("onto_balls"), "{error}");

    let turned = TensorData::new(vec![1.0_f64; 64], [1, 8, 8]);
    let change = BasisChange { path: "first".into(), rotation: turned };
    let error =
        projected("muon").build(&model).unwrap().change_basis(&[change], &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("\"first\"") && error.contains("keeps directions"), "{error}");

    #[derive(Module, Debug)]
    struct Attention {
        wq: burn::nn::Linear,
    }
    let linear = burn::nn::LinearConfig::new(8, 9).with_bias(false);
    let attention = Attention { wq: linear.init(&Device::flex()) };
    let rule = Rule::path("wq", RuleOptimizer::inherited()).unwrap().with_project(Project::inputs("task"));
    let kept = BTreeMap::from([("wq.weight.input".to_string(), data(random([8, 1], 1)))]);
    let optimizer = Layerwise::muon().qk_clip(1.0).rule(rule).directions("task", kept).build(&attention).unwrap();
    let logits = HeadLogits { query: "wq".into(), key: "wq".into(), key_heads: 1, largest: vec![2.0] };
    let error = optimizer.clip_heads(attention, &[logits]).unwrap_err().to_string();
    assert!(error.contains("QK-clip") && error.contains("wq.weight") && error.contains("leave out"), "{error}");
}

#[test]
fn a_matrix_that_has_nothing_but_kept_directions_cannot_keep_its_norm() {
    let kept = random([8, 1], 5);
    let along = kept.clone().matmul(random([1, 9], 6)).cast(DType::F32);
    let model = Net { first: Param::from_tensor(Tensor::from_inner(along)), ..Net::new() };
    let config = merged("muon", json!({"norm_control": {"method": "relative"}}));
    let built = |directions: Option<TensorData>| {
        let rule = Rule::path("first", config.clone()).unwrap();
        match directions {
            Some(directions) => {
                let tensors = BTreeMap::from([("first.input".to_string(), directions)]);
                plain("muon").rule(rule.with_project(Project::inputs("task"))).directions("task", tensors)
            }
            None => plain("muon").rule(rule),
        }
        .build(&model)
    };
    assert!(built(None).is_ok() && built(Some(data(random([8, 1], 50)))).is_ok());
    let error = built(Some(data(kept.clone()))).unwrap_err();
    assert!(matches!(error, LayerwiseError::ZeroMatrix { .. }), "{error}");
}
