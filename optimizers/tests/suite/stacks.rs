//! Ready-made stacks on a model with every common role.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use polaron::layerwise::{LayerwiseConfig, PlanEntry};
use polaron::matrix::{Axis, Blocks, Layout};
use polaron::{Layerwise, Role, RoleHint, Roles};

use crate::numbers::repeatable;

#[derive(Module, Debug)]
struct Model {
    embed: Embedding,
    norm: RmsNorm,
    wq: Linear,
    wo: Linear,
    gate: Linear,
    down: Linear,
    router: Linear,
    head: Linear,
}

impl Model {
    fn new(device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_bias(false).init(device);
        repeatable(Self {
            embed: EmbeddingConfig::new(11, 8).init(device),
            norm: RmsNormConfig::new(8).init(device),
            wq: linear(8, 12),
            wo: linear(12, 8),
            gate: linear(8, 16),
            down: linear(16, 8),
            router: linear(8, 4),
            head: linear(8, 11),
        })
    }

    fn gradients(&self, step: i64) -> GradientsParams {
        let device = self.embed.weight.val().device();
        let tokens = Tensor::<1, Int>::arange(step..step + 6, &device).remainder_scalar(11).reshape([2, 3]);
        let x = self.norm.forward(self.embed.forward(tokens));
        let x = x.clone() + self.wo.forward(self.wq.forward(x).tanh());
        let x = x.clone() + self.down.forward(self.gate.forward(x.clone()).tanh());
        let loss = self.head.forward(x.clone()).square().mean() + self.router.forward(x).square().mean();
        GradientsParams::from_grads(loss.backward(), self)
    }
}

impl Roles for Model {
    fn roles(&self) -> Vec<RoleHint> {
        vec![
            RoleHint::new("wq", Role::AttentionQuery).with_heads(3),
            RoleHint::new("wo", Role::AttentionOutput).with_heads(3),
            RoleHint::new("gate", Role::Gate),
            RoleHint::new("down", Role::Down),
            RoleHint::new("router", Role::Router),
            RoleHint::new("head", Role::Head),
        ]
    }
}

fn entries(builder: Layerwise) -> Vec<PlanEntry> {
    let model = Model::new(&Device::flex());
    builder.roles_of(&model).build(&model).unwrap().plan().entries().to_vec()
}

fn entry(entries: &[PlanEntry], path: &str) -> PlanEntry {
    entries.iter().find(|entry| entry.path == path).unwrap_or_else(|| panic!("{path}")).clone()
}

#[test]
fn every_stack_covers_the_model_and_trains_it() {
    for name in LayerwiseConfig::STACKS {
        let device = Device::flex().autodiff();
        let mut model = Model::new(&device);
        let start = model.clone();
        let mut optimizer = Layerwise::stack(name).unwrap().roles_of(&model).build(&model).unwrap();
        assert_eq!(optimizer.plan().parameters(), model.num_params(), "{name}");
        for step in 0..3 {
            let grads = model.gradients(step);
            model = optimizer.step(1.0, model, grads);
        }
        for (before, after) in [
            (start.wq.weight.val(), model.wq.weight.val()),
            (start.head.weight.val(), model.head.weight.val()),
            (start.embed.weight.val(), model.embed.weight.val()),
        ] {
            assert!(after.clone().is_finite().all().into_scalar::<bool>(), "{name}");
            assert_ne!(before.into_data(), after.into_data(), "{name}");
        }
    }
}

#[test]
fn the_symmetric_stack_gives_every_role_the_rule_of_its_symmetry() {
    let plan = entries(Layerwise::symmetric());
    for (path, optimizer, blocks) in [
        ("wq.weight", "muon (polar_express5)", Some(Blocks::equal(Axis::Output, 3))),
        ("wo.weight", "muon (polar_express5)", Some(Blocks::equal(Axis::Input, 3))),
        ("gate.weight", "hybrid (output → polar_express5, as MuonEq)", None),
        ("down.weight", "hybrid (input → polar_express5, as MuonEq)", None),
        ("embed.weight", "row_norm (input)", None),
        ("head.weight", "row_norm (output, centred)", None),
        ("router.weight", "row_norm (output, centred)", None),
        ("norm.gamma", "adamw", None),
    ] {
        let entry = entry(&plan, path);
        assert_eq!((entry.label().as_str(), entry.placement.blocks), (optimizer, blocks), "{path}");
    }
}

#[test]
fn a_tied_embedding_is_not_centred() {
    let builder = Layerwise::symmetric().assign("embed", Role::TiedEmbedding);
    assert_eq!(entry(&entries(builder), "embed.weight").label(), "row_norm (input)");
    // As a head it is read with tokens as outputs, which decides the size of the sign step.
    let scion = entry(&entries(Layerwise::scion().assign("embed", Role::TiedEmbedding)), "embed.weight");
    assert_eq!((scion.label().as_str(), scion.placement.layout), ("scion (sign, radius 3000)", Layout::OutIn));
}

