//! How settings are declared: each key and each choice is written once, and everything else follows from it.

use crate::error::ModelError;

/// A type that a key can have.
pub(super) trait Value {
    /// The valid names, if the key is a choice.
    const NAMES: &'static [&'static str] = &[];
}

impl Value for bool {}
impl Value for f64 {}
impl Value for usize {}

/// Declares a choice: every variant with its name in a file.
macro_rules! choices {
    ($($(#[$meta:meta])* pub enum $choice:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
            #[non_exhaustive]
            pub enum $choice { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

            impl $choice {
                /// The valid names in a file, in the order of the variants.
                pub const NAMES: &'static [&'static str] = &[$($name),*];
            }

            impl super::keys::Value for $choice {
                const NAMES: &'static [&'static str] = $choice::NAMES;
            }
        )*
    };
}
pub(super) use choices;

/// Declares settings: every key with its documentation, type and default; after `in` its range (a function of name and
/// value); after `follows` its value where a file does not set it (a function of the new settings and of the preset).
/// Without `follows`, a key that a file does not set is taken from the preset.
macro_rules! keys {
    (
        $(#[$meta:meta])*
        pub struct $settings:ident {
            $(#[$preset_doc:meta])* preset = $preset:expr;
            $($(#[$doc:meta])* $key:ident: $type:ty = $default:expr $(, in $range:expr)? $(, follows $follow:expr)?;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[non_exhaustive]
        pub struct $settings {
            $(#[$preset_doc])* pub preset: String,
            $($(#[$doc])* pub $key: $type,)*
        }

        /// The keys of a file; all but the preset are optional.
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct Overrides {
            pub(super) preset: String,
            $($key: Option<$type>,)*
        }

        impl Overrides {
            /// The settings of `preset` with these changes.
            pub(super) fn apply(self, preset: &$settings) -> $settings {
                #[allow(unused_mut, reason = "no key may follow others")]
                let mut settings =
                    $settings { preset: self.preset, $($key: self.$key.unwrap_or(preset.$key),)* };
                $($(
                    if self.$key.is_none() {
                        settings.$key = $follow(&settings, preset);
                    }
                )?)*
                settings
            }
        }

        impl $settings {
            /// The defaults of all keys.
            pub(super) fn defaults() -> Self {
                Self { preset: $preset.into(), $($key: $default,)* }
            }

            /// Checks every key that has a range by itself.
            pub(super) fn check_ranges(&self) -> Result<(), crate::error::ModelError> {
                $($($range(stringify!($key), self.$key)?;)?)*
                Ok(())
            }

            /// Every key that is a choice, with its valid names.
            pub fn choices() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
                let keys = [$((stringify!($key), <$type as super::keys::Value>::NAMES)),*];
                keys.into_iter().filter(|(_, names)| !names.is_empty())
            }
        }
    };
}
pub(super) use keys;

/// The range of a size.
pub(super) fn at_least_one(key: &'static str, size: usize) -> Result<(), ModelError> {
    if size == 0 { Err(ModelError::Zero { key }) } else { Ok(()) }
}

/// A range of finite numbers.
pub(super) fn above_zero(key: &'static str, value: f64) -> Result<(), ModelError> {
    number(key, value, value > 0.0, "above 0")
}

/// A range of finite numbers.
pub(super) fn not_negative(key: &'static str, value: f64) -> Result<(), ModelError> {
    number(key, value, value >= 0.0, "at least 0")
}

/// The range of a base of sliding layers.
pub(super) fn rope_base_or_zero(key: &'static str, value: f64) -> Result<(), ModelError> {
    number(key, value, value >= 0.0, "at least 0 (0 means `rope_base`)")
}

fn number(key: &'static str, value: f64, holds: bool, rule: &'static str) -> Result<(), ModelError> {
    if value.is_finite() && holds { Ok(()) } else { Err(ModelError::OutOfRange { key, value, rule }) }
}
