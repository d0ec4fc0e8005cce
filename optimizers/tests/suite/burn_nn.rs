//! Networks of Burn's own modules need no hints, with any stack.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::attention::{CrossAttention, CrossAttentionConfig, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, ConvTranspose3d, ConvTranspose3dConfig, DeformConv2d, DeformConv2dConfig,
};
use burn::nn::transformer::{
    PositionWiseFeedForward, PositionWiseFeedForwardConfig, TransformerDecoder, TransformerDecoderConfig,
    TransformerEncoder, TransformerEncoderConfig,
};
use burn::nn::{
    BatchNorm, BatchNormConfig, BiLstm, BiLstmConfig, BiRnn, BiRnnConfig, Embedding, EmbeddingConfig, GroupNorm,
    GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout,
    Lstm, LstmConfig, PRelu, PReluConfig, RmsNorm, RmsNormConfig, Rnn, RnnConfig, SwiGlu, SwiGluConfig,
    gru::{BiGru, BiGruConfig, Gru, GruConfig},
};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use polaron::layerwise::{LayerwiseConfig, PlanEntry, RoleHint, Rule};
use polaron::matrix::{Axis, Blocks, Layout};
use polaron::{Layerwise, Role};

use crate::numbers::{random, repeatable};

/// Every module of burn-nn 0.22.1 that has parameters; the gates of recurrent layers and the layers of transformers are in
/// them.
#[derive(Module, Debug)]
struct Everything {
    conv1: Conv1d,
    conv2: Conv2d,
    conv3: Conv3d,
    transposed1: ConvTranspose1d,
    transposed2: ConvTranspose2d,
    transposed3: ConvTranspose3d,
    deformed: DeformConv2d,
    depthwise: Conv2d,
    linear: Linear,
    column: Linear,
    embedding: Embedding,
    batch: BatchNorm,
    layer: LayerNorm,
    group: GroupNorm,
    instance: InstanceNorm,
    rms: RmsNorm,
    prelu: PRelu,
    swiglu: SwiGlu,
    gru: Gru,
    bigru: BiGru,
    lstm: Lstm,
    bilstm: BiLstm,
    rnn: Rnn,
    birnn: BiRnn,
    attention: MultiHeadAttention,
    cross: CrossAttention,
    feed_forward: PositionWiseFeedForward,
    encoder: TransformerEncoder,
    decoder: TransformerDecoder,
}

fn everything() -> Everything {
    let device = Device::flex();
    let model = Everything {
        conv1: Conv1dConfig::new(4, 8, 3).init(&device),
        conv2: Conv2dConfig::new([4, 8], [3, 3]).with_groups(2).init(&device),
        conv3: Conv3dConfig::new([2, 4], [2, 2, 2]).with_bias(false).init(&device),
        transposed1: ConvTranspose1dConfig::new([4, 6], 3).init(&device),
        transposed2: ConvTranspose2dConfig::new([4, 6], [3, 2]).with_groups(2).init(&device),
        transposed3: ConvTranspose3dConfig::new([2, 3], [2, 2, 2]).with_bias(false).init(&device),
        deformed: DeformConv2dConfig::new([4, 8], [3, 3]).init(&device),
        depthwise: Conv2dConfig::new([6, 6], [3, 3]).with_groups(6).init(&device),
        linear: LinearConfig::new(4, 6).init(&device),
        column: LinearConfig::new(4, 6).with_layout(LinearLayout::Col).init(&device),
        embedding: EmbeddingConfig::new(10, 4).init(&device),
        batch: BatchNormConfig::new(4).init(&device),
        layer: LayerNormConfig::new(4).init(&device),
        group: GroupNormConfig::new(2, 4).init(&device),
        instance: InstanceNormConfig::new(4).init(&device),
        rms: RmsNormConfig::new(4).init(&device),
        prelu: PReluConfig::new().init(&device),
        swiglu: SwiGluConfig::new(4, 6).init(&device),
        gru: GruConfig::new(3, 4, true).init(&device),
        bigru: BiGruConfig::new(3, 4, true).init(&device),
        lstm: LstmConfig::new(3, 4, true).init(&device),
        bilstm: BiLstmConfig::new(3, 4, true).init(&device),
        rnn: RnnConfig::new(3, 4, true).init(&device),
        birnn: BiRnnConfig::new(3, 4, true).init(&device),
        attention: MultiHeadAttentionConfig::new(4, 2).init(&device),
        cross: CrossAttentionConfig::new(4, 6, 2, 1, 2).init(&device),
        feed_forward: PositionWiseFeedForwardConfig::new(4, 6).init(&device),
        encoder: TransformerEncoderConfig::new(4, 6, 2, 1).init(&device),
        decoder: TransformerDecoderConfig::new(4, 6, 2, 1).init(&device),
    };
    repeatable(model)
}

