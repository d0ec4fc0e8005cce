//! A moving average of the weights, for evaluation only.

use burn::module::Module;
use burn::tensor::Device;

use super::trained::Copies;
use super::{Moment, Trained, WeightAverageConfig, Wrap, WrapperError, WrapperRecord};
use crate::setting::{ConfigError, Keys};

/// A moving average of the weights, which training does not see.
///
/// ```text
/// first step that is averaged:  E ← W
/// after every later step:       E ← (1 - 1/horizon) E + W / horizon
/// evaluated:                    (1 - mix) W + mix E
/// ```
///
/// Late in training, the average is where a decay of the learning rate would lead to. Begin it when the loss no longer falls
/// quickly: the average is about `horizon` steps behind. One copy. Averaged and trained weights mixed 3 : 2 with a horizon of
/// 150 steps are what records of the modded-nanogpt race (track 3) are evaluated with.
#[derive(Clone, Debug)]
pub struct WeightAverage {
    settings: WeightAverageConfig,
    trained: Trained,
    average: Copies,
}

const AVERAGE: &str = "average";

impl WeightAverage {
    /// No average yet: it begins with the first [`after_step`](Wrap::after_step).
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(settings: &WeightAverageConfig, trained: Trained) -> Result<Self, ConfigError> {
        settings.check_keys(WeightAverageConfig::KIND)?;
        let average = Copies::of(&trained);
        Ok(Self { settings: settings.clone(), trained, average })
    }
}

impl Wrap for WeightAverage {
    fn after_step<M: Module>(&mut self, module: M, _moment: Moment) -> Result<M, WrapperError> {
        self.trained.approach(&module, &mut self.average, 1.0 / self.settings.horizon)?;
        Ok(module)
    }

    fn has_evaluation_weights(&self) -> bool {
        !self.average.is_empty()
    }

    fn evaluation_weights<M: Module>(&self, module: M) -> Result<M, WrapperError> {
        let mix = self.settings.mix;
        self.trained.change(module, |number, weights| match self.average.get(number) {
            // Exactly W where E is W, and where the share of E is 0.
            Some(average) => (average - weights.clone()) * mix + weights,
            None => weights,
        })
    }

    fn to_record(&self) -> WrapperRecord {
        let mut record = WrapperRecord::of(WeightAverageConfig::KIND, &[]);
        self.trained.write(AVERAGE, &self.average, &mut record);
        record
    }

    fn load_record(&mut self, mut record: WrapperRecord, device: &Device) -> Result<(), WrapperError> {
        record.check_kind(WeightAverageConfig::KIND)?;
        let average = self.trained.load(AVERAGE, &mut record, device)?;
        record.check_empty()?;
        self.average = average;
        Ok(())
    }
}
