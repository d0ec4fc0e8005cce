//! Layers of TOML over a complete table of defaults: every key must exist in the defaults, and its value must have the same
//! type.

use toml::{Table, Value};

use crate::error::ConfigError;
use polaron::LayerwiseConfig;
use polaron_common::did_you_mean;

/// Keys whose content the defaults do not describe: the optimizer library checks it.
const FREE_FORM: &[&str] = &["optimizer.matrix", "optimizer.rule", "schedule.rule"];

/// Keys that no default has, each with a value of its type. A section among them has its other keys by default once it is
/// given.
const ABSENT: &[(&str, Value)] = &[
    ("optimizer.adamw.lr", Value::Float(0.0)),
    ("optimizer.adamw.lr_ratio", Value::Float(0.0)),
    ("optimizer.adamw.decay_vectors", Value::Boolean(false)),
    ("optimizer.edges.embedding_lr", Value::Float(0.0)),
    ("optimizer.edges.embedding_rms", Value::Float(0.0)),
    ("optimizer.edges.head_lr", Value::Float(0.0)),
    ("optimizer.edges.head_rms", Value::Float(0.0)),
    ("optimizer.edges.router_lr", Value::Float(0.0)),
    ("optimizer.edges.router_rms", Value::Float(0.0)),
    ("optimizer.onto_balls", Value::Boolean(false)),
    ("optimizer.published", Value::Boolean(false)),
    ("optimizer.qk_clip", Value::Float(0.0)),
    ("ranks.timeout", Value::Float(0.0)),
    ("schedule.power", Value::Float(0.0)),
    ("schedule.rule", Value::Array(Vec::new())),
    ("schedule.momentum.start", Value::Float(0.0)),
    ("schedule.momentum.warmup", Value::Integer(0)),
    ("schedule.momentum.peak", Value::Float(0.0)),
    ("schedule.momentum.cooldown", Value::Integer(0)),
    ("schedule.momentum.end", Value::Float(0.0)),
    ("schedule.momentum.power", Value::Float(0.0)),
    ("train.energy_every", Value::Integer(0)),
    ("train.grains", Value::Integer(0)),
    ("train.logits_every", Value::Integer(0)),
    ("train.lora.refactor_every", Value::Integer(0)),
    ("train.probe_batches", Value::Integer(0)),
    ("train.probe_every", Value::Integer(0)),
    ("train.probe_groups", Value::String(String::new())),
    ("train.sharpness_every", Value::Integer(0)),
];

/// Sections that no default has.
const ABSENT_SECTIONS: &[&str] = &["ranks", "schedule.momentum"];

/// The value in whose place an optional key stands if it is given.
fn optional(key: &str) -> Option<Value> {
    let section = || ABSENT_SECTIONS.contains(&key).then(|| Value::Table(Table::new()));
    ABSENT.iter().find(|(known, _)| *known == key).map(|(_, value)| value.clone()).or_else(section)
}

/// Pairs of keys of which one is given.
fn alternatives() -> impl Iterator<Item = [String; 2]> {
    LayerwiseConfig::ALTERNATIVES.iter().map(|pair| pair.map(|key| format!("optimizer.{key}")))
}

/// Removes the key in whose place `key` is given.
pub fn displace(table: &mut Table, key: &str) {
    for [one, other] in alternatives() {
        if key == one {
            remove(table, &other);
        } else if key == other {
            remove(table, &one);
        }
    }
}

/// Refuses two keys of which only one can be given.
///
/// # Errors
///
/// [`ConfigError::BadValue`].
pub fn check_alternatives(given: &[&str], place: &str) -> Result<(), ConfigError> {
    let both = alternatives().find(|pair| pair.iter().all(|key| given.contains(&key.as_str())));
    let Some([one, other]) = both else { return Ok(()) };
    let rule = format!("it is given in place of `{one}`, which is given too: leave one of them out");
    Err(ConfigError::BadValue { key: other, value: format!("set {place}"), rule })
}