/// A gradient for every parameter, but for running statistics, as `backward` gives.
fn gradients<M: Module>(model: &M) -> GradientsParams {
    struct Made(GradientsParams, u64, Vec<String>);
    impl ModuleVisitor for Made {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.2.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.2.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1 += 1;
            if self.2.last().is_none_or(|field| !field.starts_with("running_")) {
                let value = param.val().inner();
                let made = random(value.dims(), 1000 + self.1).cast(value.dtype());
                self.0.register(param.id, made);
            }
        }
    }
    let mut made = Made(GradientsParams::new(), 0, Vec::new());
    model.visit(&mut made);
    made.0
}

/// Path and values of every parameter.
fn values<M: Module>(model: &M) -> Vec<(String, Vec<f64>)> {
    struct Read(Vec<String>, Vec<(String, Vec<f64>)>);
    impl ModuleVisitor for Read {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push((self.0.join("."), param.val().into_data().iter::<f64>().collect()));
        }
    }
    let mut read = Read(Vec::new(), Vec::new());
    model.visit(&mut read);
    read.1
}

fn entry<'a>(entries: &'a [PlanEntry], path: &str) -> &'a PlanEntry {
    entries.iter().find(|entry| entry.path == path).unwrap_or_else(|| panic!("no {path} in the plan"))
}

#[test]
fn every_module_of_burn_trains_under_every_stack() {
    for stack in LayerwiseConfig::STACKS {
        let model = everything();
        let mut optimizer = Layerwise::stack(stack).unwrap().build(&model).unwrap_or_else(|e| panic!("{stack}: {e}"));
        let before = values(&model);
        let statistics = before.iter().filter(|(path, _)| path.contains("running_")).count();
        assert_eq!((statistics, optimizer.plan().entries().len()), (2, before.len() - 2), "{stack}");
        // The first gradient of SOAP only sets its bases.
        let model = (0..2).fold(model, |model, _| {
            let grads = gradients(&model);
            optimizer.step(1.0, model, grads)
        });
        for ((path, old), (_, new)) in before.into_iter().zip(values(&model)) {
            assert!(new.iter().all(|x| x.is_finite()), "{stack}: {path} {new:?}");
            assert_eq!(old != new, !path.contains("running_"), "{stack}: {path} {old:?} {new:?}");
        }
    }
}

