//! The moving average of the weights of a run.

use burn::module::Module;
use burn::tensor::Device;
use polaron::layerwise::BasisChange;
use polaron::wrappers::{Moment, WeightAverage, Wrap, WrapperRecord};
use polaron::{LayerwiseError, LayerwiseOptimizer};

use crate::error::Error;
use crate::settings::config::Config;

/// The average of `[train.average]`.
#[derive(Debug)]
pub struct Averaging {
    average: WeightAverage,
    /// The number of finished steps from which on weights are averaged.
    first: u64,
}

impl Averaging {
    /// The average that the configuration asks for, of the parameters that the optimizer trains.
    ///
    /// # Errors
    ///
    /// A setting that is out of range.
    pub fn of<M: Module>(config: &Config, optimizer: &LayerwiseOptimizer, model: &M) -> Result<Option<Self>, Error> {
        let Some(settings) = &config.train.average else { return Ok(None) };
        let average = WeightAverage::new(&settings.settings(), optimizer.trained(model));
        let average = average.map_err(LayerwiseError::from)?;
        Ok(Some(Self { average, first: settings.first(config.train.steps) }))
    }

    /// Takes the weights after `step` finished steps into the average, if it has begun.
    ///
    /// # Errors
    ///
    /// A model that is not the one of [`Self::of`].
    pub fn after_step<M: Module>(&mut self, model: M, step: u64, moment: Moment) -> Result<M, Error> {
        if step < self.first && !self.average.has_evaluation_weights() {
            return Ok(model);
        }
        Ok(self.average.after_step(model, moment).map_err(LayerwiseError::from)?)
    }

    /// The weights to evaluate; None before the first average.
    ///
    /// # Errors
    ///
    /// A model that is not the one of [`Self::of`].
    pub fn evaluation_weights<M: Module>(&self, model: &M) -> Result<Option<M>, Error> {
        if !self.average.has_evaluation_weights() {
            return Ok(None);
        }
        Ok(Some(self.average.evaluation_weights(model.clone()).map_err(LayerwiseError::from)?))
    }

    /// Lets the average follow parameters whose basis was changed.
    ///
    /// # Errors
    ///
    /// A change that does not fit the average.
    pub fn change_basis(&mut self, changes: &[BasisChange], device: &Device) -> Result<(), Error> {
        let mut record = self.to_record();
        changes.iter().try_for_each(|change| record.change_basis(change))?;
        self.load_record(record, device)
    }

    /// Its state.
    pub fn to_record(&self) -> WrapperRecord {
        self.average.to_record()
    }

    /// Resumes from a state.
    ///
    /// # Errors
    ///
    /// A state of another model.
    pub fn load_record(&mut self, record: WrapperRecord, device: &Device) -> Result<(), Error> {
        Ok(self.average.load_record(record, device).map_err(LayerwiseError::from)?)
    }
}
