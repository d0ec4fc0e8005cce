//! QK-clip: exactly the heads that exceeded the threshold are scaled down to it.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};
use polaron::layerwise::{HeadLogits, clip_heads};
use polaron::{Layerwise, LayerwiseError};

use crate::numbers::{random, repeatable};

const HEADS: usize = 4;
const WIDTH: usize = 8;

#[derive(Module, Debug)]
struct Attention {
    wq: Linear,
    wk: Linear,
    wv: Linear,
}

#[derive(Module, Debug)]
struct Model {
    attn: Attention,
}

impl Model {
    /// Four query heads, `key_heads` key heads.
    fn new(key_heads: usize, device: &Device) -> Self {
        let linear = |outputs| LinearConfig::new(16, outputs).with_bias(true).init(device);
        let (query, key) = (HEADS * WIDTH, key_heads * WIDTH);
        repeatable(Self { attn: Attention { wq: linear(query), wk: linear(key), wv: linear(key) } })
    }

    /// Largest logit of every query head.
    fn largest(&self, x: &Tensor<2>, key_heads: usize) -> Vec<f64> {
        let (q, k) = (self.attn.wq.forward(x.clone()), self.attn.wk.forward(x.clone()));
        (0..HEADS)
            .map(|head| {
                let key_head = head * key_heads / HEADS;
                let part = |x: &Tensor<2>, head: usize| x.clone().narrow(1, head * WIDTH, WIDTH);
                let logits = part(&q, head).matmul(part(&k, key_head).transpose());
                logits.max().into_scalar::<f64>() / (WIDTH as f64).sqrt()
            })
            .collect()
    }

    fn logits(&self, x: &Tensor<2>, key_heads: usize) -> Vec<HeadLogits> {
        let (query, key) = ("attn.wq".into(), "attn.wk".into());
        vec![HeadLogits { query, key, key_heads, largest: self.largest(x, key_heads) }]
    }
}

fn inputs(device: &Device) -> Tensor<2> {
    let data = (random([20, 16], 1) * 5.0).into_data().convert_dtype(DType::F32);
    Tensor::from_data(data, device)
}

fn columns(weight: &Tensor<2>, head: usize) -> Vec<u8> {
    weight.clone().narrow(1, head * WIDTH, WIDTH).into_data().as_bytes().to_vec()
}

/// A threshold that the larger half of the heads exceed.
fn between(largest: &[f64]) -> f64 {
    let mut sorted = largest.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[HEADS / 2 - 1] + sorted[HEADS / 2]) / 2.0
}

#[test]
fn heads_above_the_threshold_come_back_to_it_and_the_others_keep_their_bits() {
    let device = Device::flex().autodiff();
    let x = inputs(&device);
    for key_heads in [HEADS, 2, 1] {
        let model = Model::new(key_heads, &device);
        let before = model.largest(&x, key_heads);
        let threshold = between(&before);
        let (after, cut) = clip_heads(model.clone(), &model.logits(&x, key_heads), threshold).unwrap();
        assert_eq!(cut, HEADS / 2);
        for (head, (was, is)) in before.iter().zip(after.largest(&x, key_heads)).enumerate() {
            if *was > threshold {
                assert!((is / threshold - 1.0).abs() < 1e-5, "head {head}: {is} instead of {threshold}");
            } else {
                let weights = [&model, &after].map(|model| columns(&model.attn.wq.weight.val(), head));
                assert_eq!(weights[0], weights[1], "head {head}");
            }
        }
        let values = |model: &Model| model.attn.wv.weight.val().into_data();
        assert_eq!(values(&model), values(&after));
        assert!(after.attn.wq.weight.val().is_require_grad(), "it stays a parameter");
    }
}

#[derive(Module, Debug)]
struct Joint {
    qkv: Linear,
}

/// The projections of a model in one.
fn joined(Attention { wq, wk, wv }: &Attention) -> Joint {
    let parts = [wq, wk, wv];
    let weight = Tensor::cat(parts.map(|part| part.weight.val().inner()).to_vec(), 1);
    let bias = Tensor::cat(parts.map(|part| part.bias.as_ref().unwrap().val().inner()).to_vec(), 0);
    Joint { qkv: Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) } }
}

