//! The contract suite on every kind, and on optimizers that break it.

use burn::optim::Optimizer;
use burn::tensor::{Device, Tensor};
use polaron::OptimizerConfig;
use polaron::matrix::Matrix;
use polaron::rule::{Pipeline, State};
use polaron_verify::contract::{check, check_config};

fn broken(result: Result<(), polaron_verify::contract::Broken>) -> Vec<&'static str> {
    result.expect_err("must be refused").violations.into_iter().map(|violation| violation.promise).collect()
}

#[test]
fn every_kind_keeps_every_promise() {
    for kind in OptimizerConfig::KINDS {
        let config = OptimizerConfig::of_kind(kind).unwrap();
        check_config(&config, &Device::flex()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[test]
fn options_that_change_the_state_keep_every_promise() {
    for text in [
        r#"{"kind": "polar_grad", "order": "polar_first"}"#,
        r#"{"kind": "normuon", "axis": "input", "rescale": "rms"}"#,
        r#"{"kind": "normuon", "axis": "longer"}"#,
        r#"{"kind": "muon_eq", "equilibrate": "longer", "iterations": 2}"#,
        r#"{"kind": "muon", "polar": {"method": "minimax"}}"#,
        r#"{"kind": "scion", "lmo": "plain_sign"}"#,
        r#"{"kind": "error_feedback_muon", "residual": false}"#,
        r#"{"kind": "muon_eq", "equilibrate": "both", "phase": 3}"#,
        r#"{"kind": "muon", "momentum_form": "ema_debiased"}"#,
        r#"{"kind": "freon", "method": "rational"}"#,
        r#"{"kind": "hybrid", "polar": {"method": "gram_polar_express"}}"#,
        r#"{"kind": "adamw", "weight_decay": 0.1, "cautious": true}"#,
        r#"{"kind": "muon", "second_moment": {}}"#,
        r#"{"kind": "polar_grad", "order": "polar_first", "second_moment": {"eps": 0.0}}"#,
        r#"{"kind": "muon", "norm_control": {"method": "hyperball"}}"#,
        r#"{"kind": "normuon", "norm_control": {"method": "radial_brake"}, "weight_decay": 0.1, "decay": "independent"}"#,
        r#"{"kind": "adamw", "norm_control": {"method": "relative"}}"#,
        r#"{"kind": "sgd", "norm_control": {"method": "floor"}}"#,
    ] {
        let config: OptimizerConfig = serde_json::from_str(text).unwrap();
        check_config(&config, &Device::flex()).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn burns_own_optimizers_can_be_checked() {
    // Keeps every promise on f32; its derived record turns f64 states into f32 ones.
    let promises = broken(check(&burn::optim::AdamWConfig::new().build(), &Device::flex()));
    assert!(promises.iter().all(|promise| promise.contains("record")), "{promises:?}");
}

#[test]
fn a_rule_that_is_not_repeatable_is_found() {
    /// Adds the number of steps that were ever taken.
    #[derive(Clone)]
    struct Noisy(std::sync::Arc<std::sync::atomic::AtomicU64>);
    impl Optimizer for Noisy {
        type State<const D: usize> = State<D>;
        fn step<const D: usize>(
            &self,
            _: f64,
            tensor: Tensor<D>,
            _: Tensor<D>,
            state: Option<State<D>>,
        ) -> (Tensor<D>, Option<State<D>>) {
            let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (tensor + count as f64, Some(state.unwrap_or_default()))
        }
        fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
            state.to_device(device)
        }
    }
    let promises = broken(check(&Noisy(Default::default()), &Device::flex()));
    assert!(promises.contains(&"the same inputs give the same bytes"), "{promises:?}");
    assert!(promises.contains(&"accumulated micro-batches equal one batch"), "{promises:?}");
    assert!(promises.iter().any(|promise| promise.starts_with("a zero gradient")), "{promises:?}");
}

#[test]
fn a_rule_that_divides_by_zero_is_found() {
    #[derive(Clone, Debug)]
    struct Unguarded;
    impl polaron::rule::Direction for Unguarded {
        fn direction(&self, momentum: Matrix) -> Matrix {
            momentum.map(|m| m.clone() / m.square().sum().sqrt().reshape([1, 1, 1]))
        }
    }
    let promises = broken(check(&Pipeline::new(Unguarded), &Device::flex()));
    assert!(promises.iter().all(|promise| promise.starts_with("a zero gradient")), "{promises:?}");
}
