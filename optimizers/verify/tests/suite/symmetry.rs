//! The published table of symmetries, measured.

use burn::tensor::Device;
use polaron::{OptimizerConfig, rules};
use polaron_verify::inspect::symmetry;

const NAMES: [&str; 6] = [
    "rotation of outputs",
    "permutation of outputs",
    "rotation of inputs",
    "permutation of inputs",
    "shift",
    "zero sum",
];

#[test]
fn every_rule_has_the_symmetries_it_claims_and_no_others() {
    let mut wrong = Vec::new();
    for (rule, config) in rules::symmetries() {
        let measured = symmetry(&config, &Device::flex()).unwrap();
        for ((name, claimed), error) in NAMES.iter().zip(rule.has).zip(measured.errors()) {
            // f64 rounding over six steps on one side, an error of at least one per cent on the other
            if if claimed { error >= 1e-9 } else { error <= 1e-2 } {
                wrong.push(format!("{}: {name}: claimed {claimed}, error {error:.1e}", rule.name));
            }
        }
        // 1e-3: absolute epsilons (AdamW's 1e-8, Newton-Schulz's 1e-7) bend the power a little
        if (measured.degree - f64::from(rule.degree)).abs() > 1e-3 {
            wrong.push(format!("{}: degree {}", rule.name, measured.degree));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_is_in_the_table() {
    for kind in OptimizerConfig::KINDS {
        assert!(rules::symmetries().iter().any(|(_, config)| config.kind() == *kind), "{kind}");
    }
}
