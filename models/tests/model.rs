//! Promises of [`polaron_models::LanguageModel`].

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use polaron::{Role, Roles};
use polaron_models::{
    LanguageModel, LargestLogits, ModelConfig, ModelError, NamedTensor, NormKind, Parametrization, PositionKind,
    QkNormKind, TrainingLoss, load_named, parameter_table, to_named,
};

mod common;

const VOCAB: usize = 11;

fn tiny(preset: &str) -> ModelConfig {
    let mut config = ModelConfig::preset(preset).unwrap();
    (config.d_model, config.layers, config.heads) = (16, 2, 2);
    (config.context, config.hidden) = (8, 24);
    if config.kv_heads > 0 {
        (config.kv_heads, config.head_dim) = (1, 6);
    }
    config.sliding_window = 3;
    if config.experts > 0 {
        (config.experts, config.top_k, config.hidden) = (4, 2, 6);
    }
    config
}

fn model(preset: &str, device: &Device) -> LanguageModel {
    tiny(preset).init(VOCAB, 7, device).unwrap()
}

fn tokens(rows: usize, length: usize, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = (0..rows * length).map(|i| (i * 7 % VOCAB) as i32).collect();
    Tensor::from_data(TensorData::new(values, [rows, length]), device)
}

fn logits(model: &LanguageModel, tokens: Tensor<2, Int>) -> Vec<f32> {
    model.forward(tokens).into_data().try_to_vec().unwrap()
}

fn bytes(model: &LanguageModel) -> Vec<(String, Vec<u8>)> {
    let tensors = to_named(model).into_iter();
    tensors.map(|tensor| (tensor.name, tensor.data.as_bytes().to_vec())).collect()
}

#[test]
fn presets_hold_the_published_number_of_parameters() {
    for (name, expected) in
        [("nanogpt-char", 804_096), ("llama-d64", 221_888), ("llama-d128", 869_760), ("llama-d256", 4_853_504)]
    {
        let config = ModelConfig::preset(name).unwrap();
        let model = config.init(65, 1, &Device::flex()).unwrap();
        assert_eq!(model.num_params(), expected, "{name}");
        let table = parameter_table(&model);
        assert_eq!(table.iter().map(|info| info.count).sum::<usize>(), expected, "{name}");
        assert_eq!(config.parameters(65), expected, "{name}");
    }
}

#[test]
fn the_first_loss_is_near_that_of_guessing() {
    let device = Device::flex();
    for name in ModelConfig::SMALL_PRESETS {
        let model = ModelConfig::preset(name).unwrap().init(65, 1, &device).unwrap();
        let values: Vec<i32> = (0..4 * 64).map(|i| i * 31 % 65).collect();
        let inputs = Tensor::from_data(TensorData::new(values.clone(), [4, 64]), &device);
        let values: Vec<i32> = values.iter().map(|token| (token * 17 + 5) % 65).collect();
        let targets = Tensor::from_data(TensorData::new(values, [4, 64]), &device);
        let loss = model.loss(inputs, targets).into_scalar::<f32>();
        // ln 65 = 4.174; small random logits move it by about half their variance, 0.02² · d / 2.
        assert!((4.05..4.35).contains(&loss), "{name}: {loss}");
    }
}

#[test]
fn a_later_token_changes_no_earlier_logit() {
    let device = Device::flex();
    for kind in ModelConfig::PRESETS {
        let model = model(kind, &device);
        let before = logits(&model, tokens(1, 8, &device));
        for changed in 1..8 {
            let mut values: Vec<i32> = (0..8).map(|i| (i * 7 % VOCAB) as i32).collect();
            values[changed] = (values[changed] + 1) % VOCAB as i32;
            let after = Tensor::from_data(TensorData::new(values, [1, 8]), &device);
            let after = logits(&model, after);
            let border = changed * VOCAB;
            assert_eq!(before[..border], after[..border], "{kind}, token {changed}");
            assert_ne!(before[border..], after[border..], "{kind}, token {changed}");
        }
    }
}

