//! Decoupled weight decay and the update itself.
//!
//! ```text
//! plain      W ← (1 - lr wd) W - lr U
//! cautious   W ← W - lr wd [U and W do not have opposite signs] W - lr U     (entrywise)
//! ```

use burn::tensor::Tensor;

use crate::flex::in_place;

/// Decoupled weight decay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decay {
    /// wd, at least 0; multiplied by the learning rate, never by the shape scale.
    pub rate: f64,
    /// Decay only entries where update and weight do not have opposite signs. Signs are compared
    /// rather than the product, which can underflow.
    pub cautious: bool,
}

impl Decay {
    /// The weights after one step with update `U`.
    pub fn update(&self, weights: Tensor<3>, update: Tensor<3>, lr: f64) -> Tensor<3> {
        let decay = lr * self.rate;
        let (weights, update) = match self.update_in_place(weights, update, lr) {
            Ok(weights) => return weights,
            Err(given) => given,
        };
        let kept = if decay == 0.0 {
            weights
        } else if self.cautious {
            let opposed = (update.clone().sign() * weights.clone().sign()).lower_scalar(0.0);
            let decayed = weights.clone() * decay;
            weights - decayed.mask_fill(opposed, 0.0)
        } else {
            weights * (1.0 - decay)
        };
        kept - update * lr
    }

    /// The same in one pass over memory, if the tensors allow it, with bit-identical results.
    #[allow(clippy::result_large_err, reason = "an `Err` returns the arguments, it is not a failure")]
    fn update_in_place(
        &self,
        weights: Tensor<3>,
        update: Tensor<3>,
        lr: f64,
    ) -> Result<Tensor<3>, (Tensor<3>, Tensor<3>)> {
        if self.cautious && self.rate != 0.0 {
            return Err((weights, update));
        }
        let (kept, lr) = ((1.0 - lr * self.rate) as f32, lr as f32);
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
        for rate in [0.0, 0.1] {
            let decay = Decay { rate, cautious: false };
            let tensor = |seed: usize| {
                let entry = |i: usize| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0;
                let values: Vec<f32> = (0..40_000).map(entry).collect();
                Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([1, 200, 200])
            };
            let values = |tensor: Tensor<3>| tensor.into_data().try_to_vec::<f32>().unwrap();
            let found = decay.update(tensor(1), tensor(2), 0.02);
            // An autodiff tensor takes Burn's operations.
            let expected = decay.update(Tensor::from_inner(tensor(1)), Tensor::from_inner(tensor(2)), 0.02);
            assert_eq!(values(found), values(expected.inner()));
        }
    }
}
