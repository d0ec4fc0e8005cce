//! Candidates drawn evenly from ranges, and the rounds that halve them.

use toml::Value;

use super::range::Range;

/// The key of the rate that is a candidate's own.
pub const LR: &str = "optimizer.lr";

/// The values with this index in a sequence that covers all ranges evenly (Sobol's, with a fixed scramble): of the learning rate, and
/// of the other keys. The shares of the ranges are the same for every optimizer.
pub fn values(ranges: &[(String, Range)], index: u32) -> (f64, Vec<(String, Value)>) {
    let (mut lr, mut others) = (f64::NAN, Vec::new());
    for (dimension, (key, range)) in (0..).zip(ranges) {
        let value = range.at(f64::from(sobol_burley::sample(index, dimension, 0)));
        if key == LR { lr = value } else { others.push((key.clone(), value.into())) }
    }
    (lr, others)
}

/// The rounds of a tuning: how many candidates run for how many steps. In each round the better half of the last one runs twice as
/// long, so that all rounds have the same number of steps.
pub fn rounds(candidates: u64, halvings: u64, steps: u64) -> Vec<[u64; 2]> {
    let round = |n: u64| [candidates.div_ceil(1 << n), steps >> (halvings - n)];
    (0..=halvings).map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::range::Scale;

    #[test]
    fn values_fill_every_part_of_every_range() {
        let range = Range::around(0.01, 10.0, Scale::Log);
        let ranges = [LR, "a", "b", "c", "d"].map(|key| (key.to_owned(), range));
        let drawn: Vec<(f64, Vec<(String, Value)>)> = (0..16).map(|index| values(&ranges, index)).collect();
        let of = |key: usize| {
            drawn.iter().map(move |(lr, others)| if key == 0 { *lr } else { others[key - 1].1.as_float().unwrap() })
        };
        for key in 0..5 {
            // One in every sixteenth of the range from 0.001 to 0.1, up to the rounding to three digits.
            let mut shares: Vec<f64> = of(key).map(|value| (value / 0.001).log10() / 2.0).collect();
            shares.sort_by(f64::total_cmp);
            for (part, share) in shares.into_iter().enumerate() {
                assert!((16.0 * share - part as f64 - 0.5).abs() < 0.52, "{key}: {share} in part {part}");
            }
        }
    }

    #[test]
    fn every_round_has_the_same_number_of_steps() {
        assert_eq!(rounds(16, 3, 240), [[16, 30], [8, 60], [4, 120], [2, 240]]);
        assert_eq!(rounds(7, 0, 240), [[7, 240]]);
        assert_eq!(rounds(5, 1, 3), [[5, 1], [3, 3]]);
    }
}
