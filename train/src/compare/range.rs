//! A range of values that a search draws from.

use serde::{Deserialize, Serialize};
use toml::Value;

/// Outer part of a range, on either side, in which a best value may well have a better one beyond.
const OUTER: f64 = 0.05;

/// What is covered evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The logarithm of the value: rates and decays.
    #[default]
    Log,
    /// The value.
    Linear,
    /// The logarithm of its distance from 1: momentum.
    BelowOne,
}

/// The values from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    low: f64,
    high: f64,
    #[serde(default)]
    scale: Scale,
}

impl Range {
    /// From `value` divided to `value` multiplied by `factor`; on the scale below one its distance from 1.
    pub fn around(value: f64, factor: f64, scale: Scale) -> Self {
        match scale {
            Scale::BelowOne => Self { low: 1.0 - (1.0 - value) * factor, high: 1.0 - (1.0 - value) / factor, scale },
            _ => Self { low: value / factor, high: value * factor, scale },
        }
        .rounded()
    }

    /// `[low, high]`, or `{ low, high, scale }`; what is wrong otherwise.
    ///
    /// # Errors
    ///
    /// A sentence that follows the name of the range.
    pub fn read(value: &Value) -> Result<Self, String> {
        let range = match value.clone() {
            Value::Array(ends) => {
                Value::Array(ends).try_into().map(|[low, high]: [f64; 2]| Self { low, high, scale: Scale::Log })
            }
            other => other.try_into(),
        };
        let range = range.map_err(|_| {
            "must be [low, high] or { low, high, scale }, with scale = \"log\", \"linear\" or \"below_one\"".to_owned()
        })?;
        let ends = [range.low, range.high].map(|end| range.scaled(end));
        let fits = ends.iter().all(|end| end.is_finite()) && ends[0] < ends[1];
        let needs = match range.scale {
            Scale::Log => "both ends above 0",
            Scale::Linear => "finite ends",
            Scale::BelowOne => "both ends below 1",
        };
        if fits { Ok(range) } else { Err(format!("needs {needs}, the smaller one first")) }
    }

    /// The value at a share of the range, from 0 to 1, in few digits.
    pub fn at(&self, share: f64) -> f64 {
        let [low, high] = [self.low, self.high].map(|end| self.scaled(end));
        self.short(self.unscaled(low + share * (high - low)))
    }

    /// Whether a value is near an end.
    pub fn is_outer(&self, value: f64) -> bool {
        let [low, high, value] = [self.low, self.high, value].map(|x| self.scaled(x));
        let share = (value - low) / (high - low);
        !(OUTER..=1.0 - OUTER).contains(&share)
    }

    fn rounded(self) -> Self {
        Self { low: self.short(self.low), high: self.short(self.high), ..self }
    }

    fn short(&self, value: f64) -> f64 {
        let tidy = |value: f64| format!("{value:.9}").parse().unwrap_or(value);
        match self.scale {
            Scale::BelowOne => tidy(1.0 - round(1.0 - value)),
            _ => round(value),
        }
    }

    /// Rising with the value.
    fn scaled(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Log => value.ln(),
            Scale::Linear => value,
            Scale::BelowOne => -(1.0 - value).ln(),
        }
    }

    fn unscaled(&self, scaled: f64) -> f64 {
        match self.scale {
            Scale::Log => scaled.exp(),
            Scale::Linear => scaled,
            Scale::BelowOne => 1.0 - (-scaled).exp(),
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.low, self.high)
    }
}

/// Rounds a value to three significant digits, so that it is easy to read and to type.
pub fn round(lr: f64) -> f64 {
    format!("{lr:.2e}").parse().unwrap_or(lr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Range, String> {
        Range::read(&toml::from_str::<toml::Table>(&format!("x = {text}")).unwrap()["x"])
    }

    #[test]
    fn every_scale_covers_its_range_from_end_to_end() {
        let range = read("[0.001, 0.1]").unwrap();
        assert_eq!([0.0, 0.5, 1.0].map(|share| range.at(share)), [0.001, 0.01, 0.1]);
        let range = read("{ low = 0.9, high = 0.99, scale = 'below_one' }").unwrap();
        assert_eq!([0.0, 0.5, 1.0].map(|share| range.at(share)), [0.9, 0.9684, 0.99]);
        let range = read("{ low = -1, high = 3.0, scale = 'linear' }").unwrap();
        assert_eq!([0.0, 0.25, 1.0].map(|share| range.at(share)), [-1.0, 0.0, 3.0]);
    }

    #[test]
    fn a_value_near_an_end_is_known() {
        let range = read("[0.001, 0.1]").unwrap();
        assert_eq!([0.0011, 0.0014, 0.01, 0.07, 0.09].map(|x| range.is_outer(x)), [true, false, false, false, true]);
        let range = Range::around(0.95, 4.0, Scale::BelowOne);
        assert_eq!(range.to_string(), "0.8 to 0.9875");
        assert_eq!([0.81, 0.95, 0.987].map(|x| range.is_outer(x)), [true, false, true]);
    }

    #[test]
    fn a_range_that_cannot_be_drawn_from_says_what_it_needs() {
        for (text, said) in [
            ("[0.1, 0.001]", "the smaller one first"),
            ("[0.0, 0.1]", "both ends above 0"),
            ("[0.1, 0.1]", "the smaller one first"),
            ("[0.1, 0.2, 0.3]", "[low, high]"),
            ("0.1", "[low, high]"),
            ("{ low = 0.1, high = 0.2, scale = 'cubic' }", "\"below_one\""),
            ("{ low = 0.1, high = 0.2, step = 1 }", "{ low, high, scale }"),
            ("{ low = 0.9, high = 1.0, scale = 'below_one' }", "both ends below 1"),
            ("[0.1, inf]", "both ends above 0"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
