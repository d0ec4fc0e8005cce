//! Frozen parameters: never changed, without a state, and without an effect on the others.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use polaron::layerwise::{LayerwiseConfig, Rule};
use polaron::rules::{MuonConfig, SgdConfig};
use polaron::{Layerwise, LayerwiseError, LayerwiseOptimizer, Role};

use crate::model::Model;

/// The paths of the model, in the order of [`Model::bytes`].
const PATHS: [&str; 7] =
    ["embed.weight", "hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "norm.gamma", "norm.beta", "head.weight"];

fn model() -> Model {
    Model::new(&Device::flex().autodiff())
}

fn said(builder: Layerwise) -> String {
    builder.build(&model()).expect_err("must be refused").to_string()
}

fn frozen(optimizer: &LayerwiseOptimizer) -> Vec<&str> {
    optimizer.plan().entries().iter().filter(|entry| entry.is_frozen()).map(|entry| entry.path.as_str()).collect()
}

/// Which parameters three steps changed, whether or not the frozen ones have gradients.
fn changed(mut optimizer: LayerwiseOptimizer, with_gradients: bool) -> (Vec<bool>, LayerwiseOptimizer) {
    let mut model = model();
    if !with_gradients {
        model = optimizer.without_frozen_gradients(model);
    }
    let before = model.bytes();
    for step in 0..3 {
        let gradients = model.gradients(step);
        assert_eq!(gradients.len(), if with_gradients { 7 } else { 7 - frozen(&optimizer).len() });
        model = optimizer.step(1.0, model, gradients);
    }
    (before.iter().zip(model.bytes()).map(|(before, after)| *before != after).collect(), optimizer)
}

#[test]
fn frozen_parameters_keep_their_bytes_and_have_no_state_under_every_stack() {
    for stack in LayerwiseConfig::STACKS {
        for with_gradients in [false, true] {
            let builder = Layerwise::stack(stack).unwrap().freeze("embed*").freeze("hidden.0");
            let (changed, optimizer) = changed(builder.build(&model()).unwrap(), with_gradients);
            assert_eq!(changed, [false, false, false, true, true, true, true], "{stack}");
            let record = optimizer.to_record();
            let of_frozen = |name: &String| name.starts_with("embed") || name.starts_with("hidden.0");
            assert!(!record.tensors().keys().any(of_frozen), "{stack}");
        }
    }
}

#[test]
fn the_plan_shows_frozen_parameters_with_their_number_and_covers_everything() {
    let optimizer = Layerwise::muon().freeze("embed*").build(&model()).unwrap();
    let table = optimizer.plan().to_string();
    for part in [
        "embedding  frozen",
        "none\n",
        "covered 7 of 7 tensors, each once; 464 parameters, of which 376 are trained and 88 frozen",
    ] {
        assert!(table.contains(part), "{part}\n{table}");
    }
    assert_eq!((optimizer.plan().parameters(), optimizer.plan().frozen()), (464, 88));
    let tied = Layerwise::muon().assign("embed", Role::TiedEmbedding).freeze("embed*").build(&model()).unwrap();
    let table = tied.plan().to_string();
    assert!(table.contains("tied_embedding  frozen, as embedding and as head"), "{table}");
}

/// A step with plain SGD, clipped or not.
fn sgd_step(clip: Option<f64>, freeze: Option<&str>) -> (Vec<Vec<u8>>, f64) {
    let model = model();
    let rule = Rule::path("/.*/", SgdConfig::new().with_momentum(0.0)).unwrap();
    let builder = Layerwise::new().lr(0.1).rule(rule).clip(clip);
    let builder = freeze.into_iter().fold(builder, Layerwise::freeze);
    let mut optimizer = builder.build(&model).unwrap();
    let (gradients, norm) = optimizer.clip(&model, model.gradients(0));
    (optimizer.apply(1.0, model, gradients).bytes(), norm)
}

#[test]
fn without_clipping_the_first_step_of_the_others_is_that_of_a_run_without_frozen_parameters() {
    let (all, _) = sgd_step(None, None);
    let (some, _) = sgd_step(None, Some("hidden.0"));
    let before = model().bytes();
    for (index, path) in PATHS.iter().enumerate() {
        let expected = if path.starts_with("hidden.0") { &before[index] } else { &all[index] };
        assert_eq!(some[index], *expected, "{path}");
    }
}

#[test]
fn frozen_parameters_do_not_count_in_the_norm_that_is_clipped() {
    let norm = |paths: &[&str]| {
        let all = Layerwise::sgd().build(&model()).unwrap();
        let whole = model();
        let gradients = whole.gradients(0);
        let mut kept = GradientsParams::new();
        let mut of_rank_two = |id| gradients.get::<2>(id).map(|gradient| kept.register(id, gradient));
        for path in paths {
            match *path {
                "embed" => of_rank_two(whole.embed.weight.id),
                "head" => of_rank_two(whole.head.weight.id),
                _ => None,
            };
        }
        all.clip(&whole, kept).1
    };
    let frozen = Layerwise::sgd().freeze("/hidden|norm/").build(&model()).unwrap();
    let whole = model();
    let (_, measured) = frozen.clip(&whole, whole.gradients(0));
    assert!((measured / norm(&["embed", "head"]) - 1.0).abs() < 1e-6, "{measured}");
}

#[test]
fn a_gradient_of_a_frozen_parameter_that_is_not_finite_is_ignored() {
    let model = model();
    let mut optimizer = Layerwise::adamw().freeze("embed").build(&model).unwrap();
    let mut gradients = model.gradients(0);
    let bad = gradients.remove::<2>(model.embed.weight.id).unwrap() * f64::NAN;
    gradients.register(model.embed.weight.id, bad);
    optimizer.try_step(1.0, model, gradients).unwrap();
}

#[test]
fn burns_own_form_freezes_the_same_parameters() {
    let model = model();
    let builder = || Layerwise::muon().clip(None).freeze("embed*").freeze("norm");
    let (mut optimizer, mut scheduler) = builder().build_module_optimizer(&model, |_| 1.0).unwrap();
    let rates = scheduler.step();
    let gradients = model.gradients(0);
    let stepped = optimizer.step(rates, model.clone(), gradients).bytes();
    let ours = builder().build(&model).unwrap().step(1.0, model.clone(), model.gradients(0)).bytes();
    assert_eq!(stepped, ours);
    assert_eq!((&stepped[0], &stepped[4]), (&model.bytes()[0], &model.bytes()[4]));
}

#[test]
fn only_the_named_roles_are_trained_if_they_are_named() {
    let optimizer = Layerwise::muon().assign("head", Role::LoraB).train_only(Role::ADAPTERS).build(&model()).unwrap();
    assert_eq!(frozen(&optimizer), PATHS[..6]);
    let optimizer = Layerwise::muon().train_only(Vec::new()).build(&model()).unwrap();
    assert!(frozen(&optimizer).is_empty());
}

#[test]
fn a_frozen_parameter_needs_neither_a_role_nor_a_rule() {
    let rule = Rule::path("head", MuonConfig::new()).unwrap();
    let optimizer =
        Layerwise::new().rule(rule).freeze("embed").freeze("hidden").freeze("norm").build(&model()).unwrap();
    assert_eq!(frozen(&optimizer), PATHS[..6]);
}

#[test]
fn a_pattern_that_matches_nothing_is_refused_with_the_nearest_path() {
    for (pattern, near) in [
        ("embd*", "embed"),
        ("hiden.*.weight", "hidden.1.weight"),
        ("nrom", "norm"),
        ("hidden.0.wieght", "hidden.0.weight"),
    ] {
        let said = said(Layerwise::muon().freeze(pattern));
        assert!(said.contains(&format!("freeze(\"{pattern}\") matches no parameter")), "{said}");
        assert!(said.contains(&format!("did you mean `{near}`?")), "{said}");
    }
    assert!(said(Layerwise::muon().freeze("/(/")).contains("is not valid"));
}

#[test]
fn freezing_everything_and_rules_that_change_only_frozen_parameters_are_refused() {
    assert_eq!(Layerwise::muon().freeze("**").build(&model()).unwrap_err(), LayerwiseError::AllFrozen);
    assert_eq!(Layerwise::muon().train_only([Role::Router]).build(&model()).unwrap_err(), LayerwiseError::AllFrozen);
    let rule = Rule::path("head", SgdConfig::new()).unwrap();
    let said = said(Layerwise::muon().rule(rule).freeze("head"));
    assert!(said.contains("has no effect") && said.contains("freeze"), "{said}");
}

#[test]
fn a_record_with_other_frozen_parameters_is_refused_by_name_and_one_with_the_same_resumes() {
    let device = Device::flex();
    let build = |pattern: Option<&str>| {
        let builder = pattern.into_iter().fold(Layerwise::muon(), Layerwise::freeze);
        builder.build(&model()).unwrap()
    };
    let (_, trained) = changed(build(Some("embed*")), false);
    let record = trained.to_record();
    build(Some("embed*")).load_record(record.clone(), &device).unwrap();
    let said = build(None).load_record(record.clone(), &device).unwrap_err().to_string();
    assert!(said.contains("\"embed.weight\" was frozen and is now updated by adamw"), "{said}");
    let said = build(Some("head")).load_record(record, &device).unwrap_err().to_string();
    assert!(said.contains("was frozen") || said.contains("is now frozen"), "{said}");
    let (_, trained) = changed(build(None), true);
    let said = build(Some("embed*")).load_record(trained.to_record(), &device).unwrap_err().to_string();
    assert!(said.contains("\"embed.weight\" was updated by adamw and is now frozen"), "{said}");
}

#[test]
fn turning_off_gradients_changes_nothing_else() {
    let optimizer = Layerwise::muon().freeze("embed*").build(&model()).unwrap();
    let (before, after) = (model(), optimizer.without_frozen_gradients(model()));
    assert_eq!(before.bytes(), after.bytes());
    assert!(!after.embed.weight.is_require_grad() && after.head.weight.is_require_grad());
    let forked = after.fork(&Device::flex().autodiff());
    assert!(!forked.embed.weight.is_require_grad() && forked.head.weight.is_require_grad());
}