#[test]
fn modules_of_burn_give_their_roles() {
    let optimizer = Layerwise::muon().build(&everything()).unwrap();
    let entries = optimizer.plan().entries();
    for (path, role) in [
        ("conv1.weight", Role::Kernel),
        ("conv2.weight", Role::Kernel),
        ("conv3.weight", Role::Kernel),
        ("transposed1.weight", Role::Kernel),
        ("transposed2.weight", Role::Kernel),
        ("transposed3.weight", Role::Kernel),
        ("deformed.weight", Role::Kernel),
        ("depthwise.weight", Role::Depthwise),
        ("linear.weight", Role::Hidden),
        ("column.weight", Role::Hidden),
        ("embedding.weight", Role::Embedding),
        ("swiglu.linear_inner.weight", Role::Gate),
        ("swiglu.linear_outer.weight", Role::Up),
        ("attention.query.weight", Role::AttentionQuery),
        ("attention.key.weight", Role::AttentionKey),
        ("attention.value.weight", Role::AttentionValue),
        ("attention.output.weight", Role::AttentionOutput),
        ("cross.key.weight", Role::AttentionKey),
        ("feed_forward.linear_inner.weight", Role::Up),
        ("feed_forward.linear_outer.weight", Role::Down),
        ("lstm.input_gate.hidden_transform.weight", Role::Hidden),
        ("encoder.layers.0.mha.query.weight", Role::AttentionQuery),
        ("decoder.layers.0.cross_attn.output.weight", Role::AttentionOutput),
        ("prelu.alpha", Role::Gain),
        ("batch.gamma", Role::Gain),
        ("conv1.bias", Role::Bias),
    ] {
        assert_eq!(entry(entries, path).role, Some(role), "{path}");
    }
    assert_eq!(entry(entries, "column.weight").shape, [4, 6]);
    let plan = optimizer.plan().to_string();
    assert!(plan.contains("kernel") && plan.contains("depthwise"), "{plan}");
}

#[derive(Module, Debug)]
struct Matrix {
    w: Param<Tensor<2>>,
}

fn step<M: Module>(model: M, gradient: GradientsParams, rule: Layerwise) -> M {
    rule.clip(None).build(&model).unwrap().step(1.0, model, gradient)
}

/// One step of the weight `w`, stored `[out, in]`, by Muon.
fn step_of_matrix(w: Tensor<2>, gradient: Tensor<2>, blocks: Option<Blocks>) -> Vec<f64> {
    let model = Matrix { w: Param::from_tensor(w) };
    let mut grads = GradientsParams::new();
    grads.register(model.w.id, gradient);
    let mut rule =
        Rule::path("w", polaron::OptimizerConfig::of_kind("muon").unwrap()).unwrap().with_layout(Layout::OutIn);
    if let Some(blocks) = blocks {
        rule = rule.with_blocks(blocks);
    }
    let model = step(model, grads, Layerwise::new().lr(0.1).rule(rule));
    model.w.val().into_data().iter::<f64>().collect()
}

#[test]
fn a_kernel_moves_as_the_matrix_of_outputs_and_inputs_times_window() {
    let device = Device::flex();
    for blocks in [None, Some(Blocks::equal(Axis::Output, 2))] {
        let muon = || polaron::OptimizerConfig::of_kind("muon").unwrap();
        let rule = |path: &str| {
            let rule = Rule::path(path, muon()).unwrap();
            blocks.map_or(rule.clone(), |blocks| rule.with_blocks(blocks))
        };
        let conv = repeatable(Conv1dConfig::new(4, 8, 3).with_bias(false).init(&device));
        let (w, gradient) = (conv.weight.val(), random([8, 4, 3], 7).cast(burn::tensor::DType::F32));
        let expected = step_of_matrix(w.reshape([8, 12]), gradient.clone().reshape([8, 12]), blocks);
        let mut grads = GradientsParams::new();
        grads.register(conv.weight.id, gradient);
        let conv = step(conv, grads, Layerwise::new().lr(0.1).rule(rule("weight")));
        assert_eq!(conv.weight.val().into_data().iter::<f64>().collect::<Vec<_>>(), expected);

        let conv = repeatable(ConvTranspose1dConfig::new([4, 6], 3).with_bias(false).init(&device));
        let matrix = |x: Tensor<3>| x.permute([1, 0, 2]).reshape([6, 12]);
        let (w, gradient) = (conv.weight.val(), random([4, 6, 3], 9).cast(burn::tensor::DType::F32));
        let expected = step_of_matrix(matrix(w), matrix(gradient.clone()), blocks);
        let mut grads = GradientsParams::new();
        grads.register(conv.weight.id, gradient);
        let conv = step(conv, grads, Layerwise::new().lr(0.1).rule(rule("weight")));
        let moved: Vec<f64> = matrix(conv.weight.val()).into_data().iter::<f64>().collect();
        let error = moved.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // The transposed kernel is stored in the opposite order, so sums are in another order.
        assert!(error < 1e-5, "{blocks:?}: {error}");
    }
}