/// Removes a dotted key, if it is there.
pub fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        Some((name, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(name) {
                remove(inner, rest);
            }
        }
        None => {
            table.remove(key);
        }
    }
}

/// Merges `layer` into `base`, over its values. `place` is where the layer comes from: "in `my.toml`", "from --set".
///
/// Whole numbers are accepted where the default is a decimal number.
///
/// # Errors
///
/// [`ConfigError::UnknownKey`] with the nearest key that exists, [`ConfigError::WrongType`].
pub fn merge(base: &mut Table, layer: &Table, place: &str) -> Result<(), ConfigError> {
    let given: Vec<String> = flatten(layer).into_iter().map(|(key, _)| key).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    check_alternatives(&given, place)?;
    given.iter().for_each(|key| displace(base, key));
    let sections = ABSENT_SECTIONS.iter().map(|key| key.to_string());
    let optional = ABSENT.iter().map(|(key, _)| key.to_string()).chain(sections);
    let known = flatten(base).into_iter().map(|(key, _)| key).chain(optional).collect::<Vec<_>>();
    merge_table(base, layer, "", place, &known)
}

fn merge_table(
    base: &mut Table,
    layer: &Table,
    prefix: &str,
    place: &str,
    known: &[String],
) -> Result<(), ConfigError> {
    for (name, value) in layer {
        let key = join(prefix, name);
        if !base.contains_key(name)
            && let Some(value) = optional(&key)
        {
            base.insert(name.clone(), value);
        }
        let Some(slot) = base.get_mut(name) else {
            return Err(unknown_key(&key, place, known));
        };
        if FREE_FORM.contains(&key.as_str()) {
            check_free_form(&key, slot, value, place)?;
            *slot = value.clone();
            continue;
        }
        match (slot, value) {
            (Value::Table(inner), Value::Table(layer)) => merge_table(inner, layer, &key, place, known)?,
            (slot, value) => *slot = convert(&key, slot, value, place)?,
        }
    }
    Ok(())
}

fn check_free_form(key: &str, slot: &Value, value: &Value, place: &str) -> Result<(), ConfigError> {
    let tables_only = value.as_array().is_none_or(|items| items.iter().all(Value::is_table));
    if value.same_type(slot) && tables_only {
        return Ok(());
    }
    let expected = if slot.is_array() { "an array of tables" } else { "a table" };
    Err(wrong_type(key, expected, value, place))
}

fn convert(key: &str, slot: &Value, value: &Value, place: &str) -> Result<Value, ConfigError> {
    match (slot, value) {
        (Value::Float(_), Value::Integer(number)) => Ok(Value::Float(*number as f64)),
        (Value::Integer(_), Value::Integer(number)) if *number < 0 => Err(ConfigError::BadValue {
            key: key.into(),
            value: number.to_string(),
            rule: "it must not be negative".into(),
        }),
        (Value::Integer(_), Value::Float(number)) if number.abs() >= i64::MAX as f64 => Err(ConfigError::BadValue {
            key: key.into(),
            value: number.to_string(),
            rule: format!("it must be a whole number from 0 to {}", i64::MAX),
        }),
        _ if slot.same_type(value) => Ok(value.clone()),
        _ => Err(wrong_type(key, expected(slot), value, place)),
    }
}

fn wrong_type(key: &str, expected: &'static str, found: &Value, place: &str) -> ConfigError {
    let found = format!("{} {found}", found.type_str());
    ConfigError::WrongType { key: key.into(), expected, found: crate::error::one_line(&found), place: place.into() }
}

fn expected(slot: &Value) -> &'static str {
    match slot {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Table(_) => "a section",
        Value::Array(_) => "an array",
        Value::Datetime(_) => "a date",
    }
}

fn unknown_key(key: &str, place: &str, known: &[String]) -> ConfigError {
    // A wrong last part is the usual mistake, so look in the same section first.
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let siblings = known.iter().filter(|k| k.rsplit_once('.').map_or("", |(s, _)| s) == section).map(String::as_str);
    let hint = match did_you_mean(key, siblings) {
        hint if hint.is_empty() => did_you_mean(key, known.iter().map(String::as_str)),
        hint => hint,
    };
    ConfigError::UnknownKey { key: key.into(), place: place.into(), hint }
}

