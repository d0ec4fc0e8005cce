//! The `[optimizer]` table of a configuration file.

use std::collections::BTreeSet;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{AdamWPart, EdgesPart, LayerwiseError};
use crate::rule::StackRow;
use crate::rules::OptimizerConfig;
use crate::setting::{ConfigError, check_keys};
use crate::wrappers::WrapperConfig;

/// The only stack that is not named after a kind.
pub(super) const SYMMETRIC: &str = "symmetric";

const SYMMETRIC_ROW: StackRow = StackRow {
    lr: 0.02,
    weight_decay: 0.01,
    about: "every role by a rule with its symmetry: Muon per head, equilibration as in MuonEq for the MLP, unit norms at the \
            edges (arXiv 2605.18106)",
};

/// The names: every kind, and `symmetric`.
const NAMES: [&str; OptimizerConfig::KINDS.len() + 1] = {
    let mut names = [SYMMETRIC; OptimizerConfig::KINDS.len() + 1];
    let mut i = 0;
    while i < OptimizerConfig::KINDS.len() {
        names[i] = OptimizerConfig::KINDS[i];
        i += 1;
    }
    names
};

/// The defaults of a stack's main rule, and its description.
pub(super) fn find(name: &str) -> Result<StackRow, ConfigError> {
    match OptimizerConfig::of_kind(name) {
        Ok(config) => Ok(config.stack()),
        Err(_) if name == SYMMETRIC => Ok(SYMMETRIC_ROW),
        Err(_) => Err(ConfigError::Name { what: "stack", name: name.to_string(), valid: NAMES.to_vec() }),
    }
}

/// A ready-made stack, its settings, and rules that override parts of it.
///
/// ```
/// use polaron::layerwise::LayerwiseConfig;
///
/// let config = LayerwiseConfig::from_toml(r#"
///     stack = "muon"
///     lr = 0.02
///     matrix = { scale = "match_rms_adamw" }
///
///     [[rule]]
///     match = "blocks.*.mlp.down"
///     kind = "sgd"
///     lr = 0.1
/// "#)?;
/// assert_eq!(config.clip, Some(1.0)); // a default
/// # Ok::<(), polaron::layerwise::LayerwiseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerwiseConfig {
    /// One of [`LayerwiseConfig::STACKS`]; any optimizer kind is one.
    pub stack: String,
    /// Learning rate of the main rule: the matrices of the blocks; everything under `adamw` and `sgd`.
    pub lr: f64,
    /// Decoupled weight decay of the main rule. No stack applies it to gains and biases, unless `adamw.decay_vectors`.
    pub weight_decay: f64,
    /// Global-norm clipping before any rule; 0 is off.
    #[serde(with = "zero_is_none")]
    pub clip: Option<f64>,
    /// Threshold of QK-clip: after a step the attention heads whose largest logit was above it are scaled down to it, see
    /// [`clip_heads`](super::clip_heads). Absent, and 0, are off; the published threshold is 100.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "zero_is_none")]
    pub qk_clip: Option<f64>,
    /// More keys of the main rule's kind, for example `{ scale = "match_rms_adamw" }`.
    #[serde(deserialize_with = "finite")]
    pub matrix: Map<String, Value>,
    /// AdamW for the parameters outside the matrix rule: embeddings, head, router, gains and biases.
    pub adamw: AdamWPart,
    /// Learning rates of the unit-norm rules of embeddings, head and router; only in `symmetric`, and an error elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<EdgesPart>,
    /// Whether gate, up and down are updated by the published rule HybridPolarGradM, whose steps are as large as the nuclear norm
    /// over the Frobenius norm of their equilibrated momentum, at the same learning rate as Muon; only in `symmetric`.
    ///
    /// Those steps are 4.4 times Muon's for a 192 × 64 matrix and 17.7 times for 3072 × 1024. The published runs used the one
    /// rate for both; a quarter of Muon's for the MLP is where to begin on small models:
    /// `[[rule]] role = ["gate", "up", "down"], lr = 0.005`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub published: bool,
    /// What goes around the steps, see [`wrappers`](crate::wrappers): `{ kind = "ema_nesterov", strength = 0.5 }`; nothing if it is
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "finite")]
    pub wrapper: Option<WrapperConfig>,
    /// Scale the first weights of every parameter with a rule that has a norm ball (`scion`) onto its surface, see
    /// [`LayerwiseOptimizer::onto_balls`](super::LayerwiseOptimizer::onto_balls). For the program that trains: a run that is
    /// resumed or continued keeps its weights. The radii of the stack are those of larger models: on `llama-d64` the logits
    /// then begin far too large (`polaron train --optimizer scion --steps 2 --set optimizer.onto_balls=true`: a first loss above
    /// 200 nats), so give the head a smaller one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub onto_balls: bool,
    /// Rules that override those of the stack; the last one that matches wins: `{ match = "glob" | role = "name", kind = …,
    /// lr = …, project = … }` ([`Project`](super::Project)). Without a kind, or with the kind of the rule that it overrides, a rule changes only the keys that it
    /// sets, unless `inherit = false`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "finite")]
    pub rule: Vec<Map<String, Value>>,
}

