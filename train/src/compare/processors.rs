//! Whether the times of a comparison can be compared: the runs of a pair must have been made on the same processor.

use super::results::{Pair, Results, Standing, VerdictRun};

/// Whether times on these processors can be compared. Where one of them is not known, they are taken as alike.
pub fn alike(a: &[String], b: &[String]) -> bool {
    a.is_empty() || b.is_empty() || (a.len() == 1 && a == b)
}

/// The name of a column of times.
pub fn time_column(results: &Results, name: &str) -> String {
    if results.times_comparable() { name.into() } else { format!("{name} (not comparable)") }
}

/// What to know about times.
pub fn notes(results: &Results) -> Vec<String> {
    let mut notes: Vec<String> = results.pairs.iter().filter_map(|pair| note_on(pair, &results.optimizers)).collect();
    let runs = || results.optimizers.iter().flat_map(|standing| &standing.runs);
    let unknown = runs().filter(|run| run.cpus.is_empty()).count();
    if unknown > 0 && unknown < runs().count() {
        notes.push(format!(
            "The processor of {unknown} of {} verdict runs is not known, since an earlier version made them; their seconds are taken \
             as comparable.",
            runs().count()
        ));
    }
    notes
}

fn note_on(pair: &Pair, optimizers: &[Standing]) -> Option<String> {
    if pair.times_comparable {
        return None;
    }
    let of = |name: &str| optimizers.iter().find(|standing| standing.name == name);
    let (a, b) = (of(&pair.a)?, of(&pair.b)?);
    let other = |run: &&VerdictRun| b.runs.iter().find(|other| other.seed == run.seed);
    let paired: Vec<(&VerdictRun, &VerdictRun)> = a.runs.iter().filter_map(|run| Some((run, other(&run)?))).collect();
    let apart: Vec<_> = paired.iter().filter(|(a, b)| !alike(&a.cpus, &b.cpus)).collect();
    let (first, second) = apart.first()?;
    Some(format!(
        "Seconds, ms per step and optimizer share of {} and {} are not comparable: their runs were not made on one model of processor \
         on {} of {} seeds (seed {}: {}; {}).",
        pair.a,
        pair.b,
        apart.len(),
        paired.len(),
        first.seed,
        first.cpus.join(" and "),
        second.cpus.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_compare_on_one_processor_only() {
        let cpus = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert!(alike(&cpus(&["A"]), &cpus(&["A"])));
        assert!(alike(&cpus(&[]), &cpus(&["A"])) && alike(&cpus(&[]), &cpus(&[])));
        assert!(!alike(&cpus(&["A"]), &cpus(&["B"])));
        // How many of the steps each of them made is not known.
        assert!(!alike(&cpus(&["A", "B"]), &cpus(&["A", "B"])));
    }
}
