//! The statistics of a verdict: paired differences, corrections for multiple tests, and the number of seeds needed.
//!
//! Everything here is arithmetic on small samples, independent of optimizers. Known answers from SciPy and statsmodels
//! come from `train/tests/reference/statistics.py`.

use polaron_common::splitmix64;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, Continuous, ContinuousCDF, Normal, StudentsT};

/// Probability that an interval contains the true value.
pub const CONFIDENCE: f64 = 0.95;
/// Probability of finding a difference where there is none, over all tests of one kind.
pub const ALPHA: f64 = 1.0 - CONFIDENCE;
/// Probability of finding a true difference, for which the number of seeds is computed.
pub const POWER: f64 = 0.8;
/// The smallest number of pairs for which a bootstrap interval is computed.
pub const BOOTSTRAP_FROM: usize = 5;
/// More seeds than anybody will run: the search ends here.
const MOST_SEEDS: usize = 1000;
const RESAMPLES: usize = 10_000;

/// Mean of paired differences with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Number of pairs.
    pub n: usize,
    /// Mean difference.
    pub mean: f64,
    /// Standard deviation of the differences (n - 1); absent for fewer than two pairs.
    pub sd: Option<f64>,
    /// Low and high end of the 95 % t interval; absent for fewer than two pairs.
    pub interval: Option<[f64; 2]>,
    /// Two-sided p-value of Student's t test; absent where it cannot be computed (fewer than two pairs, or differences that
    /// are all equal and not zero).
    pub p: Option<f64>,
    /// Low and high end of the 95 % percentile bootstrap interval, from five pairs on; too narrow for few pairs.
    pub bootstrap: Option<[f64; 2]>,
}

/// Student's paired t test of `differences`; None if there are none.
pub fn paired(differences: &[f64]) -> Option<Paired> {
    let n = differences.len();
    if n == 0 {
        return None;
    }
    let mean = mean(differences);
    let sd = standard_deviation(differences);
    let error = sd.map(|sd| sd / (n as f64).sqrt());
    let interval = error.map(|error| {
        let reach = t_quantile(0.5 + CONFIDENCE / 2.0, n - 1) * error;
        [mean - reach, mean + reach]
    });
    let p = error.and_then(|error| match (error > 0.0, mean == 0.0) {
        (true, _) => Some(two_sided_p(mean / error, n - 1)),
        // Differences that are all zero are evidence of nothing.
        (false, true) => Some(1.0),
        (false, false) => None,
    });
    let bootstrap = (n >= BOOTSTRAP_FROM).then(|| bootstrap(differences));
    Some(Paired { n, mean, sd, interval, p, bootstrap })
}

impl Paired {
    /// For differences of logarithms, the same for the ratios: exponentials of mean and intervals.
    pub fn exponential(&self) -> Self {
        let both = |ends: Option<[f64; 2]>| ends.map(|ends| ends.map(f64::exp));
        Self { mean: self.mean.exp(), interval: both(self.interval), bootstrap: both(self.bootstrap), ..*self }
    }

    /// The same with the two sides exchanged.
    pub fn reversed(&self) -> Self {
        let turn = |ends: Option<[f64; 2]>| ends.map(|[low, high]| [-high, -low]);
        // Subtracted from zero, so that no "-0" is shown.
        Self { mean: 0.0 - self.mean, interval: turn(self.interval), bootstrap: turn(self.bootstrap), ..*self }
    }
}

/// Arithmetic mean; NaN if there are no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation with n - 1; None for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let n = values.len();
    let centre = mean(values);
    (n >= 2).then(|| (values.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt())
}

/// Half the width of the 95 % t interval of a mean; None for fewer than two values.
pub fn half_width(values: &[f64]) -> Option<f64> {
    let n = values.len();
    standard_deviation(values).map(|sd| t_quantile(0.5 + CONFIDENCE / 2.0, n - 1) * sd / (n as f64).sqrt())
}

fn student(freedom: usize) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, freedom as f64).ok()
}

/// Quantile of Student's distribution; NaN without a degree of freedom.
fn t_quantile(probability: f64, freedom: usize) -> f64 {
    student(freedom).map_or(f64::NAN, |t| t.inverse_cdf(probability))
}

