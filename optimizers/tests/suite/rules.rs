//! Plans: every parameter covered once, and every slip found before the first step.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use polaron::direction::{AdamWConfig, MuonConfig};
use polaron::layerwise::{ParameterInfo, Rule};
use polaron::matrix::{Axis, Blocks};
use polaron::{Layerwise, LayerwiseError, Role, RoleHint};

use crate::model::Model;
use crate::numbers::repeatable;

fn model() -> Model {
    Model::new(&Device::flex().autodiff())
}

#[test]
fn the_plan_covers_every_parameter_exactly_once() {
    let model = model();
    let optimizer = Layerwise::muon().assign("head", Role::Head).build(&model).unwrap();
    let mut planned: Vec<&str> = optimizer.plan().entries().iter().map(|entry| entry.path.as_str()).collect();
    let found = ParameterInfo::of_module(&model);
    let mut expected: Vec<&str> = found.iter().map(|parameter| parameter.path.as_str()).collect();
    planned.sort_unstable();
    expected.sort_unstable();
    assert_eq!(planned, expected);
    assert_eq!(optimizer.plan().parameters(), model.num_params());
}

#[test]
fn the_table_shows_roles_rules_and_coverage() {
    let optimizer = Layerwise::muon().assign("head", Role::Head).build(&model()).unwrap();
    let table = optimizer.plan().to_string();
    for part in [
        "hidden     muon (newton_schulz5)        2     256",
        "embedding  adamw",
        "head       adamw",
        "gain       adamw",
        "bias       adamw",
        "sqrt(max(1, out/in))",
        "covered 7 of 7 tensors, each once",
    ] {
        assert!(table.contains(part), "{part}\n{table}");
    }
}

#[test]
fn roles_are_inferred_from_the_owner_without_a_hint() {
    let optimizer = Layerwise::muon().build(&model()).unwrap();
    let role = |path: &str| optimizer.plan().entries().iter().find(|entry| entry.path == path).unwrap().role;
    assert_eq!(role("embed.weight"), Some(Role::Embedding));
    assert_eq!(role("hidden.0.weight"), Some(Role::Hidden));
    assert_eq!(role("hidden.0.bias"), Some(Role::Bias));
    assert_eq!(role("norm.gamma"), Some(Role::Gain));
    assert_eq!(role("norm.beta"), Some(Role::Bias));
    assert_eq!(role("head.weight"), Some(Role::Hidden));
}

#[test]
fn a_later_rule_overrides_an_earlier_one() {
    let rule = |pattern: &str, lr: f64| Rule::path(pattern, MuonConfig::new()).unwrap().with_lr(lr);
    let optimizer = Layerwise::muon()
        .rule(rule("hidden.*.weight", 0.5))
        .rule(rule("hidden.1.weight", 0.25))
        .build(&model())
        .unwrap();
    let lr = |path: &str| optimizer.plan().entries().iter().find(|entry| entry.path == path).unwrap().lr;
    assert_eq!((lr("hidden.0.weight"), lr("hidden.1.weight")), (0.5, 0.25));
}

fn error_of(builder: Layerwise) -> LayerwiseError {
    builder.build(&model()).expect_err("must be refused")
}

#[test]
fn a_rule_or_an_assignment_that_matches_nothing_is_refused() {
    let rule = Rule::path("blocks.*", AdamWConfig::new()).unwrap();
    let error = error_of(Layerwise::muon().rule(rule));
    assert!(matches!(error, LayerwiseError::MatchesNothing { .. }), "{error}");
    assert!(error.to_string().contains("embed.weight"), "says what there is: {error}");
    let error = error_of(Layerwise::muon().assign("lm_head", Role::Head));
    assert!(matches!(error, LayerwiseError::MatchesNothing { .. }), "{error}");
}

#[test]
fn a_rule_that_wins_nowhere_is_refused() {
    let head = || Rule::path("head", AdamWConfig::new()).unwrap();
    let error = error_of(Layerwise::muon().rule(head()).rule(head()));
    assert!(matches!(error, LayerwiseError::Overridden { .. }), "{error}");
}

#[test]
fn two_roles_for_one_parameter_are_refused() {
    let error = error_of(Layerwise::muon().assign("head", Role::Head).assign("head.weight", Role::Router));
    assert!(matches!(error, LayerwiseError::TwoRoles { .. }), "{error}");
    let hints = vec![RoleHint::new("head", Role::Head), RoleHint::new("/head/", Role::Hidden)];
    assert!(matches!(error_of(Layerwise::muon().hints(hints)), LayerwiseError::TwoRoles { .. }));
}

#[test]
fn a_vector_under_a_matrix_rule_is_refused() {
    let error = error_of(Layerwise::muon().rule(Rule::path("hidden.0", MuonConfig::new()).unwrap()));
    assert!(matches!(error, LayerwiseError::DoesNotFit { .. }), "{error}");
    assert!(error.to_string().contains("hidden.0.bias"), "{error}");
}

#[test]
fn blocks_that_do_not_divide_an_axis_are_refused() {
    let rule = Rule::roles([Role::Hidden], MuonConfig::new()).with_blocks(Blocks { axis: Axis::Output, count: 3 });
    assert!(matches!(error_of(Layerwise::muon().rule(rule)), LayerwiseError::DoesNotFit { .. }));
}

#[test]
fn without_a_stack_every_parameter_needs_a_rule() {
    assert!(matches!(error_of(Layerwise::new()), LayerwiseError::NoRule { .. }));
}

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    out: Linear,
}

#[test]
fn what_cannot_be_decided_is_an_error_that_a_rule_on_the_path_resolves() {
    let device = Device::flex();
    let conv = Conv2dConfig::new([1, 2], [3, 3]).init(&device);
    let net = repeatable(Net { conv, out: LinearConfig::new(4, 2).init(&device) });
    let error = Layerwise::muon().build(&net).expect_err("a convolution has no role");
    assert!(matches!(error, LayerwiseError::NoRole { .. }), "{error}");
    let rule = Rule::path("conv", AdamWConfig::new()).unwrap();
    assert!(Layerwise::muon().rule(rule).build(&net).is_ok());
}

#[test]
fn rules_in_toml_say_what_is_wrong_with_them() {
    for (rule, part) in [
        ("kind = \"muon\"", "rule 1: needs either match"),
        ("match = \"head\"\nkind = \"muom\"", "did you mean \"muon\""),
        ("match = \"head\"\nkind = \"muon\"\nmomentun = 0.5", "did you mean \"momentum\""),
        ("role = \"heat\"\nkind = \"adamw\"", "did you mean \"head\""),
        ("match = \"head\"\nkind = \"muon\"\npolar = { method = \"svd\", steps = 3 }", "\"steps\""),
    ] {
        let error = Layerwise::from_toml(&format!("stack = \"muon\"\n[[rule]]\n{rule}")).expect_err(rule);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn the_bias_of_a_head_is_still_a_bias() {
    let optimizer = Layerwise::muon().assign("hidden.0", Role::Head).build(&model()).unwrap();
    let role = |path: &str| optimizer.plan().entries().iter().find(|entry| entry.path == path).unwrap().role;
    assert_eq!(role("hidden.0.weight"), Some(Role::Head));
    assert_eq!(role("hidden.0.bias"), Some(Role::Bias));
}
