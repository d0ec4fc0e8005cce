//! Tuning: which runs are still needed, and what they say. Pure functions of plan and outcomes, so that a comparison that
//! was killed finds its place again by looking at its runs.

use serde::Serialize;

use super::outcome::Outcome;
use super::plan::{Candidate, Plan, Purpose, round};
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
    /// Fixes weights and batches.
    pub seed: u64,
}

/// A candidate with what its runs reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Learning rate and swept values.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// Validation loss of every tuning seed; none for a run that diverged.
    pub losses: Vec<Option<f64>>,
}

impl Trial {
    /// Mean over the tuning seeds; infinite if a run diverged, or if there is none.
    pub fn loss(&self) -> f64 {
        match self.losses.iter().copied().collect::<Option<Vec<f64>>>() {
            Some(losses) if !losses.is_empty() => mean(&losses),
            _ => f64::INFINITY,
        }
    }
}

/// Factors to the best learning rate at which its sensitivity is told.
pub const FACTORS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// Rates of a grid are rounded: closer ones, as logarithms, are the same.
const SAME_RATE: f64 = 0.01;

/// How a loss at a learning rate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// That rate was run.
    Measured,
    /// It lies between two rates that finished: straight between their losses over the logarithm of the rate.
    Interpolated,
    /// That rate was run, and a run diverged.
    Diverged,
    /// It lies beyond the rates that were run, or beside one that diverged.
    NotMeasured,
}

/// The tuning loss at a multiple of the best learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtFactor {
    /// The multiple.
    pub factor: f64,
    /// The learning rate.
    pub lr: f64,
    /// Mean validation loss over the tuning seeds, where it is known.
    pub loss: Option<f64>,
    /// How.
    pub known: Known,
}

/// At which end of its grid a best learning rate lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// The smallest one.
    Low,
    /// The largest one.
    High,
}

/// The tuning of one optimizer, finished.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tuning {
    /// Every candidate, in the order of the trials; a single candidate is not run.
    pub trials: Vec<Trial>,
    /// Index of the best trial; none if all diverged.
    pub best: Option<usize>,
    /// By how many points the grid grew.
    pub extensions: u64,
    /// The end of the grid at which the best rate still lies.
    pub edge: Option<Edge>,
    /// Rates that were run for their sensitivity alone: the choice was made without them.
    pub probes: Vec<Trial>,
}

impl Tuning {
    /// The values chosen.
    pub fn chosen(&self) -> Option<&Candidate> {
        self.best.map(|index| &self.trials[index].candidate)
    }

    /// Runs that the choice was made with.
    pub fn runs(&self) -> usize {
        self.trials.iter().map(|trial| trial.losses.len()).sum()
    }

    /// Loss at the neighbours of the best learning rate, swept values as chosen, below and above it, minus the best loss;
    /// infinite where the neighbour diverged, None where there is none.
    pub fn sensitivity(&self) -> [Option<(f64, f64)>; 2] {
        let Some(best) = self.best.map(|index| &self.trials[index]) else { return [None, None] };
        let alike = || self.trials.iter().filter(|trial| trial.candidate.swept == best.candidate.swept);
        let lr = best.candidate.lr;
        let by_rate = |a: &&Trial, b: &&Trial| a.candidate.lr.total_cmp(&b.candidate.lr);
        let below = alike().filter(|trial| trial.candidate.lr < lr).max_by(by_rate);
        let above = alike().filter(|trial| trial.candidate.lr > lr).min_by(by_rate);
        [below, above].map(|trial| trial.map(|trial| (trial.candidate.lr / lr, trial.loss() - best.loss())))
    }

    /// Every rate that was run with the swept values chosen, and its loss; ascending, infinite where a run diverged.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let alike = |trial: &&Trial| self.chosen().is_some_and(|chosen| trial.candidate.swept == chosen.swept);
        let run = self.trials.iter().chain(&self.probes).filter(alike).filter(|trial| !trial.losses.is_empty());
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

/// How far an optimizer is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// These tuning runs are needed next.
    Tuning(Vec<Run>),
    /// The tuning is finished; these verdict runs are needed.
    Verdict(Tuning, Vec<Run>),
}

