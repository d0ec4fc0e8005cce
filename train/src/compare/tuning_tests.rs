use std::collections::HashMap;

use super::*;
use crate::children::Request;
use crate::store::metrics::End;

/// A run that ended with this loss; None means that it diverged.
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
    Outcome { diverged, loss, end, curve: Vec::new(), train: Vec::new(), spectra: Vec::new(), cpus: Vec::new() }
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
fn losses_at_multiples_of_the_best_rate_are_measured_or_interpolated() {
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
    let told: Vec<(f64, Option<f64>, Known)> =
        tuning.at_factors().iter().map(|at| (at.factor, at.loss.map(|l| (l * 1e9).round() / 1e9), at.known)).collect();
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
fn no_loss_is_reported_outside_the_grid_or_next_to_a_rate_that_diverged() {
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
        "after the tuning, which takes three"
    );
    // 0.05 would have been better than 0.1, but the other optimizers did not get such a rate.
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

#[test]
fn rates_that_are_added_later_repeat_no_run_and_name_the_runs_of_another_choice_anew() {
    let mut plan = plan(PLAN);
    let (before, first) = tuned(&plan, valley(9.0));
    assert_eq!((before.chosen().unwrap().lr, before.extensions), (10.0, 2));
    let verdict = |plan: &Plan, tuning: &Tuning| verdict_runs(plan, 1, tuning)[0].name.clone();
    assert_eq!(verdict(&plan, &before), "verdict-muon-s1");
    plan.contenders[1].lrs_before = vec![plan.contenders[1].lrs.clone()];
    plan.contenders[1].lrs = vec![0.01, 0.1, 0.3, 1.0, 3.0];
    let (same, runs) = tuned(&plan, valley(9.0));
    assert_eq!(runs[..first.len()], first, "the runs so far come first, with their names");
    assert_eq!(runs[first.len()..], ["tune-muon-06-lr0.3-s10001", "tune-muon-07-lr3-s10001"]);
    assert_eq!((same.chosen(), verdict(&plan, &same)), (before.chosen(), "verdict-muon-s1".into()));
    // A valley that only the added rate finds: the first choice was 1.
    let narrow = |lr: f64| Some(if lr == 0.3 { 0.0 } else { (lr / 0.9).ln().abs() });
    let (other, _) = tuned(&plan, narrow);
    assert_eq!(other.chosen().unwrap().lr, 0.3);
    assert!(verdict(&plan, &other).starts_with("verdict-muon-0"), "{}", verdict(&plan, &other));
}

const SEARCH: &str =
    "optimizers = ['adamw', 'muon']\n[compare]\ntrials = 16\nhalvings = 3\ntune_steps = 240\nextensions = 2";

/// Tunes optimizer 1 on a loss that depends on the whole candidate and the steps. Returns the tuning and its runs.
fn searched(plan: &Plan, loss: impl Fn(&Run) -> Option<f64>) -> (Tuning, Vec<Run>) {
    let mut runs: HashMap<String, Outcome> = HashMap::new();
    let mut order = Vec::new();
    loop {
        match stage(plan, 1, |name| runs.get(name)) {
            Stage::Verdict(tuning, _) => return (tuning, order),
            Stage::Tuning(needed) => {
                for run in needed {
                    assert!(runs.insert(run.name.clone(), ended(loss(&run))).is_none(), "repeated");
                    order.push(run);
                }
            }
        }
    }
}

/// Lowest where the rate is 0.01 and the momentum 0.9; shorter runs end higher.
fn bowl(run: &Run) -> Option<f64> {
    let momentum = run.candidate.swept.iter().find(|(key, _)| key.ends_with("momentum"))?.1.as_float()?;
    Some((run.candidate.lr / 0.01).ln().powi(2) + ((1.0 - momentum) / 0.1).ln().powi(2) + 10.0 / run.steps as f64)
}

#[test]
fn every_round_of_a_search_runs_the_better_half_for_twice_as_many_steps() {
    let (tuning, runs) = searched(&plan(SEARCH), bowl);
    let of = |steps: u64| runs.iter().filter(|run| run.steps == steps).collect::<Vec<_>>();
    assert_eq!([30, 60, 120, 240].map(|steps| of(steps).len()), [16, 8, 4, 2]);
    assert_eq!((tuning.runs(), tuning.steps(), tuning.extensions), (30, 4 * 480, 0));
    // The bowl is the same for all lengths, so the best of the last round is the best of all.
    let best = of(30).into_iter().min_by(|a, b| bowl(a).unwrap().total_cmp(&bowl(b).unwrap())).unwrap();
    assert_eq!(tuning.chosen(), Some(&best.candidate));
    assert_eq!(runs[0].name, format!("tune-muon-01-lr{}-s10001-30steps", runs[0].candidate.lr));
    assert!(of(240).iter().all(|run| run.name.ends_with("-s10001")), "the last round is named as a grid is");
    let rounds = tuning.trials[tuning.best.unwrap()].rounds().map(|round| round.steps).collect::<Vec<_>>();
    assert_eq!(rounds, [30, 60, 120, 240]);
}

#[test]
fn a_search_is_the_same_in_whatever_order_its_runs_end() {
    let (tuning, _) = searched(&plan(SEARCH), bowl);
    let one_by_one = |plan: &Plan| {
        let mut runs: HashMap<String, Outcome> = HashMap::new();
        loop {
            match stage(plan, 1, |name| runs.get(name)) {
                Stage::Verdict(tuning, _) => return tuning,
                // The last of those that are needed, as if it had overtaken the others.
                Stage::Tuning(needed) => needed.last().map(|run| runs.insert(run.name.clone(), ended(bowl(run)))),
            };
        }
    };
    assert_eq!(one_by_one(&plan(SEARCH)), tuning);
}

#[test]
fn candidates_that_diverge_are_in_no_further_round() {
    let some = |run: &Run| bowl(run).filter(|_| run.candidate.lr < 0.006);
    let (tuning, runs) = searched(&plan(SEARCH), some);
    let later = runs.iter().filter(|run| run.steps == 60);
    assert!(later.clone().count() > 0 && later.clone().all(|run| run.candidate.lr < 0.006));
    assert!(tuning.chosen().unwrap().lr < 0.006 && tuning.diverged() > 0);
    // Where all do, the search ends below its rates and says so.
    let (tuning, runs) = searched(&plan(SEARCH), |_| None);
    assert_eq!((tuning.best, tuning.edge, tuning.extensions, runs.len()), (None, Some(Edge::Low), 2, 18));
}

#[test]
fn a_search_reaches_beyond_the_best_of_its_rates() {
    let plan = plan(&SEARCH.replace("halvings = 3", "halvings = 0"));
    let (tuning, runs) = searched(&plan, |run| Some((run.candidate.lr / 5.0).ln().abs()));
    let highest = runs[..16].iter().map(|run| run.candidate.lr).fold(0.0, f64::max);
    assert_eq!((tuning.extensions, tuning.edge), (2, Some(Edge::High)));
    assert_eq!(tuning.chosen().unwrap().lr, round(round(highest * 2.0) * 2.0));
    assert_eq!(
        tuning.chosen().unwrap().swept,
        runs.iter().find(|run| run.candidate.lr == highest).unwrap().candidate.swept
    );
}
