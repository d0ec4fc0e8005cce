//! The configurations of the runs of a plan: each is a run of `polaron train`.

use std::path::PathBuf;

use toml::Value;

use crate::compare::{Candidate, Plan, Purpose, Run, Settings, Subject};
use crate::error::Error;
use crate::settings::config::Config;
use crate::settings::layers::Layers;
use crate::settings::merge;

impl Plan {
    /// The configuration of one run of full length.
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
        self.config_of_length(contender, candidate, purpose, seed, self.length(purpose))
    }

    fn config_of_length(
        &self,
        contender: usize,
        candidate: &Candidate,
        purpose: Purpose,
        seed: u64,
        steps: u64,
    ) -> Result<Config, Error> {
        let Settings { valid_every, valid_windows, tune_windows, .. } = self.settings;
        let (every, windows, windows_end) = match purpose {
            Purpose::Tuning | Purpose::Sensitivity => (0, 0, tune_windows.unwrap_or_default()),
            Purpose::Verdict => (valid_every, valid_windows.unwrap_or_default(), 0),
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
        let file = Some(("the plan".into(), self.sections(contender, &candidate.swept)?));
        Layers { file, flags, ..Layers::default() }.resolve()
    }

    /// The same, for a run of the comparison.
    ///
    /// # Errors
    ///
    /// Invalid values.
    pub fn config_of(&self, run: &Run) -> Result<Config, Error> {
        self.config_of_length(run.contender, &run.candidate, run.purpose, run.seed, run.steps)
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

    /// The default folder.
    pub fn default_folder(&self) -> PathBuf {
        let names: Vec<&str> = self.contenders.iter().map(|contender| contender.name.as_str()).collect();
        let names: String = names.join("-").chars().take(100).collect();
        PathBuf::from(format!("runs/compare-{}-{names}", self.preset()))
    }

    /// Name of the model preset.
    pub fn preset(&self) -> String {
        merge::lookup(&self.base, "model.preset").and_then(Value::as_str).unwrap_or("model").into()
    }

    /// What the runs train, as the results state it.
    pub fn subject(&self) -> Subject {
        let config = self.config(0, &self.candidates(0)[0], Purpose::Verdict, self.settings.first_seed).ok();
        let unit = config.as_ref().map_or("tokens", |config| config.model.unit().many);
        Subject {
            title: self.preset(),
            unit: unit.into(),
            per_step: config.map_or(0, |config| config.tokens_per_step()),
            coverage: (unit == "tokens").then(|| coverage(self.settings.valid_windows.unwrap_or_default())),
        }
    }
}

/// Over which windows the losses are.
fn coverage(windows: u64) -> String {
    let on = match windows {
        0 => "all windows".to_owned(),
        windows => format!("{windows} evenly spaced windows"),
    };
    format!("Final losses are over all validation windows, losses during training (targets, curves) are over {on}.")
}
