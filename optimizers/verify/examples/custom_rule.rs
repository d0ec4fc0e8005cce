//! Your own rule: a function from momentum to direction. The crate adds everything else.
//!
//! Signed momentum with unit scale ("signum"), for the hidden matrices of a small network, with
//! AdamW for the rest. Before it is used, the contract suite checks it.
//!
//! ```text
//! cargo run --release -p polaron-verify --example custom_rule
//! ```

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use polaron::layerwise::Rule;
use polaron::matrix::Matrix;
use polaron::rule::{Decay, Direction, Momentum, Pipeline, Scale};
use polaron::rules::AdamWConfig;
use polaron::{Layerwise, Role};
use polaron_verify::contract;

/// The sign of every entry, divided by the number of inputs: an update of operator norm about 1.
#[derive(Clone, Debug)]
struct Sign;

impl Direction for Sign {
    fn direction(&self, momentum: Matrix) -> Matrix {
        let inputs = momentum.inputs() as f64;
        momentum.map(|m| m.sign() / inputs)
    }
}

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.output.forward(self.hidden.forward(x).tanh())
    }
}

/// y = sin(3 x) on 64 points of [-1, 1].
fn data(device: &Device) -> (Tensor<2>, Tensor<2>) {
    let x: Vec<f32> = (0..64).map(|i| i as f32 / 31.5 - 1.0).collect();
    let y: Vec<f32> = x.iter().map(|x| (3.0 * x).sin()).collect();
    let column = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [64, 1]), device);
    (column(x), column(y))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let mut net =
        Net { hidden: LinearConfig::new(1, 64).init(&device), output: LinearConfig::new(64, 1).init(&device) };

    let sign = Pipeline::new(Sign)
        .with_momentum(Momentum { factor: 0.9, ..Momentum::default() })
        .with_scale(Scale::None)
        .with_decay(Decay { rate: 0.01, ..Decay::default() });
    contract::check(&sign, &Device::flex())?;
    println!("the rule keeps every promise of the contract\n");

    let mut optim = Layerwise::new()
        .lr(0.02)
        .rule(Rule::roles(Role::MATRICES, sign))
        .rule(Rule::roles(Role::VECTORS, AdamWConfig::new()))
        .build(&net)?;
    println!("{}\n", optim.plan());

    let (x, y) = data(&device);
    for step in 0..=500 {
        let loss = (net.forward(x.clone()) - y.clone()).square().mean();
        if step % 100 == 0 {
            println!("step {step:3}  loss {:.5}", loss.clone().into_scalar::<f64>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optim.step(1.0 - step as f64 / 500.0, net, grads);
    }
    Ok(())
}
