//! What a run is made of besides its data, before anything is written.

use burn::tensor::Device;
use polaron::wrappers::WeightAverageConfig;
use polaron::{LayerwiseOptimizer, LayerwiseRecord};
use polaron_models::to_named;
use toml::Value;

use crate::error::Error;
use crate::host::ranks::Ranks;
use crate::networks::data::DataSizes;
use crate::networks::family::Family;
use crate::run::averaging::Averaging;
use crate::run::energy;
use crate::run::prepare::{build_optimizer, with_adapters};
use crate::run::spectra::{self, Spectra};
use crate::run::start::{self, Start};
use crate::run::team::{Digest, Team};
use crate::settings::config::{Config, resumable_keys};
use crate::settings::merge;
use crate::store::weights::Weights;

/// What a run keeps between steps besides its weights.
#[derive(Debug)]
pub struct States {
    /// Rules and states.
    pub optimizer: LayerwiseOptimizer,
    /// The average of the weights, if there is one.
    pub averaging: Option<Averaging>,
    /// What the next record of the spectra is compared with; None if there is none.
    pub spectra: Option<Spectra>,
}

impl States {
    /// Resumes from the record of a checkpoint, of several processes each with its own part. An average begins anew if the record has
    /// none.
    ///
    /// # Errors
    ///
    /// A record of another run.
    pub fn load(&mut self, record: &[u8], team: Option<&Team<'_>>, device: &Device) -> Result<(), Error> {
        let mut record = LayerwiseRecord::from_safetensors(record)?;
        let averaged = record.take_wrapper(WeightAverageConfig::KIND);
        let recorded = record.take_wrapper(spectra::KIND);
        let record = match team {
            None => record,
            Some(team) => team.own_part(record),
        };
        self.optimizer.load_record(record, device)?;
        if let (Some(spectra), Some(record)) = (&mut self.spectra, recorded) {
            spectra.load_record(record);
        }
        match (&mut self.averaging, averaged) {
            (Some(averaging), Some(record)) => averaging.load_record(record, device),
            _ => Ok(()),
        }
    }
}

/// Model and states of a run, and where it begins.
#[derive(Debug)]
pub struct Prepared<'a, F: Family> {
    /// The model.
    pub model: F::Network,
    /// The state in which it begins.
    pub start: Start,
    /// What it keeps between steps.
    pub states: States,
    /// The processes that train it together; None for a single one.
    pub team: Option<Team<'a>>,
}

impl<'a, F: Family> Prepared<'a, F> {
    /// Of a model of these sizes, on data with this fingerprint, that begins with these weights or with those of its seed.
    ///
    /// # Errors
    ///
    /// An optimizer that cannot be built; weights that do not fit; what several processes cannot do.
    pub fn of(
        config: &Config,
        settings: &F,
        sizes: DataSizes,
        weights: Option<Weights>,
        data_sha256: String,
        ranks: Option<&'a dyn Ranks>,
        device: &Device,
    ) -> Result<Self, Error> {
        let training_device = device.clone().autodiff();
        let model = settings.init(sizes, config.train.seed, &training_device)?;
        let (model, start) = match weights {
            Some(weights) => start::apply(config, weights, model, &data_sha256, &training_device)?,
            None => (with_adapters(config, model)?, Start::default()),
        };
        let optimizer = build_optimizer::<F>(config, &model)?;
        let team = ranks.map(|ranks| Team::new(ranks, config, optimizer.plan())).transpose()?;
        energy::check(config, &optimizer)?;
        let model = optimizer.without_frozen_gradients(model);
        let averaging = Averaging::of(config, &optimizer, &model)?;
        let spectra = (config.train.spectra_every > 0).then(|| Spectra::new(optimizer.plan()));
        let mut states = States { optimizer, averaging, spectra };
        if let Some(record) = &start.optimizer {
            states.load(record, team.as_ref(), device)?;
        }
        Ok(Self { model, start: start.on(data_sha256), states, team })
    }

    /// What `plan.txt` holds.
    pub fn plan_text(&self) -> String {
        let plan = self.states.optimizer.plan();
        let table = self.team.as_ref().map_or_else(String::new, |team| format!("\n{}", team.table(plan)));
        format!("{plan}\n{table}")
    }
}

/// What must be the same in all processes of a run; None stands for a run that is already finished.
///
/// # Errors
///
/// A configuration that cannot be stored.
pub fn digest<F: Family>(config: &Config, prepared: Option<&Prepared<'_, F>>) -> Result<Digest, Error> {
    let mut config = config.to_table()?;
    resumable_keys(&config).into_iter().for_each(|key| merge::remove(&mut config, key));
    let digest = Digest::default().with("version", env!("CARGO_PKG_VERSION"));
    let key = |digest: Digest, (key, value): (String, Value)| digest.with(&format!("`{key}`"), &value.to_string());
    let digest = merge::flatten(&config).into_iter().fold(digest, key);
    let Some(Prepared { model, start, states, .. }) = prepared else { return Ok(digest.with("state", "finished")) };
    let digest = digest.with("state", "open").with("text or other data", &start.state.data_sha256);
    let digest = digest.with("plan", &states.optimizer.plan().to_string()).with_weights(&to_named(model));
    Ok(digest.with("step to begin at", &start.state.step.to_string()))
}
