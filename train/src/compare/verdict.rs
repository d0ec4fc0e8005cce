//! The verdict in sentences.

use super::plan::{Contender, Plan, Settings};
use super::processors;
use super::results::{Pair, PairReach, Results, Standing};
use super::statistics::{ALPHA, BOOTSTRAP_FROM, Paired};
use super::subject::Subject;
use super::tuning::Edge;

/// The verdict on a pair of optimizers: one sentence.
pub fn sentence(pair: &Pair, optimizers: &[Standing], seeds: usize) -> String {
    if let Some(words) = without_a_place(pair, optimizers) {
        return words;
    }
    let diverged = diverged(pair, optimizers);
    if pair.test == "sign" && pair.p_loss.is_some() {
        return format!("{}{diverged}", by_sign(pair));
    }
    let Some(loss) = pair.loss else {
        return format!("no seed on which both {} and {} finished{diverged}", pair.a, pair.b);
    };
    let Some(p) = pair.p_loss else {
        let why =
            if loss.n < 2 && seeds < 2 { "with one seed no verdict is possible" } else { "no verdict is possible" };
        let (a, b) = (&pair.a, &pair.b);
        return format!("{why} on {a} and {b}: {a} ended {:.4} lower{}{diverged}", loss.mean, on_the_way(pair));
    };
    if pair.separated {
        let ends = format!("{} ends {:.4} below {}{}, {}", pair.a, loss.mean, pair.b, range(&loss), p_value(p));
        return format!("{ends}{}{diverged}", on_the_way(pair));
    }
    let found = if loss.mean == 0.0 && loss.sd == Some(0.0) {
        "their runs ended with the same losses".to_owned()
    } else {
        format!("{} ended {:.4} lower{}, {}", pair.a, loss.mean, range(&loss), p_value(p))
    };
    let (a, b) = (&pair.a, &pair.b);
    let detected = format!("no difference detected between {a} and {b} with {} seeds", loss.n);
    format!("{detected}: {found}{}{}{diverged}", more_seeds(pair), on_the_way(pair))
}

/// The verdict on a pair in which one optimizer, or both, never finished.
fn without_a_place(pair: &Pair, optimizers: &[Standing]) -> Option<String> {
    let of = |name: &str| optimizers.iter().find(|standing| standing.name == name);
    let (a, b) = (of(&pair.a)?, of(&pair.b)?);
    let (failed, other) = match (a.all_diverged(), b.all_diverged()) {
        (true, true) => {
            return Some(format!("every run of {} and of {} diverged: neither has a place", a.name, b.name));
        }
        (true, false) => (a, b),
        (false, true) => (b, a),
        (false, false) => return None,
    };
    let count = failed.runs.len();
    let finished = other.runs.len() - other.diverged;
    let Standing { name, .. } = failed;
    Some(format!(
        "{name} diverged in {count} of {count} runs and has no place; {} finished {finished} of {}",
        other.name,
        other.runs.len()
    ))
}

/// The verdict on a pair in which a run diverged.
fn by_sign(pair: &Pair) -> String {
    let Pair { a, b, wins: [better, worse], .. } = pair;
    let seeds = better + worse;
    let p = pair.p_loss.map(p_value).unwrap_or_default();
    let counted = "a diverged run counts as the worse one";
    let ends = if pair.separated {
        format!("{a} beats {b} on {better} of {seeds} seeds ({counted}), {p}")
    } else {
        format!(
            "no difference detected between {a} and {b}: {a} is better on {better} of {seeds} seeds ({counted}), {p}"
        )
    };
    let finished = pair.loss.map(|loss| {
        let word = if loss.mean >= 0.0 { "lower" } else { "higher" };
        format!("; on the {} seeds where both finished, {a} ended {:.4} {word}", loss.n, loss.mean.abs())
    });
    format!("{ends}{}{}", finished.unwrap_or_default(), on_the_way(pair))
}

