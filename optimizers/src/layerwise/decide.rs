//! Deciding a plan: role, rule and placement of every parameter, checked for coverage.

use super::project::Directions;
use super::resolve::{Resolved, resolve};
use super::rule::{BlockChoice, Rate, Rule, Select};
use super::{LayerwiseError, ParameterInfo, Pattern, Plan, PlanEntry, Role, RoleHint, ScheduleRule, scheduled};
use crate::matrix::{Axis, Layout, Placement};
use crate::rule::Projection;
use crate::rules::OptimizerConfig;
use crate::schedule::MomentumSchedule;

/// Everything that decides a plan.
pub(crate) struct Decision<'a> {
    pub rules: &'a [Rule],
    pub hints: &'a [RoleHint],
    pub assignments: &'a [RoleHint],
    pub lr: f64,
    /// Factors of the learning rate of AdamW, by role.
    pub adamw_factors: &'a [(Role, f64)],
    /// Width over base width, if learning rates follow it.
    pub width: Option<f64>,
    /// Schedules for part of the parameters.
    pub schedules: &'a [ScheduleRule],
    /// The momentum over the steps.
    pub momentum: Option<MomentumSchedule>,
    /// What rules with `project` leave as it is.
    pub directions: &'a Directions,
}

impl Decision<'_> {
    /// The factor of the width rules for the learning rate of a parameter.
    fn width_factor(
        &self,
        parameter: &ParameterInfo,
        role: Option<Role>,
        rule: &Resolved,
        placement: Placement,
    ) -> Result<f64, LayerwiseError> {
        let Some(width) = self.width.filter(|_| !rule.optimizer.is_frozen()) else { return Ok(1.0) };
        let reason = match (rule.optimizer.config(), role) {
            (None, _) => "its width rule is not known, as it is not an optimizer of this program",
            (_, None) => "the width rule depends on the role, and the parameter has none: assign one",
            (Some(config), Some(_)) if placement.blocks.is_some() && config.is_matrix_rule() => {
                "it works on blocks, such as heads, whose number may or may not grow with the width: choose a rule without blocks"
            }
            (Some(config), Some(role)) => match config.width_exponent(role, placement.features(&parameter.shape)) {
                Ok(exponent) if exponent.fract() == 0.0 => return Ok(width.powi(-exponent as i32)),
                Ok(exponent) => return Ok(width.powf(-exponent)),
                Err(reason) => reason,
            },
        };
        let (path, optimizer) = (parameter.path.clone(), rule.optimizer.label());
        Err(LayerwiseError::Width { path, optimizer, reason: reason.to_string() })
    }

    /// Learning rate of a parameter of this role under this rule, for a matrix of `[outputs, inputs]`.
    fn lr_of(&self, rule: &Resolved, role: Option<Role>, [outputs, inputs]: [usize; 2]) -> f64 {
        if rule.optimizer.is_frozen() {
            return 0.0;
        }
        let lr = match rule.rate {
            None => self.lr,
            Some(Rate::Lr(lr)) => lr,
            Some(Rate::UnitRms(rms)) => {
                let along_outputs =
                    matches!(rule.optimizer.config(), Some(OptimizerConfig::RowNorm(rule)) if rule.axis == Axis::Input);
                let entries = if along_outputs { outputs } else { inputs };
                rms * (entries as f64 / self.width.unwrap_or(1.0)).sqrt()
            }
        };
        let elementwise = matches!(rule.optimizer.config(), Some(OptimizerConfig::AdamW(_)));
        let factor = self.adamw_factors.iter().find(|(known, _)| elementwise && role == Some(*known));
        factor.map_or(lr, |(_, factor)| lr * factor)
    }
}

/// The plan of these parameters.
///
/// # Errors
/// If a parameter has no role, two roles or no rule, a rule or an assignment matches nothing or is overridden
/// everywhere, or a rule does not fit a parameter.
pub(crate) fn decide(parameters: &[ParameterInfo], decision: &Decision<'_>) -> Result<Plan, LayerwiseError> {
    if parameters.is_empty() {
        return Err(LayerwiseError::NoParameters);
    }
    let hints = compile(decision.hints)?;
    let assignments = compile(decision.assignments)?;
    check_assignments(&assignments, parameters)?;
    let projects = decision.rules.iter().filter_map(|rule| rule.project.as_ref());
    decision.directions.check(parameters, projects)?;
    let mut entries = parameters
        .iter()
        .map(|parameter| decide_one(parameter, decision, &hints, &assignments))
        .collect::<Result<Vec<_>, _>>()?;
    check_rules(decision.rules, parameters, &entries)?;
    if entries.iter().all(PlanEntry::is_frozen) {
        return Err(LayerwiseError::AllFrozen);
    }
    scheduled::assign(&mut entries, decision.schedules, decision.momentum)?;
    Ok(Plan::new(entries, decision.schedules.to_vec()))
}

type Compiled<'a> = Vec<(Pattern, &'a RoleHint)>;

