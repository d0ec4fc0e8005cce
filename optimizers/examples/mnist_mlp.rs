//! Burn's MNIST-style MLP trained by Muon through `Layerwise`, on generated digits.
//!
//! ```text
//! cargo run --release -p polaron --example mnist_mlp
//! ```

#[path = "support/digits.rs"]
mod digits;
#[path = "support/mlp.rs"]
mod mlp;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use mlp::Mlp;
use polaron::{Layerwise, Role};

fn accuracy(model: &Mlp, images: Tensor<2>, labels: Tensor<1, Int>) -> f64 {
    let count = labels.dims()[0] as f64;
    let guesses = model.forward(images).argmax(1).squeeze_dim::<1>(1);
    guesses.equal(labels).int().sum().into_scalar::<i64>() as f64 / count
}

fn main() -> Result<(), polaron::LayerwiseError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let mut model = Mlp::new(&device);

    let mut optim = Layerwise::muon().lr(0.02).assign("output", Role::Head).build(&model)?;
    println!("{}\n", optim.plan());

    let (steps, batch) = (300, 64);
    for step in 0..steps {
        let (images, labels) = digits::batch(step, batch, &device);
        let logits = model.forward(images);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(logits, labels);
        if step % 50 == 0 {
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