#[test]
fn a_matrix_without_heads_stays_whole() {
    let plan = entries(Layerwise::symmetric().assign("wq", Role::AttentionKey));
    assert_eq!(entry(&plan, "wq.weight").placement.blocks, None);
}

#[test]
fn heads_can_be_asked_for_in_toml() {
    let builder = |blocks: &str| {
        Layerwise::from_toml(&format!(
            "stack = \"muon\"\n[[rule]]\nrole = \"attention_query\"\nkind = \"muon\"\n{blocks}"
        ))
    };
    let per_head = entry(&entries(builder("blocks = \"heads\"").unwrap()), "wq.weight");
    assert_eq!(per_head.placement.blocks, Some(Blocks::equal(Axis::Output, 3)));
    let fixed = entry(&entries(builder("blocks = { axis = \"input\", count = 2 }").unwrap()), "wq.weight");
    assert_eq!(fixed.placement.blocks, Some(Blocks::equal(Axis::Input, 2)));
    let error = builder("blocks = \"head\"").expect_err("a slip").to_string();
    assert!(error.contains("must be \"heads\", \"parts\""), "{error}");
}

#[test]
fn edges_belong_to_the_symmetric_stack_only() {
    assert!(LayerwiseConfig::from_toml("stack = \"symmetric\"\nedges = { head_lr = 0.5 }").is_ok());
    let error = LayerwiseConfig::from_toml("stack = \"muon\"\nedges = { head_lr = 0.5 }").unwrap_err().to_string();
    assert!(error.contains("`edges`"), "{error}");
    let error = LayerwiseConfig::from_toml("stack = \"symmetric\"\nedges = { had_lr = 0.5 }").unwrap_err().to_string();
    assert!(error.contains("did you mean `head_lr`"), "{error}");
}

#[test]
fn the_published_form_takes_the_published_steps_in_the_mlp_only() {
    let toml = |text: &str| Layerwise::from_toml(&format!("stack = \"symmetric\"\n{text}"));
    let published = entries(toml("published = true").unwrap());
    for (path, label) in [
        ("gate.weight", "hybrid (output → polar_express5, times nuclear over Frobenius norm)"),
        ("down.weight", "hybrid (input → polar_express5, times nuclear over Frobenius norm)"),
        ("wq.weight", "muon (polar_express5)"),
    ] {
        let entry = entry(&published, path);
        assert_eq!((entry.label().as_str(), entry.lr), (label, 0.02), "{path}");
    }
    let default = entries(toml("published = false").unwrap());
    let stack = entries(Layerwise::symmetric());
    let configs = |entries: &[PlanEntry]| entries.iter().map(|entry| entry.config().cloned()).collect::<Vec<_>>();
    assert_eq!(configs(&default), configs(&stack));
    let error = Layerwise::from_toml("stack = \"muon\"\npublished = true").unwrap_err().to_string();
    assert!(error.contains("optimizer.published"), "{error}");
    let config = LayerwiseConfig { published: true, ..LayerwiseConfig::stack("muon").unwrap() };
    let error = Layerwise::from_config(&config).unwrap_err().to_string();
    assert!(error.contains("optimizer.published") && error.contains("symmetric only"), "{error}");
}

#[test]
fn a_rule_keeps_the_heads_and_the_settings_of_the_symmetric_stack() {
    let text = "stack = \"symmetric\"\n[[rule]]\nrole = [\"attention_query\", \"down\", \"head\"]\nlr = 0.5";
    let plan = entries(Layerwise::from_toml(text).unwrap());
    let before = entries(Layerwise::symmetric());
    for path in ["wq.weight", "down.weight", "head.weight"] {
        let (was, is) = (entry(&before, path), entry(&plan, path));
        assert_eq!((is.label(), is.placement, is.weight_decay()), (was.label(), was.placement, was.weight_decay()));
        assert_eq!(is.lr, 0.5, "{path}");
    }
    let whole = format!("{text}\nblocks = \"whole\"");
    assert_eq!(entry(&entries(Layerwise::from_toml(&whole).unwrap()), "wq.weight").placement.blocks, None);
}

/// The scion stack, with gains in a ball of radius 8.
const SCION_GAINS: &str =
    "stack = \"scion\"\n[[rule]]\nrole = [\"gain\", \"bias\"]\nkind = \"scion\"\nlmo = \"input_norm\"\nradius = 8.0";

