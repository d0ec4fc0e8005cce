use super::*;
use crate::compare::outcome::Point;
use crate::compare::plan::Purpose;
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
    results(&plan, &plan.subject(), &runs, &|_| Some(8.0))
}

/// A comparison in which every optimizer reaches a loss of 2 after so many steps, seed by seed; none if it does not.
pub fn reaching(optimizers: &[(&str, &[Option<f64>])]) -> Results {
    let listed =
        optimizers.iter().map(|(name, _)| format!("{{ name = '{name}', stack = 'muon' }}, ")).collect::<String>();
    // One optimizer is no comparison.
    let rest = if optimizers.len() < 2 { "'adamw'" } else { "" };
    let seeds = optimizers[0].1.len();
    let plan =
        plan(&format!("optimizers = [{listed}{rest}]\n[compare]\nlrs = [0.01]\ntargets = [2.0, 3.0]\nseeds = {seeds}"));
    let mut runs = HashMap::new();
    for (name, steps) in optimizers {
        for (seed, steps) in plan.seeds().zip(steps.iter()) {
            // A straight line from 4 at the start.
            let at =
                |step: f64| Point { step, tokens: step, seconds: step, loss: 4.0 - 2.0 * step / steps.unwrap_or(1e9) };
            let curve = [1e-3, steps.unwrap_or(400.0)].map(at).to_vec();
            runs.insert(format!("verdict-{name}-s{seed}"), Outcome { curve, ..ended(Some(2.0)) });
        }
    }
    results(&plan, &plan.subject(), &runs, &|_| None)
}

/// The noise of a seed: a part shared by all optimizers, and a part for each.
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
        // A fixed part of the noise; over 4500 comparisons of four the share is 95.1 %.
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
    let results = results(&plan, &plan.subject(), &runs, &|_| None);
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
fn an_optimizer_that_mostly_diverges_is_not_better_for_its_few_good_runs() {
    let results = simulated(&["wild", "calm"], 12, |index, seed| {
        (index == 1 || seed <= 1).then(|| [1.5, 1.9][index] + 0.001 * normal(seed))
    });
    let pair = &results.pairs[0];
    assert_eq!((pair.a.as_str(), pair.wins, pair.separated), ("calm", [11, 1], true));
    assert!(pair.sentence.contains("calm beats wild on 11 of 12 seeds"), "{}", pair.sentence);
    assert!(pair.sentence.contains("where both finished, calm ended 0.40"), "{}", pair.sentence);
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
fn with_too_few_seeds_the_number_needed_is_reported() {
    let results = simulated(&["a", "b"], 3, |index, seed| {
        Some(1.8 + 0.002 * index as f64 + 0.004 * normal(seed * 7 + index as u64))
    });
    assert!(!results.pairs[0].separated);
    let needed = results.pairs[0].seeds_needed.unwrap();
    assert!(needed > 3);
    assert!(
        results.verdict[0].contains(&format!("about {needed} seeds are needed to detect")),
        "{}",
        results.verdict[0]
    );
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
    let results = results(&plan, &plan.subject(), &HashMap::new(), &|_| None);
    assert!(results.pairs.is_empty() && results.targets.is_empty());
    assert_eq!(results.optimizers.len(), 2);
}

/// A comparison of optimizers that are tuned by a search with halvings, each with the same loss of its rate plus its offset.
fn searched(simulation: u64, offset: [f64; 2]) -> Results {
    let plan = plan(
        "optimizers = [{ name = 'a', stack = 'muon' }, { name = 'b', stack = 'muon' }]\n[compare]\ntrials = 8\nhalvings = 2\nseeds = 5",
    );
    let mut runs = HashMap::new();
    for (index, offset) in offset.into_iter().enumerate() {
        loop {
            let needed = match stage(&plan, index, |name| runs.get(name)) {
                Stage::Tuning(needed) => needed,
                Stage::Verdict(_, needed) => needed,
            };
            if needed.is_empty() {
                break;
            }
            for run in needed {
                let away = (run.candidate.lr / 0.02).ln();
                // The search sees noise, too: what it chooses differs from optimizer to optimizer.
                let noise = noise(7000 + simulation + run.steps, index, run.seed);
                let tuned = if run.purpose == Purpose::Verdict { 0.0 } else { 0.003 * away * away };
                runs.insert(run.name, run_to(1.8 + offset + tuned + noise));
            }
        }
    }
    results(&plan, &plan.subject(), &runs, &|_| None)
}

#[test]
fn after_a_search_with_halvings_ties_stay_ties_and_intervals_hold_the_difference() {
    let ties = (0..400).filter(|simulation| !detected(&searched(*simulation, [0.0, 0.0]))).count();
    assert!(ties as f64 / 400.0 >= 0.93, "{ties} of 400");
    let holds = |simulation: &u64| {
        let results = searched(*simulation, [0.01, 0.0]);
        let pair = &results.pairs[0];
        let [low, high] = pair.loss.and_then(|loss| loss.interval).expect("five seeds");
        let difference = if pair.a == "b" { 0.01 } else { -0.01 };
        low <= difference && difference <= high
    };
    let held = (0..1000).filter(holds).count();
    assert!((930..=970).contains(&held), "{held} of 1000");
}