/// Where the optimizer `contender` stands, given the runs that have ended.
pub fn stage<'a>(plan: &Plan, contender: usize, ended: impl Fn(&str) -> Option<&'a Outcome>) -> Stage {
    let mut candidates = plan.candidates(contender);
    let mut extensions = 0;
    let single = candidates.len() == 1;
    loop {
        let planned: Vec<Vec<Run>> = candidates
            .iter()
            .enumerate()
            .map(|(i, c)| if single { Vec::new() } else { tuning_runs(plan, contender, i, c) })
            .collect();
        let missing: Vec<Run> = planned.iter().flatten().filter(|run| ended(&run.name).is_none()).cloned().collect();
        if !missing.is_empty() {
            return Stage::Tuning(missing);
        }
        let losses =
            |runs: &Vec<Run>| runs.iter().map(|run| ended(&run.name).and_then(|outcome| outcome.loss)).collect();
        let trial =
            |(candidate, runs): (&Candidate, &Vec<Run>)| Trial { candidate: candidate.clone(), losses: losses(runs) };
        let trials: Vec<Trial> = candidates.iter().zip(&planned).map(trial).collect();
        let best = if single { Some(0) } else { best_of(&trials) };
        let edge = if single { None } else { edge_of(&trials, best) };
        match extended(&trials, best, edge) {
            Some(candidate) if extensions < plan.settings.extensions => {
                candidates.push(candidate);
                extensions += 1;
            }
            _ => {
                let mut tuning = Tuning { trials, best, extensions, edge, probes: Vec::new() };
                let probes = if plan.settings.sensitivity { tuning.unprobed() } else { Vec::new() };
                let planned: Vec<Vec<Run>> =
                    probes.iter().map(|candidate| sensitivity_runs(plan, contender, candidate)).collect();
                let missing: Vec<Run> =
                    planned.iter().flatten().filter(|run| ended(&run.name).is_none()).cloned().collect();
                if !missing.is_empty() {
                    return Stage::Tuning(missing);
                }
                tuning.probes = probes.iter().zip(&planned).map(trial).collect();
                let runs = verdict_runs(plan, contender, &tuning);
                let missing = runs.into_iter().filter(|run| ended(&run.name).is_none()).collect();
                return Stage::Verdict(tuning, missing);
            }
        }
    }
}

/// The runs of the tuning trial with index `trial` (from 0).
pub fn tuning_runs(plan: &Plan, contender: usize, trial: usize, candidate: &Candidate) -> Vec<Run> {
    let name = &plan.contenders[contender].name;
    let run = |seed: u64| Run {
        name: format!("tune-{name}-{:02}-lr{}-s{seed}", trial + 1, candidate.lr),
        contender,
        purpose: Purpose::Tuning,
        candidate: candidate.clone(),
        seed,
    };
    plan.tune_seeds().map(run).collect()
}

/// The runs of a rate that is run for the sensitivity alone.
pub fn sensitivity_runs(plan: &Plan, contender: usize, candidate: &Candidate) -> Vec<Run> {
    let name = &plan.contenders[contender].name;
    let run = |seed: u64| Run {
        name: format!("sensitivity-{name}-lr{}-s{seed}", candidate.lr),
        contender,
        purpose: Purpose::Sensitivity,
        candidate: candidate.clone(),
        seed,
    };
    plan.tune_seeds().map(run).collect()
}

