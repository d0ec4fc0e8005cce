//! The network of Burn's MNIST guide: two hidden layers and a head.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, Relu};
use burn::tensor::{Device, Tensor};

use crate::digits;

/// Two hidden layers of 128 units and a head.
#[derive(Module, Debug)]
pub struct Mlp {
    hidden1: Linear,
    hidden2: Linear,
    output: Linear,
    dropout: Dropout,
    activation: Relu,
}

impl Mlp {
    /// With Burn's default initialisation.
    pub fn new(device: &Device) -> Self {
        Self {
            hidden1: LinearConfig::new(digits::PIXELS, 128).init(device),
            hidden2: LinearConfig::new(128, 128).init(device),
            output: LinearConfig::new(128, digits::CLASSES).init(device),
            dropout: DropoutConfig::new(0.1).init(),
            activation: Relu::new(),
        }
    }

    /// Images `[batch, PIXELS]` to logits `[batch, CLASSES]`.
    pub fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let x = self.activation.forward(self.hidden1.forward(images));
        let x = self.activation.forward(self.hidden2.forward(self.dropout.forward(x)));
        self.output.forward(x)
    }
}
