//! Layer norm without bias, and RMS norm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::{NormKind, fused};

/// Added to the variance or mean square before the root.
pub(crate) const EPSILON: f64 = 1e-5;

/// A norm over the features of each token, with a gain and no bias.
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
        fused::norm(self.kind, x, self.gain.val()).unwrap_or_else(|(x, gain)| norm(self.kind, x, gain))
    }
}

/// The same in Burn's operations.
pub(crate) fn norm(kind: NormKind, x: Tensor<2>, gain: Tensor<1>) -> Tensor<2> {
    let x = match kind {
        NormKind::LayerNorm => {
            let mean = x.clone().mean_dim(1);
            x - mean
        }
        NormKind::RmsNorm => x,
    };
    let mean_square = x.clone().square().mean_dim(1);
    x / (mean_square + EPSILON).sqrt() * gain.unsqueeze()
}
