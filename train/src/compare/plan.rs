//! The plan of a comparison: which optimizers, over which learning rates, with which seeds, how long.
//!
//! ```toml
//! optimizers = ["adamw", "muon", { name = "hot", stack = "muon", lr = 0.05, matrix = { momentum = 0.9 } }]
//! [compare]
//! seeds = 5
//! targets = [1.9, 1.8]
//! [sweep]                                      # further keys to tune, for every optimizer
//! "optimizer.weight_decay" = [0.01, 0.1]
//! [model]                                      # and [data], [train], [schedule], [device], [optimizer]: as for `polaron train`
//! preset = "llama-d64"
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{ConfigError, Error};
use crate::settings::config::{Config, SOURCE};
use crate::settings::layers::Layers;
use crate::settings::merge;

/// `[compare]`: settings of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Steps of a verdict run; by default 400.
    pub steps: u64,
    /// Steps of a tuning run; by default 3/5 of `steps`.
    pub tune_steps: u64,
    /// Number of verdict seeds; by default 3.
    pub seeds: u64,
    /// How many there were before more were added, each time; absent if none were. Only a comparison's own folder keeps it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds_before: Vec<u64>,
    /// The first of them; by default 1. A seed determines the initial weights and the batches.
    pub first_seed: u64,
    /// Number of tuning seeds; by default 1.
    pub tune_seeds: u64,
    /// The first of them; by default 10001. They are not among the verdict seeds.
    pub first_tune_seed: u64,
    /// Learning rates for every optimizer; if empty, a grid around each optimizer's default.
    pub lrs: Vec<f64>,
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
    /// Windows of these validations; by default 128, 0 means all. The last one of a verdict run is over all windows.
    pub valid_windows: u64,
    /// Windows of the one validation of a tuning run; by default 1024, 0 means all.
    pub tune_windows: u64,
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
    /// Further keys to try, with their values.
    pub sweep: Vec<(String, Vec<Value>)>,
}

/// A comparison as a command asks for it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The plan file.
    pub file: Option<(PathBuf, Table)>,
    /// `--optimizers`: names of the file's optimizers, or stacks.
    pub optimizers: Option<Vec<String>>,
    /// Flags for `[compare]`: the flag, the key there, the value.
    pub settings: Vec<(&'static str, &'static str, Value)>,
    /// Flags for the runs, as for `polaron train`.
    pub flags: Vec<(&'static str, &'static str, Value)>,
    /// `--threads`: CPU threads in total, shared among the jobs.
    pub threads: Option<usize>,
    /// `--set`: key and raw value.
    pub sets: Vec<(String, String)>,
}

