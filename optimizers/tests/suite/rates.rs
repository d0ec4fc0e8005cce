//! Learning rates and decays that follow from others: AdamW beside the main rule, and unit norms at the edges.

use burn::tensor::Device;
use polaron::layerwise::{LayerwiseConfig, Plan};
use polaron::{Layerwise, Role};

use crate::model::Model;

fn plan(builder: Layerwise) -> Plan {
    let model = Model::new(&Device::flex());
    builder.assign("head", Role::Head).build(&model).unwrap().plan().clone()
}

fn of(text: &str) -> Plan {
    plan(Layerwise::from_toml(text).unwrap())
}

/// Learning rate and decay of a parameter.
fn rate(plan: &Plan, path: &str) -> (f64, f64) {
    let entry = plan.entries().iter().find(|entry| entry.path == path).expect(path);
    (entry.lr, entry.weight_decay().unwrap())
}

#[test]
fn adamw_follows_the_main_rate_by_its_ratio() {
    for (text, main) in [("adamw = { lr_ratio = 0.25 }", 0.02), ("lr = 0.8\nadamw = { lr_ratio = 0.25 }", 0.8)] {
        let plan = of(text);
        assert_eq!(rate(&plan, "hidden.0.weight").0, main, "{text}");
        for path in ["embed.weight", "head.weight", "norm.gamma", "hidden.0.bias"] {
            assert_eq!(rate(&plan, path).0, 0.25 * main, "{text} {path}");
        }
    }
    let built = plan(Layerwise::muon().adamw_lr_ratio(0.5).lr(0.04));
    assert_eq!(rate(&built, "embed.weight").0, 0.02, "a rate that is set later is followed too");
    assert_eq!(rate(&plan(Layerwise::muon().adamw_lr_ratio(0.5).adamw_lr(0.3)), "embed.weight").0, 0.3);
}

#[test]
fn vectors_decay_only_if_that_is_asked_for() {
    let decays = |text: &str, path: &str| rate(&of(text), path).1;
    for (stack, decay) in [("muon", 0.3), ("scion", 0.3), ("symmetric", 0.3), ("adamw", 0.2), ("sgd", 0.2)] {
        let keys = format!("stack = '{stack}'\nweight_decay = {}\n", if stack == "scion" { 0.0 } else { 0.2 });
        let without = format!("{keys}adamw = {{ weight_decay = 0.3 }}");
        let with = format!("{keys}adamw = {{ weight_decay = 0.3, decay_vectors = true }}");
        for path in ["norm.gamma", "norm.beta", "hidden.0.bias"] {
            assert_eq!((decays(&without, path), decays(&with, path)), (0.0, decay), "{stack} {path}");
        }
        assert_eq!(decays(&without, "hidden.0.weight"), decays(&with, "hidden.0.weight"), "{stack}");
    }
}

#[test]
fn unit_rates_as_root_mean_square_are_distances_by_the_length_of_a_unit() {
    let text = "stack = 'symmetric'\nedges = { embedding_rms = 6e-3, head_rms = 1e-3 }";
    // 11 tokens of 8 entries, as embedding and as head.
    let root = 8f64.sqrt();
    assert_eq!(rate(&of(text), "embed.weight").0, 6e-3 * root);
    assert_eq!(rate(&of(text), "head.weight").0, 1e-3 * root);
    let defaults = of("stack = 'symmetric'");
    assert_eq!([rate(&defaults, "embed.weight").0, rate(&defaults, "head.weight").0], [0.05, 0.01]);
    let model = Model::new(&Device::flex());
    let router = |more: &str| {
        let builder = Layerwise::from_toml(&format!("stack = 'symmetric'\nedges = {{ {more} }}")).unwrap();
        let built = builder.assign("head", Role::Router).build(&model).unwrap();
        rate(built.plan(), "head.weight").0
    };
    assert_eq!(router("router_rms = 2e-3"), 2e-3 * root);
    assert_eq!(router(""), 7.5e-4);
}

/// Where rates follow the width, the root mean square is that at the base width, and the width rule follows from there.
#[test]
fn unit_rates_follow_the_width_from_the_base_width() {
    let model = Model::new(&Device::flex());
    let at = |role, key: &str, width: f64| {
        let builder = Layerwise::from_toml(&format!("stack = 'symmetric'\nedges = {{ {key} = 1e-3 }}")).unwrap();
        let built = builder.assign("head", role).width(width).build(&model).unwrap();
        let path = if role == Role::Embedding { "embed.weight" } else { "head.weight" };
        rate(built.plan(), path).0
    };
    let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
    near(at(Role::Head, "head_rms", 4.0), 1e-3 * 8f64.sqrt());
    near(at(Role::Router, "router_rms", 4.0), 1e-3 * 8f64.sqrt() / 4.0);
}

#[test]
fn two_forms_of_one_rate_exclude_each_other() {
    for (text, words) in [
        ("adamw = { lr = 1e-3, lr_ratio = 0.5 }", "adamw.lr: cannot stand beside adamw.lr_ratio"),
        (
            "stack = 'symmetric'\nedges = { head_lr = 1e-3, head_rms = 0.5 }",
            "edges.head_lr: cannot stand beside edges.head_rms",
        ),
        ("adamw = { lr_ratoi = 0.5 }", "did you mean `lr_ratio`?"),
        ("adamw = { decay_vector = true }", "did you mean `decay_vectors`?"),
        ("stack = 'symmetric'\nedges = { routr_rms = 0.5 }", "did you mean `router_rms`?"),
        ("edges = { router_rms = 0.5 }", "edges"),
    ] {
        let error = LayerwiseConfig::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    for (text, words) in [
        ("stack = 'adamw'\nadamw = { lr_ratio = 0.5 }", "one learning rate for everything"),
        ("adamw = { lr_ratio = -0.5 }", "adamw.lr_ratio must be"),
        ("stack = 'symmetric'\nedges = { router_rms = -1.0 }", "edges.router_rms must be"),
    ] {
        let error = Layerwise::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn what_is_not_used_is_not_written() {
    let written = |text: &str| toml::to_string(&LayerwiseConfig::from_toml(text).unwrap()).unwrap();
    let plain = written("stack = 'symmetric'");
    assert!(!["lr_ratio", "decay_vectors", "_rms"].iter().any(|key| plain.contains(key)), "{plain}");
    let text = "stack = 'symmetric'\nadamw = { lr_ratio = 0.5, decay_vectors = true }\nedges = { router_rms = 2e-3 }";
    let other = written(text);
    assert!(!other.contains("router_lr") && other.contains("head_lr = 0.01"), "{other}");
    assert_eq!(other.lines().filter(|line| line.starts_with("lr ")).count(), 1, "{other}");
    assert_eq!(LayerwiseConfig::from_toml(&other).unwrap(), LayerwiseConfig::from_toml(text).unwrap());
}
