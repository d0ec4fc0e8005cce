//! The state per parameter that `polaron list optimizers` states for an optimizer is what its record holds.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device};
use polaron::matrix::Axis;
use polaron::rule::{Extent, Kept};
use polaron::{Layerwise, LayerwiseError, OptimizerConfig};
use polaron_benches::random;

const INPUTS: usize = 48;
const OUTPUTS: usize = 80;

#[derive(Module, Debug)]
struct Model {
    hidden: Linear,
}

/// Bytes of the state of one f32 matrix after two steps.
fn kept(kind: &str) -> Result<usize, LayerwiseError> {
    let device = Device::flex().autodiff();
    let hidden = LinearConfig::new(INPUTS, OUTPUTS).with_bias(false).with_initializer(Initializer::Zeros);
    let mut model = Model { hidden: hidden.init(&device) };
    let rules = format!("stack = \"sgd\"\n[[rule]]\nmatch = \"*\"\nkind = \"{kind}\"\n");
    let mut optimizer = Layerwise::from_toml(&rules)?.build(&model)?;
    for _ in 0..2 {
        let inputs = random([8, INPUTS], DType::F32, &device);
        let loss = model.hidden.forward(inputs).square().mean();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1.0, model, grads);
    }
    Ok(optimizer.to_record().tensors().values().map(|data| data.as_bytes().len()).sum())
}

/// The bytes that the description states, in f32: buffers of the parameter's size, and one number per output unit.
fn documented(memories: &[Kept]) -> usize {
    let numbers: usize = memories
        .iter()
        .map(|kept| match kept.extent {
            Extent::Entries => INPUTS * OUTPUTS,
            Extent::Units => OUTPUTS,
            Extent::Pairs { axis: Axis::Output, .. } => OUTPUTS * OUTPUTS,
            Extent::Pairs { axis: Axis::Input, .. } => INPUTS * INPUTS,
            other => panic!("this test does not know {other:?}"),
        })
        .sum();
    4 * numbers
}

#[test]
fn the_state_of_every_kind_has_the_documented_size() -> Result<(), LayerwiseError> {
    for kind in OptimizerConfig::KINDS {
        let memories = OptimizerConfig::of_kind(kind)?.describe().memories;
        assert_eq!(kept(kind)?, documented(&memories), "{kind}: {memories:?}");
    }
    Ok(())
}