fn compile(hints: &[RoleHint]) -> Result<Compiled<'_>, LayerwiseError> {
    hints.iter().map(|hint| Ok((Pattern::new(hint.pattern.as_str())?, hint))).collect()
}

/// The hint that matches a parameter; two with different roles are an error.
///
/// A hint with the role of a matrix does not apply to vectors: the bias of the head, or of a convolution, is still a bias.
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
    let blocks = rule.blocks.map_or(Ok(None), |choice| choice.blocks(role, stated)).map_err(|error| {
        let (path, optimizer, message) = (path.clone(), rule.optimizer.label(), error.to_string());
        LayerwiseError::DoesNotFit { path, role: role.map_or("by path", |role| role.name()), optimizer, message }
    })?;
    let placement = Placement { layout: rule.layout.unwrap_or(stored.layout), blocks, ..stored };
    let projection = projection_of(parameter, &rule, decision.directions)?;
    check_fit(parameter, role, &rule, placement, projection.as_ref())?;
    let width_factor = decision.width_factor(parameter, role, &rule, placement)?;
    Ok(PlanEntry {
        path: path.clone(),
        shape: parameter.shape.clone(),
        role,
        heads,
        placement,
        lr: decision.lr_of(&rule, role, placement.features(&parameter.shape)) * width_factor,
        schedule: None,
        momentum: None,
        projection,
        rules: rule.rules(),
        optimizer: rule.optimizer,
    })
}

/// How a parameter is stored, according to a hint or its owner. More than two dimensions are a convolution's window for
/// every role except those of a stack of experts.
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

/// What the rule of a parameter leaves as it is.
fn projection_of(
    parameter: &ParameterInfo,
    rule: &Resolved,
    directions: &Directions,
) -> Result<Option<Projection>, LayerwiseError> {
    let Some(project) = &rule.project else { return Ok(None) };
    let path = &parameter.path;
    let refused = |message: &str| LayerwiseError::Project { path: path.clone(), message: message.into() };
    if parameter.shape.len() < 2 {
        return Err(refused("it is a vector, without directions to keep: give the rule a match that leaves it out"));
    }
    let projection = directions.of(project, path)?;
    match rule.optimizer.config() {
        Some(_) => Ok(Some(projection)),
        // It knows layout and blocks itself.
        None => match rule.optimizer.pipeline().map(|pipeline| pipeline.with_projection(projection.clone())) {
            Some(pipeline) => {
                pipeline.check(&parameter.shape).map_err(|error| refused(&error.to_string()))?;
                Ok(Some(projection))
            }
            None => Err(refused("its optimizer is none of this crate, which alone can keep directions: choose a kind")),
        },
    }
}

fn check_fit(
    parameter: &ParameterInfo,
    role: Option<Role>,
    rule: &Resolved,
    placement: Placement,
    projection: Option<&Projection>,
) -> Result<(), LayerwiseError> {
    let Some(config) = rule.optimizer.config() else { return Ok(()) };
    let fail = |message: String| LayerwiseError::DoesNotFit {
        path: parameter.path.clone(),
        role: role.map_or("by path", |role| role.name()),
        optimizer: config.label(),
        message,
    };
    config.validate().map_err(|error| fail(error.to_string()))?;
    let pipeline = config.pipeline().with_placement(placement).with_projection(projection.cloned());
    pipeline.check(&parameter.shape).map_err(|error| fail(error.to_string()))
}

fn check_assignments(assignments: &Compiled<'_>, parameters: &[ParameterInfo]) -> Result<(), LayerwiseError> {
    for (pattern, hint) in assignments {
        if !parameters.iter().any(|parameter| pattern.matches(&parameter.path)) {
            let what = format!("assign(\"{pattern}\", {})", hint.role);
            let near = pattern.nearest(parameters.iter().map(|parameter| parameter.path.as_str()));
            let paths = format!("{}{near}", some_paths(parameters));
            return Err(LayerwiseError::MatchesNothing { what, paths });
        }
    }
    Ok(())
}

fn check_rules(rules: &[Rule], parameters: &[ParameterInfo], entries: &[PlanEntry]) -> Result<(), LayerwiseError> {
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.required) {
        let mut own = entries.iter().filter(|entry| entry.rules.contains(&index)).peekable();
        if own.peek().is_some() {
            if rule.blocks == Some(BlockChoice::Parts) && own.all(|entry| entry.placement.blocks.is_none()) {
                return Err(LayerwiseError::NoParts { what: rule.name() });
            }
            continue;
        }
        let what = rule.name();
        return Err(match entries.iter().any(|entry| rule.matches(&entry.path, entry.role)) {
            true => LayerwiseError::Overridden { what },
            false => {
                let paths = parameters.iter().map(|parameter| parameter.path.as_str());
                let near =
                    if let Select::Path(pattern) = &rule.select { pattern.nearest(paths) } else { String::new() };
                LayerwiseError::MatchesNothing { what, paths: format!("{}{near}", some_paths(parameters)) }
            }
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
