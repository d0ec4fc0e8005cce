//! Plans: every parameter is covered once, and mistakes are found before the first step.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use polaron::layerwise::{ParameterInfo, PlanEntry, Rule, RuleOptimizer};
use polaron::matrix::{Axis, Blocks};
use polaron::rule::Scale;
use polaron::rules::{AdamWConfig, MuonConfig};
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
    let rule = Rule::roles([Role::Hidden], MuonConfig::new()).with_blocks(Blocks::equal(Axis::Output, 3));
    assert!(matches!(error_of(Layerwise::muon().rule(rule)), LayerwiseError::DoesNotFit { .. }));
}

#[test]
fn without_a_stack_every_parameter_needs_a_rule() {
    assert!(matches!(error_of(Layerwise::new()), LayerwiseError::NoRule { .. }));
}

#[derive(Module, Debug)]
struct Net {
    table: Param<Tensor<2>>,
    out: Linear,
}

#[test]
fn what_cannot_be_decided_is_an_error_that_a_rule_on_the_path_resolves() {
    let device = Device::flex();
    let table = Param::from_tensor(Tensor::zeros([3, 2], &device));
    let net = repeatable(Net { table, out: LinearConfig::new(4, 2).init(&device) });
    let error = Layerwise::muon().build(&net).expect_err("nobody says what the table is for");
    assert!(matches!(error, LayerwiseError::NoRole { .. }), "{error}");
    let rule = Rule::path("table", AdamWConfig::new()).unwrap();
    assert!(Layerwise::muon().rule(rule).build(&net).is_ok());
}