#[test]
fn a_shorter_window_gives_the_first_logits_of_the_longer_one() {
    let device = Device::flex();
    for kind in ModelConfig::PRESETS {
        let model = model(kind, &device);
        let long = logits(&model, tokens(1, 8, &device));
        let short = logits(&model, tokens(1, 5, &device));
        for (short, long) in short.iter().zip(&long) {
            // Other sizes may sum in another order: a few units in the last place of numbers
            // below one.
            assert!((short - long).abs() < 1e-6, "{kind}: {short} {long}");
        }
    }
}

#[test]
fn windows_of_a_batch_do_not_touch_each_other() {
    let device = Device::flex();
    for kind in ModelConfig::PRESETS {
        let model = model(kind, &device);
        let all = tokens(3, 8, &device);
        let together = logits(&model, all.clone());
        let second = logits(&model, all.narrow(0, 1, 1));
        for (together, alone) in together[8 * VOCAB..].iter().zip(&second) {
            // As above: another order of summation.
            assert!((together - alone).abs() < 1e-6, "{kind}: {together} {alone}");
        }
    }
}

#[test]
fn large_scores_stay_finite() {
    let device = Device::flex().autodiff();
    for kind in ModelConfig::PRESETS {
        let model = model(kind, &device);
        let scaled = to_named(&model).into_iter().map(|mut tensor| {
            let values: Vec<f32> = tensor.data.try_to_vec().unwrap();
            let values: Vec<f32> = values.iter().map(|x| x * 100.0).collect();
            tensor.data = TensorData::new(values, tensor.data.shape().clone());
            tensor
        });
        let model = load_named(model, scaled.collect(), &device).unwrap();
        let inputs = tokens(2, 8, &device);
        let loss = model.loss(inputs.clone(), inputs);
        let mut gradients = GradientsParams::from_grads(loss.clone().backward(), &model);
        assert!(loss.into_scalar::<f32>().is_finite(), "{kind}");
        for (path, gradient) in common::named_gradients(&model, &mut gradients) {
            assert!(gradient.iter().all(|x| x.is_finite()), "{kind}: {path}");
        }
    }
}

