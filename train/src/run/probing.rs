//! The batches on which probes measure the loss.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use polaron::layerwise::Objective;

use crate::error::Error;
use crate::host::workers::{Workers, shares};
use crate::networks::evaluate;
use crate::networks::family::Family;
use crate::networks::gradients::{self, Backward};
use crate::settings::config::Config;

/// Added to the seed of a run for the seed of these batches.
const SEED: u64 = 7919;

/// Batches of the training split, the same in every probe of a run.
#[derive(Debug)]
pub struct ProbeBatches<'a, F: Family> {
    batches: Vec<F::Batch<'a>>,
    backward: Backward,
    device: &'a Device,
    workers: &'a Workers,
}

impl<'a, F: Family> ProbeBatches<'a, F> {
    /// Those of a run.
    ///
    /// # Errors
    ///
    /// When the data are too short for a batch.
    pub fn of(
        config: &Config,
        settings: &F,
        data: &'a F::Data,
        device: &'a Device,
        workers: &'a Workers,
    ) -> Result<Self, Error> {
        let train = &config.train;
        let batch = |index| settings.batch(data, train.seed.wrapping_add(SEED), train.batch, index);
        let batches = (0..train.probe_batches).map(batch).collect::<Result<_, _>>()?;
        let backward =
            Backward { parts: train.accumulation, grains: train.grains, recompute: train.recompute, logits: false };
        Ok(Self { batches, backward, device, workers })
    }
}

impl<F: Family> Objective<F::Network> for ProbeBatches<'_, F> {
    type Error = Error;

    fn batches(&self) -> usize {
        self.batches.len()
    }

    fn loss(&mut self, model: &F::Network, batch: usize) -> Result<f64, Error> {
        let batch = &self.batches[batch];
        let parts = match self.backward.grains {
            0 => shares(F::rows(batch), self.workers.count()),
            _ => self.backward.leaves(F::rows(batch)),
        };
        evaluate::training_loss::<F>(&model.valid(), batch, parts, self.device, self.workers)
    }

    fn gradient(&mut self, model: &F::Network, batch: usize) -> Result<GradientsParams, Error> {
        let device = self.device.clone().autodiff();
        let batch = &self.batches[batch];
        Ok(gradients::gradients::<F>(model, batch, self.backward, &device, self.workers)?.grads)
    }
}
