//! Decoupled weight decay and the update itself.
//!
//! ```text
//! plain      W ← (1 - s wd) W - lr U
//! cautious   W ← W - s wd [U and W do not have opposite signs] W - lr U     (entrywise)
//! s          lr (coupled), or the factor of the schedule alone (independent)
//! ```

use burn::tensor::Tensor;

use crate::flex::in_place;
use crate::setting::choice;

choice! {
    /// What the weight decay is multiplied by in every step.
    #[derive(Default)]
    pub enum DecayForm {
        /// The learning rate: `(1 - lr wd) W`.
        #[default]
        Coupled = "coupled",
        /// The factor f of the schedule alone, from 0 to 1, whatever the learning rate: `(1 - f wd) W` (arXiv 1711.05101). A
        /// learning rate that is changed, or that follows the width under muP, leaves the decay as it is.
        Independent = "independent",
    }
}

/// The learning rate of a step, and what the schedule says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate, schedule included.
    pub lr: f64,
    /// The factor of the schedule that is part of it; 1 without a schedule.
    pub factor: f64,
}

impl Rates {
    /// A learning rate without a schedule.
    pub fn constant(lr: f64) -> Self {
        Self { lr, factor: 1.0 }
    }
}

/// Decoupled weight decay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decay {
    /// wd, at least 0; multiplied as `form` says, never by the shape scale.
    pub rate: f64,
    /// Decay only entries where update and weight do not have opposite signs. Signs are compared
    /// rather than the product, which can underflow.
    pub cautious: bool,
    /// What the rate is multiplied by.
    pub form: DecayForm,
}

impl Decay {
    /// The share of the weights that a step takes.
    pub fn share(&self, Rates { lr, factor }: Rates) -> f64 {
        match self.form {
            DecayForm::Coupled => lr * self.rate,
            DecayForm::Independent => factor * self.rate,
        }
    }

    /// The weights after one step with update `U`.
    pub fn update(&self, weights: Tensor<3>, update: Tensor<3>, rates: Rates) -> Tensor<3> {
        let (weights, update) = match self.update_in_place(weights, update, rates) {
            Ok(weights) => return weights,
            Err(given) => given,
        };
        self.kept(weights, &update, rates) - update * rates.lr
    }

    /// The weights after the decay alone, in a step with update `U`.
    pub(crate) fn kept(&self, weights: Tensor<3>, update: &Tensor<3>, rates: Rates) -> Tensor<3> {
        let share = self.share(rates);
        if share == 0.0 {
            weights
        } else if self.cautious {
            let opposed = (update.clone().sign() * weights.clone().sign()).lower_scalar(0.0);
            let decayed = weights.clone() * share;
            weights - decayed.mask_fill(opposed, 0.0)
        } else {
            weights * (1.0 - share)
        }
    }

    /// The same in one pass over memory, if the tensors allow it, with bit-identical results.
    #[allow(clippy::result_large_err, reason = "an `Err` returns the arguments, it is not a failure")]
    fn update_in_place(
        &self,
        weights: Tensor<3>,
        update: Tensor<3>,
        rates: Rates,
    ) -> Result<Tensor<3>, (Tensor<3>, Tensor<3>)> {
        if self.cautious && self.rate != 0.0 {
            return Err((weights, update));
        }
        let (kept, lr) = ((1.0 - self.share(rates)) as f32, rates.lr as f32);
        let done = in_place(
            [weights, update],
            #[inline(always)]
            |[weights, update]| weights.iter_mut().zip(update).for_each(|(w, u)| *w = *w * kept - *u * lr),
        );
        done.map(|[weights, _]| weights).map_err(|[weights, update]| (weights, update))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn an_update_in_place_is_the_same_to_the_bit() {
        let rates = Rates { lr: 0.02, factor: 0.3 };
        for (rate, form) in [(0.0, DecayForm::Coupled), (0.1, DecayForm::Coupled), (0.1, DecayForm::Independent)] {
            let decay = Decay { rate, cautious: false, form };
            let tensor = |seed: usize| {
                let entry = |i: usize| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0;
                let values: Vec<f32> = (0..40_000).map(entry).collect();
                Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([1, 200, 200])
            };
            let values = |tensor: Tensor<3>| tensor.into_data().try_to_vec::<f32>().unwrap();
            let found = decay.update(tensor(1), tensor(2), rates);
            // An autodiff tensor takes Burn's operations.
            let expected = decay.update(Tensor::from_inner(tensor(1)), Tensor::from_inner(tensor(2)), rates);
            assert_eq!(values(found), values(expected.inner()));
        }
    }
}
