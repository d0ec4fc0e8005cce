//! Which schedule and which momentum every parameter of a plan follows.

use super::{LayerwiseError, PlanEntry, Role, ScheduleRule};
use crate::rule::{Momentum, MomentumForm};
use crate::schedule::MomentumSchedule;

/// Gives every entry its schedule and its momentum.
///
/// # Errors
/// If a schedule wins for no parameter, or the momentum schedule is for none, or for one whose debiasing needs a constant
/// momentum.
pub(crate) fn assign(
    entries: &mut [PlanEntry],
    rules: &[ScheduleRule],
    momentum: Option<MomentumSchedule>,
) -> Result<(), LayerwiseError> {
    let mut wins = vec![false; rules.len()];
    for entry in entries.iter_mut().filter(|entry| !entry.is_frozen()) {
        if let Some(index) = rules.iter().rposition(|rule| is_for(rule, entry)) {
            wins[index] = true;
            entry.schedule = Some(rules[index].schedule());
        }
    }
    if let Some(index) = wins.iter().position(|won| !won) {
        let what = rules[index].title();
        let there = entries.iter().map(|entry| (entry.path.as_str(), entry.role, entry.optimizer.kind()));
        return Err(match entries.iter().any(|entry| is_for(&rules[index], entry)) {
            true => LayerwiseError::Overridden { what },
            false => LayerwiseError::ScheduleMatchesNothing { what, near: rules[index].instead(there) },
        });
    }
    let Some(momentum) = momentum else { return Ok(()) };
    let mut found = false;
    for entry in entries.iter_mut() {
        let Some(own) = scheduled_momentum(entry) else { continue };
        if own.form == MomentumForm::EmaDebiased {
            let (path, optimizer) = (entry.path.clone(), entry.label());
            return Err(LayerwiseError::DebiasedMomentum { path, optimizer });
        }
        entry.momentum = Some(momentum);
        found = true;
    }
    if found { Ok(()) } else { Err(LayerwiseError::NoMomentum) }
}

fn is_for(rule: &ScheduleRule, entry: &PlanEntry) -> bool {
    rule.matches(&entry.path, entry.role, entry.optimizer.kind())
}

/// The momentum that a momentum schedule changes: that of a matrix rule, for a matrix of the blocks.
fn scheduled_momentum(entry: &PlanEntry) -> Option<Momentum> {
    let inside = entry.role.is_none_or(|role| Role::MATRICES.contains(&role));
    let pipeline = entry.optimizer.pipeline().filter(|pipeline| inside && pipeline.is_matrix_rule())?;
    pipeline.momentum()
}
