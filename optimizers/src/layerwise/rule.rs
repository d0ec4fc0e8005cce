//! Rules: which optimizer, with which learning rate, for which parameters.

use serde_json::{Map, Value};

use super::{AnyOptimizer, LayerwiseError, Pattern, Role};
use crate::config::OptimizerConfig;
use crate::direction::StatefulDirection;
use crate::matrix::{Axis, Blocks, Layout};
use crate::names::unknown;
use crate::step::MatrixOptimizer;

/// The optimizer of a rule: a configuration of this crate, or any Burn optimizer.
#[derive(Clone, Debug)]
pub enum RuleOptimizer {
    /// A kind of this crate; layout and blocks follow the parameter.
    Config(OptimizerConfig),
    /// Any other Burn optimizer; it must know layout and blocks itself.
    Custom(AnyOptimizer),
}

impl RuleOptimizer {
    /// One line for plans.
    pub(crate) fn label(&self) -> String {
        match self {
            RuleOptimizer::Config(config) => config.label(),
            RuleOptimizer::Custom(optimizer) => optimizer.label().to_string(),
        }
    }
}

impl From<OptimizerConfig> for RuleOptimizer {
    fn from(config: OptimizerConfig) -> Self {
        Self::Config(config)
    }
}

impl From<AnyOptimizer> for RuleOptimizer {
    fn from(optimizer: AnyOptimizer) -> Self {
        Self::Custom(optimizer)
    }
}

impl<R: StatefulDirection> From<MatrixOptimizer<R>> for RuleOptimizer {
    fn from(optimizer: MatrixOptimizer<R>) -> Self {
        Self::Custom(AnyOptimizer::new(optimizer))
    }
}

/// Which parameters a rule is for.
#[derive(Clone, Debug)]
pub(crate) enum Select {
    Roles(Vec<Role>),
    Path(Pattern),
}

/// How a rule cuts matrices into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockChoice {
    /// The same blocks for every parameter.
    Fixed(Blocks),
    /// One block per attention head, where the role has heads: along the output axis of query, key and
    /// value, along the input axis of the output projection. Matrices without heads stay whole.
    Heads,
}

impl BlockChoice {
    /// The blocks of a parameter with this role and number of heads.
    pub(crate) fn blocks(self, role: Option<Role>, heads: Option<usize>) -> Option<Blocks> {
        match self {
            BlockChoice::Fixed(blocks) => Some(blocks),
            BlockChoice::Heads => {
                let axis = if role == Some(Role::AttentionOutput) { Axis::Input } else { Axis::Output };
                heads.map(|count| Blocks { axis, count })
            }
        }
    }
}

/// One rule of a plan. Of all rules that match a parameter the last one wins.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(crate) select: Select,
    pub(crate) optimizer: RuleOptimizer,
    pub(crate) lr: Option<f64>,
    pub(crate) layout: Option<Layout>,
    pub(crate) blocks: Option<BlockChoice>,
    /// A rule somebody wrote must win somewhere; one that a stack brings along need not.
    pub(crate) required: bool,
}

impl Rule {
    fn new(select: Select, optimizer: RuleOptimizer) -> Self {
        Self { select, optimizer, lr: None, layout: None, blocks: None, required: true }
    }

    /// A rule for every parameter of these roles.
    pub fn roles(roles: impl Into<Vec<Role>>, optimizer: impl Into<RuleOptimizer>) -> Self {
        Self::new(Select::Roles(roles.into()), optimizer.into())
    }

    /// A rule for every parameter whose path matches a glob or a `/regex/`, see [`Pattern`].
    ///
    /// # Errors
    /// If the pattern is not valid.
    pub fn path(pattern: &str, optimizer: impl Into<RuleOptimizer>) -> Result<Self, LayerwiseError> {
        Ok(Self::new(Select::Path(Pattern::new(pattern)?), optimizer.into()))
    }

    /// Sets the learning rate; default is that of the stack.
    pub fn with_lr(mut self, lr: f64) -> Self {
        self.lr = Some(lr);
        self
    }

    /// Overrides how the parameters are stored.
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Cuts every matrix into parts with an update of their own.
    pub fn with_blocks(mut self, blocks: Blocks) -> Self {
        self.blocks = Some(BlockChoice::Fixed(blocks));
        self
    }

    /// Gives every attention head an update of its own, see [`BlockChoice::Heads`].
    pub fn per_head(mut self) -> Self {
        self.blocks = Some(BlockChoice::Heads);
        self
    }

    pub(crate) fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// Whether the rule is for a parameter; `role` is `None` when nothing says what it is for.
    pub(crate) fn matches(&self, path: &str, role: Option<Role>) -> bool {
        match &self.select {
            Select::Roles(roles) => role.is_some_and(|role| roles.contains(&role)),
            Select::Path(pattern) => pattern.matches(path),
        }
    }

    /// How error messages call the rule.
    pub(crate) fn name(&self) -> String {
        let label = self.optimizer.label();
        match &self.select {
            Select::Path(pattern) => format!("rule \"{pattern}\" → {label}"),
            Select::Roles(roles) => {
                let names: Vec<&str> = roles.iter().map(Role::name).collect();
                format!("rule for role {} → {label}", names.join(", "))
            }
        }
    }

    /// Reads a table `{ match = "…" | role = "…" | role = ["…"], lr, layout, blocks, kind, … }`.
    pub(crate) fn from_table(table: &Map<String, Value>, number: usize) -> Result<Self, LayerwiseError> {
        let fail = |message: String| LayerwiseError::Rule { number, message };
        let mut table = table.clone();
        let select = match (table.remove("match"), table.remove("role")) {
            (Some(Value::String(pattern)), None) => Select::Path(Pattern::new(pattern)?),
            (None, Some(roles)) => Select::Roles(read_roles(roles).map_err(fail)?),
            _ => return Err(fail("needs either match = \"pattern\" or role = \"name\"".into())),
        };
        let lr = take(&mut table, "lr").map_err(fail)?;
        let layout = take(&mut table, "layout").map_err(fail)?;
        let blocks = match table.remove("blocks") {
            Some(Value::String(word)) if word == "heads" => Some(BlockChoice::Heads),
            Some(value) => {
                let blocks = serde_json::from_value(value);
                let advice = "must be \"heads\" or { axis = \"output\" | \"input\", count = … }";
                Some(BlockChoice::Fixed(blocks.map_err(|error| fail(format!("blocks {advice}: {error}")))?))
            }
            None => None,
        };
        let config = OptimizerConfig::try_from(table).map_err(|error| fail(error.to_string()))?;
        Ok(Self { lr, layout, blocks, ..Self::new(select, config.into()) })
    }
}

fn take<T: serde::de::DeserializeOwned>(table: &mut Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    match table.remove(key) {
        None => Ok(None),
        Some(value) => serde_json::from_value(value).map(Some).map_err(|error| format!("{key}: {error}")),
    }
}

fn read_roles(value: Value) -> Result<Vec<Role>, String> {
    let names = match value {
        Value::String(name) => vec![Value::String(name)],
        Value::Array(names) => names,
        other => return Err(format!("role must be a name or a list of names, got {other}")),
    };
    let valid: Vec<&str> = Role::ALL.iter().map(Role::name).collect();
    names
        .iter()
        .map(|name| {
            let name = name.as_str().unwrap_or_default();
            Role::from_name(name).ok_or_else(|| unknown("role", name, &valid))
        })
        .collect()
}