/// A complete and checked plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `[compare]`.
    pub settings: Settings,
    /// The optimizers, in the order given.
    pub contenders: Vec<Contender>,
    /// What all runs share: the other sections of their configuration.
    pub(super) base: Table,
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
    /// The table from which a contender's configuration is resolved.
    pub(super) fn file_of(&self, contender: usize, swept: &[(String, Value)]) -> Result<Table, ConfigError> {
        let mut table = self.base.clone();
        let mut optimizer = section(&table, "optimizer");
        optimizer.extend(self.contenders[contender].optimizer.clone());
        table.insert("optimizer".into(), Value::Table(optimizer));
        for (key, value) in swept {
            merge::displace(&mut table, key);
            merge::assign(&mut table, key, value.clone(), "in [sweep]")?;
        }
        Ok(table)
    }

    /// The configuration of one run.
    ///
    /// # Errors
    ///
    /// Invalid values.
    pub fn config(
        &self,
        contender: usize,
        candidate: &Candidate,
        purpose: Purpose,
        seed: u64,
    ) -> Result<Config, Error> {
        let Settings { steps, tune_steps, valid_every, valid_windows, tune_windows, .. } = self.settings;
        let (steps, every, windows, windows_end) = match purpose {
            Purpose::Tuning | Purpose::Sensitivity => (tune_steps, 0, 0, tune_windows),
            Purpose::Verdict => (steps, valid_every, valid_windows, 0),
        };
        let number = |value: u64| Value::Integer(value.min(i64::MAX as u64) as i64);
        let mut flags = vec![
            ("the plan", "optimizer.lr", Value::Float(candidate.lr)),
            ("the plan", "train.steps", number(steps)),
            ("the plan", "train.seed", number(seed)),
            ("the plan", "train.valid_every", number(every)),
            ("the plan", "train.valid_windows", number(windows)),
            ("the plan", "train.valid_windows_end", number(windows_end)),
            ("the plan", "train.sample_tokens", number(0)),
        ];
        if purpose != Purpose::Verdict {
            flags.push(("the plan", "train.spectra_every", number(0)));
            flags.push(("the plan", "train.logits_every", number(0)));
            flags.push(("the plan", "train.probe_every", number(0)));
            flags.push(("the plan", "train.sharpness_every", number(0)));
            flags.push(("the plan", "train.energy_every", number(0)));
        }
        let file = Some(("the plan".into(), self.file_of(contender, &candidate.swept)?));
        Layers { file, flags, ..Layers::default() }.resolve()
    }

    /// The candidates with which an optimizer's tuning begins: every learning rate with every combination of swept values.
    pub fn candidates(&self, contender: usize) -> Vec<Candidate> {
        let Contender { lrs, sweep, .. } = &self.contenders[contender];
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

    /// One configuration of every optimizer.
    ///
    /// # Errors
    ///
    /// Invalid values.
    pub fn first_configs(&self) -> Result<Vec<Config>, Error> {
        let first =
            |index: usize| self.config(index, &self.candidates(index)[0], Purpose::Verdict, self.settings.first_seed);
        (0..self.contenders.len()).map(first).collect()
    }

    /// Seeds of the verdict runs.
    pub fn seeds(&self) -> std::ops::Range<u64> {
        self.settings.first_seed..self.settings.first_seed + self.settings.seeds
    }

    /// Seeds of the tuning runs.
    pub fn tune_seeds(&self) -> std::ops::Range<u64> {
        self.settings.first_tune_seed..self.settings.first_tune_seed + self.settings.tune_seeds
    }

    /// The plan as a table that [`Plan::resolve`] reads back as the same plan.
    pub fn to_table(&self) -> Result<Table, ConfigError> {
        let contender = |contender: &Contender| {
            let mut table = Table::new();
            table.insert("name".into(), contender.name.clone().into());
            table.insert("lrs".into(), contender.lrs.clone().into());
            table.extend(contender.optimizer.clone());
            let sweep = contender.sweep.iter().map(|(key, values)| (key.clone(), Value::Array(values.clone())));
            table.insert("sweep".into(), Value::Table(sweep.collect()));
            Value::Table(table)
        };
        let mut table = Table::new();
        table.insert("compare".into(), Value::try_from(&self.settings).map_err(ConfigError::misfit)?);
        table.insert("optimizers".into(), self.contenders.iter().map(contender).collect::<Vec<_>>().into());
        table.extend(self.base.clone());
        Ok(table)
    }

    /// The default folder.
    pub fn default_folder(&self) -> PathBuf {
        let names: Vec<&str> = self.contenders.iter().map(|contender| contender.name.as_str()).collect();
        let names: String = names.join("-").chars().take(100).collect();
        PathBuf::from(format!("runs/compare-{}-{names}", self.preset()))
    }

    /// Name or path of the data.
    pub fn source(&self) -> &str {
        merge::lookup(&self.base, SOURCE).and_then(Value::as_str).unwrap_or_default()
    }

    /// Name of the model preset.
    pub fn preset(&self) -> String {
        merge::lookup(&self.base, "model.preset").and_then(Value::as_str).unwrap_or("model").into()
    }
}

/// Keys that may change from one session to the next: the number of jobs, and the path of the data, since the fingerprint
/// shows whether the data are the same.
const RESUMABLE: &[&str] = &["compare.jobs", SOURCE];

/// What a folder notes by itself.
const NOTED: &str = "compare.seeds_before";

/// Differences between two plans.
pub fn differences(there: &Table, now: &Table) -> Vec<String> {
    merge::differences(&by_name(there), &by_name(now), &[RESUMABLE, &[NOTED]].concat())
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

pub(super) fn section(table: &Table, name: &str) -> Table {
    table.get(name).and_then(Value::as_table).cloned().unwrap_or_default()
}

/// Rounds a learning rate to three significant digits, so that it is easy to read and to type.
pub fn round(lr: f64) -> f64 {
    format!("{lr:.2e}").parse().unwrap_or(lr)
}
