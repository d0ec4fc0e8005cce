//! Rules: which optimizer, with which learning rate, for which parameters.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{AnyOptimizer, LayerwiseError, Pattern, PlannedOptimizer, Project, Role, RoleHint};
use crate::matrix::{Axis, Blocks, Layout, LayoutError};
use crate::rule::Pipeline;
use crate::rules::OptimizerConfig;
use crate::setting::ConfigError;

/// The optimizer of a rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RuleOptimizer {
    /// A configuration of this crate, or any Burn optimizer.
    Complete(PlannedOptimizer),
    /// Keys that override those of an earlier rule, if that has the same kind or no kind is given; with another kind,
    /// nothing is inherited. Rules in TOML are of this form.
    Change {
        /// The kind; `None` for that of the overridden rule.
        kind: Option<String>,
        /// Keys of the kind.
        keys: Map<String, Value>,
    },
}

impl RuleOptimizer {
    /// One line for plans.
    pub(crate) fn label(&self) -> String {
        match self {
            RuleOptimizer::Complete(optimizer) => optimizer.label(),
            RuleOptimizer::Change { kind, .. } => kind.clone().unwrap_or_else(|| "the kind it overrides".into()),
        }
    }

    fn is_frozen(&self) -> bool {
        matches!(self, Self::Complete(optimizer) if optimizer.is_frozen())
    }

    /// The optimizer of the overridden rule, for a rule that changes its learning rate, layout or blocks.
    ///
    /// ```
    /// use polaron::layerwise::{Layerwise, Rule, RuleOptimizer};
    ///
    /// let rule = Rule::path("blocks.*.attn.wq", RuleOptimizer::inherited())?.with_lr(0.01).per_head();
    /// let builder = Layerwise::muon().rule(rule); // Muon with the stack's decay and scale
    /// # let _ = builder;
    /// # Ok::<(), polaron::layerwise::LayerwiseError>(())
    /// ```
    pub fn inherited() -> Self {
        Self::Change { kind: None, keys: Map::new() }
    }
}

impl<T: Into<OptimizerConfig>> From<T> for RuleOptimizer {
    fn from(config: T) -> Self {
        PlannedOptimizer::Kind(config.into()).into()
    }
}

impl From<PlannedOptimizer> for RuleOptimizer {
    fn from(optimizer: PlannedOptimizer) -> Self {
        Self::Complete(optimizer)
    }
}

impl From<AnyOptimizer> for RuleOptimizer {
    fn from(optimizer: AnyOptimizer) -> Self {
        PlannedOptimizer::Own(optimizer).into()
    }
}

impl From<Pipeline> for RuleOptimizer {
    fn from(optimizer: Pipeline) -> Self {
        AnyOptimizer::new(optimizer).into()
    }
}

/// Which parameters a rule matches.
#[derive(Clone, Debug)]
pub(crate) enum Select {
    Roles(Vec<Role>),
    /// Those of any other role, and those without one.
    Others(Vec<Role>),
    Path(Pattern),
}

/// A learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    Lr(f64),
    /// For a rule that moves every unit by a distance of the learning rate: that distance as the root mean square of the
    /// unit's entries. The rate is this times the root of their number; where rates follow the width, of the number at the
    /// base width.
    UnitRms(f64),
}

impl Rate {
    /// The number itself, for checks.
    pub fn number(self) -> f64 {
        let (Self::Lr(number) | Self::UnitRms(number)) = self;
        number
    }
}

/// How a rule cuts matrices into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockChoice {
    /// The same blocks for every parameter.
    Fixed(Blocks),
    /// One block per attention head, if the role has heads: along the output axis of query, key and
    /// value, along the input axis of the output projection. Matrices without heads stay whole.
    Heads,
    /// One block per part of a fused projection, if the model says which there are ([`RoleHint::with_parts`]); other matrices
    /// stay whole.
    ///
    /// [`RoleHint::with_parts`]: super::RoleHint::with_parts
    Parts,
    /// No blocks, even if the overridden rule has some.
    Whole,
}

impl BlockChoice {
    /// The blocks of a parameter with this role, according to what the model says of it.
    pub(crate) fn blocks(self, role: Option<Role>, stated: Option<&RoleHint>) -> Result<Option<Blocks>, LayoutError> {
        match self {
            BlockChoice::Fixed(blocks) => Ok(Some(blocks)),
            BlockChoice::Whole => Ok(None),
            BlockChoice::Heads => {
                let axis = if role == Some(Role::AttentionOutput) { Axis::Input } else { Axis::Output };
                Ok(stated.and_then(|hint| hint.heads).map(|count| Blocks::equal(axis, count)))
            }
            BlockChoice::Parts => match stated.map(|hint| hint.parts.as_slice()) {
                None | Some([]) => Ok(None),
                Some(parts) => Blocks::of_sizes(Axis::Output, parts).map(Some),
            },
        }
    }
}

