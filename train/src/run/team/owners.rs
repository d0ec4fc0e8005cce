//! Which process updates which parameter.

use polaron::layerwise::{Plan, PlanEntry};

/// Operations of an update for every weight, besides those of matrix products.
const PER_WEIGHT: f64 = 12.0;

/// The rank that updates each parameter of a plan; None for frozen ones. The most expensive is given first, to the rank that has
/// the least work, and of equal ones the first by its path: every process finds the same.
pub fn owners(plan: &Plan, ranks: usize) -> Vec<Option<usize>> {
    let entries = plan.entries();
    let mut trained: Vec<usize> = (0..entries.len()).filter(|at| !entries[*at].is_frozen()).collect();
    let cost = |at: &usize| cost(&entries[*at]);
    trained.sort_by(|a, b| cost(b).total_cmp(&cost(a)).then_with(|| entries[*a].path.cmp(&entries[*b].path)));
    let mut owners = vec![None; entries.len()];
    let mut loads: Vec<f64> = vec![0.0; ranks];
    for at in trained {
        // The first of equal ones.
        let Some(least) = (0..ranks).min_by(|a, b| loads[*a].total_cmp(&loads[*b])) else { break };
        loads[least] += cost(&at);
        owners[at] = Some(least);
    }
    owners
}

fn cost(entry: &PlanEntry) -> f64 {
    entry.product_operations() + PER_WEIGHT * entry.count() as f64
}
