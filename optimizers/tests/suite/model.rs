//! A small model with a vector, a head and an embedding, shared by the other files.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};

use crate::numbers::repeatable;

#[derive(Module, Debug)]
pub(crate) struct Model {
    pub embed: Embedding,
    pub hidden: Vec<Linear>,
    pub norm: LayerNorm,
    pub head: Linear,
}

impl Model {
    pub fn new(device: &Device) -> Self {
        repeatable(Self {
            embed: EmbeddingConfig::new(11, 8).init(device),
            hidden: vec![LinearConfig::new(8, 16).init(device), LinearConfig::new(16, 8).with_bias(false).init(device)],
            norm: LayerNormConfig::new(8).init(device),
            head: LinearConfig::new(8, 11).with_bias(false).init(device),
        })
    }

    pub fn loss(&self, step: i64) -> Tensor<1> {
        let device = self.embed.weight.val().device();
        let tokens = Tensor::<1, Int>::arange(step..step + 6, &device).remainder_scalar(11).reshape([2, 3]);
        let mut x = self.embed.forward(tokens);
        for layer in &self.hidden {
            x = layer.forward(x).tanh();
        }
        self.head.forward(self.norm.forward(x)).square().mean()
    }

    pub fn gradients(&self, step: i64) -> GradientsParams {
        GradientsParams::from_grads(self.loss(step).backward(), self)
    }

    /// Every parameter's bytes, in order.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        struct Bytes(Vec<Vec<u8>>);
        impl burn::module::ModuleVisitor for Bytes {
            fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
                self.0.push(param.val().into_data().as_bytes().to_vec());
            }
        }
        let mut visitor = Bytes(Vec::new());
        self.visit(&mut visitor);
        visitor.0
    }
}