/// One rule of a plan. Of all rules that match a parameter the last one wins.
///
/// A rule with the kind of the rule that it overrides inherits its learning rate, layout, blocks and projection unless it sets them.
/// A configuration in Rust has all settings of its kind; [`RuleOptimizer::Change`] has only those that change.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(crate) select: Select,
    pub(crate) optimizer: RuleOptimizer,
    pub(crate) rate: Option<Rate>,
    pub(crate) layout: Option<Layout>,
    pub(crate) blocks: Option<BlockChoice>,
    pub(crate) project: Option<Project>,
    /// A rule of the user must win for some parameter; one of a stack need not.
    pub(crate) required: bool,
    /// Whether it inherits the keys that it does not set from the rule that it overrides.
    pub(crate) inherits: bool,
}

impl Rule {
    fn new(select: Select, optimizer: RuleOptimizer) -> Self {
        let (rate, layout, blocks, project) = (None, None, None, None);
        Self { select, optimizer, rate, layout, blocks, project, required: true, inherits: true }
    }

    /// A rule for every parameter of these roles.
    pub fn roles(roles: impl Into<Vec<Role>>, optimizer: impl Into<RuleOptimizer>) -> Self {
        Self::new(Select::Roles(roles.into()), optimizer.into())
    }

    /// A rule for every parameter whose role is none of these; it need not win for any.
    pub(crate) fn others(roles: impl Into<Vec<Role>>, optimizer: impl Into<RuleOptimizer>) -> Self {
        Self::new(Select::Others(roles.into()), optimizer.into()).optional()
    }

    /// A rule for every parameter whose path matches a glob or a `/regex/`, see [`Pattern`].
    ///
    /// # Errors
    /// If the pattern is not valid.
    pub fn path(pattern: &str, optimizer: impl Into<RuleOptimizer>) -> Result<Self, LayerwiseError> {
        Ok(Self::new(Select::Path(Pattern::new(pattern)?), optimizer.into()))
    }

    /// Sets the learning rate; default is that of the overridden rule of the same kind, or else of the stack's main rule.
    #[must_use]
    pub fn with_lr(mut self, lr: f64) -> Self {
        self.rate = Some(Rate::Lr(lr));
        self
    }

    /// Sets the learning rate.
    pub(crate) fn with_rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Overrides how the parameters are stored.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Cuts every matrix into parts with separate updates.
    #[must_use]
    pub fn with_blocks(mut self, blocks: Blocks) -> Self {
        self.blocks = Some(BlockChoice::Fixed(blocks));
        self
    }

    /// Gives every attention head a separate update, see [`BlockChoice::Heads`].
    #[must_use]
    pub fn per_head(mut self) -> Self {
        self.blocks = Some(BlockChoice::Heads);
        self
    }

    /// Gives every part of a fused projection a separate update, see [`BlockChoice::Parts`].
    #[must_use]
    pub fn per_part(mut self) -> Self {
        self.blocks = Some(BlockChoice::Parts);
        self
    }