#[test]
fn scion_steps_gains_and_biases_by_their_root_mean_square_if_asked() {
    assert_eq!(entry(&entries(Layerwise::scion()), "norm.gamma").label(), "adamw");
    let gain = entry(&entries(Layerwise::from_toml(SCION_GAINS).unwrap()), "norm.gamma");
    assert_eq!(gain.label(), "scion (input_norm, radius 8)");
    let device = Device::flex().autodiff();
    let model = Model::new(&device);
    let mut optimizer =
        Layerwise::from_toml(SCION_GAINS).unwrap().lr(0.5).clip(None).roles_of(&model).build(&model).unwrap();
    let grads = model.gradients(0);
    let gradient: Tensor<1> = grads.get(model.norm.gamma.id).unwrap();
    let before = model.norm.gamma.val().inner();
    let after = optimizer.step(1.0, model, grads).norm.gamma.val().inner();
    let rms = gradient.clone().square().mean().sqrt();
    let want = before * 0.5 - gradient / rms * 4.0;
    let error: f32 = (after - want).abs().max().into_scalar();
    assert!(error < 1e-4, "{error}"); // eps is 1e-8 of rms gradients of about 1e-3
}

#[test]
fn a_muon_rule_on_a_vector_is_still_refused() {
    let model = Model::new(&Device::flex());
    let text = "stack = \"muon\"\n[[rule]]\nrole = \"gain\"\nkind = \"muon\"";
    let error = Layerwise::from_toml(text).unwrap().roles_of(&model).build(&model).unwrap_err().to_string();
    assert!(error.contains("norm.gamma") && error.contains("rank"), "{error}");
}

/// The norm of a parameter in units of its ball, by its own path: what `onto_balls` makes 1.
fn in_its_ball(model: &Model) -> [(&'static str, f64); 4] {
    let largest = |x: Tensor<2>| x.abs().max().into_scalar::<f64>();
    let wq = model.wq.weight.val().inner().unsqueeze::<3>();
    let found = std::cell::Cell::new(0.0);
    let _ = polaron::matrix::map_singular_values(wq, |_, s| {
        found.set(s[0]);
        s.to_vec()
    });
    let embed = model.embed.weight.val().inner();
    let tokens = embed.square().mean_dim(1).sqrt();
    [
        // √(outputs / inputs) times the radius
        ("spectral", found.get() / (50.0 * (12.0_f64 / 8.0).sqrt())),
        // the root mean square of a token's vector
        ("input_norm", largest(tokens) / 50.0),
        // 8 inputs
        ("sign", 8.0 * largest(model.head.weight.val().inner()) / 3000.0),
        ("gain", model.norm.gamma.val().inner().square().mean().sqrt().into_scalar::<f64>() / 8.0),
    ]
}

#[test]
fn weights_scaled_onto_the_balls_have_the_radius_as_their_norm_and_stay_there() {
    let model = Model::new(&Device::flex().autodiff());
    let optimizer = Layerwise::from_toml(SCION_GAINS).unwrap().roles_of(&model).build(&model).unwrap();
    let before = model.clone();
    let once = optimizer.onto_balls(model).unwrap();
    for (name, norm) in in_its_ball(&once) {
        assert!((norm - 1.0).abs() < 1e-5, "{name}: {norm}");
    }
    // scaled as a whole, and still trained
    let ratio = once.gate.weight.val().inner() / before.gate.weight.val().inner();
    let [low, high] = [ratio.clone().min(), ratio.max()].map(|x| x.into_scalar::<f64>());
    assert!(high / low - 1.0 < 1e-5 && once.gate.weight.is_require_grad());
    let twice = optimizer.onto_balls(once.clone()).unwrap();
    let error = (twice.wq.weight.val() / once.wq.weight.val() - 1.0).abs().max().into_scalar::<f64>();
    assert!(error < 1e-5, "{error}");
}

#[test]
fn zero_and_frozen_parameters_are_not_scaled_and_other_rules_have_no_ball() {
    let device = Device::flex();
    let mut model = Model::new(&device);
    model.wo.weight = burn::module::Param::from_tensor(Tensor::zeros([12, 8], &device));
    let builder = || Layerwise::scion().roles_of(&Model::new(&device));
    let optimizer = builder().freeze("gate").build(&model).unwrap();
    let before = model.clone();
    let after = optimizer.onto_balls(model.clone()).unwrap();
    assert_eq!(after.wo.weight.val().into_data(), before.wo.weight.val().into_data());
    assert_eq!(after.gate.weight.val().into_data(), before.gate.weight.val().into_data());
    // AdamW's
    assert_eq!(after.norm.gamma.val().into_data(), before.norm.gamma.val().into_data());
    assert_ne!(after.wq.weight.val().into_data(), before.wq.weight.val().into_data());
    let muon = Layerwise::muon().roles_of(&model).build(&model).unwrap();
    let error = muon.onto_balls(model.clone()).map(drop).unwrap_err().to_string();
    assert!(error.contains("only `scion`"), "{error}");
    model.wq.weight = burn::module::Param::from_tensor(Tensor::ones([2, 2], &device));
    let error = builder().build(&before).unwrap().onto_balls(model).map(drop).unwrap_err().to_string();
    assert!(error.contains("wq.weight"), "{error}");
}
