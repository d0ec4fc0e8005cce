//! Which parameter gets which rule, checked for coverage, as a table.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::inference::{Inferred, Owned, infer, is_running_statistic};
use super::resolve::{Resolved, resolve};
use super::rule::{Rule, RuleOptimizer};
use super::{LayerwiseError, Pattern, Role, RoleHint};
use crate::matrix::{Axis, Blocks, Layout, Placement};

/// A float parameter of a module, as a visit of the module finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterInfo {
    /// Field names joined by dots, for example `blocks.3.attn.wq.weight`.
    pub path: String,
    /// Type of the module that owns the field, for example `Struct:Linear`.
    pub owner: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// What its owner says about it.
    inferred: Option<Inferred>,
}

impl ParameterInfo {
    /// Every float parameter of a module, in the order of its fields; without the running statistics of Burn's `BatchNorm`,
    /// which are not trained.
    pub fn of_module<M: Module>(module: &M) -> Vec<Self> {
        let mut visitor = Collector::default();
        module.visit(&mut visitor);
        visitor.finish()
    }
}

#[derive(Default)]
struct Collector {
    stack: Vec<(String, String)>,
    found: Vec<Found>,
    /// The fields that every module holds, by its path.
    fields: BTreeMap<String, Vec<String>>,
}

struct Found {
    /// Field and owner, from the root.
    stack: Vec<(String, String)>,
    shape: Vec<usize>,
}

fn joined(stack: &[(String, String)]) -> String {
    stack.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
}

impl Collector {
    fn finish(self) -> Vec<ParameterInfo> {
        let shapes: BTreeMap<String, &[usize]> =
            self.found.iter().map(|found| (joined(&found.stack), found.shape.as_slice())).collect();
        self.found.iter().filter_map(|found| self.parameter(found, &shapes)).collect()
    }

    fn parameter(&self, found: &Found, shapes: &BTreeMap<String, &[usize]>) -> Option<ParameterInfo> {
        let path = joined(&found.stack);
        let (last, holders) = match found.stack.split_last() {
            Some(((field, owner), holders)) => ((field.as_str(), owner.as_str()), holders),
            None => (("", ""), [].as_slice()),
        };
        let module = joined(holders);
        let sibling = |field: &str| if module.is_empty() { field.to_string() } else { format!("{module}.{field}") };
        let owned = Owned {
            owner: last.1,
            field: last.0,
            fields: self.fields.get(&module).map_or(&[], Vec::as_slice),
            shape: &found.shape,
            bias: shapes.get(&sibling("bias")).map(|shape| shape.iter().product()),
            held_by: holders.last().map(|(field, owner)| (field.as_str(), owner.as_str())),
        };
        let inferred = infer(&owned);
        let info = || ParameterInfo { path, owner: last.1.to_string(), shape: found.shape.clone(), inferred };
        (!is_running_statistic(&owned)).then(info)
    }
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.fields.entry(joined(&self.stack)).or_default().push(name.to_string());
        self.stack.push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Initialised: some parameters show another shape as long as they are lazy.
        self.found.push(Found { stack: self.stack.clone(), shape: param.base().dims().to_vec() });
    }
}

/// One parameter of a plan.
#[derive(Clone, Debug)]
pub struct PlanEntry {
    /// Path of the parameter.
    pub path: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Its role; `None` for a parameter that only a rule on its path decided.
    pub role: Option<Role>,
    /// Number of attention heads, when the role has them.
    pub heads: Option<usize>,
    /// How it is stored, and its blocks.
    pub placement: Placement,
    /// The optimizer, in one line.
    pub optimizer: String,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Decoupled weight decay; `None` for an optimizer that is not ours.
    pub weight_decay: Option<f64>,
    /// Shape scale, in words.
    pub scale: String,
    /// State, in words.
    pub state: String,
    /// What the rules make of each other.
    pub(crate) resolved: Resolved,
}

/// Every parameter of a module, each with exactly one rule. `Display` prints the table.
#[derive(Clone, Debug)]
pub struct Plan {
    entries: Vec<PlanEntry>,
}

