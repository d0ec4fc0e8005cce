//! Tuning: which runs are still needed, and what the others show. Pure functions of plan and outcomes, so that a comparison
//! that was killed resumes from its runs alone.

use serde::Serialize;

use super::outcome::Outcome;
use super::plan::{Candidate, Plan, Purpose};
use super::range::round;
use super::statistics::mean;

/// One run of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its folder's name; unique.
    pub name: String,
    /// Index of its optimizer.
    pub contender: usize,
    /// What it is for.
    pub purpose: Purpose,
    /// Learning rate and swept values.
    pub candidate: Candidate,
    /// Seed of the weights and the batches.
    pub seed: u64,
    /// Number of steps.
    pub steps: u64,
}

/// A candidate that was tried, with the losses of its runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// Learning rate and swept values.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// Its runs, of the longest round that it was in; none if it was not run.
    #[serde(flatten)]
    pub last: Round,
    /// Those of the rounds before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Round>,
}

/// The runs of a candidate in one round of the tuning.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Round {
    /// Steps of a run.
    pub steps: u64,
    /// Validation loss of every tuning seed; none for a run that diverged.
    pub losses: Vec<Option<f64>>,
}

impl Tried {
    fn new(candidate: Candidate) -> Self {
        Self { candidate, last: Round::default(), before: Vec::new() }
    }

    /// Notes a longer round.
    fn ran(&mut self, round: Round) {
        let last = std::mem::replace(&mut self.last, round);
        self.before.extend(Some(last).filter(|round| !round.losses.is_empty()));
    }

    /// The rounds in which it was run.
    pub fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.before.iter().chain([&self.last]).filter(|round| !round.losses.is_empty())
    }

    /// Mean over the tuning seeds; infinite if a run diverged, or if there are no runs.
    pub fn loss(&self) -> f64 {
        match self.last.losses.iter().copied().collect::<Option<Vec<f64>>>() {
            Some(losses) if !losses.is_empty() => mean(&losses),
            _ => f64::INFINITY,
        }
    }
}

/// Multiples of the best learning rate at which the sensitivity is reported.
pub const FACTORS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// Rates of a grid are rounded: two whose logarithms differ by less than this are the same.
const SAME_RATE: f64 = 0.01;

/// From the best rate of a search to one beyond all that were drawn.
const SEARCH_EXTENSION: f64 = 2.0;

/// How a loss at a learning rate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// That rate was run.
    Measured,
    /// It is between two rates that finished: interpolated linearly in the logarithm of the rate.
    Interpolated,
    /// That rate was run, and a run diverged.
    Diverged,
    /// It is outside the rates that were run, or next to one that diverged.
    NotMeasured,
}

/// The tuning loss at a multiple of the best learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtFactor {
    /// The multiple.
    pub factor: f64,
    /// The learning rate.
    pub lr: f64,
    /// Mean validation loss over the tuning seeds, if it is known.
    pub loss: Option<f64>,
    /// How it is known.
    pub known: Known,
}

/// At which end of its grid a best learning rate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// The smallest one.
    Low,
    /// The largest one.
    High,
}

/// The tuning of one optimizer, finished.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tuning {
    /// Every candidate, in the order of the trials; a single candidate is not run.
    pub trials: Vec<Tried>,
    /// Index of the best trial; None if all diverged.
    pub best: Option<usize>,
    /// By how many points the grid grew.
    pub extensions: u64,
    /// The end of the grid at which the best rate still is.
    pub edge: Option<Edge>,
    /// Rates that were run only for the sensitivity: the choice was made without them.
    pub probes: Vec<Tried>,
    /// The trial that was the best before rates were added: the first verdict runs were made with it.
    #[serde(skip)]
    pub first_best: Option<usize>,
}

impl Tuning {
    /// The values chosen.
    pub fn chosen(&self) -> Option<&Candidate> {
        self.best.map(|index| &self.trials[index].candidate)
    }

    /// Number of runs on which the choice is based.
    pub fn runs(&self) -> usize {
        self.rounds().map(|round| round.losses.len()).sum()
    }

    /// Number of steps of these runs.
    pub fn steps(&self) -> u64 {
        self.rounds().map(|round| round.losses.len() as u64 * round.steps).sum()
    }

    /// Number of these runs that diverged.
    pub fn diverged(&self) -> usize {
        self.rounds().flat_map(|round| &round.losses).filter(|loss| loss.is_none()).count()
    }

    fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.trials.iter().flat_map(Tried::rounds)
    }

    /// Loss at the neighbours of the best learning rate, swept values as chosen, below and above it, minus the best loss;
    /// infinite where the neighbour diverged, None where there is none.
    pub fn sensitivity(&self) -> [Option<(f64, f64)>; 2] {
        let Some(best) = self.best.map(|index| &self.trials[index]) else { return [None, None] };
        let alike = || self.trials.iter().filter(|trial| trial.candidate.swept == best.candidate.swept);
        let lr = best.candidate.lr;
        let by_rate = |a: &&Tried, b: &&Tried| a.candidate.lr.total_cmp(&b.candidate.lr);
        let below = alike().filter(|trial| trial.candidate.lr < lr).max_by(by_rate);
        let above = alike().filter(|trial| trial.candidate.lr > lr).min_by(by_rate);
        [below, above].map(|trial| trial.map(|trial| (trial.candidate.lr / lr, trial.loss() - best.loss())))
    }

    /// Every rate that was run with the swept values chosen, and its loss; ascending, infinite where a run diverged.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let alike = |trial: &&Tried| self.chosen().is_some_and(|chosen| trial.candidate.swept == chosen.swept);
        let run = self.trials.iter().chain(&self.probes).filter(alike).filter(|trial| !trial.last.losses.is_empty());
        let mut curve: Vec<(f64, f64)> = run.map(|trial| (trial.candidate.lr, trial.loss())).collect();
        curve.sort_by(|a, b| a.0.total_cmp(&b.0));
        curve
    }

    /// The loss at the best learning rate divided and multiplied by 2 and 4, as far as it is known; empty if nothing was
    /// chosen.
    pub fn at_factors(&self) -> Vec<AtFactor> {
        let curve = self.curve();
        let at = |lr: f64, factor: f64| {
            let lr = factor * lr;
            let (loss, known) = loss_at(&curve, lr);
            AtFactor { factor, lr, loss, known }
        };
        self.chosen().map(|chosen| FACTORS.iter().map(|factor| at(chosen.lr, *factor)).collect()).unwrap_or_default()
    }

    /// Candidates for the factors whose rate was not run.
    fn unprobed(&self) -> Vec<Candidate> {
        let open = |at: &AtFactor| matches!(at.known, Known::Interpolated | Known::NotMeasured);
        let swept = self.chosen().map(|chosen| chosen.swept.clone()).unwrap_or_default();
        let candidate = |at: AtFactor| Candidate { lr: round(at.lr), swept: swept.clone() };
        self.at_factors().into_iter().filter(open).map(candidate).collect()
    }
}

/// The progress of one optimizer.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// These tuning runs are needed next.
    Tuning(Vec<Run>),
    /// The tuning is finished; these verdict runs are needed.
    Verdict(Tuning, Vec<Run>),
}

/// The progress of the optimizer `contender`, given the runs that have ended.
///
/// Rates that were added later are tried after those before and their extensions, so that every run keeps its name.
pub fn stage<'a>(plan: &Plan, contender: usize, ended: impl Fn(&str) -> Option<&'a Outcome>) -> Stage {
    let optimizer = &plan.contenders[contender];
    let before = optimizer.lrs_before.iter().map(|lrs| plan.candidates_at(contender, lrs));
    let mut tuning = Tuning::default();
    for grid in before.chain([plan.candidates(contender)]) {
        let mut candidates: Vec<Candidate> = tuning.trials.iter().map(|trial| trial.candidate.clone()).collect();
        candidates
            .extend(grid.into_iter().filter(|candidate| !tuning.trials.iter().any(|t| t.candidate == *candidate)));
        match tuned(plan, contender, candidates, &tuning, &ended) {
            Ok(next) => tuning = next,
            Err(missing) => return Stage::Tuning(missing),
        }
    }
    let mut probes: Vec<Tried> = match plan.settings.sensitivity {
        true => tuning.unprobed().into_iter().map(Tried::new).collect(),
        false => Vec::new(),
    };
    let runs = |probe: &Tried| sensitivity_runs(plan, contender, &probe.candidate);
    if let Err(missing) = run_all(probes.iter_mut().map(|probe| (runs(probe), probe)).collect(), &ended) {
        return Stage::Tuning(missing);
    }
    tuning.probes = probes;
    let runs = verdict_runs(plan, contender, &tuning);
    let missing = runs.into_iter().filter(|run| ended(&run.name).is_none()).collect();
    Stage::Verdict(tuning, missing)
}