impl LayerwiseConfig {
    /// Every ready-made stack.
    pub const STACKS: &'static [&'static str] = &NAMES;

    /// Pairs of keys of which a file gives one: the second, which no default has, in place of the first.
    pub const ALTERNATIVES: &'static [[&'static str; 2]] = &[
        ["adamw.lr", "adamw.lr_ratio"],
        ["edges.embedding_lr", "edges.embedding_rms"],
        ["edges.head_lr", "edges.head_rms"],
        ["edges.router_lr", "edges.router_rms"],
    ];

    /// The defaults of a stack; all clip the global norm at 1.
    ///
    /// # Errors
    /// If there is no stack of that name.
    pub fn stack(name: &str) -> Result<Self, LayerwiseError> {
        let stack = find(name)?;
        Ok(Self {
            stack: name.to_string(),
            lr: stack.lr,
            weight_decay: stack.weight_decay,
            clip: Some(1.0),
            qk_clip: None,
            matrix: Map::new(),
            adamw: AdamWPart::default(),
            edges: (name == SYMMETRIC).then(EdgesPart::default),
            published: false,
            wrapper: None,
            onto_balls: false,
            rule: Vec::new(),
        })
    }

    /// The description of a stack in one line; empty for an unknown name.
    pub fn describe_stack(name: &str) -> &'static str {
        find(name).map_or("", |stack| stack.about)
    }

    /// Reads a TOML table; missing keys have the defaults of the stack.
    ///
    /// # Errors
    /// On a syntax error, an unknown key (naming the nearest valid one) or a wrong type.
    pub fn from_toml(text: &str) -> Result<Self, LayerwiseError> {
        let fail = |message: String| LayerwiseError::Toml { message };
        let given: Map<String, Value> = toml::from_str(text).map_err(|error| fail(error.to_string()))?;
        let stack = given.get("stack").and_then(Value::as_str).unwrap_or("muon");
        let mut merged = Self::stack(stack)?.to_map();
        let valid: Vec<&str> = merged
            .keys()
            .map(String::as_str)
            .chain(["qk_clip", "published", "wrapper", "onto_balls", "rule"])
            .collect();
        check_keys(&given, &valid, "optimizer")?;
        for (key, value) in given {
            match (merged.get_mut(&key), value) {
                (Some(Value::Object(part)), Value::Object(new)) if key == "adamw" || key == "edges" => {
                    let own = |name: &'static str| name.strip_prefix(key.as_str())?.strip_prefix('.');
                    let pairs =
                        || Self::ALTERNATIVES.iter().filter_map(move |[one, other]| Some((own(one)?, own(other)?)));
                    let optional = pairs().map(|(_, other)| other).chain((key == "adamw").then_some("decay_vectors"));
                    let valid: Vec<&str> = part.keys().map(String::as_str).chain(optional).collect();
                    check_keys(&new, &valid, &format!("optimizer.{key}"))?;
                    for (one, _) in pairs().filter(|(_, other)| new.contains_key(*other)) {
                        part.remove(one);
                    }
                    part.extend(new);
                }
                (_, value) => {
                    merged.insert(key, value);
                }
            }
        }
        serde_json::from_value(Value::Object(merged)).map_err(|error| fail(error.to_string()))
    }

    /// The files that rules name in `project`, each once: who builds an optimizer gives their tensors by
    /// [`Layerwise::directions`](super::Layerwise::directions).
    ///
    /// # Errors
    /// If a rule is not valid.
    pub fn direction_files(&self) -> Result<BTreeSet<String>, LayerwiseError> {
        let rules = self.rules()?;
        let projects = rules.iter().filter_map(|rule| rule.project.as_ref());
        Ok(projects.flat_map(|project| project.names().map(String::from).collect::<Vec<_>>()).collect())
    }

    fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("a configuration serialises to an object"),
        }
    }

    pub(super) fn check_rates(&self) -> Result<(), LayerwiseError> {
        if self.edges.is_some() && self.stack != SYMMETRIC {
            let message = format!("the stack {} has no unit-norm rules at the edges: leave it out", self.stack);
            return Err(ConfigError::value("edges", message).into());
        }
        let edges = self.edges.clone().unwrap_or_default();
        let rates = [
            ("lr", self.lr),
            ("weight_decay", self.weight_decay),
            ("adamw.lr", self.adamw.lr),
            ("adamw.lr_ratio", self.adamw.lr_ratio.unwrap_or_default()),
            ("adamw.weight_decay", self.adamw.weight_decay),
            ("edges.embedding_lr", edges.embedding_lr),
            ("edges.embedding_rms", edges.embedding_rms.unwrap_or_default()),
            ("edges.head_lr", edges.head_lr),
            ("edges.head_rms", edges.head_rms.unwrap_or_default()),
            ("edges.router_lr", edges.router_lr),
            ("edges.router_rms", edges.router_rms.unwrap_or_default()),
        ];
        for (key, value) in rates {
            LayerwiseError::check_rate(format!("optimizer.{key}"), value)?;
        }
        if let Some(wrapper) = &self.wrapper {
            wrapper.validate("wrapper")?;
        }
        LayerwiseError::check_threshold("optimizer.clip", self.clip)?;
        LayerwiseError::check_threshold("optimizer.qk_clip", self.qk_clip).map(drop)
    }
}

