//! Parameters of a group stepped as one stack: the same bytes as one by one.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use polaron::layerwise::{LayerwiseOptimizer, LayerwiseRecord, Rule, Stacking};
use polaron::{Layerwise, OptimizerConfig, Role};
use serde_json::{Map, Value};

use crate::numbers::random;

/// Three matrices of one shape and one of another, two stacks of experts, vectors of two lengths.
#[derive(Module, Debug)]
struct Model {
    matrices: Vec<Param<Tensor<2>>>,
    wide: Param<Tensor<2>>,
    experts: Vec<Param<Tensor<3>>>,
    bias: Param<Tensor<1>>,
    gain: Param<Tensor<1>>,
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    random(shape, seed).cast(DType::F32)
}

fn parameter<const D: usize>(shape: [usize; D], seed: u64) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_inner(tensor(shape, seed)))
}

impl Model {
    fn new() -> Self {
        Self {
            matrices: (1..4).map(|seed| parameter([6, 4], seed)).collect(),
            wide: parameter([4, 10], 4),
            experts: (5..7).map(|seed| parameter([2, 4, 6], seed)).collect(),
            bias: parameter([4], 7),
            gain: parameter([6], 8),
        }
    }

    /// Gradients of everything, or of everything but the first matrix and the gain.
    fn gradients(&self, step: u64, all: bool) -> GradientsParams {
        let mut grads = GradientsParams::new();
        let seed = |parameter: usize| 100 * step + parameter as u64;
        for (i, matrix) in self.matrices.iter().enumerate().filter(|(i, _)| all || *i > 0) {
            grads.register(matrix.id, tensor([6, 4], seed(i)));
        }
        grads.register(self.wide.id, tensor([4, 10], seed(10)));
        for (i, expert) in self.experts.iter().enumerate() {
            grads.register(expert.id, tensor([2, 4, 6], seed(20 + i)));
        }
        grads.register(self.bias.id, tensor([4], seed(30)));
        if all {
            grads.register(self.gain.id, tensor([6], seed(40)));
        }
        grads
    }

    fn bytes(&self) -> Vec<Vec<u8>> {
        let two = self.matrices.iter().chain([&self.wide]).map(|parameter| bytes(parameter.val()));
        let three = self.experts.iter().map(|parameter| bytes(parameter.val()));
        let one = [&self.bias, &self.gain].map(|parameter| bytes(parameter.val()));
        two.chain(three).chain(one).collect()
    }
}

fn bytes<const D: usize>(tensor: Tensor<D>) -> Vec<u8> {
    tensor.into_data().as_bytes().to_vec()
}

/// The defaults of a kind, and each value of the keys that act around every rule.
fn settings(kind: &str) -> Vec<OptimizerConfig> {
    let base = OptimizerConfig::of_kind(kind).unwrap();
    let around = OptimizerConfig::choices(kind).unwrap().into_iter();
    let around = around.filter(|(key, _)| ["second_moment", "norm_control", "decay"].contains(key));
    let single = around.flat_map(|(key, values)| values.into_iter().map(move |value| (key, value)));
    let merge = |(key, value): (&str, Value)| {
        let mut keys = Map::from_iter([(key.to_string(), value)]);
        match (kind, key) {
            ("scion", _) => drop(keys.insert("constrained".into(), false.into())),
            ("soap", "norm_control") => drop(keys.insert("weight_decay".into(), 0.0.into())),
            // It refuses them.
            ("muown", "norm_control" | "second_moment") => return base.clone(),
            (_, "decay") => drop(keys.insert("weight_decay".into(), 0.1.into())),
            _ => {}
        }
        base.merge(&keys).unwrap()
    };
    std::iter::once(base.clone()).chain(single.map(merge)).collect()
}

