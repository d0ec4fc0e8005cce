//! Parts of different sizes: each is a matrix of its own, with its own norm, scale and state.

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor};
use polaron::layerwise::{Rule, RuleOptimizer, Stacking};
use polaron::matrix::{Axis, Blocks, Layout, LayoutError, Placement};
use polaron::rule::{Pipeline, State};
use polaron::{Layerwise, LayerwiseRecord, OptimizerConfig, Role, RoleHint};

use crate::numbers::random;

/// A query of 6 and keys and values of 3.
const SIZES: [usize; 3] = [6, 3, 3];
const STEPS: u64 = 4;

fn build(kind: &str, placement: Placement) -> Pipeline {
    OptimizerConfig::of_kind(kind).unwrap().build(placement).unwrap()
}

fn cut(layout: Layout, axis: Axis, sizes: &[usize]) -> Placement {
    Placement { blocks: Some(Blocks::of_sizes(axis, sizes).unwrap()), ..Placement::new(layout) }
}

/// The dimension of an axis in a stack `[E, ., .]`.
fn dimension(layout: Layout, axis: Axis) -> usize {
    1 + usize::from((layout == Layout::InOut) == (axis == Axis::Output))
}

fn walk(optimizer: &Pipeline, weights: Tensor<3>, gradients: impl Fn(u64) -> Tensor<3>) -> Tensor<3> {
    let mut state: Option<State<3>> = None;
    let mut weights = weights;
    for step in 0..STEPS {
        (weights, state) = optimizer.step(0.1, weights, gradients(step), state);
    }
    weights
}

#[test]
fn every_part_is_updated_as_a_matrix_of_its_own() {
    let kinds = OptimizerConfig::KINDS.iter().filter(|kind| OptimizerConfig::of_kind(kind).unwrap().is_matrix_rule());
    // Draws belong to a parameter, and a part is not one.
    for kind in kinds.filter(|kind| **kind != "random_spectrum") {
        for layout in [Layout::InOut, Layout::OutIn] {
            for axis in [Axis::Output, Axis::Input] {
                let dim = dimension(layout, axis);
                let mut shape = [2, 5, 5];
                shape[dim] = SIZES.iter().sum();
                let (weights, gradient) = (random(shape, 1), |step| random(shape, 2 + step));
                let found = walk(&build(kind, cut(layout, axis, &SIZES)), weights.clone(), gradient);
                let alone = build(kind, Placement::new(layout));
                let mut start = 0;
                for size in SIZES {
                    let part = |whole: Tensor<3>| whole.narrow(dim, start, size);
                    let expected = walk(&alone, part(weights.clone()), |step| part(gradient(step)));
                    let difference = (part(found.clone()) - expected).abs().max().into_scalar::<f64>();
                    // f64 rounding: a part of a larger tensor may be summed in another order
                    assert!(difference < 1e-12, "{kind} {layout:?} {axis:?} part at {start}: {difference}");
                    start += size;
                }
            }
        }
    }
}

#[test]
fn parts_of_one_size_are_equal_blocks_to_the_bit() {
    for axis in [Axis::Output, Axis::Input] {
        let gradient = |step| random([2, 12, 12], 2 + step);
        let sizes = walk(&build("muon", cut(Layout::InOut, axis, &[4, 4, 4])), random([2, 12, 12], 1), gradient);
        let blocks = Placement::default().with_blocks(axis, 3);
        let equal = walk(&build("muon", blocks), random([2, 12, 12], 1), gradient);
        assert_eq!(sizes.into_data(), equal.into_data());
    }
}

#[test]
fn a_state_of_parts_survives_its_record_byte_for_byte() {
    for kind in OptimizerConfig::KINDS {
        let optimizer = build(kind, cut(Layout::InOut, Axis::Output, &SIZES));
        let gradient = |seed| random::<2>([5, 12], seed);
        let (weights, state) = optimizer.step(0.1, gradient(0), gradient(1), None);
        let state: State<2> = state.unwrap();
        let mut sink = StateSink::default();
        state.state_flatten("p", &mut sink);
        let mut source = StateSource::new(sink.scalars.into_iter().collect());
        sink.tensors.into_iter().for_each(|(name, data)| source.insert_tensor(name, data));
        let restored = State::<2>::state_unflatten("p", &mut source, &Device::flex()).unwrap();
        let (a, _) = optimizer.step(0.1, weights.clone(), gradient(2), Some(state));
        let (b, _) = optimizer.step(0.1, weights, gradient(2), Some(restored));
        assert_eq!(a.into_data(), b.into_data(), "{kind}");
    }
}

/// Two fused projections.
#[derive(Module, Debug)]
struct Fused {
    qkv: Vec<Param<Tensor<2>>>,
}

fn fused() -> Fused {
    let weight = |seed| Param::from_tensor(Tensor::from_inner(random::<2>([5, 12], seed)));
    Fused { qkv: vec![weight(1), weight(2)] }
}

fn gradients(model: &Fused, step: u64) -> GradientsParams {
    let mut grads = GradientsParams::new();
    for (number, weight) in model.qkv.iter().enumerate() {
        grads.register(weight.id, random::<2>([5, 12], 100 * step + number as u64));
    }
    grads
}

fn hinted() -> Layerwise {
    Layerwise::muon().clip(None).hints(vec![RoleHint::new("qkv.*", Role::Hidden).with_parts(SIZES)])
}

fn values(model: &Fused) -> Vec<burn::tensor::TensorData> {
    model.qkv.iter().map(|weight| weight.val().into_data()).collect()
}