/// The tuning over these candidates, with extensions of their grid after those of the tuning `before`; or the runs that it lacks.
fn tuned<'a>(
    plan: &Plan,
    contender: usize,
    candidates: Vec<Candidate>,
    before: &Tuning,
    ended: &impl Fn(&str) -> Option<&'a Outcome>,
) -> Result<Tuning, Vec<Run>> {
    let mut trials: Vec<Tried> = candidates.into_iter().map(Tried::new).collect();
    let single = trials.len() == 1;
    if !single {
        halve(plan, contender, &mut trials, ended)?;
    }
    let mut extensions = before.extensions;
    loop {
        let best = if single { Some(0) } else { best_of(&trials, plan.settings.tune_steps) };
        let edge = if single { None } else { edge_of(plan, &trials, best) };
        match extended(plan, &trials, best, edge) {
            Some(candidate) if extensions < plan.settings.extensions => {
                let mut trial = Tried::new(candidate);
                let runs = tuning_runs(plan, contender, trials.len(), &trial.candidate, plan.settings.tune_steps);
                run_all(vec![(runs, &mut trial)], ended)?;
                trials.push(trial);
                extensions += 1;
            }
            _ => {
                let first_best = before.first_best.or(best);
                return Ok(Tuning { trials, best, extensions, edge, probes: Vec::new(), first_best });
            }
        }
    }
}

/// Runs every trial, and in each further round the better half of the last one for twice as many steps. One that diverged is in
/// no further round.
fn halve<'a>(
    plan: &Plan,
    contender: usize,
    trials: &mut [Tried],
    ended: &impl Fn(&str) -> Option<&'a Outcome>,
) -> Result<(), Vec<Run>> {
    let mut left: Vec<usize> = (0..trials.len()).collect();
    for (round, [count, steps]) in plan.rounds(trials.len()).into_iter().enumerate() {
        if round > 0 {
            left.retain(|trial| trials[*trial].loss().is_finite());
            left.sort_by(|a, b| trials[*a].loss().total_cmp(&trials[*b].loss()));
            left.truncate(count as usize);
        }
        let mut round = Vec::new();
        for (index, trial) in trials.iter_mut().enumerate().filter(|(index, _)| left.contains(index)) {
            round.push((tuning_runs(plan, contender, index, &trial.candidate, steps), trial));
        }
        run_all(round, ended)?;
    }
    Ok(())
}

/// Notes the losses of the runs of every trial; or says which of them have not ended.
fn run_all<'a>(
    trials: Vec<(Vec<Run>, &mut Tried)>,
    ended: &impl Fn(&str) -> Option<&'a Outcome>,
) -> Result<(), Vec<Run>> {
    let missing = |run: &&Run| ended(&run.name).is_none();
    let missing: Vec<Run> = trials.iter().flat_map(|(runs, _)| runs).filter(missing).cloned().collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    for (runs, trial) in trials {
        let losses = runs.iter().map(|run| ended(&run.name).and_then(|outcome| outcome.loss)).collect();
        trial.ran(Round { steps: runs.first().map_or(0, |run| run.steps), losses });
    }
    Ok(())
}

/// The runs of the tuning trial with index `trial` (from 0), in the round of so many steps.
pub fn tuning_runs(plan: &Plan, contender: usize, trial: usize, candidate: &Candidate, steps: u64) -> Vec<Run> {
    let name = &plan.contenders[contender].name;
    let short = if steps == plan.settings.tune_steps { String::new() } else { format!("-{steps}steps") };
    let run = |seed: u64| Run {
        name: format!("tune-{name}-{:02}-lr{}-s{seed}{short}", trial + 1, candidate.lr),
        contender,
        purpose: Purpose::Tuning,
        candidate: candidate.clone(),
        seed,
        steps,
    };
    plan.tune_seeds().map(run).collect()
}

/// The runs of a rate that is run only for the sensitivity.
pub fn sensitivity_runs(plan: &Plan, contender: usize, candidate: &Candidate) -> Vec<Run> {
    let name = &plan.contenders[contender].name;
    let run = |seed: u64| Run {
        name: format!("sensitivity-{name}-lr{}-s{seed}", candidate.lr),
        contender,
        purpose: Purpose::Sensitivity,
        candidate: candidate.clone(),
        seed,
        steps: plan.length(Purpose::Sensitivity),
    };
    plan.tune_seeds().map(run).collect()
}