#[test]
fn in_one_projection_the_columns_of_queries_and_keys_change_as_in_separate_ones() {
    let device = Device::flex();
    let x = inputs(&device);
    for key_heads in [HEADS, 2, 1] {
        let model = Model::new(key_heads, &device);
        let logits = model.logits(&x, key_heads);
        let threshold = between(&logits[0].largest);
        let (separate, cut) = clip_heads(model.clone(), &logits, threshold).unwrap();
        let both = [HeadLogits { query: "qkv".into(), key: "qkv".into(), ..logits[0].clone() }];
        let (joint, cut_there) = clip_heads(joined(&model.attn), &both, threshold).unwrap();
        let expected = joined(&separate.attn);
        assert_eq!((cut_there, cut), (HEADS / 2, HEADS / 2));
        assert_eq!(joint.qkv.weight.val().into_data(), expected.qkv.weight.val().into_data(), "{key_heads}");
        let bias = |joint: &Joint| joint.qkv.bias.as_ref().unwrap().val().into_data();
        assert_eq!(bias(&joint), bias(&expected), "{key_heads}");
        assert_ne!(bias(&joint), bias(&joined(&model.attn)), "{key_heads}");
    }
}

#[test]
fn a_joint_projection_without_values_is_refused() {
    let device = Device::flex();
    let joint = Joint { qkv: LinearConfig::new(16, 2 * HEADS * WIDTH).init(&device) };
    let logits = [HeadLogits { query: "qkv".into(), key: "qkv".into(), key_heads: 4, largest: vec![9.0; HEADS] }];
    let error = clip_heads(joint, &logits, 1.0).unwrap_err().to_string();
    assert!(error.contains("12 heads do not divide the 64 outputs of \"qkv\""), "{error}");
}

#[test]
fn a_configuration_turns_it_on() {
    let device = Device::flex().autodiff();
    let x = inputs(&device);
    let model = Model::new(HEADS, &device);
    let optimizer = Layerwise::from_toml("qk_clip = 1e-3").unwrap().build(&model).unwrap();
    assert_eq!(optimizer.clip_heads(model.clone(), &model.logits(&x, HEADS)).unwrap().1, HEADS);
    let off = Layerwise::from_toml("stack = \"muon\"").unwrap().build(&model).unwrap();
    assert_eq!(off.clip_heads(model.clone(), &model.logits(&x, HEADS)).unwrap().1, 0);
}

#[test]
fn it_is_off_unless_asked_for() {
    let device = Device::flex().autodiff();
    let x = inputs(&device);
    let model = Model::new(HEADS, &device);
    let logits = model.logits(&x, HEADS);
    let weight = |model: &Model| model.attn.wq.weight.val().into_data();
    let off = Layerwise::muon().build(&model).unwrap();
    let (same, cut) = off.clip_heads(model.clone(), &logits).unwrap();
    assert_eq!((cut, weight(&same)), (0, weight(&model)));
    let on = Layerwise::muon().qk_clip(1e-3).build(&model).unwrap();
    let (clipped, cut) = on.clip_heads(model.clone(), &logits).unwrap();
    assert_eq!(cut, HEADS);
    assert_ne!(weight(&clipped), weight(&model));
}

#[test]
fn logits_that_do_not_fit_the_model_are_refused() {
    let device = Device::flex();
    let model = Model::new(HEADS, &device);
    let logits = |query: &str, key_heads, heads: usize| {
        vec![HeadLogits { query: query.into(), key: "attn.wk".into(), key_heads, largest: vec![9.0; heads] }]
    };
    for (logits, part) in [
        (logits("attn.query", 4, 4), "no projection \"attn.query\""),
        (logits("attn.wq", 3, 4), "3 key heads do not divide the 4 query heads"),
        (logits("attn.wq", 5, 5), "5 heads do not divide the 32 outputs"),
    ] {
        let error = clip_heads(model.clone(), &logits, 1.0).expect_err(part);
        assert!(matches!(error, LayerwiseError::QkClip(_)) && error.to_string().contains(part), "{error}");
    }
}