/// The settings on matrices, cut into blocks if asked for; AdamW on vectors, of which one decays.
fn built(settings: &OptimizerConfig, blocks: bool, stacking: Stacking) -> LayerwiseOptimizer {
    let config = |json: String| -> OptimizerConfig { serde_json::from_str(&json).unwrap() };
    let matrices = Rule::path("/matrices|wide|experts/", settings.clone()).unwrap();
    let matrices = match blocks {
        true => matrices.with_blocks(serde_json::from_str(r#"{"axis": "output", "count": 2}"#).unwrap()),
        false => matrices,
    };
    let vectors = |decay: f64| config(format!(r#"{{"kind": "adamw", "weight_decay": {decay}}}"#));
    let builder = Layerwise::new()
        .lr(0.05)
        .assign("experts", Role::ExpertUp)
        .rule(matrices)
        .rule(Rule::path("bias", vectors(0.1)).unwrap())
        .rule(Rule::path("gain", vectors(0.0)).unwrap());
    builder.build(&Model::new()).unwrap().with_stacking(stacking)
}

fn step(optimizer: &mut LayerwiseOptimizer, model: Model, number: u64) -> Model {
    // In the fourth step two parameters have no gradient; from then on their step numbers differ.
    let grads = model.gradients(number, number != 4);
    optimizer.step(1.0 / number as f64, model, grads)
}

#[test]
fn parameters_stepped_as_one_stack_get_the_same_bytes_as_one_by_one() {
    let all = OptimizerConfig::KINDS.iter().flat_map(|kind| settings(kind));
    for (config, blocks) in all.flat_map(|config| [(config.clone(), false), (config, true)]) {
        let [mut together, mut apart] =
            [Stacking::Always, Stacking::Never].map(|stacking| built(&config, blocks, stacking));
        let (mut a, mut b) = (Model::new(), Model::new());
        for number in 1..=6 {
            a = step(&mut together, a, number);
            b = step(&mut apart, b, number);
            assert_eq!(a.bytes(), b.bytes(), "{config:?}, blocks {blocks}, step {number}");
            let records = [&together, &apart].map(|optimizer| optimizer.to_record().to_safetensors().unwrap());
            assert_eq!(records[0], records[1], "{config:?}, blocks {blocks}, step {number}");
        }
    }
}

#[test]
fn a_record_of_a_stack_goes_on_one_by_one_and_the_other_way_round() {
    let ways = [(Stacking::Always, Stacking::Never), (Stacking::Never, Stacking::Always)];
    let all = OptimizerConfig::KINDS.iter().flat_map(|kind| settings(kind));
    for (config, (first, then)) in all.flat_map(|config| ways.map(|way| (config.clone(), way))) {
        let mut straight = built(&config, false, first);
        let mut model = (1..=3).fold(Model::new(), |model, number| step(&mut straight, model, number));
        let bytes = straight.to_record().to_safetensors().unwrap();
        let mut resumed = built(&config, false, then);
        resumed.load_record(LayerwiseRecord::from_safetensors(&bytes).unwrap(), &Device::flex()).unwrap();
        let mut other = model.clone();
        for number in 5..=6 {
            model = step(&mut straight, model, number);
            other = step(&mut resumed, other, number);
            assert_eq!(model.bytes(), other.bytes(), "{config:?}, {first:?} then {then:?}, step {number}");
        }
    }
}

/// The change of two matrices of one shape by the same gradient.
fn changes(draws: &str, stacking: Stacking) -> [Tensor<2>; 2] {
    let config = |json: &str| serde_json::from_str::<OptimizerConfig>(json).unwrap();
    let random = config(&format!(r#"{{"kind": "random_spectrum", "draws": "{draws}"}}"#));
    let builder = Layerwise::new().lr(0.05).assign("experts", Role::ExpertUp);
    let builder = builder.rule(Rule::path("/matrices/", random).unwrap());
    let builder = builder.rule(Rule::path("/wide|experts|bias|gain/", config(r#"{"kind": "adamw"}"#)).unwrap());
    let mut optimizer = builder.build(&Model::new()).unwrap().with_stacking(stacking);
    let mut grads = GradientsParams::new();
    let model = Model::new();
    model.matrices.iter().for_each(|matrix| grads.register(matrix.id, tensor([6, 4], 9)));
    let before = Model::new().matrices;
    let after = optimizer.step(1.0, model, grads).matrices;
    [0, 1].map(|i| (before[i].val() - after[i].val()).inner())
}

#[test]
fn parameters_of_one_shape_draw_numbers_of_their_own_or_share_them_as_asked() {
    let difference = |[a, b]: [Tensor<2>; 2]| (a - b).abs().max().into_scalar::<f64>();
    for stacking in [Stacking::Always, Stacking::Never] {
        // rounding of weights of size 1
        assert!(difference(changes("shared", stacking)) < 1e-6);
        assert!(difference(changes("by_path", stacking)) > 1e-3);
    }
}