/// How many seeds are needed.
fn more_seeds(pair: &Pair) -> String {
    let Some(loss) = pair.loss.filter(|loss| loss.sd.is_some_and(|sd| sd > 0.0)) else { return String::new() };
    let seeds = match pair.seeds_needed {
        Some(needed) if needed > loss.n => {
            format!("about {needed} seeds are needed to detect a difference of this size")
        }
        // Holm's correction, or chance: by the estimate these seeds should have been enough.
        Some(_) => format!("a few more than {} seeds are needed to detect a difference of this size", loss.n),
        None => "more than a thousand seeds are needed to detect a difference of this size".into(),
    };
    format!("; {seeds}")
}

/// Steps to the targets.
fn on_the_way(pair: &Pair) -> String {
    let told: Vec<String> = pair.targets.iter().filter_map(|reach| reach_words(pair, reach)).collect();
    told.iter().map(|words| format!("; {words}")).collect()
}

fn reach_words(pair: &Pair, reach: &PairReach) -> Option<String> {
    let steps = reach.steps?;
    let target = reach.target;
    let found = reach.p.is_some_and(|p| p < ALPHA);
    let p = reach.p.map(|p| format!(", {}", p_value(p))).unwrap_or_default();
    if !reach.complete {
        let [a, b] = reach.reached;
        return Some(format!("{target} is reached on {a} seeds by {} and on {b} by {}{p}", pair.a, pair.b));
    }
    if !found && reach.p.is_some() {
        return Some(format!("steps to {target} not separated{p}"));
    }
    let fewer = 100.0 * (1.0 - steps.mean);
    let ends = steps.interval.map(|[low, high]| [100.0 * (1.0 - high), 100.0 * (1.0 - low)]);
    let (size, word, ends) =
        if fewer >= 0.0 { (fewer, "fewer", ends) } else { (-fewer, "more", ends.map(|[low, high]| [-high, -low])) };
    let range = ends.map(|[low, high]| format!(" [{} %, {} %]", whole(low), whole(high))).unwrap_or_default();
    // The sentence of a separated pair already has its subject.
    let subject = if pair.separated { String::new() } else { format!("{} ", pair.a) };
    Some(format!("{subject}reaches {target} in {size:.0} % {word} steps{range}{p}"))
}

/// Rounds to a whole number, without a "-0".
fn whole(x: f64) -> f64 {
    x.round() + 0.0
}

fn diverged(pair: &Pair, optimizers: &[Standing]) -> String {
    let of = |name: &str| {
        let standing = optimizers.iter().find(|standing| standing.name == name)?;
        (standing.diverged > 0)
            .then(|| format!("; {name} diverged in {} of {} runs", standing.diverged, standing.runs.len()))
    };
    [&pair.a, &pair.b].into_iter().filter_map(|name| of(name)).collect()
}

/// The 95 % interval in brackets.
fn range(paired: &Paired) -> String {
    paired.interval.map(|[low, high]| format!(" [{low:.4}, {high:.4}]")).unwrap_or_default()
}

