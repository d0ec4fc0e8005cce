//! A performance profile: how the optimizers of several comparisons stand over all their tasks, so that nobody wins by one.
//!
//! Dolan and Moré, arXiv cs/0102001; as in AlgoPerf, arXiv 2306.07179: for every task the time to its target relative to the best
//! optimizer's, and for every factor the share of the tasks that an optimizer solves within that factor.

use super::results::{Results, Standing};

/// Shares are shown, and scored, up to this factor of the best time.
pub const LARGEST: f64 = 4.0;

/// What is counted until a target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Steps.
    Steps,
    /// Training seconds.
    Seconds,
}

/// The profile of the optimizers that all tasks have.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The optimizers, in the order of the first task.
    pub optimizers: Vec<String>,
    /// For every optimizer and task, its time relative to the best one's; infinite if it did not reach the target.
    pub ratios: Vec<Vec<f64>>,
}

impl Profile {
    /// The profile over comparisons, each of which is a task; None with fewer than two tasks or common optimizers.
    pub fn of(tasks: &[&Results], count: Count) -> Option<Self> {
        let (first, others) = tasks.split_first().filter(|(_, others)| !others.is_empty())?;
        let common = |name: &String| others.iter().all(|task| task.optimizers.iter().any(|other| other.name == *name));
        let names = first.optimizers.iter().map(|standing| standing.name.clone());
        let optimizers: Vec<String> = names.filter(common).collect();
        if optimizers.len() < 2 {
            return None;
        }
        let mut ratios = vec![Vec::new(); optimizers.len()];
        for task in tasks {
            let time = |name: &String| {
                let standing = task.optimizers.iter().find(|standing| standing.name == *name);
                standing.map_or(f64::INFINITY, |standing| median_time(standing, hardest(task), count))
            };
            let times: Vec<f64> = optimizers.iter().map(time).collect();
            let best = times.iter().copied().fold(f64::INFINITY, f64::min);
            for (ratios, time) in ratios.iter_mut().zip(times) {
                // Where nobody reached the target, nobody solved the task.
                ratios.push(if time.is_finite() { time / best } else { f64::INFINITY });
            }
        }
        Some(Self { optimizers, ratios })
    }

    /// The share of the tasks that an optimizer solves within `factor` times the best time.
    pub fn share(&self, optimizer: usize, factor: f64) -> f64 {
        let ratios = &self.ratios[optimizer];
        ratios.iter().filter(|ratio| **ratio <= factor).count() as f64 / ratios.len() as f64
    }

    /// The mean of that share over all factors from 1 to [`LARGEST`]: 1 for an optimizer that is the best in every task.
    pub fn score(&self, optimizer: usize) -> f64 {
        let ratios = &self.ratios[optimizer];
        ratios.iter().map(|ratio| ((LARGEST - ratio) / (LARGEST - 1.0)).max(0.0)).sum::<f64>() / ratios.len() as f64
    }

    /// The share as a curve: both ends of every level, in ascending factors.
    pub fn curve(&self, optimizer: usize) -> Vec<(f64, f64)> {
        let mut jumps: Vec<f64> =
            self.ratios[optimizer].iter().copied().filter(|ratio| (1.0..LARGEST).contains(ratio)).collect();
        jumps.push(1.0);
        jumps.sort_by(f64::total_cmp);
        jumps.dedup();
        let ends = jumps.iter().copied().zip(jumps.iter().copied().skip(1).chain([LARGEST]));
        ends.flat_map(|(from, to)| [from, to].map(|factor| (factor, self.share(optimizer, from)))).collect()
    }
}

/// The index of the lowest target.
fn hardest(results: &Results) -> usize {
    let targets = results.targets.iter().enumerate();
    targets.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index)
}

/// The median over the verdict runs of the time to a target; a run that did not reach it counts as infinite.
fn median_time(standing: &Standing, target: usize, count: Count) -> f64 {
    let place = if count == Count::Steps { 0 } else { 2 };
    let time = |reached: Option<&Option<[f64; 3]>>| reached.copied().flatten().map_or(f64::INFINITY, |at| at[place]);
    let mut times: Vec<f64> = standing.runs.iter().map(|run| time(run.reached.get(target))).collect();
    times.sort_by(f64::total_cmp);
    match times.len() {
        0 => f64::INFINITY,
        n if n % 2 == 1 => times[n / 2],
        n => f64::midpoint(times[n / 2 - 1], times[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::judge::tests::reaching;

    /// Optimizers with the steps that they need, seed by seed; none where they do not reach the target.
    type Task<'a> = &'a [(&'a str, &'a [Option<f64>])];

    fn profile(tasks: &[Task<'_>]) -> Option<Profile> {
        let results: Vec<Results> = tasks.iter().map(|task| reaching(task)).collect();
        Profile::of(&results.iter().collect::<Vec<_>>(), Count::Steps)
    }

    #[test]
    fn shares_scores_and_curves_have_known_answers() {
        let found = profile(&[
            &[("a", &[Some(100.0), Some(90.0), Some(300.0)]), ("b", &[Some(150.0); 3])],
            &[("b", &[Some(100.0); 3]), ("a", &[Some(220.0), Some(180.0), Some(200.0)]), ("c", &[Some(1.0); 3])],
            &[("a", &[Some(50.0), None, None]), ("b", &[Some(80.0), Some(80.0), None])],
            &[("a", &[None; 3]), ("b", &[None; 3])],
        ])
        .unwrap();
        assert_eq!(found.optimizers, ["a", "b"], "c is not in every task");
        assert_eq!(found.ratios, [[1.0, 2.0, f64::INFINITY, f64::INFINITY], [1.5, 1.0, 1.0, f64::INFINITY]]);
        assert_eq!([1.0, 1.9, 2.0, 4.0].map(|factor| found.share(0, factor)), [0.25, 0.25, 0.5, 0.5]);
        assert!((found.score(0) - (1.0 + 2.0 / 3.0) / 4.0).abs() < 1e-12);
        assert!((found.score(1) - (2.5 / 3.0 + 2.0) / 4.0).abs() < 1e-12);
        assert_eq!(found.curve(0), [(1.0, 0.25), (2.0, 0.25), (2.0, 0.5), (4.0, 0.5)]);
        // The score is the area under the curve.
        let area = found.curve(1).chunks(2).map(|level| (level[1].0 - level[0].0) * level[0].1).sum::<f64>() / 3.0;
        assert!((found.score(1) - area).abs() < 1e-12);
    }

    #[test]
    fn one_task_or_one_common_optimizer_has_no_profile() {
        let task: Task<'_> = &[("a", &[Some(1.0)]), ("b", &[Some(2.0)])];
        assert!(profile(&[task]).is_none());
        assert!(profile(&[task, &[("a", &[Some(1.0)]), ("d", &[Some(2.0)])]]).is_none());
        assert!(profile(&[task, task]).is_some());
    }
}
