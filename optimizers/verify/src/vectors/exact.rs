//! Which method a case means that does not name one.
//!
//! Expected values are exact. How a rule approaches them is a setting whose default may change; a file is read the same
//! for ever.

use polaron::OptimizerConfig;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads the optimizer of a case of version 1, by the exact method unless it names another.
pub(super) fn unless_named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OptimizerConfig, D::Error> {
    let mut optimizer = Value::deserialize(deserializer)?;
    let target = optimizer.get("kind").and_then(Value::as_str).and_then(OptimizerConfig::exact_target);
    if let (Some(target), Some(keys)) = (target, optimizer.as_object_mut()) {
        keys.entry(target.key).or_insert(target.exact);
    }
    serde_json::from_value(optimizer).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(optimizer: Value) -> Value {
        serde_json::to_value(unless_named(optimizer).expect("an optimizer")).expect("a configuration")
    }

    #[test]
    fn a_case_that_names_no_method_means_the_exact_one() {
        for kind in OptimizerConfig::KINDS {
            let case = json!({"kind": kind, "weight_decay": 0.5});
            let mut said = case.clone();
            if let Some(target) = OptimizerConfig::exact_target(kind) {
                said[target.key] = target.exact;
            }
            let said: OptimizerConfig = serde_json::from_value(said).expect("an optimizer");
            assert_eq!(read(case), serde_json::to_value(said).expect("a configuration"), "{kind}");
        }
        assert_eq!(read(json!({"kind": "freon"}))["method"], "svd");
        assert_eq!(read(json!({"kind": "spectral"}))["polar"], json!({"method": "gram_eigh"}));
    }

    #[test]
    fn a_named_method_is_kept() {
        assert_eq!(read(json!({"kind": "freon", "method": "rational"}))["method"], "rational");
        let newton_schulz = json!({"method": "newton_schulz", "steps": 3, "eps": 0.0});
        assert_eq!(read(json!({"kind": "ssd", "polar": newton_schulz.clone()}))["polar"], newton_schulz);
        assert_eq!(read(json!({"kind": "hybrid", "polar": newton_schulz.clone()}))["polar"], newton_schulz);
    }

    #[test]
    fn a_misspelt_key_still_names_the_nearest() {
        let error = unless_named(json!({"kind": "freon", "methd": "svd"})).expect_err("no such key").to_string();
        assert!(error.contains("did you mean `method`"), "{error}");
    }
}
