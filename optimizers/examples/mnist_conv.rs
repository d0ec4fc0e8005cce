//! Burn's convolutional MNIST network trained by Muon through `Layerwise`, on generated digits.
//!
//! ```text
//! cargo run --release -p polaron --example mnist_conv
//! ```

#[path = "support/digits.rs"]
mod digits;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Gelu, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use polaron::{Layerwise, Role};

/// Side of an image after three convolutions without padding.
const SIDE: usize = 10;

/// A convolution of 3 × 3, a batch norm and a GELU.
#[derive(Module, Debug)]
struct Block {
    conv: Conv2d,
    norm: BatchNorm,
    activation: Gelu,
}

impl Block {
    fn new(channels: [usize; 2], device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new(channels, [3, 3]).init(device),
            norm: BatchNormConfig::new(channels[1]).init(device),
            activation: Gelu::new(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.activation.forward(self.norm.forward(self.conv.forward(x)))
    }
}

/// Three blocks, a hidden layer, a head.
#[derive(Module, Debug)]
struct Network {
    conv1: Block,
    conv2: Block,
    conv3: Block,
    dropout: Dropout,
    hidden: Linear,
    output: Linear,
    activation: Gelu,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            conv1: Block::new([1, 8], device),
            conv2: Block::new([8, 16], device),
            conv3: Block::new([16, 24], device),
            dropout: DropoutConfig::new(0.3).init(),
            hidden: LinearConfig::new(24 * SIDE * SIDE, 32).with_bias(false).init(device),
            output: LinearConfig::new(32, digits::CLASSES).with_bias(false).init(device),
            activation: Gelu::new(),
        }
    }

    /// Images `[batch, PIXELS]` to logits `[batch, CLASSES]`.
    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let [batch, _] = images.dims();
        let x = self.conv1.forward(images.reshape([batch, 1, SIDE + 6, SIDE + 6]));
        let x = self.conv3.forward(self.conv2.forward(x)).reshape([batch, 24 * SIDE * SIDE]);
        self.output.forward(self.activation.forward(self.hidden.forward(self.dropout.forward(x))))
    }
}

fn accuracy(model: &Network, images: Tensor<2>, labels: Tensor<1, Int>) -> f64 {
    let count = labels.dims()[0] as f64;
    let guesses = model.forward(images).argmax(1).squeeze_dim::<1>(1);
    guesses.equal(labels).int().sum().into_scalar::<i64>() as f64 / count
}

fn main() -> Result<(), polaron::LayerwiseError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let mut model = Network::new(&device);

    // Convolutions are recognised as kernels. The first one has one input channel, like a depthwise one.
    let builder = Layerwise::muon().lr(0.02).assign("conv1.conv.weight", Role::Kernel).assign("output", Role::Head);
    let mut optim = builder.build(&model)?;
    println!("{}\n", optim.plan());

    let (steps, batch) = (200, 64);
    for step in 0..steps {
        let (images, labels) = digits::batch(step, batch, &device);
        let logits = model.forward(images);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(logits, labels);
        if step % 40 == 0 {
            println!("step {step:3}  loss {:.4}", loss.clone().into_scalar::<f64>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let cooldown = 1.0 - step as f64 / steps as f64;
        model = optim.step(cooldown, model, grads);
    }

    let plain = device.inner();
    let (images, labels) = digits::batch(1_000_000, 1000, &plain);
    println!("accuracy on 1000 fresh digits: {:.1} %", 100.0 * accuracy(&model.valid(), images, labels));
    Ok(())
}
