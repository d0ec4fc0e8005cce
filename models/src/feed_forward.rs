//! The layer between two attentions.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, silu};

use crate::init::Initializer;
use crate::{FeedForwardKind, ModelConfig, fused};

/// Two or three projections with a nonlinearity: SwiGLU where there is a gate, else GELU.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Gate projection, `[d_model, hidden]`; only with SwiGLU.
    pub gate: Option<Linear>,
    /// Up projection, `[d_model, hidden]`.
    pub up: Linear,
    /// Down projection, `[hidden, d_model]`.
    pub down: Linear,
}

impl FeedForward {
    pub(crate) fn new(config: &ModelConfig, std: f64, residual_std: f64, init: &Initializer) -> Self {
        let (d_model, hidden) = (config.d_model, config.hidden);
        let gate = match config.feed_forward {
            FeedForwardKind::Gelu => None,
            FeedForwardKind::SwiGlu => Some(init.linear("gate", d_model, hidden, std)),
        };
        Self {
            gate,
            up: init.linear("up", d_model, hidden, std),
            down: init.linear("down", hidden, d_model, residual_std),
        }
    }

    /// Maps `x`, `[tokens, d_model]`, to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = match &self.gate {
            None => fused::gelu(self.up.forward(x)).unwrap_or_else(gelu),
            Some(gate) => {
                let (gate, up) = (gate.forward(x.clone()), self.up.forward(x));
                fused::swiglu(gate, up).unwrap_or_else(|(gate, up)| silu(gate) * up)
            }
        };
        self.down.forward(hidden)
    }
}
