//! The MLP of `mnist_mlp` through Burn's own `Learner`: the plan becomes a plain `ModuleOptimizer`.
//!
//! ```text
//! cargo run --release -p polaron --features learner --example learner
//! ```

#[path = "support/digits.rs"]
mod digits;
#[path = "support/mlp.rs"]
mod mlp;

use burn::data::dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};
use mlp::Mlp;
use polaron::{Layerwise, Role};
use std::sync::Arc;

/// Burn's learner trains a type with steps; this one wraps the network.
#[derive(Module, Debug)]
struct Classifier {
    mlp: Mlp,
}

/// Images and labels.
#[derive(Clone, Debug)]
struct Digits {
    images: Tensor<2>,
    labels: Tensor<1, Int>,
}

/// Draws the digits of a list of seeds.
#[derive(Clone)]
struct Draw;

impl Batcher<usize, Digits> for Draw {
    fn batch(&self, seeds: Vec<usize>, device: &Device) -> Digits {
        let (images, labels) = seeds.into_iter().map(|seed| digits::batch(seed, 1, device)).unzip();
        Digits { images: Tensor::cat(images, 0), labels: Tensor::cat(labels, 0) }
    }
}

impl Classifier {
    fn classify(&self, batch: Digits) -> ClassificationOutput {
        let output = self.mlp.forward(batch.images);
        let loss = CrossEntropyLossConfig::new().init(&output.device()).forward(output.clone(), batch.labels.clone());
        ClassificationOutput { loss, output, targets: batch.labels }
    }
}

impl TrainStep for Classifier {
    type Input = Digits;
    type Output = ClassificationOutput;

    fn step(&self, batch: Digits) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Classifier {
    type Input = Digits;
    type Output = ClassificationOutput;

    fn step(&self, batch: Digits) -> ClassificationOutput {
        self.classify(batch)
    }
}

fn loader(seeds: std::ops::Range<usize>, device: &Device) -> Arc<dyn DataLoader<Digits>> {
    DataLoaderBuilder::new(Draw)
        .batch_size(64)
        .shuffle(7)
        .set_device(device.clone())
        .build(InMemDataset::new(seeds.collect()))
}

fn main() -> Result<(), polaron::LayerwiseError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let plain = device.clone().inner();
    let model = Classifier { mlp: Mlp::new(&device) };

    let steps = 300.0;
    let (optim, scheduler) = Layerwise::muon()
        .lr(0.02)
        .assign("mlp.output", Role::Head)
        // Burn clips every tensor separately.
        .clip(None)
        .build_module_optimizer(&model, move |step| (1.0 - step as f64 / steps).max(0.0))?;

    let folder = std::env::temp_dir().join("polaron-learner-example");
    let result = SupervisedTraining::new(&folder, loader(0..6400, &device), loader(1_000_000..1_001_000, &plain))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(3)
        .with_application_logger(None)
        .summary()
        .launch(Learner::new(model, optim, scheduler));

    let test = Draw.batch((2_000_000..2_001_000).collect(), &plain);
    let labels = test.labels.clone();
    let guesses = result.model.mlp.forward(test.images).argmax(1).squeeze_dim::<1>(1);
    let right = guesses.equal(labels).int().sum().into_scalar::<i64>();
    println!("accuracy on 1000 fresh digits: {:.1} %", right as f64 / 10.0);
    Ok(())
}
