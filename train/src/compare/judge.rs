//! From the runs of a comparison to its results.
//!
//! The rules, fixed before any run: `docs/COMPARING.md`.

use std::collections::HashMap;

use super::outcome::{Outcome, first_reach};
use super::pairing::{self, First};
use super::plan::Plan;
use super::processors;
use super::results::{FORMAT, Pair, PairReach, Reach, Results, Standing, VerdictRun};
use super::statistics::{self, ALPHA, detectable, half_width, mean, paired, pairs_needed, sign_test};
use super::subject::Subject;
use super::tuning::{Run, Stage, Tuning, stage, verdict_runs};
use super::verdict;

/// The bytes of optimizer state per parameter, by the name of a run; they are not in its metrics.
pub type StateBytes<'a> = &'a dyn Fn(&str) -> Option<f64>;

/// The results of a plan, from the runs that have ended so far.
pub fn results(
    plan: &Plan,
    subject: &Subject,
    ended: &HashMap<String, Outcome>,
    state_bytes: StateBytes<'_>,
) -> Results {
    let tunings: Vec<Option<Tuning>> = (0..plan.contenders.len())
        .map(|index| match stage(plan, index, |name| ended.get(name)) {
            Stage::Verdict(tuning, _) => Some(tuning),
            Stage::Tuning(_) => None,
        })
        .collect();
    let entries: Vec<Entry<'_>> = tunings
        .into_iter()
        .enumerate()
        .map(|(index, tuning)| Entry::of(plan, index, tuning.unwrap_or_default(), ended))
        .collect();
    let (targets, targets_are) = targets(plan, &entries);
    let mut pairs = pairs(plan, &entries, &targets);
    correct(&mut pairs);
    let mut optimizers: Vec<Standing> = entries.iter().map(|entry| entry.standing(&targets, state_bytes)).collect();
    place(&mut optimizers, &pairs);
    let seeds: Vec<u64> = plan.seeds().collect();
    for pair in &mut pairs {
        pair.sentence = verdict::sentence(pair, &optimizers, seeds.len());
    }
    let mut results = Results {
        format: FORMAT,
        polaron: env!("CARGO_PKG_VERSION").into(),
        verdict: Vec::new(),
        ranking: String::new(),
        notes: Vec::new(),
        targets,
        targets_are,
        steps: plan.settings.steps,
        unit: subject.unit.clone(),
        tokens_per_step: subject.per_step,
        seeds,
        seeds_before: plan.settings.seeds_before.clone(),
        tune_seeds: plan.tune_seeds().collect(),
        optimizers,
        pairs,
    };
    results.ranking = verdict::ranking(&results);
    results.verdict = results.pairs.iter().map(|pair| pair.sentence.clone()).collect();
    if plan.is_entry() {
        results.ranking = format!("an entry of the race on {}", plan.settings.race);
        results.verdict = vec!["alone: `polaron race` judges its claim, and there is no pair to compare".into()];
    }
    results.notes = pairing::note(&entries.iter().flat_map(Entry::firsts).collect::<Vec<_>>()).into_iter().collect();
    results.notes.extend(verdict::notes(plan, subject, &results));
    results
}

/// One optimizer's runs.
struct Entry<'a> {
    name: &'a str,
    tuning: Tuning,
    /// Verdict runs that have ended.
    runs: Vec<(Run, &'a Outcome)>,
}

impl<'a> Entry<'a> {
    fn of(plan: &'a Plan, index: usize, tuning: Tuning, ended: &'a HashMap<String, Outcome>) -> Self {
        let runs = verdict_runs(plan, index, &tuning);
        let runs = runs.into_iter().filter_map(|run| ended.get(&run.name).map(|outcome| (run, outcome))).collect();
        Self { name: &plan.contenders[index].name, tuning, runs }
    }