/// The value at a dotted `key`.
pub fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

/// The largest number of parts in a dotted key: every part is a table within a table; thousands would overflow the stack.
const MOST_PARTS: usize = 16;

/// Sets the value at a dotted `key`, and creates missing sections.
///
/// # Errors
///
/// [`ConfigError::WrongType`] when a section of the key is already a value, [`ConfigError::UnknownKey`] for a key of more
/// parts than any key has.
pub fn assign(table: &mut Table, key: &str, value: Value, place: &str) -> Result<(), ConfigError> {
    if key.split('.').count() > MOST_PARTS {
        let key = format!("{}…", key.chars().take(40).collect::<String>());
        let hint = format!("; no key has more than {MOST_PARTS} parts");
        return Err(ConfigError::UnknownKey { key, place: place.into(), hint });
    }
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.into(), value);
        return Ok(());
    };
    let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    match inner {
        Value::Table(inner) => assign(inner, rest, value, place),
        other => Err(wrong_type(section, "a section", other, place)),
    }
}

/// The value of a `--set` argument: TOML where it is valid TOML, a number in any usual notation, otherwise a string. Where
/// the default is a string, everything that is not written as a TOML string is taken literally.
pub fn parse_set(raw: &str, default: Option<&Value>) -> Value {
    let parsed = toml::from_str::<Table>(&format!("v = {raw}")).ok().filter(|table| table.len() == 1);
    let parsed = parsed.and_then(|mut table| table.remove("v"));
    let number = || raw.trim().parse::<f64>().ok().map(Value::Float);
    let value = parsed.or_else(number);
    match (value, default) {
        (Some(value), Some(Value::String(_))) if !value.is_str() => Value::String(raw.into()),
        (Some(value), _) => value,
        (None, _) => Value::String(raw.into()),
    }
}

/// Every value with its dotted key; free-form parts count as one value.
pub fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    flatten_into(table, "", &mut flat);
    flat
}

fn flatten_into(table: &Table, prefix: &str, flat: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = join(prefix, name);
        match value {
            Value::Table(inner) if !FREE_FORM.contains(&key.as_str()) => flatten_into(inner, &key, flat),
            value => flat.push((key, value.clone())),
        }
    }
}

/// The keys in which two configurations differ, as "`key` is A there and B now"; `ignored` keys do not count.
pub fn differences(there: &Table, now: &Table, ignored: &[&str]) -> Vec<String> {
    let word = |(key, old, new)| format!("`{key}` is {old} there and {new} now");
    differing(there, now, ignored).into_iter().map(word).collect()
}

/// The keys in which a configuration was edited, as "`key` was A and is B now"; `ignored` keys do not count.
pub fn edits(before: &Table, now: &Table, ignored: &[&str]) -> Vec<String> {
    let word = |(key, old, new)| format!("`{key}` was {old} and is {new} now");
    differing(before, now, ignored).into_iter().map(word).collect()
}

/// Every key in which two configurations differ, with both values.
fn differing(there: &Table, now: &Table, ignored: &[&str]) -> Vec<(String, String, String)> {
    let (there, now) = (flatten(there), flatten(now));
    let find = |flat: &[(String, Value)], key: &str| flat.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let mut keys: Vec<&String> = there.iter().map(|(key, _)| key).collect();
    keys.extend(now.iter().map(|(key, _)| key).filter(|key| find(&there, key).is_none()));
    let counted = keys.into_iter().filter(|key| !ignored.contains(&key.as_str()));
    let differing = counted.filter_map(|key| {
        let (old, new) = (find(&there, key), find(&now, key));
        (old != new).then(|| (key.clone(), show(old), show(new)))
    });
    differing.collect()
}