#[test]
fn a_tied_embedding_is_one_parameter_with_the_gradients_of_both_uses() {
    let device = Device::flex().autodiff();
    let model = model("nanogpt-char", &device);
    let table = parameter_table(&model);
    let vocab_wide = table.iter().filter(|info| info.shape.contains(&VOCAB));
    assert_eq!(vocab_wide.count(), 1);
    // Token 3 only: as the embedding it affects row 3 only, as the head every row.
    let inputs = Tensor::<2, Int>::from_ints([[3, 3, 3, 3]], &device);
    let loss = model.loss(inputs.clone(), inputs);
    let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
    let gradients = common::named_gradients(&model, &mut gradients);
    let embed = &gradients["embed.weight"];
    assert!(embed.chunks(16).all(|row| row.iter().any(|x| *x != 0.0)), "the head's use is missing");
    let head_alone = {
        let hidden_gradient = gradients["norm.gain"].iter().any(|x| *x != 0.0);
        assert!(hidden_gradient);
        let mut untied = tiny("nanogpt-char");
        untied.tied_head = false;
        let other = untied.init(VOCAB, 7, &device).unwrap();
        let mut tensors = to_named(&model);
        let embed = tensors.iter().find(|tensor| tensor.name == "embed.weight").unwrap();
        let table: Vec<f32> = embed.data.try_to_vec().unwrap();
        let transposed: Vec<f32> = (0..VOCAB * 16).map(|i| table[i % VOCAB * 16 + i / VOCAB]).collect();
        tensors.push(NamedTensor { name: "head.weight".into(), data: TensorData::new(transposed, [16, VOCAB]) });
        let other = load_named(other, tensors, &device).unwrap();
        let inputs = Tensor::<2, Int>::from_ints([[3, 3, 3, 3]], &device);
        let loss = other.loss(inputs.clone(), inputs);
        let mut gradients = GradientsParams::from_grads(loss.backward(), &other);
        common::named_gradients(&other, &mut gradients)
    };
    for (index, found) in embed.iter().enumerate() {
        let (token, feature) = (index / 16, index % 16);
        let both = head_alone["embed.weight"][index] + head_alone["head.weight"][feature * VOCAB + token];
        // The same sums in another order.
        assert!((found - both).abs() < 1e-6, "{index}: {found} {both}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    for kind in ModelConfig::PRESETS {
        let make = |seed| bytes(&tiny(kind).init(VOCAB, seed, &Device::flex()).unwrap());
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
    let plain = bytes(&model("llama-d64", &Device::flex()));
    assert_eq!(plain, bytes(&model("llama-d64", &Device::flex().autodiff())));
}

#[test]
fn initial_weights_have_the_documented_deviations() {
    let presets = [("llama-d64", 1.0), ("gemma3-tiny", 1.0), ("gpt-oss-tiny", 1.0), ("olmoe-tiny", 4.0)];
    for (preset, ratio) in presets {
        let mut config = ModelConfig::preset(preset).unwrap();
        if ratio > 1.0 {
            config.parametrization = Parametrization::Mup;
            config.base_width = config.d_model / 4;
        }
        check_deviations(&config, ratio);
    }
}

/// `ratio` is the width over the base width.
fn check_deviations(config: &ModelConfig, ratio: f64) {
    for tensor in to_named(&config.init(65, 5, &Device::flex()).unwrap()) {
        let values: Vec<f32> = tensor.data.try_to_vec().unwrap();
        let ends = |end: &str| tensor.name.ends_with(end);
        let constant = match ends("gain") {
            true => Some(if config.norm == NormKind::RmsNormPlusOne { 0.0 } else { 1.0 }),
            false => (ends("bias") || ends("sinks")).then_some(0.0),
        };
        if let Some(constant) = constant {
            assert!(values.iter().all(|x| *x == constant), "{}", tensor.name);
            continue;
        }
        let expected = match tensor.name.as_str() {
            "embed.weight" | "head.weight" => 0.02,
            _ if ends("router.weight") => 0.02 / ratio,
            _ if ends("wo.weight") || ends("down.weight") => 0.02 / (2.0 * config.layers as f64 * ratio).sqrt(),
            _ => 0.02 / ratio.sqrt(),
        };
        let square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let deviation = (square / values.len() as f64).sqrt();
        // Four standard errors of a deviation estimated from that many numbers.
        let allowed = 4.0 / (2.0 * values.len() as f64).sqrt();
        assert!((deviation / expected - 1.0).abs() < allowed, "{}: {deviation}", tensor.name);
    }
}

#[test]
fn an_empty_vocabulary_is_refused() {
    let error = tiny("llama-d64").init(0, 1, &Device::flex()).unwrap_err();
    assert_eq!(error, ModelError::Zero { key: "vocab_size" });
}

#[test]
fn tokens_outside_the_vocabulary_are_named_with_their_position() {
    let model = model("llama-d64", &Device::flex());
    model.check_tokens(&[0, 10, 5]).unwrap();
    for (tokens, token, position) in [(&[0, 11][..], 11, 1), (&[-1][..], -1, 0)] {
        let error = model.check_tokens(tokens).unwrap_err();
        assert_eq!(error, ModelError::TokenOutOfRange { token, position, vocab_size: VOCAB });
    }
}

#[test]
fn stored_weights_load_bit_for_bit_and_keep_the_ids_of_the_parameters() {
    let device = Device::flex().autodiff();
    for kind in ModelConfig::PRESETS {
        let source = model(kind, &device);
        let target = tiny(kind).init(VOCAB, 99, &device).unwrap();
        let ids = burn::module::list_param_ids(&target);
        let loaded = load_named(target, to_named(&source), &device).unwrap();
        assert_eq!(bytes(&loaded), bytes(&source), "{kind}");
        assert_eq!(burn::module::list_param_ids(&loaded), ids, "{kind}");
        let inputs = tokens(1, 4, &device);
        let loss = loaded.loss(inputs.clone(), inputs);
        let gradients = GradientsParams::from_grads(loss.backward(), &loaded);
        assert_eq!(gradients.len(), parameter_table(&loaded).len(), "{kind}");
    }
}

#[test]
fn weights_loaded_without_autodiff_still_need_a_gradient_when_trained() {
    let source = model("llama-d64", &Device::flex());
    let loaded = load_named(source.clone(), to_named(&source), &Device::flex()).unwrap();
    let device = Device::flex().autodiff();
    let loaded = loaded.train();
    let inputs = tokens(1, 4, &device);
    let gradients = loaded.loss(inputs.clone(), inputs).backward();
    let gradients = GradientsParams::from_grads(gradients, &loaded);
    assert_eq!(gradients.len(), parameter_table(&loaded).len());
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let device = Device::flex();
    let load = |change: fn(&mut Vec<NamedTensor>)| {
        let model = model("llama-d64", &device);
        let mut tensors = to_named(&model);
        change(&mut tensors);
        load_named(model, tensors, &device).unwrap_err()
    };
    let missing = load(|tensors| tensors.retain(|tensor| tensor.name != "norm.gain"));
    assert!(matches!(&missing, ModelError::MissingTensor { name, .. } if name == "norm.gain"));
    let renamed = load(|tensors| tensors[0].name = "embedd.weight".into());
    let ModelError::MissingTensor { name, expected, hint } = renamed else { panic!("{renamed}") };
    assert_eq!((name.as_str(), expected), ("embed.weight", vec![VOCAB, 16]));
    assert!(hint.contains("`embedd.weight`"), "{hint}");
    let extra = load(|tensors| {
        let data = TensorData::zeros::<f32, _>([2, 3]);
        tensors.push(NamedTensor { name: "stray".into(), data });
    });
    assert_eq!(extra, ModelError::ExtraTensor { name: "stray".into(), found: vec![2, 3] });
    let twice = load(|tensors| tensors.push(tensors[0].clone()));
    assert_eq!(twice, ModelError::DuplicateTensor { name: "embed.weight".into() });
    let shape = load(|tensors| tensors[0].data = TensorData::zeros::<f32, _>([16, VOCAB]));
    let (expected, found) = (vec![VOCAB, 16], vec![16, VOCAB]);
    assert_eq!(shape, ModelError::WrongShape { name: "embed.weight".into(), expected, found });
    let dtype = load(|tensors| tensors[0].data = TensorData::zeros::<f64, _>([VOCAB, 16]));
    let (expected, found) = (DType::F32, DType::F64);
    assert_eq!(dtype, ModelError::WrongDtype { name: "embed.weight".into(), expected, found });
}

#[test]
fn every_parameter_has_one_role_and_every_hint_a_parameter() {
    let all = ModelConfig::PRESETS.iter().map(|kind| (*kind, tiny(kind).tied_head, false));
    for (kind, tied, biases) in
        all.chain([("nanogpt-char", false, false), ("nanogpt-char", true, true), ("gemma3-tiny", false, true)])
    {
        let mut config = tiny(kind);
        config.tied_head = tied;
        (config.norm_bias, config.feed_forward_bias) = (biases, biases);
        let model = config.init(VOCAB, 1, &Device::flex()).unwrap();
        let hints = model.roles();
        let hits = |pattern: &str, path: &str| {
            let (pattern, path) = (pattern.split('.'), path.split('.'));
            pattern.clone().count() == path.clone().count()
                && pattern.zip(path).all(|(pattern, name)| pattern == "*" || pattern == name)
        };
        let table = parameter_table(&model);
        assert_eq!(table.iter().map(|info| info.count).sum::<usize>(), config.parameters(VOCAB), "{kind}");
        for info in &table {
            let roles: Vec<Role> =
                hints.iter().filter(|hint| hits(&hint.pattern, &info.path)).map(|hint| hint.role).collect();
            assert_eq!(roles.len(), 1, "{}: {roles:?}", info.path);
            let vector = Role::VECTORS.contains(&roles[0]);
            assert_eq!(vector, info.shape.len() == 1 || info.path.ends_with(".bias"), "{}", info.path);
        }
        for hint in &hints {
            assert!(table.iter().any(|info| hits(&hint.pattern, &info.path)), "{hint:?}");
            let heads = match hint.role {
                Role::AttentionQuery | Role::AttentionOutput => Some(2),
                Role::AttentionKey | Role::AttentionValue => Some(config.kv_heads()),
                _ => None,
            };
            assert_eq!(hint.heads, heads, "{hint:?}");
        }
        let embed = hints.iter().find(|hint| hint.pattern == "embed.weight").unwrap();
        assert_eq!(embed.role == Role::TiedEmbedding, tied);
    }
}

#[test]
fn recomputed_gradients_are_those_that_kept_activations_give_to_the_bit() {
    let device = Device::flex().autodiff();
    for preset in ModelConfig::PRESETS {
        let mut config = tiny(preset);
        if config.experts > 0 {
            (config.aux_load_balance, config.aux_z) = (0.01, 0.001);
        }
        let trained = config.init(VOCAB, 7, &device).unwrap();
        let mut frozen = trained.clone();
        (frozen.embed, frozen.position) = (frozen.embed.no_grad(), frozen.position.no_grad());
        frozen.blocks[0].attn = frozen.blocks[0].attn.clone().no_grad();
        for (model, what) in [(trained, "all trained"), (frozen, "some frozen")] {
            let (inputs, targets) = (tokens(3, 8, &device), tokens(3, 8, &device).flip([1]));
            for weight in [1.0, 0.3] {
                let TrainingLoss { total, cross_entropy } = model.training_loss(inputs.clone(), targets.clone());
                let mut kept = GradientsParams::from_grads(total.mul_scalar(weight).backward(), &model);
                let (mut recomputed, loss) = model.recomputed_gradients(inputs.clone(), targets.clone(), weight);
                assert_eq!(loss.into_data(), cross_entropy.inner().into_data(), "{preset}, {what}");
                let kept = common::named_gradients(&model, &mut kept);
                let recomputed = common::named_gradients(&model, &mut recomputed);
                assert_eq!(recomputed.len(), kept.len(), "{preset}, {what}");
                for (path, gradient) in kept {
                    assert_eq!(recomputed[&path], gradient, "{preset}, {what}, {path}");
                }
            }
        }
    }
}

/// The largest logit of every head of every layer in a training pass.
fn largest_logits(model: &LanguageModel, inputs: &Tensor<2, Int>) -> Vec<Vec<f32>> {
    let mut logits = LargestLogits::default();
    let _ = model.training_loss_with(inputs.clone(), inputs.clone(), Some(&mut logits));
    logits.layers().into_iter().map(|layer| layer.into_data().try_to_vec().unwrap()).collect()
}

#[test]
fn the_largest_logits_are_the_same_with_and_without_fused_layers() {
    for preset in ModelConfig::PRESETS {
        let found = [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()].map(|device| {
            let (model, inputs) = (model(preset, &device), tokens(3, 8, &device));
            let found = largest_logits(&model, &inputs);
            assert_eq!((found.len(), found[0].len()), (2, 2), "{preset}");
            found
        });
        for (fused, plain) in found[0].iter().flatten().zip(found[1].iter().flatten()) {
            // Sums of a dozen products in 32 bits.
            assert!((fused - plain).abs() <= 1e-5 * plain.abs().max(0.1), "{preset}: {fused} {plain}");
        }
    }
}

#[test]
fn recomputing_activations_measures_the_same_logits_once() {
    let device = Device::flex().autodiff();
    for preset in ModelConfig::PRESETS {
        let (model, inputs) = (model(preset, &device), tokens(3, 8, &device));
        let mut logits = LargestLogits::default();
        let _ = model.recomputed_gradients_with(inputs.clone(), inputs.clone(), 0.5, Some(&mut logits));
        let recomputed = logits.layers().into_iter().map(|layer| layer.into_data().try_to_vec().unwrap());
        assert_eq!(recomputed.collect::<Vec<Vec<f32>>>(), largest_logits(&model, &inputs), "{preset}");
    }
}

#[test]
fn measuring_logits_changes_no_bit_of_the_loss_or_the_gradient() {
    for device in [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
        for preset in ModelConfig::PRESETS {
            let (model, inputs) = (model(preset, &device), tokens(3, 8, &device));
            let mut passed = [None, Some(&mut LargestLogits::default())].map(|logits| {
                let TrainingLoss { total, .. } = model.training_loss_with(inputs.clone(), inputs.clone(), logits);
                (total.clone().into_data(), GradientsParams::from_grads(total.backward(), &model))
            });
            assert_eq!(passed[0].0, passed[1].0, "{preset}");
            let [without, with] = [0, 1].map(|index| common::named_gradients(&model, &mut passed[index].1));
            assert_eq!(without, with, "{preset}");
        }
    }
}

#[test]
fn a_logit_is_that_of_a_key_which_the_query_sees_and_no_sink() {
    // Token t has the embedding 10 e_t, whose norm is √d e_t. Token 0 as a query meets token 1 as a key with a large score, every
    // other pair has none.
    for device in [Device::flex(), Device::flex().autodiff().gradient_checkpointing()] {
        for (text, window, sees) in [
            ([0, 2, 2, 2, 1, 2, 2, 2], 0, false), // token 1 comes later
            ([1, 2, 2, 2, 0, 2, 2, 2], 0, true),
            ([1, 2, 2, 2, 0, 2, 2, 2], 4, false), // 4 tokens, the own included
            ([1, 2, 2, 2, 0, 2, 2, 2], 5, true),
        ] {
            let mut config = tiny("gpt-oss-tiny");
            (config.layers, config.position) = (1, PositionKind::Learned);
            (config.full_every, config.sliding_window) = if window > 0 { (2, window) } else { (1, 8) };
            let mut model = config.init(VOCAB, 7, &device).unwrap();
            let ones = |shape: [usize; 2], at: &[(usize, usize)], value: f32| {
                let mut values = vec![0f32; shape[0] * shape[1]];
                at.iter().for_each(|(row, column)| values[row * shape[1] + column] = value);
                Tensor::<2>::from_data(TensorData::new(values, shape), &device)
            };
            let diagonal: Vec<(usize, usize)> = (0..VOCAB).map(|token| (token, token)).collect();
            model.embed.weight = Param::from_tensor(ones([VOCAB, 16], &diagonal, 10.0));
            model.position.as_mut().unwrap().weight = Param::from_tensor(ones([8, 16], &[], 0.0));
            let attn = &mut model.blocks[0].attn;
            attn.sinks = Some(Param::from_tensor(Tensor::full([2], 1e6, &device)));
            // Two query heads of six features share a key head.
            let queries = ones([16, 12], &[(0, 0), (0, 6)], 1.0);
            for (projection, weight) in [(&mut attn.wq, queries), (&mut attn.wk, ones([16, 6], &[(1, 0)], 3.0))] {
                let projection = projection.as_mut().unwrap();
                (projection.weight, projection.bias) = (Param::from_tensor(weight), None);
            }
            let tokens = Tensor::from_data(TensorData::new(text.to_vec(), [1, 8]), &device);
            // 4 · 12 over √6
            let expected = if sees { 48.0 / 6f32.sqrt() } else { 0.0 };
            for logit in &largest_logits(&model, &tokens)[0] {
                // The norm adds 1e-5 to a mean square of 100 / 16.
                assert!((logit - expected).abs() < 1e-3, "{text:?} {window}: {logit} {expected}");
            }
        }
    }
}

#[test]
fn heads_that_are_scaled_down_have_the_threshold_as_their_largest_logit() {
    let device = Device::flex().autodiff();
    let mut clipped_heads = 0;
    for preset in ModelConfig::PRESETS {
        let config = tiny(preset);
        if config.qk_norm != QkNormKind::None {
            continue;
        }
        let (model, inputs) = (config.init(VOCAB, 7, &device).unwrap(), tokens(3, 8, &device));
        let before = largest_logits(&model, &inputs);
        let threshold = f64::from(before[0].iter().copied().fold(f32::INFINITY, f32::min)) * 0.9;
        // The logits of the second layer follow the outputs of the first.
        let heads = model.head_logits(&before[..1]);
        let (after, cut) = polaron::layerwise::clip_heads(model.clone(), &heads, threshold).unwrap();
        assert_eq!(cut, 2, "{preset}");
        clipped_heads += cut;
        for logit in &largest_logits(&after, &inputs)[0] {
            assert!((f64::from(*logit) / threshold - 1.0).abs() < 1e-5, "{preset}: {logit} {threshold}");
        }
    }
    assert!(clipped_heads >= 8, "{clipped_heads}");
}
