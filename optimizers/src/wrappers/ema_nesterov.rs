//! EMA-Nesterov (arXiv 2605.25395): a look ahead along the mean of the last steps.

use burn::module::Module;
use burn::tensor::Device;

use super::trained::Copies;
use super::{EmaNesterovConfig, Moment, Trained, Wrap, WrapperError, WrapperRecord};
use crate::setting::{ConfigError, Keys};

/// A look ahead along the mean of the last steps (EMA-Nesterov, arXiv 2605.25395).
///
/// ```text
/// before the forward pass:  P ← W,   W ← W + s B,   s = strength × the schedule's factor
/// gradient and step from there
/// after the step:           B ← beta B + (1 - beta) (W - P)
/// ```
///
/// B is the moving average of what steps change, looks ahead included, so in the long run a step is 1 / (1 - s) times as far.
/// s is 0 in the first `prefill` steps, in which B is only collected, and from the share `until` of the training on, so that
/// the weights come to rest. Two copies; P only from the forward pass to the end of the step.
///
/// The paper and the records of the modded-nanogpt race (track 3) have strengths of 0.3 to 0.6, 300 to 500 steps of prefill
/// and an end after 60 to 70 % of the run.
#[derive(Clone, Debug)]
pub struct EmaNesterov {
    settings: EmaNesterovConfig,
    trained: Trained,
    mean: Copies,
    /// The weights before the forward pass.
    before: Option<Copies>,
    /// Finished steps.
    steps: u64,
}

const MEAN: &str = "mean";
const STEPS: &str = "steps";

impl EmaNesterov {
    /// With B = 0, before the first step.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(settings: &EmaNesterovConfig, trained: Trained) -> Result<Self, ConfigError> {
        settings.check_keys(EmaNesterovConfig::KIND)?;
        let mean = Copies::of(&trained);
        Ok(Self { settings: settings.clone(), trained, mean, before: None, steps: 0 })
    }

    /// How far ahead the gradient is taken, in units of B.
    fn strength(&self, moment: Moment) -> f64 {
        let EmaNesterovConfig { strength, prefill, until, .. } = self.settings;
        if self.steps >= prefill && moment.progress < until { strength * moment.factor } else { 0.0 }
    }
}

impl Wrap for EmaNesterov {
    fn before_forward<M: Module>(&mut self, module: M, moment: Moment) -> Result<M, WrapperError> {
        let strength = self.strength(moment);
        let mut before = Copies::of(&self.trained);
        let ahead = self.trained.change(module, |number, weights| {
            before.put(number, weights.clone());
            match self.mean.get(number).filter(|_| strength != 0.0) {
                Some(mean) => weights + mean * strength,
                None => weights,
            }
        })?;
        self.before = Some(before);
        Ok(ahead)
    }

    fn before_step<M: Module>(&mut self, module: M) -> Result<M, WrapperError> {
        match self.before {
            Some(_) => Ok(module),
            None => Err(WrapperError::NoForward { kind: EmaNesterovConfig::KIND }),
        }
    }

    fn after_step<M: Module>(&mut self, module: M, _moment: Moment) -> Result<M, WrapperError> {
        let Some(mut before) = self.before.take() else {
            return Err(WrapperError::NoForward { kind: EmaNesterovConfig::KIND });
        };
        let (beta, mean) = (self.settings.beta, &mut self.mean);
        self.trained.read(&module, |number, weights| {
            let Some(before) = before.take(number) else { return };
            let change = (weights - before) * (1.0 - beta);
            let next = match mean.take(number) {
                Some(mean) => mean * beta + change,
                None => change,
            };
            mean.put(number, next);
        })?;
        self.steps += 1;
        Ok(module)
    }

    fn to_record(&self) -> WrapperRecord {
        let mut record = WrapperRecord::of(EmaNesterovConfig::KIND, &[(STEPS, self.steps)]);
        self.trained.write(MEAN, &self.mean, &mut record);
        record
    }

    fn load_record(&mut self, mut record: WrapperRecord, device: &Device) -> Result<(), WrapperError> {
        record.check_kind(EmaNesterovConfig::KIND)?;
        let steps = record.number(STEPS)?;
        let mean = self.trained.load(MEAN, &mut record, device)?;
        record.check_empty()?;
        (self.steps, self.mean, self.before) = (steps, mean, None);
        Ok(())
    }
}
