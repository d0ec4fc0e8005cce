//! Adapters of low rank: they begin as nothing, are all that is trained, and can be merged.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, TensorData};
use polaron::{Layerwise, LayerwiseConfig, Role, Roles};
use polaron_models::{
    LanguageModel, LoraSettings, MlpConfig, ModelConfig, ModelError, NamedTensor, load_named, merged, parameter_table,
    refactored, to_exported, to_named, with_lora,
};

use super::{VOCAB, tokens};

const CONTEXT: usize = 8;

fn tiny(preset: &str) -> ModelConfig {
    let mut config = ModelConfig::preset(preset).unwrap();
    (config.d_model, config.layers, config.heads) = (16, 2, 2);
    (config.context, config.hidden, config.sliding_window) = (CONTEXT, 24, 3);
    if config.kv_heads > 0 {
        (config.kv_heads, config.head_dim) = (1, 8);
    }
    if config.experts > 0 {
        (config.experts, config.top_k) = (4, 2);
    }
    config
}

fn base(preset: &str, device: &Device) -> LanguageModel {
    tiny(preset).init(VOCAB, 7, device).unwrap()
}

fn settings(rank: usize, patterns: &[&str]) -> LoraSettings {
    let mut settings = LoraSettings::default();
    (settings.rank, settings.patterns) = (rank, patterns.iter().map(ToString::to_string).collect());
    settings
}

/// Everything that can have an adapter has one.
fn adapted(preset: &str, device: &Device) -> LanguageModel {
    with_lora(base(preset, device), &settings(2, &["**"]), 7).unwrap()
}

/// With second factors that are not zero.
fn moved(model: LanguageModel, device: &Device) -> LanguageModel {
    let tensors = to_named(&model).into_iter().map(|NamedTensor { name, data }| {
        let mut values: Vec<f32> = data.try_to_vec().unwrap();
        if name.ends_with(".lora.b") {
            values
                .iter_mut()
                .enumerate()
                .for_each(|(i, value)| *value = ((i * 7 + name.len()) % 11) as f32 * 0.02 - 0.1);
        }
        NamedTensor { name, data: TensorData::new(values, data.shape().clone()) }
    });
    let tensors = tensors.collect();
    load_named(model, tensors, device).unwrap()
}

fn logits(model: &LanguageModel, device: &Device) -> Vec<f32> {
    model.forward(tokens(CONTEXT, 3, device)).into_data().try_to_vec().unwrap()
}

