//! From the runs of a comparison to its results: what `results.json` holds.
//!
//! The rules, fixed before any run: `docs/COMPARING.md`.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde::Serialize;

use super::outcome::{Outcome, first_reach};
use super::plan::{Candidate, Plan, Purpose};
use super::statistics::{self, ALPHA, Paired, detectable, half_width, mean, paired, pairs_needed, sign_test};
use super::tuning::{AtFactor, Run, Stage, Tuning, stage, verdict_runs};
use super::verdict;

/// Version of `results.json`.
pub const FORMAT: u32 = 1;

/// Everything a comparison found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// Version of this format.
    pub format: u32,
    /// Version of the program.
    pub polaron: String,
    /// The verdict: one sentence for every pair, then the ranking and what stands in its way.
    pub verdict: Vec<String>,
    /// Who is better than whom, and which places are not separated.
    pub ranking: String,
    /// What a reader must know to trust the verdict, or not to.
    pub notes: Vec<String>,
    /// The losses to reach.
    pub targets: Vec<f64>,
    /// Where they come from.
    pub targets_are: String,
    /// Steps of a verdict run.
    pub steps: u64,
    /// What is counted as tokens: "tokens" or "images".
    pub unit: &'static str,
    /// Tokens of a step.
    pub tokens_per_step: u64,
    /// Verdict seeds.
    pub seeds: Vec<u64>,
    /// Tuning seeds.
    pub tune_seeds: Vec<u64>,
    /// The optimizers, in the order of the plan.
    pub optimizers: Vec<Standing>,
    /// Every pair of them, the better one first.
    pub pairs: Vec<Pair>,
}

/// One optimizer in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Best and worst place that the evidence allows, from 1; none without a verdict, or if every run diverged.
    pub places: Option<[usize; 2]>,
    /// Mean final validation loss of the verdict runs that finished.
    pub loss: Option<f64>,
    /// Half the width of the 95 % interval of that mean.
    pub loss_half_width: Option<f64>,
    /// How it came to every target.
    pub targets: Vec<Reach>,
    /// Learning rate and swept values of the verdict runs.
    pub chosen: Option<Candidate>,
    /// Its tuning.
    pub tuning: Tuning,
    /// Runs of the tuning: its budget.
    pub tuning_runs: usize,
    /// Loss at the next smaller and the next larger learning rate tried: factor to the best rate, and how much worse; null
    /// stands for a run that diverged.
    pub sensitivity: [Option<(f64, Option<f64>)>; 2],
    /// Tuning loss at the best learning rate divided and multiplied by 2 and 4, and how it is known; empty if none was chosen.
    pub at_factors: Vec<AtFactor>,
    /// Mean share of the training time spent clipping and updating.
    pub optimizer_share: Option<f64>,
    /// Mean training seconds of a step.
    pub seconds_per_step: Option<f64>,
    /// Bytes of optimizer state for every parameter, measured on a checkpoint.
    pub state_bytes_per_parameter: Option<f64>,
    /// Verdict runs that diverged.
    pub diverged: usize,
    /// Tuning runs that diverged.
    pub diverged_in_tuning: usize,
    /// The verdict runs.
    pub runs: Vec<VerdictRun>,
}

impl Standing {
    /// Sorts from best to worst: by place where there is one, then by the number of runs that diverged, then by mean loss.
    /// An optimizer of which no run finished is last.
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |standing: &Self| {
            let place = standing.places.map_or(0, |[best, worst]| best + worst);
            (standing.loss.is_none(), place, standing.diverged)
        };
        let loss = |standing: &Self| standing.loss.unwrap_or_default();
        key(self).cmp(&key(other)).then(loss(self).total_cmp(&loss(other)))
    }

    /// Whether every tuning run diverged, or enough of them that no candidate is left.
    pub fn untuned(&self) -> bool {
        self.tuning.best.is_none() && !self.tuning.trials.is_empty()
    }

    /// Whether it has verdict runs, and all of them diverged.
    pub fn all_diverged(&self) -> bool {
        !self.runs.is_empty() && self.diverged == self.runs.len()
    }
}