#[test]
fn a_convolution_assigned_a_matrix_role_is_one_matrix_and_no_stack_of_experts() {
    #[derive(Module, Debug)]
    struct Net {
        conv: Conv1d,
    }
    let net = || Net { conv: repeatable(Conv1dConfig::new(4, 8, 3).init(&Device::flex())) };
    for role in [Role::Hidden, Role::Kernel, Role::Up] {
        let optimizer = Layerwise::muon().assign("conv.weight", role).build(&net()).unwrap();
        let placement = entry(optimizer.plan().entries(), "conv.weight").placement;
        assert!(placement.window && placement.layout == Layout::OutIn, "{role}");
        let matrix = placement.split(net().conv.weight.val());
        assert_eq!(matrix.tensor().dims(), [1, 8, 12], "{role}");
    }
}

#[test]
fn the_bias_of_a_convolution_assigned_depthwise_stays_a_bias() {
    let optimizer = Layerwise::muon().assign("depthwise", Role::Depthwise).build(&everything()).unwrap();
    assert_eq!(entry(optimizer.plan().entries(), "depthwise.bias").role, Some(Role::Bias));
}

#[test]
fn a_kernel_of_ones_own_is_one_matrix_unless_its_role_is_that_of_experts() {
    #[derive(Module, Debug)]
    struct Net {
        mine: Param<Tensor<3>>,
    }
    let net = Net { mine: Param::from_tensor(random([8, 4, 3], 5)) };
    for (role, dims) in
        [(Role::Hidden, [1, 8, 12]), (Role::Kernel, [1, 8, 12]), (Role::Head, [1, 8, 12]), (Role::ExpertUp, [8, 4, 3])]
    {
        let optimizer = Layerwise::muon().assign("mine", role).build(&net).unwrap();
        let placement = entry(optimizer.plan().entries(), "mine").placement;
        assert_eq!(placement.split(net.mine.val()).tensor().dims(), dims, "{role}");
    }
}

#[test]
fn a_linear_of_ones_own_is_not_taken_for_burns() {
    mod own {
        use super::*;
        #[derive(Module, Debug)]
        pub struct Linear {
            pub weight: Param<Tensor<2>>,
        }
    }
    #[derive(Module, Debug)]
    struct Net {
        layer: own::Linear,
    }
    let net = || Net { layer: own::Linear { weight: Param::from_tensor(random([8, 4], 3)) } };
    for stack in ["muon", "adamw"] {
        let error = Layerwise::stack(stack).unwrap().build(&net()).unwrap_err().to_string();
        assert!(error.contains("layer.weight") && error.contains("assign"), "{error}");
    }
    let hint = RoleHint::new("layer.weight", Role::Hidden).with_layout(Layout::OutIn);
    let optimizer = Layerwise::muon().assign_hint(hint).build(&net()).unwrap();
    assert_eq!(entry(optimizer.plan().entries(), "layer.weight").placement.layout, Layout::OutIn);
}

#[test]
fn units_are_inputs_where_a_matrix_leads_back_unless_an_axis_is_set() {
    for kind in ["hybrid", "row_norm"] {
        let plan = |keys: &str| {
            let builder = Layerwise::from_toml(&format!("stack = \"{kind}\"\n{keys}")).unwrap();
            let optimizer = builder.build(&everything()).unwrap();
            let of = |path: &str| entry(optimizer.plan().entries(), path).label();
            ["feed_forward.linear_outer.weight", "attention.output.weight", "feed_forward.linear_inner.weight"].map(of)
        };
        let by_role = plan("");
        assert!(by_role[0].contains("input") && by_role[1].contains("input"), "{by_role:?}");
        assert!(!by_role[2].contains("input"), "{by_role:?}");
        let set = plan("matrix = { axis = \"output\" }");
        assert!(set.iter().all(|label| *label == by_role[2]), "{set:?}");
    }
}