/// "p = 0.031".
pub fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => "p < 0.001".into(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

/// The optimizers from best to worst, with the places that are not separated.
pub fn ranking(results: &Results) -> String {
    let mut ranked: Vec<&Standing> = results.optimizers.iter().filter(|s| s.loss.is_some()).collect();
    ranked.sort_by(|a, b| a.order(b));
    let placed = |standing: &&Standing| {
        standing.places.map(|[best, worst]| match best == worst {
            true => format!("{best}. {}", standing.name),
            false => format!("{best}–{worst}. {}", standing.name),
        })
    };
    let last = last_words(results);
    let ranking = match ranked.iter().map(placed).collect::<Option<Vec<String>>>() {
        Some(places) if !places.is_empty() => {
            let open = ranked.iter().any(|standing| standing.places.is_some_and(|[best, worst]| best != worst));
            let note = if open { " (a range of places: the evidence does not separate them)" } else { "" };
            format!("{}{note}", places.join(", "))
        }
        _ => {
            let names: Vec<&str> = ranked.iter().map(|standing| standing.name.as_str()).collect();
            match names.is_empty() {
                true => "no optimizer finished a verdict run".into(),
                false => format!("by mean loss {}, but no place is established", names.join(", ")),
            }
        }
    };
    format!("{ranking}{last}")
}

/// The optimizers that have no place, because none of their runs finished.
fn last_words(results: &Results) -> String {
    let failed = results.optimizers.iter().filter(|standing| standing.all_diverged() || standing.untuned());
    let word = |standing: &Standing| match standing.runs.len() {
        0 => format!("{} (every tuning run diverged)", standing.name),
        runs => format!("{} (diverged in {runs} of {runs} runs)", standing.name),
    };
    let failed: Vec<String> = failed.map(word).collect();
    if failed.is_empty() { String::new() } else { format!("; without a place: {}", failed.join(", ")) }
}

/// What prevents or limits the verdict.
pub fn notes(plan: &Plan, subject: &Subject, results: &Results) -> Vec<String> {
    let settings = &plan.settings;
    let mut notes = Vec::new();
    if results.seeds.len() == 1 {
        notes.push("One verdict seed: the differences may be chance; use at least 3 seeds.".into());
    }
    notes.extend(added_seeds(results));
    notes.extend(added_optimizers(plan));
    notes.extend(added_rates(plan));
    notes.extend(processors::notes(results));
    for (standing, contender) in results.optimizers.iter().zip(&plan.contenders) {
        notes.extend(notes_on(standing, plan));
        notes.extend(outer_values(standing, contender));
    }
    for (index, target) in results.targets.iter().enumerate() {
        let reached: usize = results.optimizers.iter().map(|standing| standing.targets[index].reached).sum();
        if reached == 0 {
            let lowest = results.optimizers.iter().filter_map(|standing| standing.loss).min_by(f64::total_cmp);
            let lowest = lowest.map(|loss| format!("; the lowest mean final loss is {loss:.4}")).unwrap_or_default();
            notes.push(format!("No run reached {target} within {} steps{lowest}.", results.steps));
        }
    }
    let budgets: Vec<usize> = results.optimizers.iter().map(|standing| standing.tuning_runs).collect();
    if budgets.iter().any(|budget| *budget != budgets[0]) {
        let shown: Vec<String> = results.optimizers.iter().map(|s| format!("{} {}", s.name, s.tuning_runs)).collect();
        notes.push(format!(
            "The optimizers differ in the number of tuning runs, since grids or searches were extended, keys swept, or candidates diverged: {}.",
            shown.join(", ")
        ));
    }
    if !plan.is_entry() {
        notes.extend(about_tests(results));
    }
    notes.push(format!("Targets: {}.", results.targets_are));
    notes.extend(subject.coverage.clone());
    notes.extend(about_tuning(plan));
    notes.push(format!(
        "Seconds are training time; they depend on how many runs share a machine (in this plan {} at a time).",
        settings.jobs
    ));
    let data = if results.unit == "tokens" { "text" } else { "data" };
    notes.push(format!(
        "The verdict holds for this model, {data} and number of steps; seeds vary initial weights and batches."
    ));
    notes
}

/// What the brackets and the p-values are.
fn about_tests(results: &Results) -> Vec<String> {
    let brackets = format!(
        "Brackets show 95 % intervals of Student's t over {} paired seeds; p-values are Holm-corrected over all pairs (steps: \
         over all pairs and targets).",
        results.seeds.len()
    );
    let bootstrap =
        (results.seeds.len() >= BOOTSTRAP_FROM).then(|| "results.json also has bootstrap intervals.".into());
    [brackets].into_iter().chain(bootstrap).collect()
}

/// What was tuned, where that is not in the plan.
fn about_tuning(plan: &Plan) -> Option<String> {
    if plan.searches() {
        return Some(searched(plan));
    }
    let by_rate = !plan.is_entry() && plan.contenders.iter().all(|contender| contender.sweep.is_empty());
    by_rate.then(|| {
        "Only the learning rate of the main rule is tuned; other rates (such as optimizer.adamw.lr) and weight decay are \
         those of the recipe."
            .into()
    })
}

/// How a search was made.
fn searched(plan: &Plan) -> String {
    let Settings { trials, halvings, .. } = plan.settings;
    let rounds = plan.rounds(trials as usize);
    let rounds: Vec<String> = rounds.iter().map(|[runs, steps]| format!("{runs} for {steps} steps")).collect();
    let how = if halvings == 0 { "" } else { ", each time the better half" };
    format!(
        "Every optimizer was tuned with {trials} candidates, drawn evenly from the ranges in plan.toml: {}{how}.",
        rounds.join(", then ")
    )
}

/// Values of other keys than the learning rate that a search found near an end of their range.
fn outer_values(standing: &Standing, contender: &Contender) -> Vec<String> {
    let swept = standing.chosen.iter().flat_map(|chosen| &chosen.swept);
    let outer = swept.filter_map(|(key, value)| {
        let (_, range) = contender.search.iter().find(|(searched, _)| searched == key)?;
        let value = value.as_float().filter(|value| range.is_outer(*value))?;
        Some(format!("{}: its best {key}, {value}, is near an end of its range, {range}.", standing.name))
    });
    outer.collect()
}

/// What added seeds mean for the verdict.
fn added_seeds(results: &Results) -> Option<String> {
    let before: Vec<String> = results.seeds_before.iter().map(u64::to_string).collect();
    (!before.is_empty()).then(|| {
        format!(
            "Seeds were added after the comparison began: {}, then {}. If the results of fewer seeds decided that, the p-values are too \
             small: see \"More of it later\" in docs/COMPARING.md.",
            before.join(", then "),
            results.seeds.len()
        )
    })
}

/// What added optimizers mean for the verdict.
fn added_optimizers(plan: &Plan) -> Option<String> {
    let first = usize::try_from(*plan.settings.optimizers_before.first()?).ok()?;
    let names: Vec<&str> = plan.contenders.iter().skip(first).map(|contender| contender.name.as_str()).collect();
    Some(format!(
        "Optimizers were added after the comparison began: {}. The p-values are corrected for all pairs that there are now, not for those \
         that might still be added: see \"More of it later\" in docs/COMPARING.md.",
        names.join(", ")
    ))
}

/// What added rates mean for the verdict.
fn added_rates(plan: &Plan) -> Option<String> {
    let added = plan.contenders.iter().filter_map(|contender| {
        let first = contender.lrs_before.first()?;
        let more: Vec<String> =
            contender.lrs.iter().filter(|lr| !first.contains(lr)).map(|lr| lr.to_string()).collect();
        Some(format!("{} {}", contender.name, more.join(" and ")))
    });
    let added: Vec<String> = added.collect();
    (!added.is_empty()).then(|| {
        format!(
            "Learning rates were added after the comparison began: {}. If the verdict so far decided that, the tuning was not blind to it: see \
             \"More of it later\" in docs/COMPARING.md.",
            added.join(", ")
        )
    })
}

fn notes_on(standing: &Standing, plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &standing.name;
    if standing.untuned() {
        notes.push(format!(
            "{name}: every tuning run diverged, so it is not in the verdict; try smaller learning rates."
        ));
    }
    if let (Some(edge), Some(chosen)) = (standing.tuning.edge, &standing.chosen) {
        let end = if edge == Edge::Low { "smallest" } else { "largest" };
        notes.push(format!(
            "{name}: its best learning rate, {}, is still the {end} one tried after {} of {} extensions; it may do better \
             than shown.",
            chosen.lr, standing.tuning.extensions, plan.settings.extensions
        ));
    }
    if standing.tuning.trials.len() == 1 && !plan.is_entry() {
        notes.push(format!("{name}: not tuned, since the plan has a single candidate."));
    }
    if standing.diverged > 0 {
        notes.push(format!("{name}: {} of {} verdict runs diverged.", standing.diverged, standing.runs.len()));
    }
    notes
}
