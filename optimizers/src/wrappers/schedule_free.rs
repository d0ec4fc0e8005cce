//! Schedule-free training (Defazio et al., arXiv 2405.15682) around any optimizer.

use burn::module::Module;
use burn::tensor::Device;

use super::trained::Copies;
use super::{Moment, ScheduleFreeConfig, Trained, Wrap, WrapperError, WrapperRecord};
use crate::setting::{ConfigError, Keys};

/// Schedule-free training (Defazio et al., arXiv 2405.15682, as the authors' `ScheduleFreeWrapper`).
///
/// ```text
/// gradient at               y = (1 - beta) z + beta x
/// step of the optimizer:    z ← z - update,   the update of the gradient at y
/// average:                  x ← (1 - c) x + c z,   c = γ² / Σ γ²,   γ = the largest factor of the schedule so far
/// evaluated:                x
/// ```
///
/// z are the trained weights: the model holds them between steps, and checkpoints store them as the model; x is kept beside
/// them. Two copies: x always, z only from the forward pass to the step.
///
/// The step is that of the optimizer inside, whole: matrix rules apply their direction, and weight decay, to z. Its momentum
/// stays as it is set; the average takes momentum's place, so the authors advise to turn it off inside
/// (`matrix = { momentum = 0.0 }`). x takes the place of a decay of the learning rate too: the schedule should be constant
/// after the warm-up, in which γ² gives early steps less weight. Learning rates that differ by parameter do not change c, as a
/// common factor cancels.
#[derive(Clone, Debug)]
pub struct ScheduleFree {
    settings: ScheduleFreeConfig,
    trained: Trained,
    /// x; none before the first step, when it is z.
    average: Copies,
    /// z, while the model holds y.
    before: Option<Copies>,
    /// Σ γ².
    weights: f64,
    /// The largest factor so far.
    largest: f64,
}

const AVERAGE: &str = "average";
const WEIGHTS: &str = "weights_bits";
const LARGEST: &str = "largest_factor_bits";

impl ScheduleFree {
    /// With x = z, before the first step.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(settings: &ScheduleFreeConfig, trained: Trained) -> Result<Self, ConfigError> {
        settings.check_keys(ScheduleFreeConfig::KIND)?;
        let average = Copies::of(&trained);
        Ok(Self { settings: settings.clone(), trained, average, before: None, weights: 0.0, largest: 0.0 })
    }

    /// c of the next step.
    fn next_share(&mut self, factor: f64) -> f64 {
        self.largest = self.largest.max(factor);
        let weight = self.largest.powi(2);
        self.weights += weight;
        if self.weights == 0.0 { 0.0 } else { weight / self.weights }
    }
}

impl Wrap for ScheduleFree {
    fn before_forward<M: Module>(&mut self, module: M, _moment: Moment) -> Result<M, WrapperError> {
        let beta = self.settings.beta;
        let mut before = Copies::of(&self.trained);
        let between = self.trained.change(module, |number, weights| {
            before.put(number, weights.clone());
            match self.average.get(number).filter(|_| beta != 0.0) {
                // Exactly z where x is z.
                Some(average) => (average - weights.clone()) * beta + weights,
                None => weights,
            }
        })?;
        self.before = Some(before);
        Ok(between)
    }

    fn before_step<M: Module>(&mut self, module: M) -> Result<M, WrapperError> {
        let Some(mut before) = self.before.take() else {
            return Err(WrapperError::NoForward { kind: ScheduleFreeConfig::KIND });
        };
        self.trained.change(module, |number, weights| before.take(number).unwrap_or(weights))
    }

    fn after_step<M: Module>(&mut self, module: M, moment: Moment) -> Result<M, WrapperError> {
        let share = self.next_share(moment.factor);
        // The mean begins at z: before the first step with a learning rate that has not moved.
        self.trained.approach(&module, &mut self.average, share)?;
        Ok(module)
    }

    fn has_evaluation_weights(&self) -> bool {
        !self.average.is_empty()
    }

    fn evaluation_weights<M: Module>(&self, module: M) -> Result<M, WrapperError> {
        self.trained.change(module, |number, weights| self.average.get(number).unwrap_or(weights))
    }

    fn to_record(&self) -> WrapperRecord {
        let numbers = [(WEIGHTS, self.weights.to_bits()), (LARGEST, self.largest.to_bits())];
        let mut record = WrapperRecord::of(ScheduleFreeConfig::KIND, &numbers);
        self.trained.write(AVERAGE, &self.average, &mut record);
        record
    }

    fn load_record(&mut self, mut record: WrapperRecord, device: &Device) -> Result<(), WrapperError> {
        record.check_kind(ScheduleFreeConfig::KIND)?;
        let [weights, largest] = [WEIGHTS, LARGEST].map(|name| record.number(name).map(f64::from_bits));
        let average = self.trained.load(AVERAGE, &mut record, device)?;
        record.check_empty()?;
        (self.weights, self.largest, self.average, self.before) = (weights?, largest?, average, None);
        Ok(())
    }
}
