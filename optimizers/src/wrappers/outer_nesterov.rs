//! Outer Nesterov: a Nesterov step along what every K steps changed (DiLoCo, arXiv 2311.08105, with one worker).

use burn::module::Module;
use burn::tensor::Device;

use super::trained::Copies;
use super::{Moment, OuterNesterovConfig, Trained, Wrap, WrapperError, WrapperRecord};
use crate::setting::{ConfigError, Keys};

/// A Nesterov step along what every K steps changed (DiLoCo, arXiv 2311.08105, with one worker; SNOO, arXiv 2510.15830).
///
/// ```text
/// at the start:             A ← W,   M ← 0
/// after every K-th step:    Δ = A - W,   M ← momentum M + Δ,   A ← A - lr (momentum M + Δ),   W ← A
/// ```
///
/// The states of the optimizer inside are kept, and so is its schedule. In the long run the weights move
/// lr / (1 - momentum) times as far as the steps inside. Two copies, A and M. Between two outer steps the weights are those of
/// the optimizer inside; let K divide the number of steps, so that training ends with an outer step.
///
/// The defaults of `momentum` and `lr` are those of DiLoCo, whose K is 500 in runs of 88,000 steps, and was tried from 50 on.
#[derive(Clone, Debug)]
pub struct OuterNesterov {
    settings: OuterNesterovConfig,
    trained: Trained,
    anchor: Copies,
    momentum: Copies,
    /// Finished steps.
    steps: u64,
}

const ANCHOR: &str = "anchor";
const MOMENTUM: &str = "momentum";
const STEPS: &str = "steps";

impl OuterNesterov {
    /// Before the first step.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(settings: &OuterNesterovConfig, trained: Trained) -> Result<Self, ConfigError> {
        settings.check_keys(OuterNesterovConfig::KIND)?;
        let (anchor, momentum) = (Copies::of(&trained), Copies::of(&trained));
        Ok(Self { settings: settings.clone(), trained, anchor, momentum, steps: 0 })
    }
}

impl Wrap for OuterNesterov {
    fn before_step<M: Module>(&mut self, module: M) -> Result<M, WrapperError> {
        if self.anchor.is_empty() {
            let anchor = &mut self.anchor;
            self.trained.read(&module, |number, weights| anchor.put(number, weights))?;
        }
        Ok(module)
    }

    fn after_step<M: Module>(&mut self, module: M, _moment: Moment) -> Result<M, WrapperError> {
        self.steps += 1;
        let OuterNesterovConfig { momentum: mu, lr, every, .. } = self.settings;
        if !self.steps.is_multiple_of(every) {
            return Ok(module);
        }
        let (anchors, momenta) = (&mut self.anchor, &mut self.momentum);
        self.trained.change(module, |number, weights| {
            let Some(anchor) = anchors.take(number) else { return weights };
            let change = anchor.clone() - weights;
            let momentum = match momenta.take(number) {
                Some(momentum) => momentum * mu + change.clone(),
                None => change.clone(),
            };
            let anchor = anchor - (momentum.clone() * mu + change) * lr;
            momenta.put(number, momentum);
            anchors.put(number, anchor.clone());
            anchor
        })
    }

    fn to_record(&self) -> WrapperRecord {
        let mut record = WrapperRecord::of(OuterNesterovConfig::KIND, &[(STEPS, self.steps)]);
        self.trained.write(ANCHOR, &self.anchor, &mut record);
        self.trained.write(MOMENTUM, &self.momentum, &mut record);
        record
    }

    fn load_record(&mut self, mut record: WrapperRecord, device: &Device) -> Result<(), WrapperError> {
        record.check_kind(OuterNesterovConfig::KIND)?;
        let steps = record.number(STEPS)?;
        let [anchor, momentum] = [ANCHOR, MOMENTUM].map(|name| self.trained.load(name, &mut record, device));
        record.check_empty()?;
        (self.steps, self.anchor, self.momentum) = (steps, anchor?, momentum?);
        Ok(())
    }
}
