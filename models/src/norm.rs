//! Layer norm without bias, and RMS norm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::NormKind;
#[cfg(feature = "flex")]
use crate::fused;

/// A norm over groups of features of each token, with a gain and no bias.
#[derive(Module, Debug)]
pub struct Norm {
    /// Factor of each feature of a group, ones at first; with [`NormKind::RmsNormPlusOne`] the factor less one, zeros at
    /// first. `[d_model]` where the group is the whole token.
    pub gain: Param<Tensor<1>>,
    #[module(skip)]
    kind: NormKind,
    #[module(skip)]
    eps: f64,
}

impl Norm {
    pub(crate) fn new(kind: NormKind, eps: f64, gain: Param<Tensor<1>>) -> Self {
        Self { gain, kind, eps }
    }

    /// Normalises `x`, `[tokens, features]`: every token, or every group of as many features as there are gains.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gain = match self.kind {
            NormKind::LayerNorm | NormKind::RmsNorm => self.gain.val(),
            NormKind::RmsNormPlusOne => self.gain.val() + 1.0,
        };
        let ([tokens, features], [group]) = (x.dims(), gain.dims());
        let centred = self.kind == NormKind::LayerNorm;
        if features == group {
            return norm(centred, self.eps, x, gain);
        }
        let groups = x.reshape([tokens * features / group, group]);
        norm(centred, self.eps, groups, gain).reshape([tokens, features])
    }
}

/// Norm of the lines of `x` times `gain`; `centred` subtracts the mean first.
fn norm(centred: bool, eps: f64, x: Tensor<2>, gain: Tensor<1>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&x, &gain]) {
        return fused::norm(centred, eps, x, gain);
    }
    let x = if centred {
        let mean = x.clone().mean_dim(1);
        x - mean
    } else {
        x
    };
    let mean_square = x.clone().square().mean_dim(1);
    x / (mean_square + eps).sqrt() * gain.unsqueeze()
}
