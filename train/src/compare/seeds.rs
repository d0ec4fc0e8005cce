//! Seeds that are added to a comparison that has begun. Everything else in its plan stays.

use std::path::Path;

use super::plan::{Plan, differences, edits};
use crate::error::{CompareError, Error};

/// The plan `now` in the folder at `path`, whose plan is `there`: the same one, perhaps with more seeds, which it then notes.
///
/// # Errors
///
/// [`CompareError::OtherPlan`] with the differences, [`CompareError::FewerSeeds`].
pub fn joined(there: &Plan, now: &Plan, path: &Path) -> Result<Plan, Error> {
    let (before, asked) = (there.settings.seeds, now.settings.seeds);
    if !differences(&there.to_table()?, &with_seeds_of(now, there).to_table()?).is_empty() {
        let differences = differences(&there.to_table()?, &now.to_table()?);
        return Err(CompareError::OtherPlan { path: path.into(), differences }.into());
    }
    if asked < before {
        return Err(CompareError::FewerSeeds { path: path.into(), there: before, now: asked }.into());
    }
    let mut joined = now.clone();
    joined.settings.seeds_before = there.settings.seeds_before.clone();
    if asked > before {
        joined.settings.seeds_before.push(before);
    }
    Ok(joined)
}

/// What was edited in the plan `now` since its copy `before` was written. Seeds that were added and noted are no edit: the process
/// that added them may have been killed between the two files.
///
/// # Errors
///
/// A plan that cannot be written as a table.
pub fn edited(before: &Plan, now: &Plan) -> Result<Vec<String>, Error> {
    let earlier = &before.settings.seeds_before;
    let noted = [earlier.as_slice(), &[before.settings.seeds]].concat();
    let added = now.settings.seeds_before.starts_with(&noted) && now.settings.seeds > before.settings.seeds;
    let now = if added { with_seeds_of(now, before) } else { now.clone() };
    Ok(edits(&before.to_table()?, &now.to_table()?))
}

fn with_seeds_of(plan: &Plan, other: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.settings.seeds = other.settings.seeds;
    plan.settings.seeds_before = other.settings.seeds_before.clone();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tuning::tests::plan;

    fn seeds(seeds: u64, before: &[u64]) -> Plan {
        plan(&format!("optimizers = ['adamw', 'muon']\n[compare]\nseeds = {seeds}\nseeds_before = {before:?}"))
    }

    #[test]
    fn seeds_can_be_added_again_and_again_and_every_number_is_kept() {
        let path = Path::new("c");
        let second = joined(&seeds(3, &[]), &seeds(8, &[]), path).unwrap();
        assert_eq!(second, seeds(8, &[3]));
        let third = joined(&second, &seeds(14, &[]), path).unwrap();
        assert_eq!(third, seeds(14, &[3, 8]));
        assert_eq!(joined(&third, &seeds(14, &[]), path).unwrap(), third);
        let said = joined(&third, &seeds(3, &[]), path).unwrap_err().to_string();
        assert!(said.contains("`c`") && said.contains("14 seeds, and 3 are asked for"), "{said}");
        let mut other = seeds(20, &[]);
        other.settings.steps = 7;
        let said = joined(&third, &other, path).unwrap_err().to_string();
        assert!(said.contains("`compare.steps` is 400 there and 7 now"), "{said}");
    }

    #[test]
    fn a_plan_reads_back_with_the_numbers_of_seeds_before() {
        let noted = seeds(14, &[3, 8]);
        let request = crate::children::Request {
            file: Some(("plan.toml".into(), noted.to_table().unwrap())),
            ..Default::default()
        };
        assert_eq!(Plan::resolve(&request).unwrap(), noted);
        assert!(!toml::to_string(&seeds(3, &[]).to_table().unwrap()).unwrap().contains("seeds_before"));
    }

    #[test]
    fn added_seeds_that_are_not_noted_are_an_edit_and_so_is_a_note_that_is_removed() {
        let changed = |before: &Plan, now: &Plan| edited(before, now).unwrap();
        assert!(changed(&seeds(3, &[]), &seeds(14, &[3])).is_empty());
        assert!(changed(&seeds(3, &[]), &seeds(20, &[3, 14])).is_empty());
        assert_eq!(changed(&seeds(3, &[]), &seeds(14, &[])), ["`compare.seeds` was 3 and is 14 now"]);
        assert_eq!(changed(&seeds(14, &[3]), &seeds(14, &[])), ["`compare.seeds_before` was [3] and is absent now"]);
        assert!(!changed(&seeds(14, &[3]), &seeds(3, &[])).is_empty());
    }
}