    fn of_seed(&self, seed: u64) -> Option<&'a Outcome> {
        self.runs.iter().find(|(run, _)| run.seed == seed).map(|(_, outcome)| *outcome)
    }

    /// The first losses of its verdict runs.
    fn firsts(&self) -> impl Iterator<Item = First<'_>> {
        let first = |(run, outcome): &(Run, &Outcome)| {
            let point = outcome.train.first().filter(|point| point.step == 1.0)?;
            Some(First { optimizer: self.name, seed: run.seed, loss: point.loss })
        };
        self.runs.iter().filter_map(first)
    }

    fn losses(&self) -> Vec<f64> {
        self.runs.iter().filter_map(|(_, outcome)| outcome.loss).collect()
    }

    fn standing(&self, targets: &[f64], state_bytes: StateBytes<'_>) -> Standing {
        let losses = self.losses();
        let average = |values: Vec<f64>| (!values.is_empty()).then(|| mean(&values));
        let shares = self.runs.iter().filter_map(|(_, outcome)| outcome.optimizer_share()).collect();
        let paces = self.runs.iter().filter(|(_, outcome)| outcome.end.step > 0);
        let paces = paces.map(|(_, outcome)| outcome.end.seconds / outcome.end.step as f64).collect();
        let finite = |(factor, worse): (f64, f64)| (factor, worse.is_finite().then_some(worse));
        Standing {
            name: self.name.into(),
            places: None,
            loss: average(losses.clone()),
            loss_half_width: half_width(&losses),
            targets: targets.iter().map(|target| self.reach(*target)).collect(),
            chosen: self.tuning.chosen().cloned(),
            tuning_runs: self.tuning.runs(),
            tuning_steps: self.tuning.steps(),
            sensitivity: self.tuning.sensitivity().map(|side| side.map(finite)),
            at_factors: self.tuning.at_factors(),
            optimizer_share: average(shares),
            seconds_per_step: average(paces),
            state_bytes_per_parameter: self.runs.iter().find_map(|(run, _)| state_bytes(&run.name)),
            diverged: self.runs.iter().filter(|(_, outcome)| outcome.loss.is_none()).count(),
            diverged_in_tuning: self.tuning.diverged(),
            runs: self.runs.iter().map(|(run, outcome)| verdict_run(run, outcome, targets)).collect(),
            tuning: self.tuning.clone(),
        }
    }

    fn reach(&self, target: f64) -> Reach {
        let points: Vec<_> = self.runs.iter().filter_map(|(_, outcome)| first_reach(&outcome.curve, target)).collect();
        let average = |of: fn(&super::outcome::Point) -> f64| mean(&points.iter().map(of).collect::<Vec<f64>>());
        let all = !points.is_empty() && points.len() == self.runs.len();
        Reach {
            target,
            reached: points.len(),
            of: self.runs.len(),
            mean: all.then(|| [average(|p| p.step), average(|p| p.tokens), average(|p| p.seconds)]),
        }
    }
}

fn verdict_run(run: &Run, outcome: &Outcome, targets: &[f64]) -> VerdictRun {
    let reached = |target: &f64| first_reach(&outcome.curve, *target).map(|p| [p.step, p.tokens, p.seconds]);
    VerdictRun {
        name: run.name.clone(),
        seed: run.seed,
        loss: outcome.loss,
        steps: outcome.end.step,
        tokens: outcome.end.tokens,
        seconds: outcome.end.seconds,
        optimizer_seconds: outcome.end.optimizer_seconds,
        reached: targets.iter().map(reached).collect(),
        cpus: outcome.cpus.clone(),
        diverged: outcome.diverged.clone(),
    }
}

