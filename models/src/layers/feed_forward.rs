//! The feed-forward layer of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{self, gelu_approximate, sigmoid, silu};

use super::linear::{Linear, linear};
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::{Deviations, Initializer};
use crate::settings::choices::FeedForwardKind;
use crate::settings::model::ModelConfig;

/// Three projections with a gated nonlinearity, or two with GELU.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Gate projection, `[d_model, hidden]`; none with GELU.
    pub gate: Option<Linear>,
    /// Up projection, `[d_model, hidden]`.
    pub up: Linear,
    /// Down projection, `[hidden, d_model]`.
    pub down: Linear,
    #[module(skip)]
    kind: FeedForwardKind,
}

impl FeedForward {
    pub(crate) fn new(config: &ModelConfig, std: Deviations, init: &Initializer) -> Self {
        let (d_model, hidden, kind) = (config.d_model, config.hidden, config.feed_forward);
        let bias = config.feed_forward_bias;
        Self {
            gate: kind.is_gated().then(|| init.biased("gate", d_model, hidden, std.hidden, bias)),
            up: init.biased("up", d_model, hidden, std.hidden, bias),
            down: init.biased("down", hidden, d_model, std.residual, bias),
            kind,
        }
    }

    /// Maps `x`, `[tokens, d_model]`, to the same shape.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = match &self.gate {
            None => gelu(self.kind, linear(&self.up, x)),
            Some(gate) => {
                let (gate, up) = (linear(gate, x.clone()), linear(&self.up, x));
                gated(self.kind, gate, up)
            }
        };
        linear(&self.down, hidden)
    }
}

/// The nonlinearity of a kind that has no gate.
fn gelu(kind: FeedForwardKind, x: Tensor<2>) -> Tensor<2> {
    let by_tanh = kind == FeedForwardKind::GeluTanh;
    #[cfg(feature = "flex")]
    if fused::serve(&[&x]) {
        return fused::gelu(by_tanh, x);
    }
    if by_tanh { gelu_approximate(x) } else { activation::gelu(x) }
}

/// The gated nonlinearity of a kind that has a gate.
pub(crate) fn gated(kind: FeedForwardKind, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&gate, &up]) {
        return fused::gated(kind, gate, up);
    }
    match kind {
        FeedForwardKind::Gelu | FeedForwardKind::GeluTanh => unreachable!("GELU has no gate"),
        FeedForwardKind::SwiGlu => silu(gate) * up,
        FeedForwardKind::GeGlu => gelu_approximate(gate) * up,
        FeedForwardKind::ClampedGlu => {
            const CLAMP: f32 = FeedForwardKind::CLAMP;
            let (gate, up) = (gate.clamp_max(CLAMP), up.clamp(-CLAMP, CLAMP));
            gate.clone() * sigmoid(gate * FeedForwardKind::CLAMPED_SLOPE) * (up + 1.0)
        }
    }
}
