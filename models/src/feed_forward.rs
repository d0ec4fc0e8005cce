//! The layer between two attentions.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::{self, gelu_approximate, sigmoid, silu};

use crate::decoder::Deviations;
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::Initializer;
use crate::linear::linear;
use crate::{FeedForwardKind, ModelConfig};

/// Two or three projections with a nonlinearity: a gated one where there is a gate, else GELU.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Gate projection, `[d_model, hidden]`; not with GELU.
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
        let gated = kind != FeedForwardKind::Gelu;
        Self {
            gate: gated.then(|| init.linear("gate", d_model, hidden, std.hidden)),
            up: init.linear("up", d_model, hidden, std.hidden),
            down: init.linear("down", hidden, d_model, std.residual),
            kind,
        }
    }

    /// Maps `x`, `[tokens, d_model]`, to the same shape.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = match &self.gate {
            None => gelu(linear(&self.up, x)),
            Some(gate) => {
                let (gate, up) = (linear(gate, x.clone()), linear(&self.up, x));
                gated(self.kind, gate, up)
            }
        };
        linear(&self.down, hidden)
    }
}

/// The bound of [`FeedForwardKind::ClampedGlu`].
pub(crate) const GATE_LIMIT: f32 = 7.0;
/// The factor inside its sigmoid.
pub(crate) const GATE_SLOPE: f32 = 1.702;

/// Exact GELU.
fn gelu(x: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&x]) {
        return fused::gelu(x);
    }
    activation::gelu(x)
}

/// The gated nonlinearity of a kind that has a gate.
pub(crate) fn gated(kind: FeedForwardKind, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&gate, &up]) {
        return fused::gated(kind, gate, up);
    }
    match kind {
        FeedForwardKind::Gelu => unreachable!("GELU has no gate"),
        FeedForwardKind::SwiGlu => silu(gate) * up,
        FeedForwardKind::GeGlu => gelu_approximate(gate) * up,
        FeedForwardKind::ClampedGlu => {
            let gate = gate.clamp_max(GATE_LIMIT);
            let up = up.clamp(-GATE_LIMIT, GATE_LIMIT);
            gate.clone() * sigmoid(gate * GATE_SLOPE) * (up + 1.0)
        }
    }
}