/// The targets of the plan, or the lowest loss that every finished verdict run reached.
fn targets(plan: &Plan, entries: &[Entry<'_>]) -> (Vec<f64>, String) {
    if !plan.settings.targets.is_empty() {
        return (plan.settings.targets.clone(), "given in the plan".into());
    }
    let finished = entries.iter().flat_map(|entry| &entry.runs).filter(|(_, outcome)| outcome.loss.is_some());
    let lowest =
        finished.map(|(_, outcome)| outcome.curve.iter().map(|point| point.loss).fold(f64::INFINITY, f64::min));
    let common = lowest.fold(f64::NEG_INFINITY, f64::max);
    if !common.is_finite() {
        return (Vec::new(), "none: there is no loss that every run reached".into());
    }
    // Rounded up to a hundredth, which is easy to read and to type.
    let target = (common * 100.0 - 1e-6).ceil() / 100.0;
    (vec![target], "the lowest loss that every finished verdict run reached, rounded up to a hundredth".into())
}

fn pairs(plan: &Plan, entries: &[Entry<'_>], targets: &[f64]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let count = entries.len() * (entries.len().saturating_sub(1)) / 2;
    for (index, first) in entries.iter().enumerate() {
        for second in &entries[index + 1..] {
            if first.runs.is_empty() || second.runs.is_empty() {
                continue;
            }
            let pair = pair(plan, first, second, targets, count);
            pairs.push(if pair.is_ordered() { pair } else { self::pair(plan, second, first, targets, count) });
        }
    }
    pairs
}

fn pair(plan: &Plan, a: &Entry<'_>, b: &Entry<'_>, targets: &[f64], questions: usize) -> Pair {
    let seeds: Vec<(&Outcome, &Outcome)> =
        plan.seeds().filter_map(|seed| Some((a.of_seed(seed)?, b.of_seed(seed)?))).collect();
    let both = seeds.iter().filter_map(|(a, b)| Some(b.loss? - a.loss?)).collect::<Vec<f64>>();
    let loss = paired(&both);
    let diverged = seeds.iter().any(|(a, b)| a.loss.is_none() || b.loss.is_none());
    let wins = wins(&seeds);
    let raw = if diverged { Some(sign_test(wins[0], wins[1])) } else { loss.and_then(|loss| loss.p) };
    let level = ALPHA / questions.max(1) as f64;
    let sd = loss.and_then(|loss| loss.sd).filter(|sd| *sd > 0.0);
    let effect = sd.and_then(|sd| loss.map(|loss| loss.mean / sd));
    Pair {
        a: a.name.into(),
        b: b.name.into(),
        wins,
        loss,
        test: if diverged { "sign" } else { "t" },
        // Corrected when those of all pairs are known.
        p_loss: if seeds.len() >= 2 { raw } else { None },
        separated: false,
        seeds_needed: effect.and_then(|effect| pairs_needed(effect, level)),
        detectable: sd.and_then(|sd| Some(sd * detectable(both.len(), level)?)),
        targets: targets.iter().map(|target| pair_reach(plan, &seeds, *target)).collect(),
        times_comparable: seeds.iter().all(|(a, b)| processors::alike(&a.cpus, &b.cpus)),
        sentence: String::new(),
    }
}

/// Number of seeds on which the first and on which the second ended lower; a diverged run is worse than one that finished.
fn wins(seeds: &[(&Outcome, &Outcome)]) -> [usize; 2] {
    let key = |outcome: &Outcome| outcome.loss.unwrap_or(f64::INFINITY);
    let better = seeds.iter().filter(|(a, b)| key(a) < key(b)).count();
    let worse = seeds.iter().filter(|(a, b)| key(a) > key(b)).count();
    [better, worse]
}

fn pair_reach(plan: &Plan, seeds: &[(&Outcome, &Outcome)], target: f64) -> PairReach {
    let reach = |outcome: &Outcome| first_reach(&outcome.curve, target);
    let steps = |outcome: &Outcome| reach(outcome).map_or(plan.settings.steps as f64, |point| point.step);
    let seconds = |outcome: &Outcome| reach(outcome).map_or(outcome.end.seconds, |point| point.seconds);
    let ratio = |of: &dyn Fn(&Outcome) -> f64| {
        let logs: Vec<f64> = seeds.iter().map(|(a, b)| (of(a) / of(b)).ln()).filter(|log| log.is_finite()).collect();
        (logs.len() == seeds.len()).then(|| paired(&logs)).flatten()
    };
    let reached = [
        seeds.iter().filter(|(a, _)| reach(a).is_some()).count(),
        seeds.iter().filter(|(_, b)| reach(b).is_some()).count(),
    ];
    let complete = reached.iter().all(|count| *count == seeds.len());
    let logs = ratio(&steps);
    let sooner = |first: &Outcome, second: &Outcome| match (reach(first), reach(second)) {
        (Some(first), Some(second)) => first.step < second.step,
        (first, second) => first.is_some() && second.is_none(),
    };
    let sign = sign_test(
        seeds.iter().filter(|(a, b)| sooner(a, b)).count(),
        seeds.iter().filter(|(a, b)| sooner(b, a)).count(),
    );
    let nobody = reached == [0, 0];
    let raw = if complete { logs.and_then(|logs| logs.p) } else { Some(sign) };
    PairReach {
        target,
        reached,
        steps: logs.filter(|_| !nobody).map(|logs| logs.exponential()),
        seconds: ratio(&seconds).filter(|_| !nobody).map(|logs| logs.exponential()),
        complete,
        p: raw.filter(|_| seeds.len() >= 2 && !nobody),
    }
}

/// Holm's correction, once over the final losses of all pairs, once over the steps to all targets of all pairs.
fn correct(pairs: &mut [Pair]) {
    let mut losses: Vec<&mut f64> = pairs.iter_mut().filter_map(|pair| pair.p_loss.as_mut()).collect();
    adjust(&mut losses);
    for pair in pairs.iter_mut() {
        pair.separated = pair.p_loss.is_some_and(|p| p < ALPHA);
    }
    let reaches = pairs.iter_mut().flat_map(|pair| pair.targets.iter_mut());
    let mut steps: Vec<&mut f64> = reaches.filter_map(|reach| reach.p.as_mut()).collect();
    adjust(&mut steps);
}

fn adjust(p: &mut [&mut f64]) {
    let raw: Vec<f64> = p.iter().map(|p| **p).collect();
    for (p, adjusted) in p.iter_mut().zip(statistics::holm(&raw)) {
        **p = adjusted;
    }
}

/// Sets the places that the separated pairs allow, for the optimizers with a finished run.
fn place(optimizers: &mut [Standing], pairs: &[Pair]) {
    let placed: Vec<String> =
        optimizers.iter().filter(|standing| standing.loss.is_some()).map(|standing| standing.name.clone()).collect();
    let count = placed.len();
    let among = |pair: &&Pair| placed.contains(&pair.a) && placed.contains(&pair.b);
    let pairs: Vec<&Pair> = pairs.iter().filter(among).collect();
    if pairs.iter().all(|pair| pair.p_loss.is_none()) {
        return;
    }
    for standing in optimizers.iter_mut().filter(|standing| standing.loss.is_some()) {
        let above = pairs.iter().filter(|pair| pair.separated && pair.b == standing.name).count();
        let below = pairs.iter().filter(|pair| pair.separated && pair.a == standing.name).count();
        standing.places = Some([1 + above, count - below]);
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
pub(super) mod tests;
