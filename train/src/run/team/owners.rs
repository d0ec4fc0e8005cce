//! Which process updates which parameter.

use polaron::layerwise::{Plan, PlanEntry};
use polaron_common::{Align, table as aligned, thousands};

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

/// What each rank has to do, and which parameters it updates.
pub fn table(plan: &Plan, owners: &[Option<usize>], ranks: usize) -> String {
    let owned = |rank: usize| {
        let entries = plan.entries().iter().zip(owners);
        entries.filter(move |(_, owner)| **owner == Some(rank)).map(|(entry, _)| entry)
    };
    let work = |rank: usize| owned(rank).map(cost).sum::<f64>();
    let all = (0..ranks).map(work).sum::<f64>().max(f64::MIN_POSITIVE);
    let row = |rank: usize| {
        let sum = |of: fn(&PlanEntry) -> usize| owned(rank).map(of).sum::<usize>();
        let states = sum(|entry| entry.state().unwrap_or_default());
        vec![
            rank.to_string(),
            owned(rank).count().to_string(),
            thousands(sum(PlanEntry::count) as u64),
            format!("{:.1} %", 100.0 * work(rank) / all),
            thousands(states as u64),
        ]
    };
    let header = ["rank", "tensors", "params", "work of an update", "numbers in states"].map(String::from).to_vec();
    let summary = std::iter::once(header).chain((0..ranks).map(row)).collect::<Vec<_>>();
    let header = ["rank", "parameter"].map(String::from).to_vec();
    let row = |(entry, owner): (&PlanEntry, &Option<usize>)| {
        vec![owner.map_or_else(|| "none".into(), |rank| rank.to_string()), entry.path.clone()]
    };
    let all = std::iter::once(header).chain(plan.entries().iter().zip(owners).map(row)).collect::<Vec<_>>();
    let summary = aligned(summary, &[Align::Right; 5]);
    format!("{summary}\n{}", aligned(all, &[Align::Right, Align::Left]))
}

fn cost(entry: &PlanEntry) -> f64 {
    entry.product_operations() + PER_WEIGHT * entry.count() as f64
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use polaron::{Layerwise, Roles};
    use polaron_models::ModelConfig;

    use super::*;

    fn plan() -> Plan {
        let model = ModelConfig::preset("llama-d64").unwrap().init(65, 1, &Device::flex()).unwrap();
        Layerwise::muon().hints(model.roles()).freeze("embed*").build(&model).unwrap().plan().clone()
    }

    #[test]
    fn every_trained_parameter_has_one_owner_and_the_work_is_even() {
        let plan = plan();
        for ranks in 1..=6 {
            let owners = owners(&plan, ranks);
            let mut loads = vec![0.0; ranks];
            for (entry, owner) in plan.entries().iter().zip(&owners) {
                assert_eq!(owner.is_none(), entry.is_frozen(), "{}", entry.path);
                owner.iter().for_each(|owner| loads[*owner] += cost(entry));
            }
            let [least, most] = [f64::min, f64::max].map(|pick| loads.iter().copied().reduce(pick).unwrap());
            // No rank has more than the others by more than one of the largest.
            let largest = plan.entries().iter().map(cost).fold(0.0, f64::max);
            assert!(most - least <= largest, "{loads:?}");
        }
    }

    #[test]
    fn ranks_without_a_parameter_have_none() {
        let plan = plan();
        let trained = plan.entries().iter().filter(|entry| !entry.is_frozen()).count();
        let owners = owners(&plan, trained + 3);
        let mut ranks: Vec<usize> = owners.iter().flatten().copied().collect();
        ranks.sort_unstable();
        assert_eq!(ranks, (0..trained).collect::<Vec<_>>());
    }

    #[test]
    fn the_table_adds_up() {
        let plan = plan();
        let text = table(&plan, &owners(&plan, 2), 2);
        assert_eq!(text.lines().filter(|line| line.contains(" %")).count(), 2, "{text}");
        assert!(text.contains("none  embed.weight"), "{text}");
    }
}