    /// Does not cut matrices, even if the overridden rule does.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.blocks = Some(BlockChoice::Whole);
        self
    }

    /// Leaves directions of the parameters as they are, which [`Layerwise::directions`](super::Layerwise::directions) gives.
    #[must_use]
    pub fn with_project(mut self, project: Project) -> Self {
        self.project = Some(project);
        self
    }

    /// The keys that the rule sets.
    pub(crate) fn sets(&self) -> BTreeSet<String> {
        let mut set = BTreeSet::from(["kind".to_string()]);
        match &self.optimizer {
            RuleOptimizer::Change { kind, keys } => {
                set.extend(keys.keys().cloned());
                if kind.is_none() {
                    set.remove("kind");
                }
            }
            RuleOptimizer::Complete(optimizer) => set.extend(optimizer.config().into_iter().flat_map(|c| c.keys())),
        }
        let own = [
            ("lr", self.rate.is_some()),
            ("layout", self.layout.is_some()),
            ("blocks", self.blocks.is_some()),
            ("project", self.project.is_some()),
        ];
        set.extend(own.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key.to_string()));
        set
    }

    pub(crate) fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// Whether the rule matches a parameter; `role` is `None` if it is not known.
    pub(crate) fn matches(&self, path: &str, role: Option<Role>) -> bool {
        match &self.select {
            Select::Roles(roles) => role.is_some_and(|role| roles.contains(&role)),
            Select::Others(roles) => !role.is_some_and(|role| roles.contains(&role)),
            Select::Path(pattern) => pattern.matches(path),
        }
    }

    /// The name of the rule in error messages.
    pub(crate) fn name(&self) -> String {
        let label = self.optimizer.label();
        let names = |roles: &[Role]| roles.iter().map(Role::name).collect::<Vec<_>>().join(", ");
        match &self.select {
            Select::Path(pattern) if self.optimizer.is_frozen() => format!("freeze(\"{pattern}\")"),
            Select::Path(pattern) => format!("rule \"{pattern}\" → {label}"),
            Select::Roles(roles) => format!("rule for role {} → {label}", names(roles)),
            Select::Others(roles) => format!("rule for every role but {} → {label}", names(roles)),
        }
    }

    /// Reads a table `{ match = "…" | role = "…" | role = ["…"], lr, layout, blocks, project, inherit, kind, … }`.
    pub(crate) fn from_table(table: &Map<String, Value>, number: usize) -> Result<Self, LayerwiseError> {
        let fail = |message: String| LayerwiseError::Rule { number, message };
        let mut table = table.clone();
        let select = match (table.remove("match"), table.remove("role")) {
            (Some(Value::String(pattern)), None) => Select::Path(Pattern::new(pattern)?),
            (None, Some(roles)) => Select::Roles(read_roles(roles).map_err(fail)?),
            _ => return Err(fail("needs either match = \"pattern\" or role = \"name\"".into())),
        };
        let rate = take(&mut table, "lr").map_err(fail)?.map(Rate::Lr);
        let layout = take(&mut table, "layout").map_err(fail)?;
        let blocks = match table.remove("blocks") {
            Some(Value::String(word)) if word == "heads" => Some(BlockChoice::Heads),
            Some(Value::String(word)) if word == "parts" => Some(BlockChoice::Parts),
            Some(Value::String(word)) if word == "whole" => Some(BlockChoice::Whole),
            Some(value) => {
                let blocks = serde_json::from_value(value);
                let advice = "must be \"heads\", \"parts\", \"whole\" or { axis = \"output\" | \"input\", count = … | sizes = […] }";
                Some(BlockChoice::Fixed(blocks.map_err(|error| fail(format!("blocks {advice}: {error}")))?))
            }
            None => None,
        };
        let project = take(&mut table, "project").map_err(fail)?;
        let inherits = take(&mut table, "inherit").map_err(fail)?.unwrap_or(true);
        let kind: Option<String> = take(&mut table, "kind").map_err(fail)?;
        let optimizer = match kind {
            // Read now to find errors, such as a key that the kind does not have.
            Some(kind) => {
                let config = OptimizerConfig::with_keys(&kind, &table).map_err(|error| fail(error.to_string()))?;
                if inherits { RuleOptimizer::Change { kind: Some(kind), keys: table } } else { config.into() }
            }
            None if inherits => RuleOptimizer::Change { kind: None, keys: table },
            None => return Err(fail("needs a kind, as it inherits nothing (inherit = false)".into())),
        };
        Ok(Self { rate, layout, blocks, project, inherits, ..Self::new(select, optimizer) })
    }
}

fn take<T: serde::de::DeserializeOwned>(table: &mut Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    match table.remove(key) {
        None => Ok(None),
        Some(value) => serde_json::from_value(value).map(Some).map_err(|error| format!("{key}: {error}")),
    }
}

/// The roles of a name or a list of names.
pub(super) fn read_roles(value: Value) -> Result<Vec<Role>, String> {
    let valid: Vec<&'static str> = Role::ALL.iter().map(Role::name).collect();
    let role = |name: String| {
        Role::from_name(&name).ok_or_else(|| ConfigError::Name { what: "role", name, valid: valid.clone() }.to_string())
    };
    names_or_name(value, "role")?.into_iter().map(role).collect()
}

/// The names of a key that takes a name or a list of names.
pub(super) fn names_or_name(value: Value, key: &str) -> Result<Vec<String>, String> {
    let names = match value {
        Value::String(name) => return Ok(vec![name]),
        Value::Array(names) if !names.is_empty() => names,
        other => return Err(format!("{key} must be a name or a list of names, got {other}")),
    };
    let name = |name: Value| match name {
        Value::String(name) => Ok(name),
        other => Err(format!("{key} must be a name or a list of names, got {other} in the list")),
    };
    names.into_iter().map(name).collect()
}