fn show(value: Option<Value>) -> String {
    value.map_or_else(|| "absent".into(), |value| crate::error::one_line(&value.to_string()))
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Table {
        let text =
            "[train]\nsteps = 10\nseed = 1\n[optimizer]\nlr = 0.1\nstack = \"muon\"\nrule = []\n[optimizer.matrix]\n";
        toml::from_str(text).unwrap()
    }

    fn merged(text: &str) -> Result<Table, ConfigError> {
        let mut table = base();
        merge(&mut table, &toml::from_str(text).unwrap(), "in `x.toml`").map(|()| table)
    }

    #[test]
    fn a_key_with_thousands_of_parts_is_an_error_and_not_a_crash() {
        let key = vec!["a"; 30_000].join(".");
        let error = assign(&mut Table::new(), &key, Value::Boolean(true), "from --set").unwrap_err().to_string();
        assert!(error.contains("more than 16 parts") && error.len() < 200, "{error}");
    }

    #[test]
    fn a_layer_overrides_only_what_it_names() {
        let table = merged("[train]\nsteps = 20").unwrap();
        assert_eq!(lookup(&table, "train.steps"), Some(&Value::Integer(20)));
        assert_eq!(lookup(&table, "train.seed"), Some(&Value::Integer(1)));
    }

    #[test]
    fn an_unknown_key_names_itself_its_place_and_the_nearest() {
        let said = merged("[train]\nstesp = 20").unwrap_err().to_string();
        assert!(
            said.contains("`train.stesp`") && said.contains("`x.toml`") && said.contains("`train.steps`"),
            "{said}"
        );
        let said = merged("[trian]\nsteps = 20").unwrap_err().to_string();
        assert!(said.contains("`trian`"), "{said}");
    }

    #[test]
    fn a_wrong_type_says_what_was_expected() {
        let said = merged("[train]\nsteps = \"many\"").unwrap_err().to_string();
        assert!(said.contains("`train.steps`") && said.contains("a whole number") && said.contains("many"), "{said}");
        let said = merged("train = 3").unwrap_err().to_string();
        assert!(said.contains("`train`") && said.contains("a section"), "{said}");
        let said = merged("[optimizer]\nrule = [1]").unwrap_err().to_string();
        assert!(said.contains("an array of tables"), "{said}");
        let said = merged("[train]\nsteps = -1").unwrap_err().to_string();
        assert!(said.contains("must not be negative"), "{said}");
    }

    #[test]
    fn a_whole_number_is_a_number() {
        let table = merged("[optimizer]\nlr = 1").unwrap();
        assert_eq!(lookup(&table, "optimizer.lr"), Some(&Value::Float(1.0)));
    }

    #[test]
    fn free_form_tables_take_any_key() {
        let table = merged("[optimizer.matrix]\nscale = \"spectral\"").unwrap();
        assert_eq!(lookup(&table, "optimizer.matrix.scale").and_then(Value::as_str), Some("spectral"));
    }

    #[test]
    fn set_values_are_toml_numbers_or_plain_strings() {
        assert_eq!(parse_set("3", None), Value::Integer(3));
        assert_eq!(parse_set("0.5", None), Value::Float(0.5));
        assert_eq!(parse_set(".5", None), Value::Float(0.5));
        assert_eq!(parse_set("true", None), Value::Boolean(true));
        assert_eq!(parse_set("cosine", None), Value::String("cosine".into()));
        assert_eq!(parse_set("\"a b\"", None), Value::String("a b".into()));
        assert_eq!(parse_set("12", Some(&Value::String(String::new()))), Value::String("12".into()));
        assert!(parse_set("NaN", None).as_float().is_some_and(f64::is_nan));
        assert_eq!(parse_set("1\nw = 2", None), Value::String("1\nw = 2".into()));
    }

    #[test]
    fn differences_show_both_values_and_skip_the_ignored() {
        let now = merged("[train]\nsteps = 20\nseed = 4").unwrap();
        assert_eq!(differences(&base(), &now, &["train.seed"]), ["`train.steps` is 10 there and 20 now"]);
        assert!(differences(&base(), &base(), &[]).is_empty());
    }
}