/// The verdict runs of a tuned optimizer; none if all its tuning runs diverged. If rates that were added later changed the choice,
/// the runs have another name than those with the choice before.
pub fn verdict_runs(plan: &Plan, contender: usize, tuning: &Tuning) -> Vec<Run> {
    let Some((best, candidate)) = tuning.best.zip(tuning.chosen()) else { return Vec::new() };
    let name = &plan.contenders[contender].name;
    let trial = if tuning.best == tuning.first_best { String::new() } else { format!("-{:02}", best + 1) };
    let run = |seed: u64| Run {
        name: format!("verdict-{name}{trial}-s{seed}"),
        contender,
        purpose: Purpose::Verdict,
        candidate: candidate.clone(),
        seed,
        steps: plan.length(Purpose::Verdict),
    };
    plan.seeds().map(run).collect()
}

/// The loss of a curve at `lr`, and how it is known.
fn loss_at(curve: &[(f64, f64)], lr: f64) -> (Option<f64>, Known) {
    let away = |other: f64| (other / lr).ln();
    if let Some((_, loss)) = curve.iter().find(|(other, _)| away(*other).abs() < SAME_RATE) {
        return if loss.is_finite() { (Some(*loss), Known::Measured) } else { (None, Known::Diverged) };
    }
    let below = curve.iter().rev().find(|(other, _)| *other < lr);
    let above = curve.iter().find(|(other, _)| *other > lr);
    match (below, above) {
        (Some((low, under)), Some((high, over))) if under.is_finite() && over.is_finite() => {
            let share = -away(*low) / (away(*high) - away(*low));
            (Some(under + share * (over - under)), Known::Interpolated)
        }
        _ => (None, Known::NotMeasured),
    }
}

/// The best of the trials that ran for so many steps.
fn best_of(trials: &[Tried], steps: u64) -> Option<usize> {
    let eligible = |(_, trial): &(usize, &Tried)| trial.last.steps == steps && trial.loss().is_finite();
    let finite = trials.iter().enumerate().filter(eligible);
    finite.min_by(|a, b| a.1.loss().total_cmp(&b.1.loss())).map(|(index, _)| index)
}

/// Learning rates tried beside that of a trial, ascending: in a grid with the same swept values, in a search all.
fn rates(plan: &Plan, trials: &[Tried], like: &Tried) -> Vec<f64> {
    let alike = |trial: &&Tried| plan.searches() || trial.candidate.swept == like.candidate.swept;
    let mut rates: Vec<f64> = trials.iter().filter(alike).map(|trial| trial.candidate.lr).collect();
    rates.sort_by(f64::total_cmp);
    rates
}

/// The end at which the best rate is; if everything diverged, the low end. A single rate has no edge.
fn edge_of(plan: &Plan, trials: &[Tried], best: Option<usize>) -> Option<Edge> {
    let best_trial = &trials[best.unwrap_or(0)];
    let rates = rates(plan, trials, best_trial);
    if rates.len() < 2 {
        return None;
    }
    let lr = best.map_or(rates[0], |_| best_trial.candidate.lr);
    if lr == rates[0] {
        Some(Edge::Low)
    } else if lr == rates[rates.len() - 1] {
        Some(Edge::High)
    } else {
        None
    }
}

/// The candidate beyond an edge, by the same factor as between the edge and its neighbour; in a search by a factor of 2, all else
/// being equal.
fn extended(plan: &Plan, trials: &[Tried], best: Option<usize>, edge: Option<Edge>) -> Option<Candidate> {
    let like = &trials[best.unwrap_or(0)];
    let rates = rates(plan, trials, like);
    let (low, high) = (rates[0], rates[rates.len() - 1]);
    let lr = match (edge?, plan.searches()) {
        (Edge::Low, false) => low * low / rates[1],
        (Edge::High, false) => high * high / rates[rates.len() - 2],
        (Edge::Low, true) => low / SEARCH_EXTENSION,
        (Edge::High, true) => high * SEARCH_EXTENSION,
    };
    Some(Candidate { lr: round(lr), swept: like.candidate.swept.clone() })
}

#[cfg(test)]
#[path = "tuning_tests.rs"]
pub(super) mod tests;
