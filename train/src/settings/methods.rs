//! The methods of rules with an exact target, written into the configuration: it then repeats its run even if the default of
//! a kind changes.

use polaron::OptimizerConfig;
use toml::{Table, Value};

use crate::error::ConfigError;

/// What a stack or a rule without a named method means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnamed {
    /// The default of this version.
    Default,
    /// The exact method, which was the default of earlier versions.
    Exact,
}

impl Unnamed {
    /// The key of a kind that chooses the method, and the method; none if there is no choice.
    fn method(self, kind: &str) -> Result<Option<(&'static str, Value)>, ConfigError> {
        let Some(target) = OptimizerConfig::exact_target(kind) else { return Ok(None) };
        let method = match self {
            Self::Default => target.default,
            Self::Exact => target.exact,
        };
        Ok(Some((target.key, Value::try_from(method).map_err(ConfigError::misfit)?)))
    }
}

/// Names the method of the stack and of every rule that has a kind but no method.
///
/// A rule that overrides one of its own kind inherits that one's method, and elsewhere it has the unnamed one: its method is
/// written down only where both are the same. In a file of this version it then stays open, which changes nothing.
///
/// # Errors
///
/// [`ConfigError::BadValue`] for such a rule in a file of an earlier version.
pub fn name(optimizer: &mut Table, unnamed: Unnamed) -> Result<(), ConfigError> {
    let stack = optimizer.get("stack").and_then(Value::as_str).unwrap_or_default().to_owned();
    // What rules can inherit from: the stack, and the rules before them.
    let mut above: Vec<Table> = Vec::new();
    if let Some(Value::Table(matrix)) = optimizer.get_mut("matrix") {
        if let Some((key, method)) = unnamed.method(&stack)? {
            matrix.entry(key).or_insert(method);
        }
        let mut main = matrix.clone();
        main.insert("kind".into(), stack.into());
        above.push(main);
    }
    let Some(Value::Array(rules)) = optimizer.get_mut("rule") else { return Ok(()) };
    for rule in rules.iter_mut().filter_map(Value::as_table_mut) {
        name_in_rule(rule, unnamed, &above)?;
        above.push(rule.clone());
    }
    Ok(())
}

fn name_in_rule(rule: &mut Table, unnamed: Unnamed, above: &[Table]) -> Result<(), ConfigError> {
    let kind = rule.get("kind").and_then(Value::as_str).unwrap_or_default();
    let Some((key, method)) = unnamed.method(kind)?.filter(|(key, _)| !rule.contains_key(*key)) else { return Ok(()) };
    let inherits = rule.get("inherit").and_then(Value::as_bool) != Some(false);
    let other = |table: &&Table| {
        let of_kind = table.get("kind").and_then(Value::as_str).is_none_or(|other| other == kind);
        of_kind && table.get(key).is_some_and(|value| *value != method)
    };
    match above.iter().find(other) {
        Some(_) if inherits && unnamed == Unnamed::Default => {}
        Some(_) if inherits => {
            let rule = format!(
                "an earlier version of this program wrote it without `{key}`, whose default has changed since: finish the \
                 run with that version, or start it anew with `{key}` in this rule"
            );
            return Err(ConfigError::BadValue { key: "optimizer.rule".into(), value: format!("of kind {kind}"), rule });
        }
        _ => drop(rule.insert(key.into(), method)),
    }
    Ok(())
}

/// Removes the method of the stack, for a file whose stack is replaced by another one.
pub fn forget(optimizer: &mut Table) {
    let stack = optimizer.get("stack").and_then(Value::as_str).unwrap_or_default();
    let target = OptimizerConfig::exact_target(stack);
    if let (Some(target), Some(Value::Table(matrix))) = (target, optimizer.get_mut("matrix")) {
        matrix.remove(target.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, unnamed: Unnamed) -> Result<Table, ConfigError> {
        let mut optimizer: Table = toml::from_str(text).unwrap();
        name(&mut optimizer, unnamed).map(|()| optimizer)
    }

    #[test]
    fn a_stack_and_a_rule_without_a_method_get_the_unnamed_one() {
        let text =
            "stack = 'freon'\nmatrix = {}\nrule = [{ match = '*', kind = 'freon' }, { match = '*', kind = 'ssd' }]";
        let exact = named(text, Unnamed::Exact).unwrap();
        assert_eq!(exact["matrix"]["method"].as_str(), Some("svd"));
        assert_eq!(exact["rule"][0]["method"].as_str(), Some("svd"));
        assert_eq!(exact["rule"][1]["polar"]["method"].as_str(), Some("svd"));
        assert_eq!(named(text, Unnamed::Default).unwrap()["matrix"]["method"].as_str(), Some("polynomial"));
        let muon = "stack = 'muon'\nmatrix = {}\nrule = [{ match = '*', kind = 'adamw' }]";
        assert_eq!(named(muon, Unnamed::Exact).unwrap(), toml::from_str(muon).unwrap());
    }

    #[test]
    fn a_named_method_stays_and_is_inherited() {
        let text =
            "stack = 'freon'\nmatrix = { method = 'rational' }\nrule = [{ match = '*', kind = 'freon', c = 0.5 }]";
        let default = named(text, Unnamed::Default).unwrap();
        assert_eq!(default, toml::from_str(text).unwrap());
        let apart = text.replace("c = 0.5", "inherit = false");
        assert_eq!(named(&apart, Unnamed::Exact).unwrap()["rule"][0]["method"].as_str(), Some("svd"));
    }

    #[test]
    fn an_earlier_rule_whose_method_is_not_certain_is_refused_with_what_to_do() {
        for above in [
            "matrix = { method = 'rational' }\nrule = [",
            "matrix = {}\nrule = [{ match = '*', method = 'rational' }, ",
        ] {
            let text = format!("stack = 'freon'\n{above}{{ match = '*', kind = 'freon' }}]");
            let said = named(&text, Unnamed::Exact).unwrap_err().to_string();
            assert!(said.contains("of kind freon") && said.contains("start it anew with `method`"), "{said}");
        }
    }
}
