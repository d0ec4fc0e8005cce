//! When it is believed that an optimizer reaches a loss within some number of steps: the rules of `polaron race` (`docs/RACE.md`).

use serde::Serialize;

use super::statistics::{ALPHA, Paired, holm, mean, paired, standard_deviation};

/// The fewest runs of a claim.
pub const LEAST_RUNS: u64 = 8;
/// Standard errors by which the mean has to be below the target: the quantile of 0.999 of the normal distribution.
pub const MARGIN: f64 = 3.09;

/// The runs of an entry beside the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// Number of runs.
    pub n: usize,
    /// How many of them diverged.
    pub diverged: usize,
    /// Mean of their final losses; None if one diverged.
    pub mean: Option<f64>,
    /// Standard deviation of these losses (n - 1); None if there are fewer than two.
    pub sd: Option<f64>,
    /// `(target - mean) √n / sd`; None without a standard deviation above 0.
    pub margin: Option<f64>,
    /// Whether the target is reached: at least [`LEAST_RUNS`] runs, none diverged, and `(target - mean) √n ≥ MARGIN sd`.
    pub stands: bool,
}

impl Claim {
    /// The claim that runs with these final losses (None: diverged) reach the target.
    pub fn of(losses: &[Option<f64>], target: f64) -> Self {
        let n = losses.len();
        let finished: Option<Vec<f64>> = losses.iter().copied().collect();
        let finished = finished.filter(|losses| !losses.is_empty());
        let mean = finished.as_deref().map(mean);
        let sd = finished.as_deref().and_then(standard_deviation);
        let below = mean.map(|mean| (target - mean) * (n as f64).sqrt());
        let held = below.zip(sd).is_some_and(|(below, sd)| below > 0.0 && below >= MARGIN * sd);
        Self {
            n,
            diverged: losses.iter().filter(|loss| loss.is_none()).count(),
            mean,
            sd,
            margin: below.zip(sd.filter(|sd| *sd > 0.0)).map(|(below, sd)| below / sd),
            stands: held && n as u64 >= LEAST_RUNS,
        }
    }
}

/// Two entries that were run for the same number of steps, on the same seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lead {
    /// The one with the lower mean loss.
    pub ahead: String,
    /// The other one.
    pub behind: String,
    /// Loss of the other minus that of the one ahead; its `p` is corrected by Holm for all pairs.
    pub loss: Paired,
    /// Whether that p is below 0.05.
    pub decided: bool,
}

