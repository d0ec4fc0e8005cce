//! Every stack of `polaron` covers every parameter of every preset, and width rules do what they promise.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron::{Layerwise, LayerwiseConfig, Role, Roles};
use polaron_models::{LanguageModel, ModelConfig, Parametrization, parameter_table};

mod common;
#[path = "stacks/lora.rs"]
mod lora;

const VOCAB: usize = 31;

fn tokens(context: usize, salt: i32, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = (0..4 * context as i32).map(|i| (i * i * 3 + i * salt + 1) % VOCAB as i32).collect();
    Tensor::from_data(TensorData::new(values, [4, context]), device)
}

#[test]
fn every_stack_covers_every_preset_by_the_roles_that_the_model_names() {
    for preset in ModelConfig::SMALL_PRESETS {
        let mut config = ModelConfig::preset(preset).unwrap();
        config.layers = 1;
        let model = config.init(VOCAB, 1, &Device::flex()).unwrap();
        let parameters = parameter_table(&model);
        for stack in LayerwiseConfig::STACKS {
            let optimizer = Layerwise::stack(stack).unwrap().hints(model.roles()).build(&model).unwrap();
            let entries = optimizer.plan().entries();
            assert_eq!(entries.len(), parameters.len(), "{preset} {stack}");
            assert!(entries.iter().all(|entry| entry.role.is_some()), "{preset} {stack}");
        }
    }
}

#[test]
fn the_symmetric_stack_gives_every_part_of_a_mixture_its_rule() {
    let mut config = ModelConfig::preset("gpt-oss-tiny").unwrap();
    config.layers = 1;
    let model = config.init(VOCAB, 1, &Device::flex()).unwrap();
    let optimizer = Layerwise::symmetric().hints(model.roles()).build(&model).unwrap();
    let rule = |path: &str| {
        let entry = optimizer.plan().entries().iter().find(|entry| entry.path == path).unwrap();
        (entry.role.unwrap(), entry.config().unwrap().kind().to_owned(), entry.heads)
    };
    let expected = |role, optimizer: &str, heads| (role, optimizer.to_owned(), heads);
    assert_eq!(rule("blocks.0.moe.gate.weight"), expected(Role::ExpertGate, "muon", None));
    assert_eq!(rule("blocks.0.moe.down.weight"), expected(Role::ExpertDown, "muon", None));
    assert_eq!(rule("blocks.0.moe.router.weight"), expected(Role::Router, "row_norm", None));
    assert_eq!(rule("blocks.0.attn.wq.weight"), expected(Role::AttentionQuery, "muon", Some(8)));
    assert_eq!(rule("blocks.0.attn.wk.weight"), expected(Role::AttentionKey, "muon", Some(1)));
    for path in ["attn.sinks", "attn.wq.bias", "moe.router.bias", "moe.gate.bias"] {
        assert_eq!(rule(&format!("blocks.0.{path}")), expected(Role::Bias, "adamw", None));
    }
}

#[test]
fn a_step_of_the_symmetric_stack_lowers_the_loss_of_every_preset() {
    let device = Device::flex().autodiff();
    for preset in ModelConfig::SMALL_PRESETS {
        let mut config = ModelConfig::preset(preset).unwrap();
        (config.layers, config.context, config.sliding_window) = (2, 16, 6);
        let mut model = config.init(VOCAB, 1, &device).unwrap();
        let mut optimizer = Layerwise::symmetric().hints(model.roles()).build(&model).unwrap();
        let (inputs, targets) = (tokens(16, 0, &device), tokens(16, 5, &device));
        let mut losses = Vec::new();
        for _ in 0..4 {
            let loss = model.loss(inputs.clone(), targets.clone());
            losses.push(loss.clone().into_scalar::<f32>());
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            assert_eq!(gradients.len(), parameter_table(&model).len(), "{preset}: every parameter has a gradient");
            let (gradients, _) = optimizer.clip(&model, gradients);
            model = optimizer.apply(0.5, model, gradients);
        }
        assert!(losses[3] < losses[0] - 0.05, "{preset}: {losses:?}");
    }
}

/// A Llama of this width with heads of 16.
fn of_width(preset: &str, d_model: usize, parametrization: Parametrization) -> ModelConfig {
    let text = format!("preset = \"{preset}\"\nd_model = {d_model}");
    let mut config: ModelConfig = toml::from_str(&text).unwrap();
    (config.layers, config.context) = (2, 16);
    (config.heads, config.kv_heads, config.head_dim) = (d_model / 16, 0, 16);
    (config.parametrization, config.base_width) = (parametrization, 64);
    config
}

/// Root mean square of the change, by `steps` steps of AdamW, of the stream after every block and of the logits.
fn changes(config: &ModelConfig, steps: usize) -> Vec<f64> {
    let device = Device::flex().autodiff();
    let mut model = config.init(VOCAB, 1, &device).unwrap();
    let mut optimizer = Layerwise::adamw()
        .lr(2e-3)
        .hints(model.roles())
        .adamw_lr_factors(|role| config.adam_lr_factor(role))
        .build(&model)
        .unwrap();
    let (inputs, targets) = (tokens(16, 0, &device), tokens(16, 5, &device));
    let outputs = |model: &LanguageModel| -> Vec<Vec<f32>> {
        let outputs = model.layer_outputs(inputs.clone()).into_iter();
        outputs.map(|output| output.inner().into_data().try_to_vec().unwrap()).collect()
    };
    let before = outputs(&model);
    for _ in 0..steps {
        let loss = model.loss(inputs.clone(), targets.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.apply(1.0, model, gradients);
    }
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let change = |(before, after): (&Vec<f32>, &Vec<f32>)| {
        (before.iter().zip(after).map(square).sum::<f64>() / before.len() as f64).sqrt()
    };
    before.iter().zip(&outputs(&model)).map(change).collect()
}

#[test]
fn with_mup_a_step_changes_every_layer_as_much_at_every_width() {
    for steps in [1, 10] {
        let growth = |parametrization| -> Vec<f64> {
            let of = |width| changes(&of_width("llama-d64", width, parametrization), steps);
            let all = [64, 128, 256].map(of);
            println!("{parametrization:?} {steps}: {all:?}");
            all[0].iter().zip(&all[2]).map(|(narrow, wide)| wide / narrow).collect()
        };
        let mup = growth(Parametrization::Mup);
        assert!(mup.iter().all(|growth| (0.6..1.6).contains(growth)), "{steps} steps: {mup:?}");
        let standard = growth(Parametrization::Standard);
        assert!(standard.iter().all(|growth| *growth > 2.0), "{steps} steps: {standard:?}");
    }
}

#[test]
fn at_the_base_width_mup_changes_only_the_scale_of_the_scores() {
    let config = of_width("llama-d64", 64, Parametrization::Mup);
    let standard = of_width("llama-d64", 64, Parametrization::Standard);
    for role in Role::ALL {
        assert_eq!(config.adam_lr_factor(role), 1.0, "{role}");
    }
    let first = |config: &ModelConfig| polaron_models::to_named(&config.init(VOCAB, 1, &Device::flex()).unwrap());
    assert_eq!(first(&config), first(&standard));
}
