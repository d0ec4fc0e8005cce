//! The convolutional network of Burn's MNIST example, on MNIST or on the 1,797 digits that are embedded in `polaron-datasets`.

use std::error::Error;
use std::path::PathBuf;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Gelu, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron::{Role, Schedule};
use polaron_datasets::{ImageBatch, ImageData, ImageSampler, image_batches};
use polaron_train::{Comparison, Measurement, Results, Trial, own};

const BATCH: usize = 64;

/// The comparison of the three optimizers.
pub fn compare(folder: PathBuf, mnist: Option<&str>, quick: bool) -> Result<Results, Box<dyn Error>> {
    let source = mnist.unwrap_or("digits");
    let data = ImageData::load(source, 0.2)?;
    let comparison = Comparison::new(folder)
        .model("convolutional network")
        .optimizers(["adamw", "muon", "muon_eq"])
        .schedule(Schedule::cosine(if quick { 2 } else { 10 }))
        .steps(if quick { 20 } else { 200 })
        .valid_every(if quick { 10 } else { 20 })
        .counts(BATCH as u64, "images")
        .setting("data", source);
    Ok(comparison.run(|trial| train(&data, trial))?)
}

/// One run: weights, batches and dropout from the seed of the trial, the optimizer from its settings.
fn train(data: &ImageData, trial: Trial) -> Result<impl Iterator<Item = Measurement>, Box<dyn Error>> {
    let device = Device::flex().autodiff();
    device.seed(trial.seed());
    let model = Network::new(data.shape[0], data.classes, &device);
    // The first convolution has one input channel, like a depthwise one.
    let roles = trial.layerwise()?.assign("conv1.conv.weight", Role::Kernel).assign("output", Role::Head);
    let optimizer = roles.build(&model)?;
    let batches = ImageSampler::new(&data.train, trial.seed(), BATCH)?;
    let plain = device.clone().inner();
    let loss = move |model: &Network, step| model.loss(&batches.batch(step), &device);
    let valid = move |model: &Network| {
        let of = |batch: ImageBatch<'_>| model.loss(&batch, &plain).into_scalar::<f64>() * batch.rows() as f64;
        image_batches(&data.valid, 500).map(of).sum::<f64>() / data.valid.len() as f64
    };
    Ok(own::train(trial, model, optimizer, loss, valid))
}

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
    side: usize,
}

impl Network {
    fn new(side: usize, classes: usize, device: &Device) -> Self {
        // Each convolution takes a pixel off every edge.
        let left = side - 6;
        Self {
            conv1: Block::new([1, 8], device),
            conv2: Block::new([8, 16], device),
            conv3: Block::new([16, 24], device),
            dropout: DropoutConfig::new(0.3).init(),
            hidden: LinearConfig::new(24 * left * left, 32).with_bias(false).init(device),
            output: LinearConfig::new(32, classes).with_bias(false).init(device),
            activation: Gelu::new(),
            side,
        }
    }

    fn loss(&self, batch: &ImageBatch<'_>, device: &Device) -> Tensor<1> {
        let rows = batch.rows();
        let pixels = TensorData::new(batch.pixels(0..rows), [rows, 1, self.side, self.side]);
        let labels = Tensor::<1, Int>::from_data(TensorData::new(batch.labels(0..rows), [rows]), device);
        let x = self.conv1.forward(Tensor::from_data(pixels, device));
        let x: Tensor<2> = self.conv3.forward(self.conv2.forward(x)).flatten(1, 3);
        let logits = self.output.forward(self.activation.forward(self.hidden.forward(self.dropout.forward(x))));
        CrossEntropyLossConfig::new().init(device).forward(logits, labels)
    }
}
