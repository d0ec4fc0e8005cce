//! Which values a key of a configuration allows, and which to try.
//!
//! Every type of a setting declares both once. [`OptimizerConfig::validate`](crate::OptimizerConfig::validate) and
//! [`OptimizerConfig::choices`](crate::OptimizerConfig::choices) are derived from that, so a new key, or a new value of an
//! old key, is included in both as soon as it is declared.

use serde_json::Value;

use super::ConfigError;

/// The type of a setting.
pub(crate) trait Setting {
    /// The allowed range, declared with the key; `()` for types whose values are all allowed.
    type Range;

    /// Refuses a value that the key does not allow.
    fn check(&self, _key: &str, _range: &Self::Range) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Values under which the rule behaves differently.
    fn choices(range: &Self::Range) -> Vec<Value>;
}

/// The numbers that a key allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    low: f64,
    high: f64,
    /// Whether `high` itself is allowed.
    closed: bool,
}

impl Numbers {
    /// Momenta and averaging factors: [0, 1).
    pub const FACTOR: Self = Self { low: 0.0, high: 1.0, closed: false };

    /// Sizes: from 0 to a million, beyond which no rule makes sense.
    pub const SIZE: Self = Self::from_to(0.0, 1e6);

    /// Both ends are allowed.
    pub const fn from_to(low: f64, high: f64) -> Self {
        Self { low, high, closed: true }
    }

    fn check(&self, key: &str, value: f64) -> Result<(), ConfigError> {
        let Self { low, high, closed } = *self;
        if value >= low && (value < high || (closed && value == high)) {
            return Ok(());
        }
        let message = match closed {
            true => format!("must be a number from {low} to {high}, got {value}"),
            false => format!("must be a number in [{low}, {high}), got {value}"),
        };
        Err(ConfigError::value(key, message))
    }

    /// The low end, and the high end unless it only excludes nonsense.
    fn ends(&self) -> Vec<f64> {
        let high = if self.closed { self.high } else { (self.low + self.high) / 2.0 };
        if self.high <= 2.0 { vec![self.low, high] } else { vec![self.low] }
    }
}

impl Setting for f64 {
    type Range = Numbers;

    fn check(&self, key: &str, range: &Numbers) -> Result<(), ConfigError> {
        range.check(key, *self)
    }

    fn choices(range: &Numbers) -> Vec<Value> {
        range.ends().into_iter().map(Value::from).collect()
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Setting for $number {
            type Range = std::ops::RangeInclusive<$number>;

            fn check(&self, key: &str, range: &Self::Range) -> Result<(), ConfigError> {
                if range.contains(self) {
                    return Ok(());
                }
                let message = format!("must be from {} to {}, got {self}", range.start(), range.end());
                Err(ConfigError::value(key, message))
            }

            /// The first two.
            fn choices(range: &Self::Range) -> Vec<Value> {
                range.clone().take(2).map(Value::from).collect()
            }
        }
    )*};
}
whole_numbers!(usize, u64);

impl Setting for bool {
    type Range = ();

    fn choices(_range: &()) -> Vec<Value> {
        vec![false.into(), true.into()]
    }
}

impl<T: Setting> Setting for Option<T> {
    type Range = T::Range;

    fn check(&self, key: &str, range: &T::Range) -> Result<(), ConfigError> {
        self.as_ref().map_or(Ok(()), |value| value.check(key, range))
    }

    fn choices(range: &T::Range) -> Vec<Value> {
        let mut choices = T::choices(range);
        choices.push(Value::Null);
        choices
    }
}

/// Declares a setting that is one of several names.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// All names.
            pub const NAMES: &'static [&'static str] = &[$($word),*];

            /// The name in configurations.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        $crate::setting::choices_of!($name { $($variant),* });
    };
}
pub(crate) use choice;

/// Makes an enum of names a setting that allows all its names.
macro_rules! choices_of {
    ($name:ident { $($variant:ident),* }) => {
        impl $crate::setting::Setting for $name {
            type Range = ();

            fn choices(_range: &()) -> Vec<serde_json::Value> {
                [$(Self::$variant),*].iter().filter_map(|choice| serde_json::to_value(choice).ok()).collect()
            }
        }
    };
}
pub(crate) use choices_of;