/// Everything that decides a plan.
pub(crate) struct Decision<'a> {
    pub rules: &'a [Rule],
    pub hints: &'a [RoleHint],
    pub assignments: &'a [RoleHint],
    pub lr: f64,
    /// What the learning rate of AdamW is multiplied by, by role.
    pub adamw_factors: &'a [(Role, f64)],
    /// Width over base width, where learning rates follow it.
    pub width: Option<f64>,
}

impl Decision<'_> {
    /// By which the width rules multiply the learning rate of a parameter.
    fn width_factor(
        &self,
        parameter: &ParameterInfo,
        role: Option<Role>,
        rule: &Resolved,
        placement: Placement,
    ) -> Result<f64, LayerwiseError> {
        let Some(width) = self.width else { return Ok(1.0) };
        let reason = match (&rule.optimizer, role) {
            (RuleOptimizer::Custom(_) | RuleOptimizer::Change { .. }, _) => {
                "its width rule is not known, as it is no optimizer of this program"
            }
            (_, None) => "its role decides the width rule, and it has none: assign one",
            (RuleOptimizer::Config(config), Some(_)) if placement.blocks.is_some() && config.is_matrix_rule() => {
                "it works on blocks, such as heads, whose number may grow with the width or not: choose a rule without blocks"
            }
            (RuleOptimizer::Config(config), Some(role)) => {
                match config.width_exponent(role, placement.features(&parameter.shape)) {
                    Ok(exponent) if exponent.fract() == 0.0 => return Ok(width.powi(-exponent as i32)),
                    Ok(exponent) => return Ok(width.powf(-exponent)),
                    Err(reason) => reason,
                }
            }
        };
        Err(LayerwiseError::Width {
            path: parameter.path.clone(),
            optimizer: rule.optimizer.label(),
            reason: reason.to_string(),
        })
    }

    /// Learning rate of a parameter of this role under this rule.
    fn lr_of(&self, rule: &Resolved, role: Option<Role>) -> f64 {
        let lr = rule.lr.unwrap_or(self.lr);
        let elementwise = matches!(&rule.optimizer, RuleOptimizer::Config(config) if config.kind() == "adamw");
        let factor = self.adamw_factors.iter().find(|(known, _)| elementwise && role == Some(*known));
        factor.map_or(lr, |(_, factor)| lr * factor)
    }
}

impl Plan {
    /// The parameters in the order of the module's fields.
    pub fn entries(&self) -> &[PlanEntry] {
        &self.entries
    }

    /// Number of parameters (weights, not tensors).
    pub fn parameters(&self) -> usize {
        self.entries.iter().map(PlanEntry::count).sum()
    }

    pub(crate) fn decide(parameters: &[ParameterInfo], decision: &Decision<'_>) -> Result<Self, LayerwiseError> {
        if parameters.is_empty() {
            return Err(LayerwiseError::NoParameters);
        }
        let hints = compile(decision.hints)?;
        let assignments = compile(decision.assignments)?;
        check_assignments(&assignments, parameters)?;
        let entries = parameters
            .iter()
            .map(|parameter| decide_one(parameter, decision, &hints, &assignments))
            .collect::<Result<Vec<_>, _>>()?;
        check_rules(decision.rules, parameters, &entries)?;
        Ok(Self { entries })
    }
}

impl PlanEntry {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// What entries of one line of the table share.
    #[allow(clippy::type_complexity, reason = "a key that is compared once")]
    fn line(&self) -> (Option<Role>, usize, Placement, &str, f64, Option<f64>, &str) {
        let (optimizer, scale) = (self.optimizer.as_str(), self.scale.as_str());
        (self.role, self.resolved.rule(), self.placement, optimizer, self.lr, self.weight_decay, scale)
    }
}

type Compiled<'a> = Vec<(Pattern, &'a RoleHint)>;

fn compile(hints: &[RoleHint]) -> Result<Compiled<'_>, LayerwiseError> {
    hints.iter().map(|hint| Ok((Pattern::new(hint.pattern.as_str())?, hint))).collect()
}

