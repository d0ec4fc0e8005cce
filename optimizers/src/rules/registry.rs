//! The macro behind the registry: one configuration type for all kinds, and the lists of kinds.

/// Declares the modules of the kinds and [`OptimizerConfig`], from one line for each kind: its file, its name in
/// configurations, the variant and its settings.
macro_rules! kinds {
    ($($(#[$cfg:meta])* $module:ident, $name:literal: $variant:ident, $settings:ident;)*) => {
        $(
            $(#[$cfg])*
            pub mod $module;
            $(#[$cfg])*
            pub use $module::$settings;
        )*

        /// Configuration of any optimizer of this crate, tagged by `kind`.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "crate::setting::Given", tag = "kind")]
        #[non_exhaustive]
        pub enum OptimizerConfig {
            $(
                #[doc = concat!("See [`", $name, "`](mod@", stringify!($module), ").")]
                #[serde(rename = $name)]
                $(#[$cfg])*
                $variant($settings),
            )*
        }

        impl OptimizerConfig {
            /// Every kind.
            pub const KINDS: &'static [&'static str] = &[$($(#[$cfg])* $name),*];

            /// The name of the kind.
            pub fn kind(&self) -> &'static str {
                match self {
                    $($(#[$cfg])* Self::$variant(_) => $name,)*
                }
            }

            pub(crate) fn settings(&self) -> &dyn $crate::rule::Kind {
                match self {
                    $($(#[$cfg])* Self::$variant(settings) => settings,)*
                }
            }

            fn read(kind: &str, keys: serde_json::Map<String, serde_json::Value>) -> Result<Self, $crate::setting::ConfigError> {
                match kind {
                    $($(#[$cfg])* $name => Ok(Self::$variant($crate::setting::read_fields(kind, keys)?)),)*
                    _ => unreachable!("the kind was checked"),
                }
            }
        }

        $(
            $(#[$cfg])*
            impl From<$settings> for OptimizerConfig {
                fn from(settings: $settings) -> Self {
                    Self::$variant(settings)
                }
            }
        )*

        /// The rows of the symmetry audit, each with its configuration.
        pub fn symmetries() -> Vec<($crate::rule::SymmetryRow, OptimizerConfig)> {
            let kinds = OptimizerConfig::KINDS.iter().filter_map(|kind| OptimizerConfig::of_kind(kind).ok());
            kinds.flat_map(|config| config.symmetries()).collect()
        }
    };
}
pub(super) use kinds;
