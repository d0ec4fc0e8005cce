//! Layer norm without bias, and RMS norm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::NormKind;

/// Added to the variance or mean square before the root.
const EPSILON: f64 = 1e-5;

/// A norm over the features of each token, with a gain and no bias.
///
/// Unlike Burn's own norms it is written for a cheap backward pass: few passes over the
/// activations, and one of the two products in `x · x` needs no gradient.
#[derive(Module, Debug)]
pub struct Norm {
    /// Factor of each feature, `[d_model]`; ones at first.
    pub gain: Param<Tensor<1>>,
    #[module(skip)]
    kind: NormKind,
}

impl Norm {
    pub(crate) fn new(kind: NormKind, gain: Param<Tensor<1>>) -> Self {
        Self { gain, kind }
    }

    /// Normalises every token of `x`, `[tokens, d_model]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match self.kind {
            NormKind::LayerNorm => {
                let mean = x.clone().mean_dim(1);
                x - mean
            }
            NormKind::RmsNorm => x,
        };
        let scale = inverse_root_mean_square(&x);
        x * scale * self.gain.val().unsqueeze()
    }
}

/// `1 / sqrt(mean(x²) + ε)` over the last axis, `[tokens, 1]`.
///
/// `mean(x · x.detach())` has the value of the mean square and half its gradient; twice that, less
/// the value once without a gradient, has both right and saves two passes over `x` backwards.
fn inverse_root_mean_square(x: &Tensor<2>) -> Tensor<2> {
    let half = (x.clone() * x.clone().detach()).mean_dim(1);
    let mean_square = half.clone() * 2.0 - half.detach();
    (mean_square + EPSILON).sqrt().recip()
}