/// The hint that matches a parameter; two that disagree are an error.
///
/// A hint for what has outputs leaves vectors alone: the bias of the head, or of a convolution, is still a bias.
fn find_hint<'a>(hints: &Compiled<'a>, parameter: &ParameterInfo) -> Result<Option<&'a RoleHint>, LayerwiseError> {
    let path = &parameter.path;
    let mut found: Option<&RoleHint> = None;
    for (pattern, hint) in hints {
        let fits = parameter.shape.len() > 1 || matches!(hint.role, Role::Gain | Role::Bias);
        if !fits || !pattern.matches(path) {
            continue;
        }
        match found {
            Some(first) if first.role != hint.role => {
                return Err(LayerwiseError::TwoRoles {
                    path: path.clone(),
                    first: first.pattern.clone(),
                    first_role: first.role.name(),
                    second: hint.pattern.clone(),
                    second_role: hint.role.name(),
                });
            }
            _ => found = Some(hint),
        }
    }
    Ok(found)
}

fn decide_one(
    parameter: &ParameterInfo,
    decision: &Decision<'_>,
    hints: &Compiled<'_>,
    assignments: &Compiled<'_>,
) -> Result<PlanEntry, LayerwiseError> {
    let path = &parameter.path;
    let stated = match find_hint(assignments, parameter)? {
        Some(hint) => Some(hint),
        None => find_hint(hints, parameter)?,
    };
    let inferred = parameter.inferred;
    let role = stated.map(|hint| hint.role).or(inferred.map(|inferred| inferred.role));
    let stored = stored(parameter, stated);
    let heads = stated.and_then(|hint| hint.heads);

    let Some(rule) = resolve(decision.rules, path, role)? else {
        return Err(match role {
            Some(role) => LayerwiseError::NoRule { path: path.clone(), role: role.name() },
            None => LayerwiseError::NoRole { path: path.clone(), shape: parameter.shape.clone() },
        });
    };
    let placement = Placement {
        layout: rule.layout.unwrap_or(stored.layout),
        blocks: rule.blocks.and_then(|choice| choice.blocks(role, heads)),
        ..stored
    };
    check_fit(parameter, role, &rule, placement)?;
    let width_factor = decision.width_factor(parameter, role, &rule, placement)?;
    let (weight_decay, scale, state) = describe(&rule.optimizer);
    Ok(PlanEntry {
        path: path.clone(),
        shape: parameter.shape.clone(),
        role,
        heads,
        placement,
        optimizer: rule.optimizer.label(),
        lr: decision.lr_of(&rule, role) * width_factor,
        weight_decay,
        scale,
        state,
        resolved: rule,
    })
}

/// How a parameter is stored: as a hint says, or its owner. More than two dimensions are a convolution's window whatever its
/// role, unless the role is that of a stack of experts.
fn stored(parameter: &ParameterInfo, stated: Option<&RoleHint>) -> Placement {
    let inferred = parameter.inferred.map(|inferred| inferred.placement);
    let Some(hint) = stated else { return inferred.unwrap_or_default() };
    let own = inferred.filter(|placement| placement.window);
    match own {
        _ if parameter.shape.len() < 3 || hint.role.is_stack() => Placement::new(hint.layout),
        Some(own) if hint.layout == Layout::default() => own,
        None if parameter.owner.starts_with("Struct:ConvTranspose") => Placement::kernel(Layout::InOut),
        _ => Placement::kernel(Layout::OutIn),
    }
}

fn check_fit(
    parameter: &ParameterInfo,
    role: Option<Role>,
    rule: &Resolved,
    placement: Placement,
) -> Result<(), LayerwiseError> {
    let RuleOptimizer::Config(config) = &rule.optimizer else {
        return Ok(());
    };
    let fail = |message: String| LayerwiseError::DoesNotFit {
        path: parameter.path.clone(),
        role: role_name(role),
        optimizer: config.label(),
        message,
    };
    config.validate().map_err(|error| fail(error.to_string()))?;
    if config.is_matrix_rule() {
        placement.check(&parameter.shape).map_err(|error| fail(error.to_string()))?;
    }
    Ok(())
}

fn check_assignments(assignments: &Compiled<'_>, parameters: &[ParameterInfo]) -> Result<(), LayerwiseError> {
    for (pattern, hint) in assignments {
        if !parameters.iter().any(|parameter| pattern.matches(&parameter.path)) {
            let what = format!("assign(\"{pattern}\", {})", hint.role);
            return Err(LayerwiseError::MatchesNothing { what, paths: some_paths(parameters) });
        }
    }
    Ok(())
}

