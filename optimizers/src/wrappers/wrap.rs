//! What every wrapper does, and when.

use burn::module::Module;
use burn::tensor::Device;

use super::{WrapperError, WrapperRecord};

/// Where training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The schedule's factor of the learning rates in this step.
    pub factor: f64,
    /// How much of the training is done, from 0 to 1.
    pub progress: f64,
}

/// A wrapper: the training loop calls its methods in this order in every step, with the same [`Moment`].
///
/// Between `after_step` and `before_forward` the model holds the weights that are trained: those to save and to resume from.
/// The loop may give up a step after `before_forward`: the next one then starts from the model that was passed to it.
pub trait Wrap {
    /// The model at which the gradient is to be taken.
    ///
    /// # Errors
    /// If the model is no longer the one that the wrapper was built for.
    fn before_forward<M: Module>(&mut self, module: M, _moment: Moment) -> Result<M, WrapperError> {
        Ok(module)
    }

    /// The model that the optimizer is to step, with the gradient at the former.
    ///
    /// # Errors
    /// As [`before_forward`](Self::before_forward); and if that was not called, where it is needed.
    fn before_step<M: Module>(&mut self, module: M) -> Result<M, WrapperError> {
        Ok(module)
    }

    /// The trained weights, given the model after the optimizer's step.
    ///
    /// # Errors
    /// As [`before_step`](Self::before_step).
    fn after_step<M: Module>(&mut self, module: M, moment: Moment) -> Result<M, WrapperError>;

    /// Whether the weights to evaluate are others than the trained ones, at present.
    fn has_evaluation_weights(&self) -> bool {
        false
    }

    /// The weights to evaluate and to use, given the trained ones. Also for a copy without automatic differentiation
    /// (`model.valid()`).
    ///
    /// # Errors
    /// As [`before_forward`](Self::before_forward).
    fn evaluation_weights<M: Module>(&self, module: M) -> Result<M, WrapperError> {
        Ok(module)
    }

    /// Everything that it keeps between steps. Waits for the device.
    fn to_record(&self) -> WrapperRecord;

    /// Loads a record onto `device`.
    ///
    /// # Errors
    /// If it is that of another wrapper or another model, or is incomplete; nothing is changed then.
    fn load_record(&mut self, record: WrapperRecord, device: &Device) -> Result<(), WrapperError>;
}
