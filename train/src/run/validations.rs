//! The validation losses of a run: the last and the best.

use crate::networks::family::Validation;
use crate::store::metrics::Event;

/// Validation losses of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Validations {
    /// The last one: step and loss.
    pub last: Option<(u64, f64)>,
    /// The lowest of those over the same windows as the last: step and loss.
    pub best: Option<(u64, f64)>,
    /// The windows of the last one; None for all.
    pub windows: Option<u64>,
    /// Bits per byte of the last one, for text whose tokenizer knows its bytes.
    pub bits_per_byte: Option<f64>,
    /// Accuracy of the last one, for models that classify images.
    pub accuracy: Option<f64>,
    /// Coefficient of variation of the expert loads in the last one, averaged over the routers.
    pub router_load_cv: Option<f64>,
}

impl Validations {
    /// The validations among the events of a resumed run.
    pub fn of(events: &[Event]) -> Self {
        let mut validations = Self::default();
        for event in events {
            if let Event::Valid { step, loss, bits_per_byte, accuracy, windows, router, .. } = event {
                let (loss, bits_per_byte, accuracy, windows) = (*loss, *bits_per_byte, *accuracy, *windows);
                let router = router.clone();
                validations.add(*step, &Validation { loss, bits_per_byte, accuracy, windows, router });
            }
        }
        validations
    }

    /// Takes up that of `step`.
    pub fn add(&mut self, step: u64, validation: &Validation) {
        let Validation { loss, bits_per_byte, accuracy, windows, ref router } = *validation;
        self.last = Some((step, loss));
        self.bits_per_byte = bits_per_byte;
        self.accuracy = accuracy;
        self.router_load_cv = router.as_ref().map(|router| router.mean.load_cv);
        if self.best.is_none_or(|(_, best)| loss < best || self.windows != windows) {
            self.best = Some((step, loss));
        }
        self.windows = windows;
    }
}
