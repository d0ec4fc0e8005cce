//! Layer norm and RMS norm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use crate::fused;
use crate::init::Initializer;
use crate::settings::choices::NormKind;
use crate::settings::model::ModelConfig;

/// A norm over groups of features of each token, with a gain and perhaps a bias.
#[derive(Module, Debug)]
pub struct Norm {
    /// Factor of each feature of a group, initially one; with [`NormKind::RmsNormPlusOne`] the factor minus one, initially
    /// zero. `[d_model]` if the group is the whole token.
    pub gain: Param<Tensor<1>>,
    /// What is added after the gain, initially zero; of the same shape.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: NormKind,
    #[module(skip)]
    eps: f64,
}

impl Norm {
    /// A norm of the model's kind over groups of `features`, whose factors are all one.
    pub(crate) fn new(config: &ModelConfig, features: usize, init: &Initializer) -> Self {
        Self {
            gain: init.constant(1.0 - offset(config.norm), [features]),
            bias: config.norm_bias.then(|| init.constant(0.0, [features])),
            kind: config.norm,
            eps: config.norm_eps,
        }
    }

    /// Normalises `x`, `[tokens, features]`: every token, or every group of as many features as there are gains.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gain = match offset(self.kind) {
            0.0 => self.gain.val(),
            offset => self.gain.val() + offset,
        };
        let ([tokens, features], [group]) = (x.dims(), gain.dims());
        let normalise = |x: Tensor<2>| {
            let normal = norm(self.kind == NormKind::LayerNorm, self.eps, x, gain);
            match &self.bias {
                Some(bias) => normal + bias.val().unsqueeze(),
                None => normal,
            }
        };
        if features == group {
            return normalise(x);
        }
        normalise(x.reshape([tokens * features / group, group])).reshape([tokens, features])
    }
}

/// What is added to the gains of a norm.
fn offset(kind: NormKind) -> f32 {
    match kind {
        NormKind::LayerNorm | NormKind::RmsNorm => 0.0,
        NormKind::RmsNormPlusOne => 1.0,
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
