//! Promises of the mixture of experts, and of the losses of its routers.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_models::{LanguageModel, ModelConfig, NamedTensor, RouterMetrics, load_named, to_named};

mod common;

const VOCAB: usize = 11;

fn tiny(preset: &str, experts: usize, top_k: usize) -> ModelConfig {
    let mut config = ModelConfig::preset(preset).unwrap();
    (config.d_model, config.layers, config.heads, config.hidden) = (16, 2, 2, 6);
    (config.head_dim, config.context, config.sliding_window) = (8, 8, 3);
    (config.experts, config.top_k) = (experts, top_k);
    config
}

fn tokens(device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = (0..32).map(|i| (i * i + 3 * i) % VOCAB as i32).collect();
    Tensor::from_data(TensorData::new(values, [4, 8]), device)
}

fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

/// The model with its tensors changed by name.
fn changed(model: LanguageModel, device: &Device, change: impl Fn(&str, &mut [f32])) -> LanguageModel {
    let tensors = to_named(&model).into_iter().map(|NamedTensor { name, data }| {
        let mut values: Vec<f32> = data.try_to_vec().unwrap();
        change(&name, &mut values);
        NamedTensor { name, data: TensorData::new(values, data.shape().clone()) }
    });
    let tensors = tensors.collect();
    load_named(model, tensors, device).unwrap()
}

#[test]
fn an_expert_that_no_token_chose_has_a_zero_gradient_and_is_not_computed() {
    let device = Device::flex().autodiff();
    for preset in ["olmoe-tiny", "gpt-oss-tiny"] {
        let mut config = tiny(preset, 4, 2);
        config.expert_bias = true;
        let model = config.init(VOCAB, 1, &device).unwrap();
        // The router's bias keeps every token away from expert 2.
        let model = changed(model, &device, |name, values| {
            if name.ends_with("router.bias") {
                values[2] = -1e3;
            }
        });
        let (loss, routers) = model.loss_and_routers(tokens(&device), tokens(&device));
        assert_eq!(routers.len(), 2);
        for metrics in routers {
            assert_eq!(metrics.dead_expert_fraction, 0.25, "{preset}");
        }
        let mut gradients = GradientsParams::from_grads(loss.clone().backward(), &model);
        for (path, gradient) in common::named_gradients(&model, &mut gradients) {
            if [".moe.gate", ".moe.up", ".moe.down"].iter().any(|part| path.contains(part)) {
                let size = gradient.len() / 4;
                let zero = |expert: usize| gradient[expert * size..][..size].iter().all(|x| *x == 0.0);
                assert!(zero(2) && !(0..4).all(zero), "{preset}: {path}");
            }
        }
        let other = changed(model, &device, |name, values| {
            if name.contains(".moe.") && !name.contains("router") {
                let size = values.len() / 4;
                values[2 * size..3 * size].fill(f32::NAN);
            }
        });
        let unchanged = scalar(other.loss(tokens(&device), tokens(&device)));
        assert_eq!(unchanged, scalar(loss), "{preset}: an expert that no token chose was computed");
    }
}

#[test]
fn the_same_seed_gives_the_same_loss_and_gradients_bit_for_bit() {
    let device = Device::flex().autodiff();
    let run = || {
        let model = tiny("olmoe-tiny", 4, 2).init(VOCAB, 1, &device).unwrap();
        let loss = model.loss(tokens(&device), tokens(&device));
        let mut gradients = GradientsParams::from_grads(loss.clone().backward(), &model);
        (scalar(loss), common::named_gradients(&model, &mut gradients))
    };
    assert_eq!(run(), run());
}

#[test]
fn auxiliary_losses_change_only_the_training_loss() {
    let device = Device::flex().autodiff();
    let plain = tiny("olmoe-tiny", 4, 2);
    let mut weighed = plain.clone();
    (weighed.aux_load_balance, weighed.aux_z) = (0.5, 0.25);
    let losses = |config: &ModelConfig| {
        let model = config.init(VOCAB, 1, &device).unwrap();
        let training = model.training_loss(tokens(&device), tokens(&device));
        let (loss, routers) = model.loss_and_routers(tokens(&device), tokens(&device));
        assert_eq!(
            scalar(loss.clone()),
            scalar(model.clone().valid().loss(tokens(&device.clone().inner()), tokens(&device.clone().inner())))
        );
        (scalar(training.total), scalar(training.cross_entropy), scalar(loss), RouterMetrics::mean(&routers).unwrap())
    };
    let (total, cross_entropy, loss, _) = losses(&plain);
    assert_eq!((total, cross_entropy), (loss, loss));
    let (weighed_total, cross_entropy, weighed_loss, metrics) = losses(&weighed);
    assert_eq!((cross_entropy, weighed_loss), (loss, loss));
    let expected = loss + 0.5 * metrics.load_balance_loss + 0.25 * metrics.z_loss;
    // Sums of 32-bit numbers of a few units.
    assert!((weighed_total - expected).abs() < 1e-5, "{weighed_total} {expected}");
}

#[test]
fn the_load_balance_loss_pushes_towards_balance() {
    let device = Device::flex().autodiff();
    let mut config = tiny("gpt-oss-tiny", 4, 1);
    config.aux_load_balance = 1.0;
    let model = config.init(VOCAB, 1, &device).unwrap();
    let model = changed(model, &device, |name, values| {
        if name.ends_with("router.bias") {
            values[3] = 2.0;
        }
    });
    let training = model.training_loss(tokens(&device), tokens(&device));
    let auxiliary = training.total - training.cross_entropy;
    let mut gradients = GradientsParams::from_grads(auxiliary.backward(), &model);
    let gradients = common::named_gradients(&model, &mut gradients);
    let bias = &gradients["blocks.0.moe.router.bias"];
    assert!(bias[3] > 0.0 && bias[..3].iter().all(|x| *x < 0.0), "{bias:?}");
    // Adding one number to the logits of all experts changes nothing.
    assert!(bias.iter().sum::<f32>().abs() < 1e-6, "{bias:?}");
}

#[test]
fn dense_models_have_no_routers() {
    let device = Device::flex();
    let mut config = ModelConfig::preset("qwen3-tiny").unwrap();
    config.layers = 1;
    let model = config.init(VOCAB, 1, &device).unwrap();
    assert!(model.loss_and_routers(tokens(&device), tokens(&device)).1.is_empty());
}