/// Free-form keys. NaN and infinities of TOML arrive as null, which has no meaning here and cannot be written to TOML.
fn finite<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if let Some(path) = path_of_null(&value) {
        return Err(D::Error::custom(format!("`{path}` must be a finite number")));
    }
    serde_json::from_value(value).map_err(D::Error::custom)
}

fn path_of_null(value: &Value) -> Option<String> {
    let within = |name: String, value: &Value| {
        let path = path_of_null(value)?;
        Some(if path.is_empty() { name } else { format!("{name}.{path}") })
    };
    match value {
        Value::Null => Some(String::new()),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| within((i + 1).to_string(), item)),
        Value::Object(map) => map.iter().find_map(|(name, value)| within(name.clone(), value)),
        _ => None,
    }
}

/// TOML has no null: an absent threshold is written as 0.
mod zero_is_none {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.unwrap_or(0.0))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Ok((value != 0.0).then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stack_round_trips_through_toml() {
        for name in LayerwiseConfig::STACKS {
            let config = LayerwiseConfig::stack(name).unwrap();
            assert!(!LayerwiseConfig::describe_stack(name).is_empty());
            let text = toml::to_string(&config).unwrap();
            assert_eq!(LayerwiseConfig::from_toml(&text).unwrap(), config);
        }
    }

    #[test]
    fn slips_name_the_nearest_key() {
        for (text, near) in
            [("weight_decai = 1.0", "weight_decay"), ("adamw = { bta1 = 0.5 }", "beta1"), ("stack = \"muom\"", "muon")]
        {
            let error = LayerwiseConfig::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean `{near}`")), "{error}");
        }
        let config = LayerwiseConfig::from_toml("matrix = { momentun = 0.9 }").unwrap();
        let error = config.rules().unwrap_err().to_string();
        assert!(error.contains("did you mean `momentum`"), "{error}");
    }

    #[test]
    fn the_threshold_of_attention_logits_is_written_only_when_it_is_on() {
        let off = LayerwiseConfig::from_toml("qk_clip = 0.0").unwrap();
        assert_eq!(off, LayerwiseConfig::stack("muon").unwrap());
        assert!(!toml::to_string(&off).unwrap().contains("qk_clip"));
        let on = LayerwiseConfig::from_toml("qk_clip = 100.0").unwrap();
        assert_eq!(on.qk_clip, Some(100.0));
        assert_eq!(LayerwiseConfig::from_toml(&toml::to_string(&on).unwrap()).unwrap(), on);
        let slip = LayerwiseConfig::from_toml("qk_clpi = 100.0").unwrap_err().to_string();
        assert!(slip.contains("did you mean `qk_clip`"), "{slip}");
        for qk_clip in [-1.0, f64::NAN, f64::INFINITY] {
            let error = LayerwiseConfig { qk_clip: Some(qk_clip), ..off.clone() }.rules().unwrap_err().to_string();
            assert!(error.contains("optimizer.qk_clip must be"), "{error}");
        }
    }

    #[test]
    fn rates_that_are_no_rates_are_refused() {
        let base = LayerwiseConfig::stack("muon").unwrap();
        for lr in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(LayerwiseConfig { lr, ..base.clone() }.rules().is_err());
        }
    }
}
