//! What is added to a comparison that has begun: seeds, optimizers, learning rates. Everything else in its plan stays, and the plan
//! notes what there was before.

use std::path::Path;

use super::plan::{Contender, Plan, differences, edits};
use crate::error::{CompareError, Error};

/// The plan `now` in the folder at `path`, whose plan is `there`: the same one, perhaps with more, which it then notes.
///
/// # Errors
///
/// [`CompareError::OtherPlan`] with the differences, [`CompareError::FewerSeeds`].
pub fn joined(there: &Plan, now: &Plan, path: &Path) -> Result<Plan, Error> {
    let differences = differences(&there.to_table()?, &without_more(now, there).to_table()?);
    if !differences.is_empty() {
        return Err(CompareError::OtherPlan { path: path.into(), differences }.into());
    }
    let (before, asked) = (there.settings.seeds, now.settings.seeds);
    if asked < before {
        return Err(CompareError::FewerSeeds { path: path.into(), there: before, now: asked }.into());
    }
    let mut joined = now.clone();
    joined.settings.seeds_before = noted(&there.settings.seeds_before, before, asked > before);
    let optimizers = there.contenders.len();
    let more = now.contenders.len() > optimizers;
    joined.settings.optimizers_before = noted(&there.settings.optimizers_before, optimizers as u64, more);
    // Those that were there keep their places.
    let place = |contender: &Contender| position(there, contender).unwrap_or(optimizers);
    joined.contenders.sort_by_key(place);
    for (contender, before) in joined.contenders.iter_mut().zip(&there.contenders) {
        contender.lrs_before = noted(&before.lrs_before, before.lrs.clone(), contender.lrs.len() > before.lrs.len());
    }
    Ok(joined)
}

/// What was edited in the plan `now` since its copy `before` was written. What was added and noted is no edit: the process that
/// added it may have been killed between the two files.
///
/// # Errors
///
/// A plan that cannot be written as a table.
pub fn edited(before: &Plan, now: &Plan) -> Result<Vec<String>, Error> {
    let mut now = now.clone();
    let (was, is) = (&before.settings, &mut now.settings);
    if continues(&is.seeds_before, &was.seeds_before, &was.seeds) && is.seeds > was.seeds {
        (is.seeds, is.seeds_before) = (was.seeds, was.seeds_before.clone());
    }
    let optimizers = before.contenders.len();
    if continues(&is.optimizers_before, &was.optimizers_before, &(optimizers as u64)) {
        is.optimizers_before = was.optimizers_before.clone();
        now.contenders.truncate(optimizers);
    }
    for (contender, before) in now.contenders.iter_mut().zip(&before.contenders) {
        if continues(&contender.lrs_before, &before.lrs_before, &before.lrs) && has_all(contender, before) {
            (contender.lrs, contender.lrs_before) = (before.lrs.clone(), before.lrs_before.clone());
        }
    }
    Ok(edits(&before.to_table()?, &now.to_table()?))
}

/// A plan without what it has more than another.
fn without_more(plan: &Plan, there: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.settings.seeds = there.settings.seeds;
    plan.contenders.retain(|contender| position(there, contender).is_some());
    for contender in &mut plan.contenders {
        let before = position(there, contender).map(|place| &there.contenders[place]);
        if let Some(before) = before.filter(|before| has_all(contender, before)) {
            contender.lrs = before.lrs.clone();
        }
    }
    plan
}

fn position(plan: &Plan, contender: &Contender) -> Option<usize> {
    plan.contenders.iter().position(|other| other.name == contender.name)
}

fn has_all(contender: &Contender, before: &Contender) -> bool {
    before.lrs.iter().all(|lr| contender.lrs.contains(lr))
}

/// A note of what there was before, with one entry more if something was added.
fn noted<T: Clone>(notes: &[T], before: T, added: bool) -> Vec<T> {
    let mut notes = notes.to_vec();
    if added {
        notes.push(before);
    }
    notes
}

/// Whether notes continue those of before, of which the next is `next`.
fn continues<T: PartialEq>(notes: &[T], before: &[T], next: &T) -> bool {
    notes.starts_with(before) && notes.get(before.len()) == Some(next)
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

    fn optimizers(list: &str) -> Plan {
        plan(&format!("optimizers = [{list}]"))
    }

    #[test]
    fn optimizers_and_rates_can_be_added_and_keep_their_order_and_what_was_before() {
        let path = Path::new("c");
        let first = optimizers("{ name = 'muon', lrs = [0.01, 0.1] }, { name = 'adamw', lrs = [0.001, 0.01] }");
        let more = "{ name = 'sgd', lrs = [0.1, 0.2] }, { name = 'adamw', lrs = [0.001, 0.01] }, { name = 'muon', lrs = [0.01, 0.1] }";
        let second = joined(&first, &optimizers(more), path).unwrap();
        let names = |plan: &Plan| plan.contenders.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&second), &second.settings.optimizers_before),
            (vec!["muon".into(), "adamw".into(), "sgd".into()], &vec![2])
        );
        let rates = "{ name = 'muon', lrs = [0.01, 0.03, 0.1] }, { name = 'adamw', lrs = [0.001, 0.01, 0.1] }, \
                     { name = 'sgd', lrs = [0.1, 0.2, 0.4] }";
        let third = joined(&second, &optimizers(rates), path).unwrap();
        assert_eq!(third.contenders[0].lrs_before, [[0.01, 0.1]]);
        assert_eq!(joined(&third, &optimizers(rates), path).unwrap(), third);
        assert!(edited(&first, &second).unwrap().is_empty() && edited(&second, &third).unwrap().is_empty());
        assert!(edited(&first, &third).unwrap().is_empty());
        assert!(!edited(&third, &second).unwrap().is_empty());
        let said = joined(&third, &second, path).unwrap_err().to_string();
        assert!(said.contains("`optimizers.muon.lrs` is [0.01, 0.03, 0.1] there and [0.01, 0.1] now"), "{said}");
        let said = joined(&second, &first, path).unwrap_err().to_string();
        assert!(said.contains("optimizers.sgd"), "{said}");
        // Rates that are not noted are an edit.
        let mut secretly = third.clone();
        secretly.contenders[0].lrs_before.clear();
        assert!(!edited(&second, &secretly).unwrap().is_empty());
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
