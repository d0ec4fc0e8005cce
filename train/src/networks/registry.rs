//! The families of networks. A new one is a file of this folder and one line below.

use std::ops::Deref;

use polaron_models::{MlpConfig, ModelConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::family::{Family, Recipe, Settings};
use crate::error::ConfigError;

/// An operation on the settings of a configuration, whatever its family.
pub trait ForFamily {
    /// Its result.
    type Output;

    /// Runs it.
    fn run<F: Family>(self, settings: &F) -> Self::Output;
}

/// The defaults of a preset.
pub struct Defaults {
    /// The settings of its model.
    pub model: NetworkConfig,
    /// How it is trained.
    pub recipe: Recipe,
    /// Embedded data to train on, and the share of it that is kept for validation.
    pub data: (&'static str, f64),
}

macro_rules! families {
    ($($doc:literal $variant:ident: $settings:ty;)+) => {
        /// `[model]`: an architecture and its sizes; `preset` decides the family.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged, try_from = "Table")]
        pub enum NetworkConfig {
            $(#[doc = $doc] $variant($settings)),+
        }

        impl TryFrom<Table> for NetworkConfig {
            type Error = ConfigError;

            fn try_from(table: Table) -> Result<Self, ConfigError> {
                let preset = table.get("preset").and_then(Value::as_str).unwrap_or_default();
                $(if <$settings>::PRESETS.contains(&preset) {
                    return table.try_into().map(Self::$variant).map_err(ConfigError::misfit);
                })+
                Err(Self::unknown_preset(preset))
            }
        }

        impl NetworkConfig {
            /// Names of all presets.
            pub fn presets() -> Vec<&'static str> {
                [$(<$settings as Family>::PRESETS),+].concat()
            }

            /// Keys of models on which the defaults of other keys depend.
            pub fn followed() -> Vec<&'static str> {
                [$(<$settings as Family>::FOLLOWED),+].concat()
            }

            /// Keys of models whose values are names, with the possible names.
            pub fn choices() -> Vec<(&'static str, &'static [&'static str])> {
                [$(<$settings as Family>::choices()),+].concat()
            }

            /// One line about a preset; empty for an unknown name.
            pub fn describe_preset(name: &str) -> &'static str {
                $(if <$settings as Family>::PRESETS.contains(&name) {
                    return <$settings as Family>::describe_preset(name);
                })+
                ""
            }

            /// The defaults of a preset, for a run of `steps` steps if that is given; `given` has the keys set by the user on
            /// which other defaults depend.
            ///
            /// # Errors
            ///
            /// [`ConfigError`] for an unknown preset or value.
            pub fn defaults(preset: &str, steps: Option<u64>, given: Table) -> Result<Defaults, ConfigError> {
                $(if <$settings as Family>::PRESETS.contains(&preset) {
                    let model = Self::$variant(<$settings>::from_given(given)?);
                    let recipe = <$settings>::recipe(preset, steps);
                    return Ok(Defaults { model, recipe, data: <$settings>::embedded_data(preset) });
                })+
                Err(Self::unknown_preset(preset))
            }

            /// Runs `visitor` on the settings of the family.
            pub fn with<V: ForFamily>(&self, visitor: V) -> V::Output {
                match self {
                    $(Self::$variant(settings) => visitor.run(settings)),+
                }
            }
        }

        impl Deref for NetworkConfig {
            type Target = dyn Settings;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$variant(settings) => settings),+
                }
            }
        }
    };
}

families! {
    "Decoders over tokens." Decoder: ModelConfig;
    "Multi-layer perceptrons over images." Mlp: MlpConfig;
}

impl NetworkConfig {
    fn unknown_preset(name: &str) -> ConfigError {
        ConfigError::bad_choice("model.preset", name, &Self::presets())
    }
}
