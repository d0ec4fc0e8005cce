//! The results of a comparison: what `results.json` holds.

use std::cmp::Ordering;

use serde::Serialize;

use super::plan::Candidate;
use super::statistics::Paired;
use super::tuning::{AtFactor, Tuning};

/// Version of `results.json`.
pub const FORMAT: u32 = 1;

/// Everything a comparison found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// Version of this format.
    pub format: u32,
    /// Version of the program.
    pub polaron: String,
    /// The verdict: one sentence for every pair.
    pub verdict: Vec<String>,
    /// The optimizers from best to worst, and which places are not separated.
    pub ranking: String,
    /// What a reader must know to judge how far the verdict can be trusted.
    pub notes: Vec<String>,
    /// The losses to reach.
    pub targets: Vec<f64>,
    /// How they were chosen.
    pub targets_are: String,
    /// Steps of a verdict run.
    pub steps: u64,
    /// What is counted as tokens: "tokens" or "images".
    pub unit: String,
    /// Tokens of a step.
    pub tokens_per_step: u64,
    /// Verdict seeds.
    pub seeds: Vec<u64>,
    /// How many verdict seeds there were before more were added, each time; absent if none were.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seeds_before: Vec<u64>,
    /// Tuning seeds.
    pub tune_seeds: Vec<u64>,
    /// The optimizers, in the order of the plan.
    pub optimizers: Vec<Standing>,
    /// Every pair of them, the better one first.
    pub pairs: Vec<Pair>,
}

impl Results {
    /// Whether seconds can be compared between the optimizers: no pair has runs on different processors.
    pub fn times_comparable(&self) -> bool {
        self.pairs.iter().all(|pair| pair.times_comparable)
    }
}

/// One optimizer in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Best and worst place that the evidence allows, from 1; None without a verdict, or if every run diverged.
    pub places: Option<[usize; 2]>,
    /// Mean final validation loss of the verdict runs that finished.
    pub loss: Option<f64>,
    /// Half the width of the 95 % interval of that mean.
    pub loss_half_width: Option<f64>,
    /// How it reached every target.
    pub targets: Vec<Reach>,
    /// Learning rate and swept values of the verdict runs.
    pub chosen: Option<Candidate>,
    /// Its tuning.
    pub tuning: Tuning,
    /// Number of tuning runs.
    pub tuning_runs: usize,
    /// Number of their steps: its budget.
    pub tuning_steps: u64,
    /// Loss at the next smaller and the next larger learning rate tried: factor to the best rate, and how much worse; null
    /// if a run diverged.
    pub sensitivity: [Option<(f64, Option<f64>)>; 2],
    /// Tuning loss at the best learning rate divided and multiplied by 2 and 4, and how it is known; empty if none was chosen.
    pub at_factors: Vec<AtFactor>,
    /// Mean share of the training time spent clipping and updating.
    pub optimizer_share: Option<f64>,
    /// Mean training seconds of a step.
    pub seconds_per_step: Option<f64>,
    /// Bytes of optimizer state per parameter, measured on a checkpoint.
    pub state_bytes_per_parameter: Option<f64>,
    /// Verdict runs that diverged.
    pub diverged: usize,
    /// Tuning runs that diverged.
    pub diverged_in_tuning: usize,
    /// The verdict runs.
    pub runs: Vec<VerdictRun>,
}

impl Standing {
    /// Orders from best to worst: by place if there is one, then by the number of runs that diverged, then by mean loss.
    /// An optimizer without a finished run is last.
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
    /// Of this many runs.
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
    /// The part of them spent clipping and updating.
    pub optimizer_seconds: f64,
    /// Steps, tokens and seconds at which each target was reached; null if it was not.
    pub reached: Vec<Option<[f64; 3]>>,
    /// Models of the processors that it was trained on; absent if they are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<String>,
    /// Why it diverged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
}

/// Two optimizers compared, seed by seed; `a` is the better one, as far as the runs show.
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
    /// Its p-value, corrected by Holm for all pairs; None if there is no test.
    pub p_loss: Option<f64>,
    /// Whether `p_loss` is below 0.05.
    pub separated: bool,
    /// Number of seeds with which a difference of this size is found with probability 0.8; None if above a thousand.
    pub seeds_needed: Option<usize>,
    /// The difference that this number of seeds finds with probability 0.8.
    pub detectable: Option<f64>,
    /// The steps to every target.
    pub targets: Vec<PairReach>,
    /// Whether the two runs of every seed were made on the same model of processor. If not, seconds cannot be compared.
    pub times_comparable: bool,
    /// The verdict in one sentence.
    pub sentence: String,
}

impl Pair {
    /// Whether `a` is the better one.
    pub fn is_ordered(&self) -> bool {
        match (self.test, self.wins[0].cmp(&self.wins[1])) {
            ("sign", std::cmp::Ordering::Less) => false,
            ("sign", std::cmp::Ordering::Greater) => true,
            _ => self.loss.is_none_or(|loss| loss.mean >= 0.0),
        }
    }
}

/// How two optimizers reached one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReach {
    /// The loss.
    pub target: f64,
    /// Runs of `a` and of `b` that reached it.
    pub reached: [usize; 2],
    /// Steps of `a` over steps of `b`: geometric mean over the seeds. A run that did not reach the target counts with all
    /// its steps (and a diverged one with all of the plan's).
    pub steps: Option<Paired>,
    /// The same for training seconds, measured with several runs at a time; see [`Pair::times_comparable`].
    pub seconds: Option<Paired>,
    /// Whether every run reached the target. If not, the ratios are bounds.
    pub complete: bool,
    /// p-value of the steps, corrected by Holm for all pairs and targets: t test if complete, else the sign test.
    pub p: Option<f64>,
}
