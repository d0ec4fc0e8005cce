//! Cross-entropy.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

#[cfg(feature = "flex")]
use crate::fused;

/// [`cross_entropy`], fused if the kernel applies.
pub(crate) fn mean_loss(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    // The fused kernel reads the targets; on another device that would wait for the device.
    #[cfg(feature = "flex")]
    if fused::serve(&[&logits]) {
        return fused::cross_entropy(logits, &targets);
    }
    cross_entropy(logits, targets)
}

/// Mean cross-entropy in nats, `[1]`, of `logits`, `[rows, classes]`, with `targets`, `[rows]`, in Burn's operations.
#[must_use]
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let chosen = log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1));
    chosen.mean().neg()
}
