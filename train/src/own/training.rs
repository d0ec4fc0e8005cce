//! A loop that trains: batches, steps, validations, times.

use std::collections::VecDeque;
use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use polaron::{LayerwiseError, LayerwiseOptimizer};

use crate::compare::{Measurement, Trial};

/// Trains `model` as a trial asks, one step for every call of the iterator. `loss` gives the loss of a step's batch, steps counted
/// from 1; `valid` that of the whole validation data, with a model whose layers are set for evaluation and record no gradients.
///
/// A loss or a gradient that is not finite ends the run as diverged.
pub fn train<M, L, V>(trial: Trial, model: M, optimizer: LayerwiseOptimizer, loss: L, valid: V) -> Training<M, L, V>
where
    M: Module,
    L: FnMut(&M, u64) -> Tensor<1>,
    V: FnMut(&M) -> f64,
{
    Training { trial, model: Some(model), optimizer, loss, valid, step: 0, told: VecDeque::new() }
}

/// A training under way, see [`train`].
#[derive(Debug)]
pub struct Training<M, L, V> {
    trial: Trial,
    /// None once it has ended.
    model: Option<M>,
    optimizer: LayerwiseOptimizer,
    loss: L,
    valid: V,
    step: u64,
    /// What was measured and not told yet.
    told: VecDeque<Measurement>,
}

impl<M, L, V> Training<M, L, V>
where
    M: Module,
    L: FnMut(&M, u64) -> Tensor<1>,
    V: FnMut(&M) -> f64,
{
    /// Makes a step, and validates if the trial asks for it. Returns the model; None if the run has diverged.
    fn step(&mut self, model: M) -> Result<Option<M>, LayerwiseError> {
        self.step += 1;
        let (step, last, factor) = (self.step, self.trial.last_step(), self.trial.factor(self.step));
        let started = Instant::now();
        self.optimizer.set_step(step - 1, last)?;
        let model = self.optimizer.before_forward(factor, model)?;
        let loss = (self.loss)(&model, step);
        let value = loss.clone().into_scalar::<f64>();
        if !value.is_finite() {
            self.told.push_back(Measurement::train(step, value));
            return Ok(None);
        }
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let updating = Instant::now();
        let (grads, norm) = self.optimizer.clip(&model, grads);
        if !norm.is_finite() {
            self.told.push_back(Measurement::Diverged(format!("the gradient of step {step} has the norm {norm}")));
            return Ok(None);
        }
        let model = self.optimizer.apply(factor, model, grads);
        let optimizer_seconds = Some(updating.elapsed().as_secs_f64());
        let seconds = Some(started.elapsed().as_secs_f64());
        self.told.push_back(Measurement::Train { step, loss: value, seconds, optimizer_seconds });
        if self.trial.validates(step) {
            let evaluated = if self.optimizer.has_evaluation_weights() {
                self.optimizer.evaluation_weights(model.clone())?
            } else {
                model.clone()
            };
            self.told.push_back(Measurement::valid(step, (self.valid)(&evaluated.valid())));
        }
        Ok((step < last).then_some(model))
    }
}

impl<M, L, V> Iterator for Training<M, L, V>
where
    M: Module,
    L: FnMut(&M, u64) -> Tensor<1>,
    V: FnMut(&M) -> f64,
{
    type Item = Measurement;

    fn next(&mut self) -> Option<Measurement> {
        if self.told.is_empty()
            && let Some(model) = self.model.take()
        {
            match self.step(model) {
                Ok(model) => self.model = model,
                Err(error) => self.told.push_back(Measurement::Failed(error.to_string())),
            }
        }
        self.told.pop_front()
    }
}
