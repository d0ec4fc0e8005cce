//! The two moments of Adam.

use burn::tensor::Tensor;

use super::{Memory, SecondMoment};

/// `m ← β₁ m + (1-β₁) G` and `v ← β₂ v + (1-β₂) G²`, entry by entry, for gradients of any size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// Added to the root of v.
    pub eps: f64,
}

impl Moments {
    /// Both moments after a gradient, kept under these names.
    pub fn advance(&self, names: [&'static str; 2], gradient: Tensor<3>, memory: &mut Memory) -> [Tensor<3>; 2] {
        let dims = gradient.dims();
        let [old_first, old_second] = names.map(|name| memory.take(name, dims));
        let second = self.second().advance(old_second, gradient.clone());
        let new = gradient * (1.0 - self.beta1);
        let first = match old_first {
            Some(old) => old * self.beta1 + new,
            None => new,
        };
        memory.keep(names[0], first.clone());
        memory.keep(names[1], second.clone());
        [first, second]
    }

    /// `m / (√(factor v) + ε)`; an entry that has never had a gradient is 0.
    pub fn quotient(&self, [first, second]: [Tensor<3>; 2], factor: f64) -> Tensor<3> {
        let root = self.second().root(second, factor) + self.eps;
        match self.eps > 0.0 {
            true => first / root,
            false => {
                let never = root.clone().equal_scalar(0.0);
                (first / root).mask_fill(never, 0.0)
            }
        }
    }

    /// The quotient of both without their bias towards 0, in a step of this number: the direction of Adam.
    pub fn debiased(&self, [first, second]: [Tensor<3>; 2], step: u64) -> Tensor<3> {
        self.quotient([first * debias(self.beta1, step), second], debias(self.beta2, step))
    }

    fn second(&self) -> SecondMoment {
        SecondMoment::new(self.beta2, self.eps)
    }
}

/// 1 / (1-βᵗ): the factor that removes the bias of an average over t steps.
pub(crate) fn debias(beta: f64, step: u64) -> f64 {
    1.0 / (1.0 - beta.powf(step as f64))
}