/// Every pair of entries without a diverged run; their losses are in the order of the seeds.
pub fn leads(entries: &[(String, Vec<Option<f64>>)]) -> Vec<Lead> {
    let finished = |(name, losses): &(String, Vec<Option<f64>>)| {
        Some((name.clone(), losses.iter().copied().collect::<Option<Vec<f64>>>()?))
    };
    let entries: Vec<(String, Vec<f64>)> = entries.iter().filter_map(finished).collect();
    let mut leads = Vec::new();
    for (index, (one, losses)) in entries.iter().enumerate() {
        for (other, others) in &entries[index + 1..] {
            let differences: Vec<f64> = losses.iter().zip(others).map(|(loss, other)| other - loss).collect();
            let Some(loss) = paired(&differences) else { continue };
            let (ahead, behind, loss) =
                if loss.mean >= 0.0 { (one, other, loss) } else { (other, one, loss.reversed()) };
            leads.push(Lead { ahead: ahead.clone(), behind: behind.clone(), loss, decided: false });
        }
    }
    let known: Vec<f64> = leads.iter().filter_map(|lead| lead.loss.p).collect();
    let tested = leads.iter_mut().filter(|lead| lead.loss.p.is_some());
    for (lead, p) in tested.zip(holm(&known)) {
        lead.loss.p = Some(p);
        lead.decided = p < ALPHA;
    }
    leads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::statistics::tests::normal;

    fn losses(count: u64, mean: f64, sd: f64, simulation: u64) -> Vec<Option<f64>> {
        (0..count).map(|run| Some(mean + sd * normal(simulation * 100 + run))).collect()
    }

    #[test]
    fn a_claim_has_the_answers_of_its_formula() {
        let of = |values: &[f64]| Claim::of(&values.iter().map(|x| Some(*x)).collect::<Vec<_>>(), 1.5);
        let claim = of(&[1.48, 1.49, 1.50, 1.47, 1.48, 1.49, 1.50, 1.47]);
        assert_eq!((claim.n, claim.diverged, claim.stands), (8, 0, true));
        // Mean 1.485, standard deviation √(0.001 / 7), margin 0.015 √8 / 0.01195.
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
        let sd = (0.001f64 / 7.0).sqrt();
        assert!(close(claim.mean, 1.485) && close(claim.sd, sd) && close(claim.margin, 0.015 * 8f64.sqrt() / sd));
        assert!(!of(&[1.48, 1.49, 1.50, 1.47, 1.48, 1.49, 1.50]).stands, "seven runs are too few");
        assert!(!of(&[1.49, 1.51, 1.50, 1.47, 1.52, 1.49, 1.50, 1.47]).stands, "a mean below the target is not enough");
        assert!(of(&[1.4; 8]).stands && !of(&[1.5; 8]).stands, "runs without any spread");
        let diverged = Claim::of(&[[Some(1.0); 8].as_slice(), &[None]].concat(), 1.5);
        assert_eq!((diverged.diverged, diverged.mean, diverged.stands), (1, None, false));
        assert!(!Claim::of(&[], 1.5).stands);
    }

    #[test]
    fn a_claim_that_does_not_hold_rarely_stands_and_one_that_does_usually_stands() {
        let share = |count: u64, mean: f64| {
            let stands = |simulation: &u64| Claim::of(&losses(count, mean, 0.004, *simulation), 1.5).stands;
            (0..4000).filter(stands).count() as f64 / 4000.0
        };
        // Exactly at the target. The margin is that of a known spread; with the spread of eight runs it is exceeded in P(t₇ > 3.09) =
        // 0.9 % of cases, with twenty in 0.3 %.
        let [eight, twenty] = [8, 20].map(|count| share(count, 1.5));
        assert!((0.005..0.013).contains(&eight), "{eight}");
        assert!((0.001..0.006).contains(&twenty), "{twenty}");
        // Two standard deviations below the target.
        assert!(share(8, 1.492) > 0.9);
    }

    #[test]
    fn the_lead_of_equal_entries_is_rarely_decided_and_a_planted_one_is_found() {
        let entries = |offset: f64, simulation: u64| {
            let shared = losses(8, 0.0, 0.004, simulation + 900_000);
            let of = |place: u64, offset: f64| {
                let own = losses(8, 1.5 + offset, 0.002, 3 * simulation + place);
                own.iter().zip(&shared).map(|(own, shared)| Some((*own)? + (*shared)?)).collect::<Vec<_>>()
            };
            [("a".to_owned(), of(0, 0.0)), ("b".to_owned(), of(1, 0.0)), ("c".to_owned(), of(2, offset))]
        };
        let any = |simulation: &u64| leads(&entries(0.0, *simulation)).iter().any(|lead| lead.decided);
        let wrong = (0..1000).filter(any).count();
        assert!(wrong <= 65, "{wrong} of 1000: at most 5 % and what the sample may add");
        let found = |simulation: &u64| {
            leads(&entries(0.006, *simulation)).iter().filter(|lead| lead.behind == "c" && lead.decided).count() == 2
        };
        assert!((0..200).filter(found).count() > 190);
        let diverged = [("a".to_owned(), vec![Some(1.0); 8]), ("b".to_owned(), vec![None; 8])];
        assert!(leads(&diverged).is_empty());
    }
}