fn check_rules(rules: &[Rule], parameters: &[ParameterInfo], entries: &[PlanEntry]) -> Result<(), LayerwiseError> {
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.required) {
        if entries.iter().any(|entry| entry.resolved.comes_from(index)) {
            continue;
        }
        let what = rule.name();
        return Err(match entries.iter().any(|entry| rule.matches(&entry.path, entry.role)) {
            true => LayerwiseError::Overridden { what },
            false => LayerwiseError::MatchesNothing { what, paths: some_paths(parameters) },
        });
    }
    Ok(())
}

fn some_paths(parameters: &[ParameterInfo]) -> String {
    let shown: Vec<&str> = parameters.iter().take(8).map(|parameter| parameter.path.as_str()).collect();
    let rest = parameters.len().saturating_sub(shown.len());
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}

fn describe(optimizer: &RuleOptimizer) -> (Option<f64>, String, String) {
    match optimizer {
        RuleOptimizer::Config(config) => {
            (Some(config.weight_decay()), config.scale().to_string(), config.describe().state.to_string())
        }
        RuleOptimizer::Custom(_) | RuleOptimizer::Change { .. } => (None, "its own".into(), "its own".into()),
    }
}

fn role_name(role: Option<Role>) -> &'static str {
    role.map_or("by path", |role| role.name())
}

/// `1234567` → `1,234,567`
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|chunk| std::str::from_utf8(chunk).unwrap_or_default()).collect();
    groups.join(",")
}

fn blocks_suffix(placement: Placement) -> String {
    let layout = match (placement.layout, placement.window) {
        (Layout::OutIn, true) => " [out, in, window]",
        (Layout::InOut, true) => " [in, out, window]",
        (Layout::OutIn, false) => " [out, in]",
        (Layout::InOut, false) => "",
    };
    match placement.blocks {
        Some(Blocks { axis: Axis::Output, count }) => format!("{layout}, {count} output blocks"),
        Some(Blocks { axis: Axis::Input, count }) => format!("{layout}, {count} input blocks"),
        None => layout.to_string(),
    }
}

/// Entries that share role, rule and placement, as one line of the table.
struct Line<'a> {
    first: &'a PlanEntry,
    tensors: usize,
    parameters: usize,
}

impl Plan {
    fn lines(&self) -> Vec<Line<'_>> {
        let mut lines: Vec<Line<'_>> = Vec::new();
        for entry in &self.entries {
            let same = |line: &&mut Line<'_>| {
                let first = line.first;
                first.line() == entry.line()
            };
            match lines.iter_mut().find(same) {
                Some(line) => {
                    line.tensors += 1;
                    line.parameters += entry.count();
                }
                None => lines.push(Line { first: entry, tensors: 1, parameters: entry.count() }),
            }
        }
        lines.sort_by_key(|line| (line.first.role.is_none(), line.first.role, line.first.resolved.rule()));
        lines
    }

    fn cells(&self, line: &Line<'_>) -> [String; 9] {
        let entry = line.first;
        let share = 100.0 * line.parameters as f64 / self.parameters() as f64;
        [
            role_name(entry.role).to_string(),
            format!("{}{}", entry.optimizer, blocks_suffix(entry.placement)),
            thousands(line.tensors),
            thousands(line.parameters),
            format!("{share:.1} %"),
            format!("{}", entry.lr),
            entry.weight_decay.map_or("its own".into(), |decay| format!("{decay}")),
            entry.scale.clone(),
            entry.state.clone(),
        ]
    }
}

const HEADER: [&str; 9] = ["role", "optimizer", "tensors", "params", "share", "lr", "wd", "scale", "state"];

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEADER.map(String::from)];
        rows.extend(self.lines().iter().map(|line| self.cells(line)));
        let widths: Vec<usize> = (0..HEADER.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in &rows {
            let mut text = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let number = (2..=4).contains(&column);
                let padded = if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                text.push_str(&padded);
                text.push_str("  ");
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        let total = self.entries.len();
        write!(f, "covered {total} of {total} tensors, each once; {} parameters", thousands(self.parameters()))
    }
}
