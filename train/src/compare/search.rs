//! What a search covers: the ranges of an optimizer, and how many candidates are drawn from them.

use polaron::OptimizerConfig;
use toml::{Table, Value};

use super::draw::LR;
use super::plan::{Contender, Settings};
use super::range::{Range, Scale};
use crate::error::CompareError;
use crate::settings::merge;

/// Number of candidates where ranges are given without a number.
pub const TRIALS: u64 = 16;
/// Rates and decays are searched from the default divided by this to the default times this.
const FACTOR: f64 = 10.0;
/// The same for the distance of a momentum from 1.
const MOMENTUM_FACTOR: f64 = 4.0;

/// The ranges that are searched where none is given: the rate of the main rule, that of the AdamW rule beside it, the weight decay
/// and the momentum of the main rule, each around its value in the complete `[optimizer]` table.
pub fn usual(optimizer: &Table, lr: f64) -> Vec<(String, Range)> {
    let stack = optimizer.get("stack").and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| merge::lookup(optimizer, key).and_then(Value::as_float).filter(|value| *value > 0.0);
    let mut ranges = vec![(LR.to_owned(), Range::around(lr, FACTOR, Scale::Log))];
    let mut add = |key: &str, value: Option<f64>, factor: f64, scale: Scale| {
        ranges.extend(value.map(|value| (format!("optimizer.{key}"), Range::around(value, factor, scale))));
    };
    add("weight_decay", number("weight_decay"), FACTOR, Scale::Log);
    if stack == "adamw" {
        add("adamw.beta1", number("adamw.beta1"), MOMENTUM_FACTOR, Scale::BelowOne);
        return ranges;
    }
    for key in ["adamw.lr", "adamw.lr_ratio"] {
        add(key, number(key), FACTOR, Scale::Log);
    }
    for key in ["momentum", "beta1"] {
        let value = number(&format!("matrix.{key}")).or_else(|| of_kind(stack, key));
        add(&format!("matrix.{key}"), value, MOMENTUM_FACTOR, Scale::BelowOne);
    }
    ranges
}

/// The default of a key of the kind that is a stack's main rule; none if the stack is no kind or has no such key.
fn of_kind(kind: &str, key: &str) -> Option<f64> {
    let config = serde_json::to_value(OptimizerConfig::of_kind(kind).ok()?).ok()?;
    config.get(key)?.as_f64().filter(|value| *value > 0.0)
}

/// What an optimizer is tuned over, completed: its search, if the plan has trials. `lr` is its default rate.
///
/// # Errors
///
/// A search beside a grid.
pub fn complete_search(contender: &mut Contender, settings: &Settings, lr: f64) -> Result<(), CompareError> {
    if settings.trials == 0 {
        return Ok(());
    }
    if !(contender.lrs.is_empty() && contender.sweep.is_empty()) {
        return Err(CompareError::GridAndSearch { name: contender.name.clone() });
    }
    if contender.search.is_empty() {
        contender.search = usual(&contender.optimizer, lr);
    } else if !contender.search.iter().any(|(key, _)| key == LR) {
        contender.search.insert(0, (LR.into(), Range::around(lr, FACTOR, Scale::Log)));
    }
    Ok(())
}

/// The number of candidates of every optimizer: ranges without a number are searched with the default one.
pub fn trials(settings: &Settings, contenders: &[Contender]) -> u64 {
    let searched = contenders.iter().any(|contender| !contender.search.is_empty());
    if settings.trials == 0 && searched { TRIALS } else { settings.trials }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usually_tuned_is_searched_for_every_stack() {
        let keys = |text: &str| {
            usual(&toml::from_str(text).unwrap(), 0.01).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let rest = "adamw = { lr = 0.006, beta1 = 0.9 }";
        assert_eq!(keys(&format!("stack = 'adamw'\n{rest}")), [LR, "optimizer.adamw.beta1"]);
        let soap = [LR, "optimizer.weight_decay", "optimizer.adamw.lr", "optimizer.matrix.beta1"];
        assert_eq!(keys(&format!("stack = 'soap'\nweight_decay = 0.1\n{rest}")), soap);
        assert_eq!(keys(&format!("stack = 'symmetric'\n{rest}")), [LR, "optimizer.adamw.lr"]);
    }
}