/// How often and when a target was reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reach {
    /// The loss.
    pub target: f64,
    /// Runs that reached it.
    pub reached: usize,
    /// Of so many.
    pub of: usize,
    /// Mean steps, tokens and training seconds of the runs that reached it, if all did.
    pub mean: Option<[f64; 3]>,
}

/// One verdict run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictRun {
    /// Its folder.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// Final validation loss over all windows; null if it diverged.
    pub loss: Option<f64>,
    /// Finished steps.
    pub steps: u64,
    /// Training tokens.
    pub tokens: u64,
    /// Training seconds.
    pub seconds: f64,
    /// The part spent clipping and updating.
    pub optimizer_seconds: f64,
    /// Steps, tokens and seconds at which each target was reached; null if it was not.
    pub reached: Vec<Option<[f64; 3]>>,
    /// Why it diverged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
}

/// Two optimizers compared, seed by seed; `a` is the better one, as far as that can be told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The one with the lower mean loss; if a run diverged, the one that ended lower on more seeds.
    pub a: String,
    /// The other one.
    pub b: String,
    /// Seeds on which `a` and on which `b` ended lower; a diverged run is the worse one.
    pub wins: [usize; 2],
    /// Final loss of `b` minus that of `a`, over the seeds on which both finished.
    pub loss: Option<Paired>,
    /// Which test gives `p_loss`: "t", or "sign" if a run diverged (a diverged run counts as the worse one).
    pub test: &'static str,
    /// Its p-value, corrected by Holm for all pairs; none where there is no test.
    pub p_loss: Option<f64>,
    /// Whether `p_loss` is below 0.05.
    pub separated: bool,
    /// Pairs of seeds with which a difference of this size is found with probability 0.8; none if more than a thousand.
    pub seeds_needed: Option<usize>,
    /// The difference that this number of seeds finds with probability 0.8.
    pub detectable: Option<f64>,
    /// For every target.
    pub targets: Vec<PairReach>,
    /// The verdict in one sentence.
    pub sentence: String,
}

impl Pair {
    /// Whether `a` is the better one.
    fn is_ordered(&self) -> bool {
        match (self.test, self.wins[0].cmp(&self.wins[1])) {
            ("sign", std::cmp::Ordering::Less) => false,
            ("sign", std::cmp::Ordering::Greater) => true,
            _ => self.loss.is_none_or(|loss| loss.mean >= 0.0),
        }
    }
}

/// Two optimizers on the way to one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReach {
    /// The loss.
    pub target: f64,
    /// Runs of `a` and of `b` that reached it.
    pub reached: [usize; 2],
    /// Steps of `a` over steps of `b`: geometric mean over the seeds. A run that did not reach the target counts with all
    /// its steps (and a diverged one with all of the plan's).
    pub steps: Option<Paired>,
    /// The same of training seconds, measured with several runs at a time on one machine.
    pub seconds: Option<Paired>,
    /// Whether every run reached the target. If not, the factors are bounds.
    pub complete: bool,
    /// p-value of the steps, corrected by Holm for all pairs and targets: t test if complete, else the sign test.
    pub p: Option<f64>,
}

/// What the folders of the runs say beside their metrics.
pub type StateBytes<'a> = &'a dyn Fn(&str) -> Option<f64>;

