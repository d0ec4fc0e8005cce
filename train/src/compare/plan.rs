//! The plan of a comparison: which optimizers, over which learning rates, with which seeds, how long.
//!
//! ```toml
//! optimizers = ["adamw", "muon", { name = "hot", stack = "muon", lr = 0.05, matrix = { momentum = 0.9 } }]
//! [compare]
//! seeds = 5
//! targets = [1.9, 1.8]
//! [sweep]                                      # further keys to tune, for every optimizer
//! "optimizer.weight_decay" = [0.01, 0.1]
//! # or [search], ranges in place of grids:  "optimizer.weight_decay" = [0.01, 1.0]
//! [model]                                      # and [data], [train], [schedule], [device], [optimizer]: as for `polaron train`
//! preset = "llama-d64"
//! ```
//!
//! What the sections mean that all runs share is known only to what makes the runs.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::draw;
use super::range::Range;
use crate::error::ConfigError;
use crate::settings::config::SOURCE;
use crate::settings::merge;

/// `[compare]`: settings of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The track of `polaron race` whose entry this is; absent from every other comparison. An entry is alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub race: String,
    /// Steps of a verdict run; by default 400.
    pub steps: u64,
    /// Steps of a tuning run; by default 3/5 of `steps`.
    pub tune_steps: u64,
    /// Number of verdict seeds; by default 3.
    pub seeds: u64,
    /// How many there were before more were added, each time; absent if none were. Only a comparison's own folder keeps it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds_before: Vec<u64>,
    /// How many optimizers there were before more were added, each time; kept like `seeds_before`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optimizers_before: Vec<u64>,
    /// The first of them; by default 1. A seed determines the initial weights and the batches.
    pub first_seed: u64,
    /// Number of tuning seeds; by default 1.
    pub tune_seeds: u64,
    /// The first of them; by default 10001. They are not among the verdict seeds.
    pub first_tune_seed: u64,
    /// Learning rates for every optimizer; if empty, a grid around each optimizer's default.
    pub lrs: Vec<f64>,
    /// Number of candidates of a search in place of the grid, see `[search]`; by default 0, which means a grid, and 16 with ranges.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials: u64,
    /// How many times the candidates of a search are halved, the better half running twice as long; by default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub halvings: u64,
    /// Number of learning rates in such a grid; by default 3.
    pub lr_points: u64,
    /// Factor between two neighbours; by default 3.
    pub lr_factor: f64,
    /// How many times the grid may grow by one point if the best rate is at its edge; by default 3.
    pub extensions: u64,
    /// Validation losses to reach, in nats per token; if empty, the lowest one that every verdict run reached.
    pub targets: Vec<f64>,
    /// Steps between the validations of a verdict run; by default a fortieth of `steps`.
    pub valid_every: u64,
    /// Windows of these validations; by default 128, 0 means all. The last one of a verdict run is over all windows. Absent where
    /// the runs are a loop of one's own, which validates as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_windows: Option<u64>,
    /// Windows of the one validation of a tuning run; by default 1024, 0 means all. Absent like `valid_windows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune_windows: Option<u64>,
    /// Whether to also run the best rate divided and multiplied by 2 and by 4, if the grid lacks them; by default false.
    pub sensitivity: bool,
    /// Runs at the same time; by default the number of CPU threads, 1 on other devices. May change on a resume.
    pub jobs: u64,
}

/// One optimizer of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    /// Its name; unique.
    pub name: String,
    /// The `[optimizer]` table of its runs, without the learning rate.
    pub optimizer: Table,
    /// Learning rates to try, ascending.
    pub lrs: Vec<f64>,
    /// The rates before more were added, each time; only a comparison's own folder keeps them.
    pub lrs_before: Vec<Vec<f64>>,
    /// Further keys to try, with their values.
    pub sweep: Vec<(String, Vec<Value>)>,
    /// Ranges of a search in place of the grid.
    pub search: Vec<(String, Range)>,
}

/// A complete and checked plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `[compare]`.
    pub settings: Settings,
    /// The optimizers, in the order given.
    pub contenders: Vec<Contender>,
    /// What all runs share: the other sections of their configuration.
    pub base: Table,
}

/// What a run of a comparison is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Choosing learning rate and swept values.
    Tuning,
    /// Measuring how the loss depends on the learning rate; without influence on the choice.
    Sensitivity,
    /// The comparison itself.
    Verdict,
}

impl Purpose {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tuning => "tuning",
            Self::Sensitivity => "sensitivity",
            Self::Verdict => "verdict",
        }
    }
}

/// Values that tuning chooses among.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Learning rate of the main rule.
    pub lr: f64,
    /// Values of the swept keys.
    pub swept: Vec<(String, Value)>,
}

impl Plan {
    /// The sections from which a run's configuration is resolved: those that all runs share, with the optimizer and the swept values.
    pub fn sections(&self, contender: usize, swept: &[(String, Value)]) -> Result<Table, ConfigError> {
        let mut table = self.base.clone();
        let mut optimizer = section(&table, "optimizer");
        optimizer.extend(self.contenders[contender].optimizer.clone());
        table.insert("optimizer".into(), Value::Table(optimizer));
        for (key, value) in swept {
            merge::displace(&mut table, key);
            merge::assign(&mut table, key, value.clone(), "in the tuning")?;
        }
        Ok(table)
    }

    /// The candidates of an optimizer's tuning: those of its search, or every learning rate with every combination of swept values.
    pub fn candidates(&self, contender: usize) -> Vec<Candidate> {
        match self.contenders[contender].search.as_slice() {
            [] => self.candidates_at(contender, &self.contenders[contender].lrs),
            ranges => {
                let drawn = (0..self.settings.trials).map(|index| draw::values(ranges, index as u32));
                drawn.map(|(lr, swept)| Candidate { lr, swept }).collect()
            }
        }
    }

