//! A loss on fixed batches, its mean gradient, and products of gradients as flat vectors.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::LayerwiseError;
use crate::wrappers::{Copies, Trained};

/// The loss f that a probe measures: the mean over a fixed set of batches.
pub trait Objective<M> {
    /// What can fail.
    type Error: From<LayerwiseError>;

    /// The number of batches, at least 1.
    fn batches(&self) -> usize;

    /// The loss of a batch, by its index.
    ///
    /// # Errors
    /// Whatever a forward pass can fail with.
    fn loss(&mut self, model: &M, batch: usize) -> Result<f64, Self::Error>;

    /// The gradient of the same loss.
    ///
    /// # Errors
    /// Whatever a backward pass can fail with.
    fn gradient(&mut self, model: &M, batch: usize) -> Result<GradientsParams, Self::Error>;

    /// The mean loss over all batches.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    fn mean_loss(&mut self, model: &M) -> Result<f64, Self::Error> {
        let batches = self.batches();
        let sum = (0..batches).try_fold(0.0, |sum, batch| Ok(sum + self.loss(model, batch)?));
        sum.map(|sum: f64| sum / batches as f64)
    }
}

/// The mean gradient over all batches.
pub(super) fn mean_gradient<M: Module, O: Objective<M>>(
    trained: &Trained,
    model: &M,
    objective: &mut O,
) -> Result<Copies, O::Error> {
    let (batches, mut sum) = (objective.batches(), Copies::of(trained));
    for batch in 0..batches {
        let found = trained.gradients(model, &objective.gradient(model, batch)?).map_err(LayerwiseError::from)?;
        for number in 0..trained.len() {
            let Some(gradient) = found.get(number) else { continue };
            let share = gradient * (1.0 / batches as f64);
            let total = match sum.take(number) {
                Some(sum) => sum + share,
                None => share,
            };
            sum.put(number, total);
        }
    }
    Ok(sum)
}

/// How far apart the two gradients of a finite difference are taken on each side, as a share of the size of the weights.
pub(super) fn reach(weights: &Copies) -> f64 {
    if weights.iter().any(|(_, values)| values.dtype() == DType::F64) { 1e-4 } else { 1e-2 }
}

/// The inner product, summed in f64 where the device can.
pub(super) fn product(x: Tensor<1>, y: Tensor<1>) -> f64 {
    let wide = |x: Tensor<1>| if x.device().supports_dtype(DType::F64) { x.cast(DType::F64) } else { x };
    (wide(x) * wide(y)).sum().into_scalar::<f64>()
}