/// The results of a plan whose runs have ended, as far as they have.
pub fn results(plan: &Plan, ended: &HashMap<String, Outcome>, state_bytes: StateBytes<'_>) -> Results {
    let tunings: Vec<Option<Tuning>> = (0..plan.contenders.len())
        .map(|index| match stage(plan, index, |name| ended.get(name)) {
            Stage::Verdict(tuning, _) => Some(tuning),
            Stage::Tuning(_) => None,
        })
        .collect();
    let empty = Tuning { trials: Vec::new(), best: None, extensions: 0, edge: None, probes: Vec::new() };
    let entries: Vec<Entry<'_>> = tunings
        .into_iter()
        .enumerate()
        .map(|(index, tuning)| Entry::of(plan, index, tuning.unwrap_or_else(|| empty.clone()), ended))
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
    let config = plan.config(0, &plan.candidates(0)[0], Purpose::Verdict, plan.settings.first_seed).ok();
    let mut results = Results {
        format: FORMAT,
        polaron: env!("CARGO_PKG_VERSION").into(),
        verdict: Vec::new(),
        ranking: String::new(),
        notes: Vec::new(),
        targets,
        targets_are,
        steps: plan.settings.steps,
        unit: config.as_ref().map_or("tokens", |config| config.model.unit().many),
        tokens_per_step: config.map_or(0, |config| config.tokens_per_step()),
        seeds,
        tune_seeds: plan.tune_seeds().collect(),
        optimizers,
        pairs,
    };
    results.ranking = verdict::ranking(&results);
    results.verdict = results.pairs.iter().map(|pair| pair.sentence.clone()).collect();
    results.notes = verdict::notes(plan, &results);
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
            sensitivity: self.tuning.sensitivity().map(|side| side.map(finite)),
            at_factors: self.tuning.at_factors(),
            optimizer_share: average(shares),
            seconds_per_step: average(paces),
            state_bytes_per_parameter: self.runs.iter().find_map(|(run, _)| state_bytes(&run.name)),
            diverged: self.runs.iter().filter(|(_, outcome)| outcome.loss.is_none()).count(),
            diverged_in_tuning: self
                .tuning
                .trials
                .iter()
                .flat_map(|trial| &trial.losses)
                .filter(|loss| loss.is_none())
                .count(),
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
        diverged: outcome.diverged.clone(),
    }
}

/// The targets of the plan, or the lowest loss that every finished verdict run reached.
fn targets(plan: &Plan, entries: &[Entry<'_>]) -> (Vec<f64>, String) {
    if !plan.settings.targets.is_empty() {
        return (plan.settings.targets.clone(), "as the plan asks for".into());
    }
    let finished = entries.iter().flat_map(|entry| &entry.runs).filter(|(_, outcome)| outcome.loss.is_some());
    let lowest =
        finished.map(|(_, outcome)| outcome.curve.iter().map(|point| point.loss).fold(f64::INFINITY, f64::min));
    let common = lowest.fold(f64::NEG_INFINITY, f64::max);
    if !common.is_finite() {
        return (Vec::new(), "none: there is no loss that every run reached".into());
    }
    // Up to the next hundredth, which can be read and typed.
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
        // Corrected when all are known.
        p_loss: if seeds.len() >= 2 { raw } else { None },
        separated: false,
        seeds_needed: effect.and_then(|effect| pairs_needed(effect, level)),
        detectable: sd.and_then(|sd| Some(sd * detectable(both.len(), level)?)),
        targets: targets.iter().map(|target| pair_reach(plan, &seeds, *target)).collect(),
        sentence: String::new(),
    }
}

/// Seeds on which the first and on which the second ended lower; a diverged run is worse than one that finished.
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

/// The places that the separated pairs leave open, among the optimizers of which a run finished.
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
mod tests {
    use super::*;
    use crate::compare::outcome::Point;
    use crate::compare::statistics::tests::normal;
    use crate::compare::tuning::tests::{ended, plan};

    /// A verdict run whose loss falls in a straight line from 4 to `loss` at step 400.
    fn run_to(loss: f64) -> Outcome {
        let point = |i: u32| {
            let step = f64::from(i) * 10.0;
            Point { step, tokens: step * 64.0, seconds: step * 0.01, loss: 4.0 + (loss - 4.0) * step / 400.0 }
        };
        Outcome { curve: (1..=40).map(point).collect(), ..ended(Some(loss)) }
    }

