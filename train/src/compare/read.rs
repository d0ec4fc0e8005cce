//! Plans read back from their files, and what those of a loop of one's own say about it.

use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::plan::{Contender, Plan, Settings};
use super::subject::Subject;
use crate::error::{ConfigError, Error};
use crate::settings::layers::read_file;

/// The section of a plan whose runs are a loop of one's own.
pub const LOOP: &str = "loop";

impl Plan {
    /// Whether a plan is of a loop of one's own.
    pub fn is_of_own_loop(plan: &Table) -> bool {
        plan.contains_key(LOOP)
    }

    /// What a loop of one's own trains; None if the runs are those of `polaron compare`.
    pub fn own_subject(&self) -> Option<Subject> {
        self.base.get(LOOP).and_then(Value::as_table).map(Subject::of_loop)
    }

    /// Reads a plan file that is complete.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a key that is missing or has another type.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut table = read_file(path)?;
        let settings = table.remove("compare").unwrap_or(Value::Table(Table::new()));
        let settings: Settings = settings.try_into().map_err(ConfigError::misfit)?;
        let optimizers = table.remove("optimizers").unwrap_or(Value::Array(Vec::new()));
        let optimizers: Vec<Listed> = optimizers.try_into().map_err(ConfigError::misfit)?;
        let contenders = optimizers.into_iter().map(Listed::contender).collect::<Result<_, _>>()?;
        Ok(Self { settings, contenders, base: table })
    }
}

impl Subject {
    /// What the section of a loop of one's own says.
    pub fn of_loop(about: &Table) -> Self {
        let text = |key| about.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let per_step = about.get("per_step").and_then(Value::as_integer).unwrap_or_default();
        Self {
            title: text("title"),
            unit: text("unit"),
            per_step: u64::try_from(per_step).unwrap_or_default(),
            coverage: None,
        }
    }
}

/// An optimizer as a complete plan lists it.
#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    lrs: Vec<f64>,
    #[serde(default)]
    lrs_before: Vec<Vec<f64>>,
    #[serde(default)]
    sweep: Table,
    #[serde(default)]
    search: Table,
    #[serde(flatten)]
    optimizer: Table,
}

impl Listed {
    fn contender(self) -> Result<Contender, ConfigError> {
        let values = |(key, value): (String, Value)| {
            let values: Vec<Value> = value.try_into().map_err(ConfigError::misfit)?;
            Ok((key, values))
        };
        let sweep = self.sweep.into_iter().map(values).collect::<Result<_, ConfigError>>()?;
        let range = |(key, value): (String, Value)| Ok((key, value.try_into().map_err(ConfigError::misfit)?));
        let search = self.search.into_iter().map(range).collect::<Result<_, ConfigError>>()?;
        let Self { name, lrs, lrs_before, optimizer, .. } = self;
        Ok(Contender { name, optimizer, lrs, lrs_before, sweep, search })
    }
}
