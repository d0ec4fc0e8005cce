//! How the rules that match a parameter are combined.
//!
//! A rule without a kind, or of the kind of the rule that it overrides for a parameter, changes only the keys that it sets:
//! other settings, learning rate, layout, blocks and projection of the overridden rule stay. A rule of another kind inherits nothing.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::rule::{BlockChoice, Rate, Rule, RuleOptimizer};
use super::{LayerwiseError, PlannedOptimizer, Project, Role};
use crate::matrix::Layout;
use crate::rules::OptimizerConfig;

/// The rule of one parameter.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub optimizer: PlannedOptimizer,
    pub rate: Option<Rate>,
    pub layout: Option<Layout>,
    pub blocks: Option<BlockChoice>,
    pub project: Option<Project>,
    /// The rules that it is made of, by index, each with its keys that are not overridden.
    parts: Vec<(usize, BTreeSet<String>)>,
}

impl Resolved {
    /// The rules that it is made of; the last one that matched is at the end.
    pub fn rules(&self) -> Vec<usize> {
        self.parts.iter().map(|(index, _)| *index).collect()
    }

    fn new(index: usize, rule: &Rule, optimizer: PlannedOptimizer) -> Self {
        let Rule { rate, layout, blocks, .. } = *rule;
        Self { optimizer, rate, layout, blocks, project: rule.project.clone(), parts: vec![(index, rule.sets())] }
    }

    /// This rule combined with the overridden one; the optimizer is this one's.
    fn over(self, below: Self) -> Self {
        let set: BTreeSet<String> = self.parts.iter().flat_map(|(_, keys)| keys.clone()).collect();
        let mut parts = below.parts;
        parts.iter_mut().for_each(|(_, keys)| keys.retain(|key| !set.contains(key)));
        parts.retain(|(_, keys)| !keys.is_empty());
        parts.extend(self.parts);
        Self {
            optimizer: self.optimizer,
            rate: self.rate.or(below.rate),
            layout: self.layout.or(below.layout),
            blocks: self.blocks.or(below.blocks),
            project: self.project.or(below.project),
            parts,
        }
    }
}

/// The rule of a parameter; `None` if no rule matches it.
///
/// # Errors
/// If a rule needs a kind and has none, or has a key that the overridden kind does not have.
pub(crate) fn resolve(rules: &[Rule], path: &str, role: Option<Role>) -> Result<Option<Resolved>, LayerwiseError> {
    let mut found: Option<Resolved> = None;
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.matches(path, role)) {
        let over = over(index, rule, found.take());
        found =
            Some(over.map_err(|message| LayerwiseError::Change { path: path.into(), rule: rule.name(), message })?);
    }
    Ok(found)
}

fn over(index: usize, rule: &Rule, below: Option<Resolved>) -> Result<Resolved, String> {
    let below = below.filter(|_| rule.inherits);
    let below_kind = below.as_ref().and_then(|below| below.optimizer.kind());
    let alone = |optimizer| Resolved::new(index, rule, optimizer);
    match (&rule.optimizer, below) {
        (RuleOptimizer::Change { kind: None, .. }, None) => {
            Err("it has no kind, and no earlier rule matches this parameter: give it a kind".into())
        }
        (RuleOptimizer::Change { kind, keys }, Some(below)) if kind.is_none() || kind.as_deref() == below_kind => {
            Ok(alone(changed(&below.optimizer, keys)?).over(below))
        }
        (RuleOptimizer::Change { kind, keys }, _) => {
            let config = OptimizerConfig::with_keys(kind.as_deref().unwrap_or_default(), keys);
            Ok(alone(PlannedOptimizer::Kind(config.map_err(|error| error.to_string())?)))
        }
        (RuleOptimizer::Complete(optimizer), Some(below)) if below_kind.is_some() && below_kind == optimizer.kind() => {
            Ok(alone(optimizer.clone()).over(below))
        }
        (RuleOptimizer::Complete(optimizer), _) => Ok(alone(optimizer.clone())),
    }
}

fn changed(below: &PlannedOptimizer, keys: &Map<String, Value>) -> Result<PlannedOptimizer, String> {
    match below {
        PlannedOptimizer::Kind(config) => {
            config.merge(keys).map(PlannedOptimizer::Kind).map_err(|error| error.to_string())
        }
        other if keys.is_empty() => Ok(other.clone()),
        other => Err(format!("{} has no keys to change: give the rule a kind", other.label())),
    }
}