    fn simulated(names: &[&str], seeds: u64, loss: impl Fn(usize, u64) -> Option<f64>) -> Results {
        let listed = names.iter().map(|name| format!("{{ name = '{name}', stack = 'muon' }}")).collect::<Vec<_>>();
        let plan = plan(&format!("optimizers = [{}]\n[compare]\nlrs = [0.01]\nseeds = {seeds}", listed.join(", ")));
        let mut runs = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            for seed in plan.seeds() {
                let outcome = loss(index, seed).map_or_else(|| ended(None), run_to);
                runs.insert(format!("verdict-{name}-s{seed}"), outcome);
            }
        }
        results(&plan, &runs, &|_| Some(8.0))
    }

    /// What a seed does to every optimizer, and what it does to one.
    fn noise(simulation: u64, optimizer: usize, seed: u64) -> f64 {
        let own = normal(simulation * 1000 + seed * 10 + optimizer as u64);
        0.02 * normal(0xABCD + simulation * 1000 + seed) + 0.004 * own
    }

    fn detected(results: &Results) -> bool {
        results.verdict.iter().any(|sentence| !sentence.starts_with("no difference detected"))
    }

    #[test]
    fn a_planted_tie_says_no_difference_in_at_least_93_percent_of_200_comparisons() {
        for names in [["a", "b"].as_slice(), &["a", "b", "c", "d"]] {
            // A fixed stretch of the noise; over 4500 comparisons of four the share is 95.1 %.
            let ties = (5000..5200).filter(|simulation| {
                !detected(&simulated(names, 4, |index, seed| Some(1.8 + noise(*simulation, index, seed))))
            });
            let share = ties.count() as f64 / 200.0;
            assert!(share >= 0.93, "{names:?}: {share}");
        }
    }

    #[test]
    fn a_planted_difference_is_found_with_its_size_and_the_steps_it_saves() {
        let mut found = 0;
        for simulation in 0..100 {
            // A difference of 0.02 against a noise of 0.0057: five seeds have a power above 0.99.
            let offset = [0.02, 0.0];
            let results = simulated(&["worse", "better"], 5, |index, seed| {
                Some(1.8 + offset[index] + noise(5000 + simulation, index, seed))
            });
            let pair = &results.pairs[0];
            if pair.separated && pair.a == "better" {
                found += 1;
                assert!(pair.sentence.starts_with("better ends 0.0"), "{}", pair.sentence);
                assert!(pair.sentence.contains(" below worse ["), "{}", pair.sentence);
                assert_eq!(results.ranking, "1. better, 2. worse");
            }
        }
        assert!(found >= 95, "{found}");
    }

    #[test]
    fn steps_to_a_target_are_compared_by_their_ratio() {
        // Straight lines: 4 - 2 t/400 reaches 2.5 at step 300, 4 - 2.4 t/400 at 250: a sixth fewer. The noise keeps p finite.
        let results = simulated(&["slow", "fast"], 4, |index, seed| Some([2.0, 1.6][index] + 1e-4 * normal(seed + 9)));
        let reach = &results.pairs[0].targets[0];
        assert!((reach.target - 2.01).abs() < 1e-9, "{}", reach.target);
        assert_eq!((reach.reached, reach.complete), ([4, 4], true));
        let expected = (4.0 - 2.0) / (4.0 - 1.6);
        assert!((reach.steps.unwrap().mean - expected).abs() < 1e-3, "{reach:?}");
        assert!(
            results.verdict[0].contains("reaches 2.01 in 17 % fewer steps [17 %, 17 %], p < 0.001"),
            "{}",
            results.verdict[0]
        );
    }

    #[test]
    fn a_target_reached_by_some_is_not_dropped() {
        let plan_text = "optimizers = [{ name = 'a', stack = 'muon' }, { name = 'b', stack = 'muon' }]\n[compare]\nlrs = [0.01]\nseeds = 3\ntargets = [1.9]";
        let plan = plan(plan_text);
        let mut runs = HashMap::new();
        for seed in 1..4 {
            runs.insert(format!("verdict-a-s{seed}"), run_to(1.8 + 0.001 * seed as f64));
            runs.insert(format!("verdict-b-s{seed}"), run_to(2.0 - 0.11 * f64::from(u8::from(seed == 2))));
        }
        let results = results(&plan, &runs, &|_| None);
        let reach = &results.pairs[0].targets[0];
        assert_eq!((reach.reached, reach.complete), ([3, 1], false));
        // Sign test: three of three seeds went one way.
        assert_eq!(reach.p, Some(0.25));
        assert!(reach.steps.unwrap().mean < 0.97, "{reach:?}");
        assert!(results.verdict[0].contains("1.9 is reached on 3 seeds by a and on 1 by b"), "{}", results.verdict[0]);
        assert_eq!(results.optimizers[1].targets[0].mean, None);
    }

    #[test]
    fn a_diverged_run_counts_as_the_worse_one() {
        let results = simulated(&["calm", "wild"], 8, |index, seed| {
            (index == 0 || seed != 3).then(|| [1.8, 1.9][index] + 0.001 * normal(seed + 20 * index as u64))
        });
        let pair = &results.pairs[0];
        assert_eq!((pair.test, pair.a.as_str(), pair.loss.unwrap().n), ("sign", "calm", 7));
        // Eight of eight: 2 / 2^8.
        assert_eq!(pair.p_loss, Some(1.0 / 128.0));
        assert!(pair.sentence.starts_with("calm beats wild on 8 of 8 seeds"), "{}", pair.sentence);
        assert!(pair.sentence.contains("wild diverged in 1 of 8 runs"), "{}", pair.sentence);
    }

    #[test]
    fn one_that_mostly_diverges_is_not_the_better_one_for_its_few_good_runs() {
        let results = simulated(&["wild", "calm"], 12, |index, seed| {
            (index == 1 || seed <= 1).then(|| [1.5, 1.9][index] + 0.001 * normal(seed))
        });
        let pair = &results.pairs[0];
        assert_eq!((pair.a.as_str(), pair.wins, pair.separated), ("calm", [11, 1], true));
        assert!(pair.sentence.contains("calm beats wild on 11 of 12 seeds"), "{}", pair.sentence);
        assert!(pair.sentence.contains("where both finished calm ended 0.40"), "{}", pair.sentence);
        assert_eq!(results.ranking, "1. calm, 2. wild");
    }

    #[test]
    fn one_seed_has_no_places_and_no_p_values() {
        let results = simulated(&["a", "b"], 1, |index, _| Some(1.8 + 0.1 * index as f64));
        assert_eq!(results.pairs[0].p_loss, None);
        assert!(results.optimizers.iter().all(|standing| standing.places.is_none()));
        assert!(results.verdict[0].starts_with("with one seed no verdict is possible"), "{}", results.verdict[0]);
    }

    #[test]
    fn with_too_few_seeds_the_number_needed_is_told() {
        let results = simulated(&["a", "b"], 3, |index, seed| {
            Some(1.8 + 0.002 * index as f64 + 0.004 * normal(seed * 7 + index as u64))
        });
        assert!(!results.pairs[0].separated);
        let needed = results.pairs[0].seeds_needed.unwrap();
        assert!(needed > 3);
        assert!(results.verdict[0].contains(&format!("about {needed} seeds would settle")), "{}", results.verdict[0]);
    }

    #[test]
    fn places_that_are_not_separated_are_ranges() {
        let offsets = [0.0, 0.0005, 0.3];
        let results = simulated(&["a", "b", "c"], 4, |index, seed| {
            Some(1.8 + offsets[index] + 0.004 * normal(seed * 31 + index as u64))
        });
        let places: Vec<_> = results.optimizers.iter().map(|standing| standing.places.unwrap()).collect();
        assert_eq!(places, [[1, 2], [1, 2], [3, 3]]);
        assert!(results.ranking.contains("1–2. ") && results.ranking.contains("3. c"), "{}", results.ranking);
    }

    #[test]
    fn an_unfinished_comparison_has_results_too() {
        let plan = plan("optimizers = ['adamw', 'muon']");
        let results = results(&plan, &HashMap::new(), &|_| None);
        assert!(results.pairs.is_empty() && results.targets.is_empty());
        assert_eq!(results.optimizers.len(), 2);
    }
}