    /// Whether this is an entry of a race: one optimizer, and no tuning.
    pub fn is_entry(&self) -> bool {
        !self.settings.race.is_empty()
    }

    /// Whether the tuning is a search.
    pub fn searches(&self) -> bool {
        self.settings.trials > 0
    }

    /// The rounds of the tuning of an optimizer with so many candidates: see `draw::rounds`.
    pub fn rounds(&self, candidates: usize) -> Vec<[u64; 2]> {
        draw::rounds(candidates as u64, self.settings.halvings, self.settings.tune_steps)
    }

    /// Steps of a run, other than in a round before the last.
    pub fn length(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Tuning | Purpose::Sensitivity => self.settings.tune_steps,
            Purpose::Verdict => self.settings.steps,
        }
    }

    /// The candidates of an optimizer at these learning rates.
    pub fn candidates_at(&self, contender: usize, lrs: &[f64]) -> Vec<Candidate> {
        let sweep = &self.contenders[contender].sweep;
        let mut all: Vec<Candidate> = lrs.iter().map(|lr| Candidate { lr: *lr, swept: Vec::new() }).collect();
        for (key, values) in sweep {
            let with = |candidate: &Candidate, value: &Value| {
                let mut candidate = candidate.clone();
                candidate.swept.push((key.clone(), value.clone()));
                candidate
            };
            all = all
                .iter()
                .flat_map(|candidate| values.iter().map(|value| with(candidate, value)).collect::<Vec<_>>())
                .collect();
        }
        all
    }

    /// Seeds of the verdict runs.
    pub fn seeds(&self) -> std::ops::Range<u64> {
        self.settings.first_seed..self.settings.first_seed + self.settings.seeds
    }

    /// Seeds of the tuning runs.
    pub fn tune_seeds(&self) -> std::ops::Range<u64> {
        self.settings.first_tune_seed..self.settings.first_tune_seed + self.settings.tune_seeds
    }

    /// The plan as a table that is read back as the same plan.
    pub fn to_table(&self) -> Result<Table, ConfigError> {
        let contender = |contender: &Contender| -> Result<Value, ConfigError> {
            let mut table = Table::new();
            table.insert("name".into(), contender.name.clone().into());
            if contender.search.is_empty() {
                table.insert("lrs".into(), contender.lrs.clone().into());
            }
            if !contender.lrs_before.is_empty() {
                table.insert(LRS_BEFORE.into(), contender.lrs_before.clone().into());
            }
            table.extend(contender.optimizer.clone());
            let sweep = contender.sweep.iter().map(|(key, values)| (key.clone(), Value::Array(values.clone())));
            table.insert("sweep".into(), Value::Table(sweep.collect()));
            let range = |(key, range): &(String, Range)| {
                Ok((key.clone(), Value::try_from(range).map_err(ConfigError::misfit)?))
            };
            let search = contender.search.iter().map(range).collect::<Result<Table, ConfigError>>()?;
            if !search.is_empty() {
                table.insert("search".into(), Value::Table(search));
            }
            Ok(Value::Table(table))
        };
        let mut table = Table::new();
        table.insert("compare".into(), Value::try_from(&self.settings).map_err(ConfigError::misfit)?);
        table.insert(
            "optimizers".into(),
            self.contenders.iter().map(contender).collect::<Result<Vec<_>, ConfigError>>()?.into(),
        );
        table.extend(self.base.clone());
        Ok(table)
    }

    /// Name or path of the data.
    pub fn source(&self) -> &str {
        merge::lookup(&self.base, SOURCE).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Keys that may change from one session to the next: the number of jobs, and the path of the data, since the fingerprint
/// shows whether the data are the same.
const RESUMABLE: &[&str] = &["compare.jobs", SOURCE];

/// What a folder notes by itself: numbers of seeds and of optimizers, and the rates of every optimizer.
const NOTED: &[&str] = &["compare.seeds_before", "compare.optimizers_before"];
/// The key of an optimizer whose rates were added to.
pub const LRS_BEFORE: &str = "lrs_before";

/// Differences between two plans.
pub fn differences(there: &Table, now: &Table) -> Vec<String> {
    let plain = |table: &Table| {
        let mut table = by_name(table);
        let optimizers = table.get_mut("optimizers").and_then(Value::as_table_mut);
        for (_, optimizer) in optimizers.into_iter().flatten() {
            optimizer.as_table_mut().map(|optimizer| optimizer.remove(LRS_BEFORE));
        }
        table
    };
    merge::differences(&plain(there), &plain(now), &[RESUMABLE, NOTED].concat())
}

/// The edits to a plan.
pub fn edits(before: &Table, now: &Table) -> Vec<String> {
    merge::edits(&by_name(before), &by_name(now), RESUMABLE)
}

/// A plan with its optimizers as a table.
fn by_name(table: &Table) -> Table {
    // By name, so that a difference names the optimizer and the key.
    let mut table = table.clone();
    if let Some(Value::Array(items)) = table.remove("optimizers") {
        let named = |item: Value| {
            let Value::Table(item) = item else { return None };
            Some((item.get("name")?.as_str()?.to_owned(), Value::Table(item)))
        };
        table.insert("optimizers".into(), Value::Table(items.into_iter().filter_map(named).collect()));
    }
    table
}

/// A section of a table; empty if there is none.
pub fn section(table: &Table, name: &str) -> Table {
    table.get(name).and_then(Value::as_table).cloned().unwrap_or_default()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