fn two_sided_p(t: f64, freedom: usize) -> f64 {
    student(freedom).map_or(f64::NAN, |student| 2.0 * student.sf(t.abs()))
}

/// Percentile interval over resamples that a counter-based generator draws: the same sample gives the same interval.
fn bootstrap(differences: &[f64]) -> [f64; 2] {
    let n = differences.len();
    let draw = |counter: usize| {
        let x = splitmix64(counter as u64);
        ((u128::from(x) * n as u128) >> 64) as usize
    };
    let resample = |index: usize| {
        let chosen = (0..n).map(|place| differences[draw(index * n + place)]);
        chosen.sum::<f64>() / n as f64
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(resample).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
    [at(ALPHA / 2.0), at(1.0 - ALPHA / 2.0)]
}

/// Holm's adjusted p-values, in the order given: all those below [`ALPHA`] may be called differences, with a probability
/// of at most [`ALPHA`] that any of them is not one.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut largest: f64 = 0.0;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

/// Two-sided p-value of the exact sign test: of `first + second` pairs that differ, `first` went one way. 1 if none differ.
pub fn sign_test(first: usize, second: usize) -> f64 {
    let n = first + second;
    let mut term = 0.5_f64.powi(n as i32);
    let mut sum = 0.0;
    for k in 0..=first.min(second) {
        sum += term;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    (2.0 * sum).min(1.0)
}

/// Probability that the two-sided t test at level `alpha` finds a true mean difference of `effect` standard deviations with
/// `n` pairs: the noncentral t distribution, integrated over the sample's standard deviation.
pub fn power(effect: f64, n: usize, alpha: f64) -> f64 {
    const PANELS: usize = 500;
    let freedom = n.saturating_sub(1);
    let (Ok(chi), Some(student)) = (ChiSquared::new(freedom as f64), student(freedom)) else { return 0.0 };
    let (normal, freedom) = (Normal::standard(), freedom as f64);
    let (threshold, shift) = (student.inverse_cdf(1.0 - alpha / 2.0), effect.abs() * (n as f64).sqrt());
    // Above this ratio of the sample's standard deviation to the true one the density is negligible.
    let width = (1.0 + 9.0 / freedom.sqrt()) / PANELS as f64;
    let panel = |index: usize| {
        let ratio = (index as f64 + 0.5) * width;
        let density = 2.0 * freedom * ratio * chi.pdf(freedom * ratio * ratio);
        density * (normal.cdf(shift - threshold * ratio) + normal.cdf(-shift - threshold * ratio))
    };
    ((0..PANELS).map(panel).sum::<f64>() * width).min(1.0)
}

/// The fewest pairs with which a difference of `effect` standard deviations is found with probability [`POWER`]; None if a
/// thousand are too few.
pub fn pairs_needed(effect: f64, alpha: f64) -> Option<usize> {
    let enough = |n: usize| power(effect, n, alpha) >= POWER;
    if !enough(MOST_SEEDS) {
        return None;
    }
    // More pairs never lower the power.
    let (mut low, mut high) = (1, MOST_SEEDS);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// The smallest difference, in standard deviations, that `n` pairs find with probability [`POWER`]; None for fewer than two.
pub fn detectable(n: usize, alpha: f64) -> Option<f64> {
    if n < 2 {
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while power(high, n, alpha) < POWER {
        low = high;
        high *= 2.0;
        if high > 1e9 {
            return None;
        }
    }
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if power(middle, n, alpha) < POWER { low = middle } else { high = middle }
    }
    Some(high)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{found} is not {expected}");
    }

    // Expected numbers: train/tests/reference/statistics.py.
    include!("../../tests/reference/statistics.rs.in");

    #[test]
    fn the_paired_t_test_gives_scipys_numbers() {
        for case in PAIRED {
            let found = paired(case.sample).unwrap();
            close(found.mean, case.mean, 1e-12);
            close(found.sd.unwrap(), case.sd, 1e-12);
            close(found.interval.unwrap()[0], case.low, 1e-9);
            close(found.interval.unwrap()[1], case.high, 1e-9);
            close(found.p.unwrap(), case.p, 1e-9);
        }
    }

    #[test]
    fn holms_correction_gives_statsmodels_numbers() {
        for (raw, expected) in HOLM {
            for (found, expected) in holm(raw).iter().zip(*expected) {
                close(*found, *expected, 1e-12);
            }
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn the_sign_test_gives_scipys_numbers() {
        for (first, second, expected) in SIGN {
            close(sign_test(*first, *second), *expected, 1e-12);
            close(sign_test(*second, *first), *expected, 1e-12);
        }
        assert_eq!(sign_test(0, 0), 1.0);
    }

    #[test]
    fn power_is_that_of_the_noncentral_t_distribution() {
        for (effect, n, alpha, expected) in POWERS {
            let found = power(*effect, *n, *alpha);
            assert!(
                (found - expected).abs() < 2e-4,
                "effect {effect}, {n} pairs, level {alpha}: {found} not {expected}"
            );
        }
    }

    #[test]
    fn pairs_needed_are_the_fewest_that_are_enough() {
        for (effect, alpha, expected) in NEEDED {
            assert_eq!(pairs_needed(*effect, *alpha), Some(*expected), "effect {effect}, level {alpha}");
        }
        assert_eq!(pairs_needed(0.0, 0.05), None);
        assert_eq!(pairs_needed(1e-4, 0.05), None);
    }

    #[test]
    fn what_is_detectable_is_found_with_the_power_asked_for() {
        for n in [2, 3, 5, 20] {
            close(power(detectable(n, 0.05).unwrap(), n, 0.05), POWER, 1e-6);
        }
        assert_eq!(detectable(1, 0.05), None);
    }

    #[test]
    fn one_pair_has_a_mean_and_nothing_more() {
        let one = paired(&[0.5]).unwrap();
        assert_eq!((one.mean, one.sd, one.interval, one.p), (0.5, None, None, None));
        assert!(paired(&[]).is_none());
    }

    #[test]
    fn differences_that_are_all_equal_are_no_evidence() {
        let same = paired(&[0.0; 4]).unwrap();
        assert_eq!((same.p, same.interval), (Some(1.0), Some([0.0, 0.0])));
        assert_eq!(paired(&[0.5, 0.5]).unwrap().p, None);
    }

    #[test]
    fn exchanging_the_sides_flips_the_signs() {
        let there = paired(&[0.1, 0.3, 0.2, 0.05, 0.4]).unwrap();
        let back = paired(&[-0.1, -0.3, -0.2, -0.05, -0.4]).unwrap();
        let turned = there.reversed();
        close(turned.mean, back.mean, 1e-14);
        close(turned.interval.unwrap()[0], back.interval.unwrap()[0], 1e-12);
        assert_eq!(turned.p, there.p);
    }

    /// A standard normal number for each counter.
    pub fn normal(counter: u64) -> f64 {
        let uniform = |x: u64| ((splitmix64(x) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (radius, angle) = (uniform(2 * counter), uniform(2 * counter + 1));
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// `n` differences with the true mean `mean` and standard deviation `sd`, a different sample for each index.
    fn sample(index: u64, n: usize, mean: f64, sd: f64) -> Vec<f64> {
        (0..n as u64).map(|i| mean + sd * normal(0xC0FFEE + index * 64 + i)).collect()
    }

    #[test]
    fn of_two_thousand_intervals_93_to_97_percent_contain_the_true_mean() {
        for (n, mean, sd) in [(3, 0.14, 0.0065), (5, -0.02, 0.03), (8, 0.0, 1.0)] {
            let holds = |index: &u64| {
                let [low, high] = paired(&sample(*index, n, mean, sd)).unwrap().interval.unwrap();
                low <= mean && mean <= high
            };
            let share = (0..2000).filter(holds).count() as f64 / 2000.0;
            assert!((0.93..=0.97).contains(&share), "{n} pairs: {share}");
        }
    }

    #[test]
    fn the_bootstrap_of_many_pairs_agrees_with_student() {
        let many = paired(&sample(1, 60, 0.2, 0.1)).unwrap();
        let (student, bootstrap) = (many.interval.unwrap(), many.bootstrap.unwrap());
        for (a, b) in student.iter().zip(bootstrap) {
            assert!((a - b).abs() < 0.006, "{student:?} {bootstrap:?}");
        }
        assert_eq!(paired(&sample(1, 4, 0.2, 0.1)).unwrap().bootstrap, None);
    }
}
