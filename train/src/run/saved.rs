//! The content of a checkpoint during training.

use burn::module::Module;
use polaron::{LayerwiseOptimizer, LayerwiseRecord};
use polaron_models::to_named;

use crate::error::Problem;
use crate::run::averaging::Averaging;
use crate::run::spectra::Spectra;
use crate::store::checkpoint::{Content, TrainerState};
use crate::store::tensors;

/// The content of a checkpoint during training.
#[derive(Debug)]
pub struct Saved<'a, M> {
    /// The trained weights.
    pub model: &'a M,
    /// Those to evaluate, if they are others.
    pub evaluation: Option<M>,
    /// Rules and states.
    pub optimizer: &'a LayerwiseOptimizer,
    /// Its complete record, where states are spread over processes.
    pub gathered: Option<LayerwiseRecord>,
    /// The average of the weights, if there is one.
    pub averaging: Option<&'a Averaging>,
    /// What the next record of the spectra is compared with.
    pub spectra: &'a Spectra,
    /// Counters and configuration.
    pub trainer: TrainerState,
}

impl<M: Module> Content for Saved<'_, M> {
    fn trainer(&self) -> &TrainerState {
        &self.trainer
    }

    fn model(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem> {
        Ok(tensors::write(&to_named(self.model), write)?)
    }

    fn has_evaluation(&self) -> bool {
        self.evaluation.is_some()
    }

    fn evaluation(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem> {
        self.evaluation.as_ref().map_or(Ok(()), |model| Ok(tensors::write(&to_named(model), write)?))
    }

    fn optimizer(&self, write: &mut dyn FnMut(&[u8])) -> Result<(), Problem> {
        match &self.gathered {
            Some(record) => Ok(record.write_safetensors(write)?),
            None => Ok(complete(self.optimizer.to_record(), self.averaging, self.spectra).write_safetensors(write)?),
        }
    }
}

/// The record of the optimizer with what the trainer keeps beside it.
pub fn complete(mut record: LayerwiseRecord, averaging: Option<&Averaging>, spectra: &Spectra) -> LayerwiseRecord {
    if let Some(averaging) = averaging {
        record.add_wrapper(averaging.to_record());
    }
    if let Some(spectra) = spectra.to_record() {
        record.add_wrapper(spectra);
    }
    record
}