#[test]
fn only_a_rule_that_asks_for_parts_cuts_a_fused_projection() {
    let model = fused();
    let blocks = |builder: Layerwise| builder.build(&model).unwrap().plan().entries()[0].placement.blocks;
    assert_eq!(blocks(hinted()), None);
    let parts = Rule::roles([Role::Hidden], RuleOptimizer::inherited()).per_part();
    let expected = Blocks::of_sizes(Axis::Output, &SIZES).unwrap();
    assert_eq!(blocks(hinted().rule(parts.clone())), Some(expected));
    for given in ["'parts'", "{ axis = 'output', sizes = [6, 3, 3] }"] {
        let text = format!("[[rule]]\nmatch = 'qkv.*'\nblocks = {given}\n");
        let builder =
            Layerwise::from_toml(&text).unwrap().hints(vec![RoleHint::new("qkv.*", Role::Hidden).with_parts(SIZES)]);
        assert_eq!(blocks(builder), Some(expected), "{given}");
    }
    let plan = hinted().rule(parts.clone()).build(&model).unwrap().plan().to_string();
    assert!(plan.contains("output parts 6 + 3 + 3"), "{plan}");
    let without = Layerwise::muon().assign("qkv.*", Role::Hidden).rule(parts).build(&model).unwrap_err().to_string();
    assert!(without.contains("names no parts") && without.contains("with_parts"), "{without}");
}

#[test]
fn parts_that_do_not_fit_are_refused_in_words() {
    let check = |sizes: &[usize]| cut(Layout::InOut, Axis::Output, sizes).check(&[5, 12]).unwrap_err().to_string();
    assert!(check(&[6, 3]).contains("[6, 3] do not add up to the 12 output features"), "{}", check(&[6, 3]));
    assert!(check(&[usize::MAX, 13]).contains("do not add up"));
    let wrong: [&[usize]; 3] = [&[], &[3, 0], &[1; 9]];
    for sizes in wrong {
        let refusal = Blocks::of_sizes(Axis::Output, sizes).unwrap_err();
        assert_eq!(refusal, LayoutError::Parts(sizes.to_vec()));
    }
    let turned = Placement { window: true, ..cut(Layout::InOut, Axis::Output, &[2, 1]) };
    assert_eq!(turned.check(&[4, 3, 2]), Err(LayoutError::TurnedParts(vec![4, 3, 2])));
    for (blocks, words) in [
        ("{ axis = 'output' }", "either count"),
        ("{ axis = 'output', count = 2, sizes = [6, 6] }", "either count"),
        ("{ axis = 'output', sizes = [] }", "one to eight sizes"),
        ("'part'", "\"parts\""),
    ] {
        let text = format!("[[rule]]\nmatch = 'qkv.*'\nblocks = {blocks}\n");
        let error = Layerwise::from_toml(&text).unwrap_err().to_string();
        assert!(error.contains(words), "{blocks}: {error}");
    }
    let built = Layerwise::muon().rule(Rule::roles([Role::Hidden], RuleOptimizer::inherited()).per_part());
    let wrong = RoleHint::new("qkv.*", Role::Hidden).with_parts([7, 3]);
    let error = built.hints(vec![wrong]).build(&fused()).unwrap_err().to_string();
    assert!(error.contains("qkv.0") && error.contains("do not add up"), "{error}");
}

#[test]
fn fused_projections_are_stepped_as_a_stack_and_resume_byte_for_byte() {
    for kind in OptimizerConfig::KINDS.iter().filter(|kind| !["adamw", "sgd"].contains(kind)) {
        let build = |stacking| {
            let hint = RoleHint::new("qkv.*", Role::Hidden).with_parts(SIZES);
            let parts = Rule::roles([Role::Hidden], RuleOptimizer::inherited()).per_part();
            let builder = Layerwise::stack(kind).unwrap().clip(None).hints(vec![hint]).rule(parts);
            builder.build(&fused()).unwrap().with_stacking(stacking)
        };
        let (mut one_by_one, mut stacked) = (build(Stacking::Never), build(Stacking::Always));
        let (mut a, mut b) = (fused(), fused());
        for step in 0..3 {
            let (to_a, to_b) = (gradients(&a, step), gradients(&b, step));
            a = one_by_one.step(1.0, a, to_a);
            b = stacked.step(1.0, b, to_b);
        }
        assert_eq!(values(&a), values(&b), "{kind}");
        let bytes = stacked.to_record().to_safetensors().unwrap();
        assert_eq!(one_by_one.to_record().to_safetensors().unwrap(), bytes, "{kind}");
        let mut resumed = build(Stacking::Always);
        resumed.load_record(LayerwiseRecord::from_safetensors(&bytes).unwrap(), &Device::flex()).unwrap();
        let (to_a, to_b) = (gradients(&a, 9), gradients(&b, 9));
        assert_eq!(values(&one_by_one.step(1.0, a, to_a)), values(&resumed.step(1.0, b, to_b)), "{kind}");
        let whole = Layerwise::stack(kind).unwrap().assign("qkv.*", Role::Hidden).build(&fused()).unwrap();
        if whole.plan().entries()[0].memories().is_some_and(|memories| !memories.is_empty()) {
            let mut whole = whole;
            let record = LayerwiseRecord::from_safetensors(&bytes).unwrap();
            assert!(
                whole.load_record(record, &Device::flex()).is_err(),
                "{kind}: a state of parts is not one of the whole"
            );
        }
    }
}

#[test]
fn a_part_in_half_precision_is_rounded_once() {
    let optimizer = build("muon", cut(Layout::InOut, Axis::Output, &SIZES));
    let half = |seed| random::<2>([5, 12], seed).cast(DType::BF16);
    let (weights, _) = optimizer.step(0.1, half(1), half(2), None);
    assert_eq!((weights.dtype(), weights.dims()), (DType::BF16, [5, 12]));
}
