//! What the rules that match a parameter make of each other.
//!
//! A rule without a kind, or of the kind of the rule that it overrides for a parameter, changes only what it sets:
//! settings, learning rate, layout and blocks of the overridden rule stay. A rule of another kind stands alone.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::rule::{BlockChoice, Rule, RuleOptimizer};
use super::{LayerwiseError, Role};
use crate::matrix::Layout;
use crate::rules::OptimizerConfig;

/// The rule of one parameter.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// A configuration or somebody's own optimizer, never a change.
    pub optimizer: RuleOptimizer,
    pub lr: Option<f64>,
    pub layout: Option<Layout>,
    pub blocks: Option<BlockChoice>,
    /// The rules that something of it comes from, by index, and what each has set that still holds.
    parts: Vec<(usize, BTreeSet<String>)>,
}

impl Resolved {
    /// Whether anything of it comes from the rule of this index.
    pub fn comes_from(&self, rule: usize) -> bool {
        self.parts.iter().any(|(index, _)| *index == rule)
    }

    /// The last rule that matched.
    pub fn rule(&self) -> usize {
        self.parts.last().map_or(0, |(index, _)| *index)
    }

    fn new(index: usize, rule: &Rule, optimizer: RuleOptimizer) -> Self {
        let Rule { lr, layout, blocks, .. } = *rule;
        Self { optimizer, lr, layout, blocks, parts: vec![(index, rule.sets())] }
    }

    /// This rule over `below`, with its `optimizer`.
    fn over(self, below: Self) -> Self {
        let set: BTreeSet<String> = self.parts.iter().flat_map(|(_, keys)| keys.clone()).collect();
        let mut parts = below.parts;
        parts.iter_mut().for_each(|(_, keys)| keys.retain(|key| !set.contains(key)));
        parts.retain(|(_, keys)| !keys.is_empty());
        parts.extend(self.parts);
        Self {
            optimizer: self.optimizer,
            lr: self.lr.or(below.lr),
            layout: self.layout.or(below.layout),
            blocks: self.blocks.or(below.blocks),
            parts,
        }
    }
}

/// The rule of a parameter; `None` if no rule matches it.
///
/// # Errors
/// If a rule has no kind where it needs one, or a key that the kind it changes does not have.
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
    let below_kind = below.as_ref().and_then(|below| below.optimizer.kind()).map(str::to_owned);
    match &rule.optimizer {
        RuleOptimizer::Change { kind, keys } => match (kind, below) {
            (None, None) => Err("it has no kind, and no rule before it is for this parameter: give it a kind".into()),
            (kind, Some(below)) if kind.is_none() || *kind == below_kind => {
                let optimizer = changed(&below.optimizer, keys)?;
                Ok(Resolved::new(index, rule, optimizer).over(below))
            }
            (Some(kind), _) => {
                let config = OptimizerConfig::with_keys(kind, keys).map_err(|error| error.to_string())?;
                Ok(Resolved::new(index, rule, config.into()))
            }
            (None, Some(_)) => unreachable!("a rule without a kind takes the one below"),
        },
        optimizer => {
            let resolved = Resolved::new(index, rule, optimizer.clone());
            match below {
                Some(below) if below_kind.is_some() && below_kind.as_deref() == optimizer.kind() => {
                    Ok(resolved.over(below))
                }
                _ => Ok(resolved),
            }
        }
    }
}

fn changed(below: &RuleOptimizer, keys: &Map<String, Value>) -> Result<RuleOptimizer, String> {
    match below {
        RuleOptimizer::Config(config) => {
            config.merge(keys).map(RuleOptimizer::Config).map_err(|error| error.to_string())
        }
        other if keys.is_empty() => Ok(other.clone()),
        other => Err(format!("{} is not configured by keys: give the rule a kind", other.label())),
    }
}