/// The verdict runs of a tuned optimizer; none if all its tuning runs diverged.
pub fn verdict_runs(plan: &Plan, contender: usize, tuning: &Tuning) -> Vec<Run> {
    let name = &plan.contenders[contender].name;
    let run = |candidate: &Candidate, seed: u64| Run {
        name: format!("verdict-{name}-s{seed}"),
        contender,
        purpose: Purpose::Verdict,
        candidate: candidate.clone(),
        seed,
    };
    tuning.chosen().map(|candidate| plan.seeds().map(|seed| run(candidate, seed)).collect()).unwrap_or_default()
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

fn best_of(trials: &[Trial]) -> Option<usize> {
    let finite = trials.iter().enumerate().filter(|(_, trial)| trial.loss().is_finite());
    finite.min_by(|a, b| a.1.loss().total_cmp(&b.1.loss())).map(|(index, _)| index)
}

/// Learning rates tried with the same swept values as a trial, ascending.
fn rates(trials: &[Trial], like: &Trial) -> Vec<f64> {
    let alike = trials.iter().filter(|trial| trial.candidate.swept == like.candidate.swept);
    let mut rates: Vec<f64> = alike.map(|trial| trial.candidate.lr).collect();
    rates.sort_by(f64::total_cmp);
    rates
}

/// The end at which the best rate lies; if everything diverged, the low end. A single rate has no edge.
fn edge_of(trials: &[Trial], best: Option<usize>) -> Option<Edge> {
    let best_trial = &trials[best.unwrap_or(0)];
    let rates = rates(trials, best_trial);
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

/// The candidate beyond an edge, as far from it as its neighbour is on the other side.
fn extended(trials: &[Trial], best: Option<usize>, edge: Option<Edge>) -> Option<Candidate> {
    let like = &trials[best.unwrap_or(0)];
    let rates = rates(trials, like);
    let lr = match edge? {
        Edge::Low => rates[0] * rates[0] / rates[1],
        Edge::High => rates[rates.len() - 1] * rates[rates.len() - 1] / rates[rates.len() - 2],
    };
    Some(Candidate { lr: round(lr), swept: like.candidate.swept.clone() })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::compare::plan::Request;
    use crate::metrics::End;

    /// A run that ended with this loss; None diverged.
    pub fn ended(loss: Option<f64>) -> Outcome {
        let end = End {
            status: "finished".into(),
            step: 10,
            valid_loss: loss,
            best_valid_loss: loss,
            best_step: Some(10),
            tokens: 640,
            seconds: 2.0,
            optimizer_seconds: 0.5,
            peak_memory_bytes: None,
            reason: None,
        };
        let diverged = loss.is_none().then(|| "the loss is NaN".to_owned());
        Outcome { diverged, loss, end, curve: Vec::new(), train: Vec::new(), spectra: Vec::new() }
    }

    pub fn plan(text: &str) -> Plan {
        let file = Some(("plan.toml".into(), toml::from_str(text).unwrap()));
        Plan::resolve(&Request { file, ..Request::default() }).unwrap()
    }

    /// Tunes optimizer 1 on a loss that depends on the learning rate. Returns the tuning and the runs it took.
    fn tuned(plan: &Plan, loss: impl Fn(f64) -> Option<f64>) -> (Tuning, Vec<String>) {
        let mut runs: HashMap<String, Outcome> = HashMap::new();
        let mut order = Vec::new();
        loop {
            match stage(plan, 1, |name| runs.get(name)) {
                Stage::Tuning(needed) => {
                    for run in needed {
                        assert!(runs.insert(run.name.clone(), ended(loss(run.candidate.lr))).is_none(), "repeated");
                        order.push(run.name);
                    }
                }
                Stage::Verdict(tuning, verdict) => {
                    assert_eq!(verdict.len() as u64, if tuning.best.is_some() { plan.settings.seeds } else { 0 });
                    return (tuning, order);
                }
            }
        }
    }

    const PLAN: &str = "optimizers = ['adamw', 'muon']\n[compare]\nlrs = [0.01, 0.1, 1.0]\nextensions = 2";

    fn valley(bottom: f64) -> impl Fn(f64) -> Option<f64> {
        move |lr: f64| Some((lr / bottom).ln().abs())
    }

    #[test]
    fn a_best_rate_inside_the_grid_needs_the_grid_only() {
        let (tuning, runs) = tuned(&plan(PLAN), valley(0.12));
        assert_eq!((tuning.chosen().unwrap().lr, tuning.extensions, tuning.edge), (0.1, 0, None));
        assert_eq!(runs, ["tune-muon-01-lr0.01-s10001", "tune-muon-02-lr0.1-s10001", "tune-muon-03-lr1-s10001"]);
    }

    #[test]
    fn a_best_rate_at_the_edge_extends_the_grid_until_it_is_inside() {
        let (tuning, _) = tuned(&plan(PLAN), valley(0.009));
        assert_eq!((tuning.chosen().unwrap().lr, tuning.extensions, tuning.edge), (0.01, 1, None));
        let (tuning, _) = tuned(&plan(PLAN), valley(9.0));
        assert_eq!((tuning.chosen().unwrap().lr, tuning.extensions, tuning.edge), (10.0, 2, None));
    }

    #[test]
    fn extensions_end_at_their_limit_and_the_edge_is_reported() {
        let (tuning, _) = tuned(&plan(PLAN), valley(1e6));
        assert_eq!((tuning.chosen().unwrap().lr, tuning.extensions, tuning.edge), (100.0, 2, Some(Edge::High)));
    }

    #[test]
    fn a_diverged_trial_is_a_result() {
        let (tuning, _) = tuned(&plan(PLAN), |lr| (lr < 0.5).then(|| 1.0 / lr));
        assert_eq!((tuning.chosen().unwrap().lr, tuning.extensions), (0.1, 0));
        let [below, above] = tuning.sensitivity();
        assert_eq!(above.unwrap().1, f64::INFINITY);
        assert!((below.unwrap().1 - 90.0).abs() < 1e-9);
        let (tuning, runs) = tuned(&plan(PLAN), |_| None);
        assert_eq!((tuning.best, tuning.extensions, runs.len()), (None, 2, 5));
    }

    #[test]
    fn a_single_rate_is_not_tuned() {
        let (tuning, runs) = tuned(&plan("optimizers = ['adamw', 'muon']\n[compare]\nlrs = [0.01]"), valley(1.0));
        assert!(runs.is_empty());
        assert_eq!(tuning.chosen().unwrap().lr, 0.01);
        assert!(tuning.at_factors().iter().all(|at| at.known == Known::NotMeasured && at.loss.is_none()));
    }

    #[test]
    fn losses_at_factors_of_the_best_rate_are_measured_or_lie_straight_between() {
        // Losses 1 at 0.01, 0 at 0.08, 3 at 0.64: a straight line over the logarithm on either side.
        let plan = plan("optimizers = ['adamw', 'muon']\n[compare]\nlrs = [0.01, 0.08, 0.64]");
        let (tuning, _) = tuned(&plan, |lr| {
            Some(if lr < 0.08 {
                1.0
            } else if lr > 0.08 {
                3.0
            } else {
                0.0
            })
        });
        let told: Vec<(f64, Option<f64>, Known)> = tuning
            .at_factors()
            .iter()
            .map(|at| (at.factor, at.loss.map(|l| (l * 1e9).round() / 1e9), at.known))
            .collect();
        let between = |loss: f64| (Some((loss * 1e9_f64).round() / 1e9), Known::Interpolated);
        let expected = [
            (0.25, between(2.0 / 3.0)),
            (0.5, between(1.0 / 3.0)),
            (1.0, (Some(0.0), Known::Measured)),
            (2.0, between(1.0)),
            (4.0, between(2.0)),
        ];
        assert_eq!(told, expected.map(|(factor, (loss, known))| (factor, loss, known)));
    }

    #[test]
    fn nothing_is_told_beyond_the_grid_or_beside_a_rate_that_diverged() {
        let text = "optimizers = ['adamw', 'muon']\n[compare]\nlrs = [0.02, 0.04, 0.12]\nextensions = 0";
        let (tuning, _) = tuned(&plan(text), |lr| (lr < 0.1).then_some(lr));
        let told: Vec<(Option<f64>, Known)> = tuning.at_factors().iter().map(|at| (at.loss, at.known)).collect();
        let none = (None, Known::NotMeasured);
        assert_eq!(told, [none, none, (Some(0.02), Known::Measured), (Some(0.04), Known::Measured), none]);
        let (tuning, _) = tuned(&plan(&text.replace("0.12", "0.08")), |lr| (lr < 0.07).then_some(lr));
        assert_eq!(tuning.at_factors()[4].known, Known::Diverged);
    }

    #[test]
    fn sensitivity_runs_fill_the_gaps_and_change_no_choice() {
        let text = PLAN.replace("extensions = 2", "extensions = 2\nsensitivity = true");
        let curve = |lr: f64| (lr < 0.3).then(|| (lr / 0.05).ln().abs());
        let (tuning, runs) = tuned(&plan(&text), curve);
        assert_eq!(
            runs[3..],
            [0.025, 0.05, 0.2, 0.4].map(|lr| format!("sensitivity-muon-lr{lr}-s10001")),
            "after the tuning, which asks for three"
        );
        // 0.05 would have been better than 0.1, but no other optimizer was given such a rate.
        assert_eq!((tuning.chosen().unwrap().lr, tuning.runs(), tuning.probes.len()), (0.1, 3, 4));
        let known: Vec<Known> = tuning.at_factors().iter().map(|at| at.known).collect();
        assert_eq!(known, [[Known::Measured; 4].as_slice(), &[Known::Diverged]].concat());
        assert_eq!(tuning.at_factors()[1].loss, Some(0.0));
        let (plain, _) = tuned(&plan(PLAN), curve);
        assert_eq!((plain.trials, plain.best, plain.edge), (tuning.trials, tuning.best, tuning.edge));
    }

    #[test]
    fn swept_values_are_chosen_with_the_rate() {
        let plan = plan(&format!("{PLAN}\n[sweep]\n'optimizer.weight_decay' = [0.0, 0.1]"));
        let mut runs: HashMap<String, Outcome> = HashMap::new();
        let Stage::Tuning(needed) = stage(&plan, 0, |name| runs.get(name)) else { panic!() };
        assert_eq!(needed.len(), 6);
        for run in needed {
            let decay = run.candidate.swept[0].1.as_float().unwrap();
            runs.insert(run.name, ended(Some(1.0 - decay + (run.candidate.lr - 0.1).abs())));
        }
        let Stage::Verdict(tuning, verdict) = stage(&plan, 0, |name| runs.get(name)) else { panic!() };
        assert_eq!((tuning.chosen().unwrap().lr, tuning.chosen().unwrap().swept[0].1.as_float()), (0.1, Some(0.1)));
        assert_eq!(verdict.len(), 3);
    }
}
