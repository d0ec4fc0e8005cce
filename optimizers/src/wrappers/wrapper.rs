//! A wrapper of any kind.

use burn::module::Module;
use burn::tensor::Device;

use super::{
    EmaNesterov, Moment, OuterNesterov, ScheduleFree, Trained, Wrap, WrapperConfig, WrapperError, WrapperRecord,
};
use crate::setting::ConfigError;

/// The wrapper that a [`WrapperConfig`] describes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Wrapper {
    /// A look ahead along the mean of the last steps.
    EmaNesterov(EmaNesterov),
    /// A Nesterov step along what every K steps changed.
    OuterNesterov(OuterNesterov),
    /// Schedule-free training.
    ScheduleFree(ScheduleFree),
}

macro_rules! each {
    ($self:ident, $wrapper:ident => $call:expr) => {
        match $self {
            Self::EmaNesterov($wrapper) => $call,
            Self::OuterNesterov($wrapper) => $call,
            Self::ScheduleFree($wrapper) => $call,
        }
    };
}

impl Wrapper {
    /// The wrapper before the first step.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(config: &WrapperConfig, trained: Trained) -> Result<Self, ConfigError> {
        Ok(match config {
            WrapperConfig::EmaNesterov(settings) => Self::EmaNesterov(EmaNesterov::new(settings, trained)?),
            WrapperConfig::OuterNesterov(settings) => Self::OuterNesterov(OuterNesterov::new(settings, trained)?),
            WrapperConfig::ScheduleFree(settings) => Self::ScheduleFree(ScheduleFree::new(settings, trained)?),
        })
    }
}

impl Wrap for Wrapper {
    fn before_forward<M: Module>(&mut self, module: M, moment: Moment) -> Result<M, WrapperError> {
        each!(self, wrapper => wrapper.before_forward(module, moment))
    }

    fn before_step<M: Module>(&mut self, module: M) -> Result<M, WrapperError> {
        each!(self, wrapper => wrapper.before_step(module))
    }

    fn after_step<M: Module>(&mut self, module: M, moment: Moment) -> Result<M, WrapperError> {
        each!(self, wrapper => wrapper.after_step(module, moment))
    }

    fn has_evaluation_weights(&self) -> bool {
        each!(self, wrapper => wrapper.has_evaluation_weights())
    }

    fn evaluation_weights<M: Module>(&self, module: M) -> Result<M, WrapperError> {
        each!(self, wrapper => wrapper.evaluation_weights(module))
    }

    fn to_record(&self) -> WrapperRecord {
        each!(self, wrapper => wrapper.to_record())
    }

    fn load_record(&mut self, record: WrapperRecord, device: &Device) -> Result<(), WrapperError> {
        each!(self, wrapper => wrapper.load_record(record, device))
    }
}