fn stored(model: &LanguageModel) -> BTreeMap<String, Vec<f32>> {
    to_named(model).into_iter().map(|tensor| (tensor.name, tensor.data.try_to_vec().unwrap())).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_model_with_new_adapters_has_the_outputs_of_its_base() {
    let device = Device::flex();
    for preset in ModelConfig::PRESETS {
        let (base, adapted) = (base(preset, &device), adapted(preset, &device));
        assert_eq!(logits(&base, &device), logits(&adapted, &device), "{preset}");
        let added: Vec<String> =
            stored(&adapted).into_keys().filter(|name| !stored(&base).contains_key(name)).collect();
        assert!(added.len() >= 16 && added.iter().all(|name| name.contains(".lora.")), "{preset}: {added:?}");
        assert!(stored(&base).into_iter().all(|(name, values)| stored(&adapted)[&name] == values), "{preset}");
        for info in parameter_table(&base).iter().filter(|info| info.swapped || info.shape.len() == 3) {
            let factor = info.path.replace(".weight", ".lora.a");
            assert!(added.contains(&factor), "{preset}: `{}` is in no list of projections", info.path);
        }
    }
}

#[test]
fn only_the_projections_that_match_have_adapters_of_the_given_rank() {
    let device = Device::flex();
    let found = |patterns: &[&str]| -> Vec<String> {
        let model = with_lora(base("llama-d64", &device), &settings(3, patterns), 7).unwrap();
        let table = parameter_table(&model).into_iter();
        table
            .filter(|info| info.path.contains(".lora."))
            .map(|info| format!("{} {:?}", info.path, info.shape))
            .collect()
    };
    assert_eq!(
        found(&["attn.wq", "blocks.1.mlp.down", "head"]),
        [
            "blocks.0.attn.wq.lora.a [16, 3]",
            "blocks.0.attn.wq.lora.b [3, 16]",
            "blocks.1.attn.wq.lora.a [16, 3]",
            "blocks.1.attn.wq.lora.b [3, 16]",
            "blocks.1.mlp.down.lora.a [24, 3]",
            "blocks.1.mlp.down.lora.b [3, 16]",
            "head.lora.a [16, 3]",
            "head.lora.b [3, 31]",
        ]
    );
    assert_eq!(found(&["attn.*"]).len(), 16);
    let stacks = with_lora(base("olmoe-tiny", &device), &settings(3, &["moe.gate"]), 7).unwrap();
    let shape = |path: &str| parameter_table(&stacks).into_iter().find(|info| info.path == path).unwrap().shape;
    assert_eq!(shape("blocks.0.moe.gate.lora.a"), [4, 16, 3]);
    assert_eq!(shape("blocks.0.moe.gate.lora.b"), [4, 3, 24]);
}

#[test]
fn another_program_draws_the_same_first_factor() {
    // The Python in src/init.rs: normal(7, "blocks.1.attn.wq.lora.a", 3, 1 / math.sqrt(3 * 16))
    let expected = [0.06071843879574412, 0.2514124348032414, -0.004619117842666033];
    let model = with_lora(base("llama-d64", &Device::flex()), &settings(3, &["attn.wq"]), 7).unwrap();
    let (a, b) = (&stored(&model)["blocks.1.attn.wq.lora.a"], &stored(&model)["blocks.1.attn.wq.lora.b"]);
    for (found, expected) in a.iter().zip(expected) {
        assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
    }
    assert!(b.iter().all(|value| *value == 0.0));
}

#[test]
fn merged_weights_give_the_outputs_of_the_adapters_under_the_names_of_the_base() {
    let device = Device::flex();
    for preset in ModelConfig::PRESETS {
        let model = moved(adapted(preset, &device), &device);
        let (with, without) = (logits(&model, &device), logits(&base(preset, &device), &device));
        let merged = merged(model);
        assert!(distance(&with, &without) > 1e-2, "{preset}: the adapters do nothing");
        let apart = distance(&with, &logits(&merged, &device));
        assert!(apart < 1e-5, "{preset}: {apart}");
        let names =
            |model: &LanguageModel| to_exported(model).into_iter().map(|tensor| tensor.name).collect::<Vec<_>>();
        assert_eq!(names(&merged), names(&base(preset, &device)), "{preset}");
    }
}

#[test]
fn adapters_with_and_without_kernels_and_with_a_cache_give_the_same() {
    let [plain, tracked, recomputing] =
        [Device::flex(), Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()];
    for preset in ModelConfig::PRESETS {
        let gradients = |device: &Device| {
            let model = moved(adapted(preset, device), device);
            let loss = model.loss(tokens(CONTEXT, 0, device), tokens(CONTEXT, 5, device));
            let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
            super::common::named_gradients(&model, &mut gradients)
        };
        let (kernels, burn) = (gradients(&tracked), gradients(&recomputing));
        assert_eq!(kernels.len(), burn.len());
        for (path, gradient) in &kernels {
            let (apart, largest) = (distance(gradient, &burn[path]), distance(gradient, &vec![0.0; gradient.len()]));
            assert!(apart < 1e-4 * largest + 1e-6, "{preset} {path}: {apart} of {largest}");
        }
        let model = moved(adapted(preset, &plain), &plain);
        let mut cache = polaron_models::Cache::new();
        let window = tokens(CONTEXT, 3, &plain);
        for at in 0..CONTEXT {
            let last =
                model.extend(&mut cache, window.clone().narrow(1, at, 1)).into_data().try_to_vec::<f32>().unwrap();
            let whole = model.forward(window.clone()).narrow(1, at, 1).into_data().try_to_vec::<f32>().unwrap();
            assert!(distance(&last, &whole) < 1e-5, "{preset} at {at}");
        }
    }
}

#[test]
fn every_stack_trains_the_adapters_and_nothing_else() {
    let device = Device::flex().autodiff();
    for preset in ["llama-d64", "nanogpt-char", "gpt-oss-tiny"] {
        for stack in LayerwiseConfig::STACKS {
            // Were the second factors zero, the first would not move in the first step.
            let model = moved(adapted(preset, &device), &device);
            let before = stored(&model);
            let builder = Layerwise::stack(stack).unwrap().hints(model.roles()).train_only(Role::ADAPTERS);
            let mut optimizer = builder.build(&model).unwrap();
            let mut model = optimizer.without_frozen_gradients(model);
            let factors = parameter_table(&model).iter().filter(|info| info.path.contains(".lora.")).count();
            for step in 0..3 {
                let loss = model.loss(tokens(CONTEXT, step, &device), tokens(CONTEXT, step + 5, &device));
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                assert_eq!(gradients.len(), factors, "{preset} {stack}");
                model = optimizer.step(1.0, model, gradients);
            }
            for (path, after) in stored(&model) {
                assert!(after.iter().all(|value| value.is_finite()), "{preset} {stack}: {path}");
                let trained = path.contains(".lora.");
                assert_eq!(after != before[&path], trained, "{preset} {stack}: {path}");
            }
            let record = optimizer.to_record();
            assert!(record.tensors().keys().all(|name| name.contains(".lora.")), "{preset} {stack}");
        }
    }
}

#[test]
fn stored_weights_without_adapters_are_loaded_before_those_are_added() {
    let device = Device::flex();
    let trained = moved(adapted("llama-d64", &device), &device);
    let merged = merged(trained);
    let loaded = load_named(base("llama-d64", &device), to_named(&merged), &device).unwrap();
    let again = with_lora(loaded, &settings(2, &["**"]), 3).unwrap();
    assert_eq!(logits(&again, &device), logits(&merged, &device));
}

#[test]
fn perceptrons_can_have_adapters_too() {
    let device = Device::flex();
    let config = MlpConfig::default();
    let base = config.init(12, 4, 1, &device).unwrap();
    let model = with_lora(base.clone(), &settings(2, &["layers.*", "head"]), 1).unwrap();
    let x = burn::tensor::Tensor::ones([3, 12], &device);
    assert_eq!(model.forward(x.clone()).into_data(), base.forward(x).into_data());
    assert!(model.num_params() > base.num_params());
    let roles = Layerwise::muon().hints(model.roles()).build(&model).unwrap();
    assert!(roles.plan().entries().iter().any(|entry| entry.role == Some(Role::LoraA)));
}

#[test]
fn settings_that_no_adapter_can_have_are_refused_with_a_remedy() {
    let refusal = |settings: &LoraSettings| -> ModelError {
        with_lora(base("llama-d64", &Device::flex()), settings, 1).unwrap_err()
    };
    let alpha = |alpha: f64| {
        let mut settings = settings(2, &["attn.*"]);
        settings.alpha = alpha;
        settings
    };
    for (settings, said) in [
        (settings(0, &["attn.*"]), "`lora.rank` is 0"),
        (settings(17, &["attn.*"]), "`lora.rank` = 17 is higher than the rank of `blocks.0.attn.wq`, which is 16 x 16"),
        (settings(17, &["attn.*"]), "choose at most 16"),
        (alpha(0.0), "`lora.alpha` is 0"),
        (alpha(-1.0), "`lora.alpha` is -1"),
        (alpha(f64::NAN), "`lora.alpha` is NaN"),
        (alpha(f64::INFINITY), "`lora.alpha` is inf"),
        (settings(2, &[]), "`lora.match` is empty"),
        (settings(2, &["atn.wq"]), "`atn.wq` matches no projection; did you mean `attn.wq`?"),
        (settings(2, &["attn.*", "embed"]), "`embed` matches no projection; it must be one of attn.wq, attn.wk"),
        (settings(2, &["/(/"]), "`lora.match`: pattern"),
    ] {
        let found = refusal(&settings).to_string();
        assert!(found.contains(said), "{settings:?}: {found}");
    }
}

#[test]
fn refactored_adapters_have_orthonormal_first_factors_and_the_same_outputs() {
    let device = Device::flex().autodiff();
    for preset in ModelConfig::PRESETS {
        let model = moved(adapted(preset, &device), &device);
        let before = logits(&model, &device);
        let tracked = |model: &LanguageModel| {
            let loss = model.loss(tokens(CONTEXT, 0, &device), tokens(CONTEXT, 5, &device));
            GradientsParams::from_grads(loss.backward(), model).len()
        };
        let with_gradients = tracked(&model);
        let (old, (model, changes)) = (stored(&model), refactored(model));
        let (new, after) = (stored(&model), logits(&model, &device));
        assert!(distance(&before, &after) < 1e-5, "{preset}: {}", distance(&before, &after));
        assert_eq!(tracked(&model), with_gradients, "{preset}");
        let adapters = new.keys().filter(|name| name.ends_with(".lora.b"));
        assert!(adapters.eq(changes.iter().map(|change| &change.path).collect::<BTreeSet<_>>()), "{preset}");
        let base = |(name, values): (&String, &Vec<f32>)| name.contains(".lora.") || new[name] == *values;
        assert!(old.iter().all(base), "{preset}: the base moved");
        for change in &changes {
            let [batch, rank, _] = change.rotation.shape()[..] else { panic!("a stack") };
            let a = &new[&change.path.replace(".lora.b", ".lora.a")];
            for matrix in a.chunks(a.len() / batch) {
                let column = |k: usize| matrix.iter().skip(k).step_by(rank);
                for (i, k) in (0..rank).flat_map(|i| (0..rank).map(move |k| (i, k))) {
                    let product: f32 = column(i).zip(column(k)).map(|(x, y)| x * y).sum();
                    assert!((product - f32::from(u8::from(i == k))).abs() < 1e-6, "{preset} {}", change.path);
                }
                let largest = |best: f32, x: &f32| if x.abs() > best.abs() { *x } else { best };
                assert!((0..rank).all(|k| column(k).fold(0.0, largest) > 0.0), "{preset} {}", change.path);
            }
        }
    }
}

#[test]
fn the_gradient_of_a_second_factor_is_that_of_the_matrix_in_the_new_basis_and_not_larger() {
    let device = Device::flex().autodiff();
    let (rank, alpha) = (2, 16.0);
    let (model, _) = refactored(moved(adapted("llama-d64", &device), &device));
    let loss = model.loss(tokens(CONTEXT, 0, &device), tokens(CONTEXT, 5, &device));
    let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
    let of = super::common::named_gradients(&model, &mut gradients);
    let weights = stored(&model);
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    for (path, of_b) in of.iter().filter(|(path, _)| path.ends_with(".lora.b")) {
        // The base is trained here too, so that its gradient G is known: that of b is s aT G.
        let of_matrix = &of[&path.replace("lora.b", "weight")];
        let (a, scale) = (&weights[&path.replace(".b", ".a")], alpha / rank as f64);
        let outputs = of_b.len() / rank;
        let expected: Vec<f32> = (0..rank * outputs)
            .map(|at| {
                let terms =
                    a.iter().skip(at / outputs).step_by(rank).zip(of_matrix.iter().skip(at % outputs).step_by(outputs));
                (terms.map(|(a, g)| f64::from(a * g)).sum::<f64>() * scale) as f32
            })
            .collect();
        let apart = f64::from(distance(of_b, &expected));
        assert!(apart < 1e-5 * norm(&expected), "{path}: {apart} of {}", norm(&expected));
        assert!(norm(of_b) / scale <= norm(of_matrix) * (1.0 + 1e-6), "{path}");
    }
    assert!(of.keys().filter(|path| path.ends_with(".lora.b")).count() > 10);
}

#[test]
fn muon_with_refactored_adapters_takes_the_steps_that_it_takes_without_and_adamw_others() {
    let device = Device::flex().autodiff();
    let trained = |stack: &str, every: usize| {
        let mut model = refactored(adapted("llama-d64", &device)).0;
        let builder = Layerwise::stack(stack).unwrap().hints(model.roles()).train_only([Role::LoraB]);
        let mut optimizer = builder.build(&model).unwrap();
        model = optimizer.without_frozen_gradients(model);
        for step in 0..7 {
            let loss = model.loss(tokens(CONTEXT, step, &device), tokens(CONTEXT, step + 5, &device));
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(1.0, model, gradients);
            if (step as usize + 1).is_multiple_of(every) {
                let changes;
                (model, changes) = refactored(model);
                optimizer.change_basis(&changes, &device).unwrap();
            }
        }
        logits(&model, &device)
    };
    let apart = |stack: &str| distance(&trained(stack, 100), &trained(stack, 2));
    let (muon, adamw) = (apart("muon"), apart("adamw"));
    // The polynomial of Muon amplifies the rounding of f32 where a gradient is of lower rank.
    assert!(muon < 2e-3 && adamw > 20.0 * muon, "{muon} {adamw}");
}
