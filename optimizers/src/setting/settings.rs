//! The declaration of a kind's settings.

use serde_json::Value;

use super::ConfigError;

/// Declares a kind's settings: public fields with defaults, `new()`, one `with_` setter each, what every key allows
/// ([`Setting`](crate::setting::Setting); a range of numbers follows `in`), and serde that fills in defaults and refuses
/// unknown keys.
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident, $with:ident : $type:ty = $default:expr $(, in $range:expr)?;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            /// The defaults.
            pub fn new() -> Self {
                Self::default()
            }
            $(
                #[doc = concat!("Sets `", stringify!($field), "`.")]
                #[must_use]
                pub fn $with(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }

        impl $crate::setting::Keys for $name {
            fn check_keys(&self, kind: &str) -> Result<(), $crate::setting::ConfigError> {
                $(
                    let key = format!("{kind}.{}", stringify!($field));
                    $crate::setting::Setting::check(&self.$field, &key, &$crate::setting::settings!(@range $($range)?))?;
                )*
                Ok(())
            }

            fn names(&self) -> Vec<&'static str> {
                vec![$(stringify!($field)),*]
            }

            fn choices(&self) -> Vec<(&'static str, Vec<serde_json::Value>)> {
                vec![$(
                    (stringify!($field), <$type as $crate::setting::Setting>::choices(&$crate::setting::settings!(@range $($range)?))),
                )*]
            }
        }
    };
    (@range) => { () };
    (@range $range:expr) => { $range };
}
pub(crate) use settings;

/// What the keys of a kind allow; implemented by [`settings`].
pub(crate) trait Keys {
    /// Refuses the first value out of range.
    fn check_keys(&self, kind: &str) -> Result<(), ConfigError>;
    /// Every key, also those that are not written while they have their default.
    fn names(&self) -> Vec<&'static str>;
    /// For every key, values under which the rule behaves differently.
    fn choices(&self) -> Vec<(&'static str, Vec<Value>)>;
}

/// Whether a value is the default of its type: such a key need not be written, so that older programs can read the rest.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