#[test]
fn rules_in_toml_say_what_is_wrong_with_them() {
    for (rule, part) in [
        ("kind = \"muon\"", "rule 1: needs either match"),
        ("match = \"head\"\nkind = \"muom\"", "did you mean `muon`"),
        ("match = \"head\"\nkind = \"muon\"\nmomentun = 0.5", "did you mean `momentum`"),
        ("role = \"heat\"\nkind = \"adamw\"", "did you mean `head`"),
        ("match = \"head\"\nkind = \"muon\"\npolar = { method = \"svd\", steps = 3 }", "`steps`"),
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

fn entries_of(builder: Layerwise) -> Vec<PlanEntry> {
    builder.build(&model()).unwrap().plan().entries().to_vec()
}

fn entry_of(entries: &[PlanEntry], path: &str) -> PlanEntry {
    entries.iter().find(|entry| entry.path == path).unwrap_or_else(|| panic!("{path}")).clone()
}

fn toml(text: &str) -> Layerwise {
    Layerwise::from_toml(text).unwrap_or_else(|error| panic!("{text}: {error}")).assign("head", Role::Head)
}

/// Learning rate, decay and scale of a parameter.
fn numbers(builder: Layerwise, path: &str) -> (f64, Option<f64>, Option<Scale>) {
    let entry = entry_of(&entries_of(builder), path);
    (entry.lr, entry.weight_decay(), entry.scale())
}

const STACK: &str = "stack = \"muon\"\nlr = 0.03\nweight_decay = 0.2\nmatrix = { scale = \"match_rms_adamw\" }\n\
                     adamw = { lr = 0.004, weight_decay = 0.05 }\n";

#[test]
fn a_rule_that_keeps_the_kind_inherits_what_it_does_not_set() {
    let rms = Some(Scale::MatchRmsAdamw);
    for (rule, want) in [
        ("kind = \"muon\"\nblocks = { axis = \"output\", count = 4 }", (0.03, Some(0.2), rms)),
        ("blocks = { axis = \"output\", count = 4 }", (0.03, Some(0.2), rms)),
        ("lr = 0.5", (0.5, Some(0.2), rms)),
        ("kind = \"muon\"\nweight_decay = 0.0", (0.03, Some(0.0), rms)),
        ("scale = \"spectral\"", (0.03, Some(0.2), Some(Scale::Spectral))),
        // A rule of another kind inherits nothing, nor does one with `inherit = false`.
        ("kind = \"muon_eq\"", (0.03, Some(0.0), rms)),
        ("kind = \"muon\"\ninherit = false", (0.03, Some(0.0), Some(Scale::Original))),
    ] {
        let builder = toml(&format!("{STACK}[[rule]]\nmatch = \"hidden.1.weight\"\n{rule}"));
        assert_eq!(numbers(builder.clone(), "hidden.1.weight"), want, "{rule}");
        assert_eq!(numbers(builder, "hidden.0.weight"), (0.03, Some(0.2), rms), "{rule}: only there");
    }
}

#[test]
fn a_rule_over_the_adamw_part_inherits_its_rate_and_decay() {
    for rule in ["kind = \"adamw\"\nbeta2 = 0.95", "beta2 = 0.95", "kind = \"adamw\""] {
        let builder = toml(&format!("{STACK}[[rule]]\nmatch = \"embed.weight\"\n{rule}"));
        let (lr, decay, _) = numbers(builder.clone(), "embed.weight");
        assert_eq!((lr, decay), (0.004, Some(0.05)), "{rule}");
        // The factors of muP count once.
        let scaled = builder.adamw_lr_factors(|role| if role == Role::Embedding { 0.5 } else { 1.0 });
        assert_eq!(numbers(scaled, "embed.weight").0, 0.002, "{rule}");
    }
    let gain = toml(&format!("{STACK}[[rule]]\nrole = [\"gain\", \"embedding\"]\nlr = 0.1"));
    assert_eq!(numbers(gain.clone(), "norm.gamma").1, Some(0.0), "gains are not decayed");
    assert_eq!(numbers(gain, "embed.weight").1, Some(0.05));
}

#[test]
fn a_chain_of_rules_adds_up_and_a_rule_of_another_kind_ends_it() {
    let chain = "[[rule]]\nrole = \"hidden\"";
    let builder = toml(&format!(
        "{STACK}{chain}\nweight_decay = 0.3\n[[rule]]\nmatch = \"hidden.*.weight\"\nlr = 0.5\n\
         [[rule]]\nmatch = \"hidden.1.weight\"\nblocks = {{ axis = \"input\", count = 2 }}"
    ));
    let entries = entries_of(builder);
    for path in ["hidden.0.weight", "hidden.1.weight"] {
        let entry = entry_of(&entries, path);
        assert_eq!((entry.lr, entry.weight_decay()), (0.5, Some(0.3)), "{path}");
    }
    assert!(entry_of(&entries, "hidden.1.weight").placement.blocks.is_some());
    let builder = toml(&format!(
        "{STACK}[[rule]]\nmatch = \"hidden.0.weight\"\nkind = \"sgd\"\nlr = 0.5\nweight_decay = 0.7\n\
         [[rule]]\nmatch = \"hidden.*.weight\"\nmomentum = 0.5"
    ));
    assert_eq!(numbers(builder.clone(), "hidden.0.weight"), (0.5, Some(0.7), Some(Scale::None)));
    assert_eq!(numbers(builder, "hidden.1.weight").1, Some(0.2));
}

#[test]
fn a_rule_of_which_nothing_is_left_is_refused() {
    let later = "[[rule]]\nmatch = \"hidden.*.weight\"\nlr = 0.1\n";
    let error = toml(&format!("{STACK}{later}{later}")).build(&model()).expect_err("nothing left").to_string();
    assert!(error.contains("has no effect"), "{error}");
}

#[test]
fn a_rule_without_a_kind_says_what_it_lacks() {
    let error = |text: &str| toml(text).build(&model()).expect_err(text).to_string();
    let said = error(&format!("{STACK}[[rule]]\nmatch = \"embed.weight\"\nnesterov = true"));
    assert!(said.contains("\"embed.weight\"") && said.contains("nesterov"), "{said}");
    let rule = Rule::path("embed", RuleOptimizer::inherited()).unwrap();
    let said = Layerwise::new().rule(rule).build(&model()).expect_err("nothing below").to_string();
    assert!(said.contains("give it a kind"), "{said}");
    let said = Layerwise::from_toml("[[rule]]\nmatch = \"embed\"\ninherit = false").expect_err("no kind").to_string();
    assert!(said.contains("needs a kind"), "{said}");
}

#[test]
fn a_rule_in_rust_keeps_the_rate_of_its_kind_and_a_change_keeps_the_settings() {
    let stack = || Layerwise::muon().weight_decay(0.2).adamw_lr(0.004).assign("head", Role::Head);
    let change = Rule::path("hidden.1.weight", RuleOptimizer::inherited()).unwrap().with_lr(0.5);
    assert_eq!(numbers(stack().rule(change), "hidden.1.weight").1, Some(0.2));
    let whole = Rule::path("embed", AdamWConfig::new()).unwrap();
    assert_eq!(numbers(stack().rule(whole), "embed.weight").0, 0.004);
}
