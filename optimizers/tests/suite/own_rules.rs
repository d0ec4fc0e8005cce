//! Rules of other crates: the contents of a stage, and what they may keep.

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::{DType, Device, Tensor};
use polaron::layerwise::{LayerwiseRecord, Rule as Assignment, Stacking};
use polaron::matrix::{frobenius_norm, inner_product};
use polaron::rule::{Kept, Memory, Order, Pipeline, Rule, Stage, Update};
use polaron::{Layerwise, LayerwiseOptimizer};

use crate::numbers::random;

/// As large as the weights, along the gradient before the momentum; remembers of the last step what the stage said, in a
/// shape of its own.
#[derive(Debug)]
struct Curious;

impl Rule for Curious {
    fn advance(&self, stage: Stage, memory: &mut Memory) -> Update {
        let (gradient, weights) = (stage.gradient.expect("it was asked for"), stage.weights.expect("it was asked for"));
        let matrices = stage.matrix.tensor().dims()[0];
        let said = [stage.number as f64, stage.lr, stage.progress, stage.parameters as f64];
        let said = Tensor::<1>::from_floats(said, &Device::flex()).reshape([1, 1, 4]);
        let _ = memory.take("said", [matrices, 1, 4]);
        memory.keep("said", said.cast(gradient.tensor().dtype()).repeat_dim(0, matrices));
        let size = frobenius_norm(weights.into_tensor()) / frobenius_norm(gradient.tensor().clone());
        let along = inner_product(stage.matrix.into_tensor(), gradient.tensor().clone()).sign();
        Update { direction: gradient, size: Some(size * along) }
    }

    fn memories(&self) -> Vec<Kept> {
        vec![Kept::units("said")]
    }

    fn reads_gradient(&self) -> bool {
        true
    }

    fn reads_weights(&self) -> bool {
        true
    }
}

fn norm(tensor: Tensor<2>) -> f64 {
    tensor.square().sum().sqrt().into_scalar()
}

#[test]
fn a_rule_sees_the_gradient_before_the_momentum_and_the_weights() {
    let optimizer = Pipeline::new(Curious);
    let (weights, gradient) = (random([5, 4], 1), random([5, 4], 2));
    let (after, _) = optimizer.step(0.1, weights.clone(), gradient.clone(), None);
    let moved = weights.clone() - after;
    // f64 rounding
    assert!((norm(moved.clone()) - 0.1 * norm(weights.clone())).abs() < 1e-12);
    let along = gradient.clone() * (0.1 * norm(weights) / norm(gradient));
    assert!(norm(moved - along) < 1e-12);
}

#[test]
fn the_order_of_momentum_and_rule_is_data() {
    /// The sign of every entry.
    #[derive(Debug)]
    struct Sign;
    impl polaron::rule::Direction for Sign {
        fn direction(&self, momentum: polaron::matrix::Matrix) -> polaron::matrix::Matrix {
            momentum.map(Tensor::sign)
        }
    }
    let gradients = [[[1.0, -4.0]], [[-0.5, 1.0]]].map(|g| Tensor::<2>::from_data(g, (&Device::flex(), DType::F64)));
    let update = |order| {
        let optimizer = Pipeline::new(Sign).with_order(order);
        let (mut weights, mut state) = (gradients[0].zeros_like(), None);
        let mut before = weights.clone();
        for gradient in gradients.clone() {
            before = weights.clone();
            (weights, state) = optimizer.step(1.0, weights, gradient, state);
        }
        (before - weights).into_data().iter::<f64>().collect::<Vec<_>>()
    };
    // Averages 0.05 g1 then 0.95 · 0.05 g1 + 0.05 g2: the first keeps its sign, so does the second.
    assert_eq!(update(Order::MomentumFirst), [1.0, -1.0]);
    // Averages of the signs: 0.95 · 0.05 · (1, -1) + 0.05 · (-1, 1).
    for (got, want) in update(Order::RuleFirst).into_iter().zip([-0.0025, 0.0025]) {
        assert!((got - want).abs() < 1e-15, "{got}");
    }
}

#[derive(Module, Debug)]
struct Two {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
}

impl Two {
    fn new() -> Self {
        let parameter = |seed| Param::from_tensor(Tensor::from_inner(random([5, 4], seed)));
        Self { a: parameter(1), b: parameter(2) }
    }

    fn gradients(&self, step: u64) -> GradientsParams {
        let mut grads = GradientsParams::new();
        grads.register(self.a.id, random([5, 4], 10 * step));
        grads.register(self.b.id, random([5, 4], 10 * step + 1));
        grads
    }
}

fn built(stacking: Stacking) -> LayerwiseOptimizer {
    let rule = Assignment::path("/a|b/", Pipeline::new(Curious)).unwrap();
    Layerwise::new().lr(0.1).rule(rule).build(&Two::new()).unwrap().with_stacking(stacking)
}

#[test]
fn a_rule_is_told_step_rate_and_progress_and_its_memory_survives_a_record() {
    for (stacking, parameters) in [(Stacking::Never, 1.0), (Stacking::Always, 2.0)] {
        let mut optimizer = built(stacking);
        let mut model = Two::new();
        for step in 1..=2 {
            optimizer.set_progress(step as f64 / 4.0).unwrap();
            let grads = model.gradients(step);
            model = optimizer.step(0.5, model, grads);
        }
        let bytes = optimizer.to_record().to_safetensors().unwrap();
        let record = LayerwiseRecord::from_safetensors(&bytes).unwrap();
        for path in ["a", "b"] {
            let said: Vec<f64> = record.tensors()[&format!("{path}.said")].iter::<f64>().collect();
            assert_eq!(said.len(), 4);
            for (got, want) in said.into_iter().zip([2.0, 0.05, 0.5, parameters]) {
                // the numbers went through f32
                assert!((got - want).abs() < 1e-8, "{got} {want}");
            }
        }
        let mut resumed = built(Stacking::Never);
        resumed.load_record(record, &Device::flex()).unwrap();
        assert!(optimizer.set_progress(1.5).is_err());
    }
}

/// Every entry's gradient over the average size of all gradients of its parameter: one number for each.
#[derive(Debug)]
struct BySize;

impl Rule for BySize {
    fn advance(&self, stage: Stage, memory: &mut Memory) -> Update {
        let size = stage.matrix.tensor().clone().abs().mean_dim(2);
        let size = memory.take("size", [1, 1, 1]).map_or(size.clone(), |old| (old + size) * 0.5);
        memory.keep("size", size.clone());
        stage.matrix.map(|gradient| gradient / size).into()
    }

    fn memories(&self) -> Vec<Kept> {
        vec![Kept::units("size")]
    }

    fn is_entrywise(&self) -> bool {
        true
    }
}

#[test]
fn a_rule_with_one_number_for_a_parameter_is_not_stepped_in_a_row_with_others() {
    let [together, apart] = [Stacking::Always, Stacking::Never].map(|stacking| {
        let rule = Assignment::path("/a|b/", Pipeline::new(BySize).without_momentum()).unwrap();
        let mut optimizer = Layerwise::new().lr(0.1).rule(rule).build(&Two::new()).unwrap().with_stacking(stacking);
        let model = (1..=3).fold(Two::new(), |model, step| {
            let grads = model.gradients(step);
            optimizer.step(1.0, model, grads)
        });
        [model.a, model.b].map(|parameter| parameter.val().into_data())
    });
    assert_eq!(together, apart);
}
