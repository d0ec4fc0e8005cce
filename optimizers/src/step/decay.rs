//! Decoupled weight decay and the update itself.
//!
//! ```text
//! plain      W ← (1 - lr wd) W - lr U
//! cautious   W ← W - lr wd [U and W do not have opposite signs] W - lr U     (entrywise)
//! ```

use burn::tensor::Tensor;

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
    pub fn update<const D: usize>(&self, weights: Tensor<D>, update: Tensor<D>, lr: f64) -> Tensor<D> {
        let decay = lr * self.rate;
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
}
