//! Probes: the known answers of a quadratic, that nothing changes, and that every stack can be probed.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{Objective, Probe, ProbeGroups, Rule};
use polaron::matrix::Layout;
use polaron::rules::{AdamWConfig, SgdConfig};
use polaron::{Layerwise, LayerwiseConfig, LayerwiseError, LayerwiseOptimizer, OptimizerConfig, Role};

use crate::model::Model;

fn matrix<const M: usize, const N: usize>(values: [[f64; N]; M]) -> Tensor<2> {
    Tensor::from_data(TensorData::from(values), (&Device::flex(), DType::F64))
}

/// W, output x input, with the loss `tr(W C Wᵀ) / 2`.
#[derive(Module, Debug)]
struct Quadratic {
    w: Param<Tensor<2>>,
}

impl Quadratic {
    fn new() -> Self {
        let w = matrix([[1.0, 2.0, 0.0, -1.0], [0.0, 3.0, -2.0, 1.0], [4.0, -1.0, 1.0, 2.0]]);
        Self { w: Param::from_tensor(w) }
    }

    /// W C
    fn gradient(&self) -> Tensor<2> {
        self.w.val() * matrix([[4.0, 2.0, 1.0, 0.5]])
    }

    fn as_gradients(&self, gradient: Tensor<2>) -> GradientsParams {
        let mut gradients = GradientsParams::new();
        gradients.register(self.w.id, gradient);
        gradients
    }

    /// That of a batch: the gradient with noise.
    fn noisy(&self) -> GradientsParams {
        let noise = matrix([[0.5, -0.5, 0.0, 1.0], [0.0, 1.0, -1.0, 0.0], [1.0, 0.0, 0.0, -0.5]]);
        self.as_gradients(self.gradient() + noise)
    }

    /// With a rule for W, whose units are rows here.
    fn optimizer(&self, json: &str, lr: f64) -> LayerwiseOptimizer {
        let config: OptimizerConfig = serde_json::from_str(json).unwrap();
        let rule = Rule::path("w", config).unwrap().with_layout(Layout::OutIn).with_lr(lr);
        Layerwise::new().rule(rule).build(self).unwrap()
    }

    fn probe(&self, json: &str, lr: f64) -> Probe {
        let optimizer = self.optimizer(json, lr);
        let probes = optimizer.probe(1.0, self, &self.noisy(), ProbeGroups::All, &mut Whole { calls: [0, 0] });
        let [probe] = probes.unwrap().try_into().unwrap();
        probe
    }
}

/// The loss itself, in one batch; counts what was asked.
struct Whole {
    calls: [usize; 2],
}

impl Objective<Quadratic> for Whole {
    type Error = LayerwiseError;

    fn batches(&self) -> usize {
        1
    }

    fn loss(&mut self, model: &Quadratic, _batch: usize) -> Result<f64, LayerwiseError> {
        self.calls[0] += 1;
        Ok((model.w.val() * model.gradient()).sum().into_scalar::<f64>() / 2.0)
    }

    fn gradient(&mut self, model: &Quadratic, _batch: usize) -> Result<GradientsParams, LayerwiseError> {
        self.calls[1] += 1;
        Ok(model.as_gradients(model.gradient()))
    }
}

const MUON: &str =
    r#"{"kind": "muon", "momentum": 0.0, "nesterov": false, "scale": "none", "polar": {"method": "svd"}}"#;
const SGD: &str = r#"{"kind": "sgd", "momentum": 0.0, "nesterov": false}"#;

fn near(got: Option<f64>, want: f64, what: &str) {
    // twelve digits after the point are known; the direction is a difference of weights that are 50 times larger
    assert!(
        got.is_some_and(|got| (got - want).abs() < 1e-9 * want.abs().max(1.0)),
        "{what}: {got:?} instead of {want}"
    );
}

#[test]
fn a_probe_of_a_quadratic_has_the_known_numbers() {
    let probe = Quadratic::new().probe(MUON, 0.1);
    near(probe.slope, 25.038218980855, "slope");
    near(probe.curvature, 6.980398947223, "curvature");
    near(probe.alignment, 0.916857959811, "alignment");
    near(probe.potential, 106.837201362388, "potential");
    near(probe.best_lr, 3.586932375952, "best rate");
    near(probe.best_decrease, 44.905199149304, "best decrease");
    near(probe.decrease, 2.468919903349, "decrease");
    near(probe.efficiency, 0.054980713817, "efficiency");
    near(probe.lr_ratio, 0.1 / 3.586932375952, "ratio");
    assert_eq!((probe.group.as_str(), probe.lr), ("all", Some(0.1)));
    let large = Quadratic::new().probe(MUON, 1.0);
    near(large.decrease, 21.548019507244, "decrease at 1");
    near(large.efficiency, 0.479855783193, "efficiency at 1");
    // ‖G̃ - G‖² = 5.75 - 1 = 4.75 and ‖D‖² = 3
    near(probe.snr, 25.038218980855_f64.powi(2) / 3.0 / 4.75, "signal and noise");
    let descent = Quadratic::new().probe(SGD, 0.1);
    near(descent.alignment, 0.927968851395, "alignment of the gradient");
    near(descent.potential, 107.714823550758, "potential of the gradient");
    near(descent.best_lr, 0.259457497959, "best rate of the gradient");
    near(descent.best_decrease, 46.378027760138, "best decrease of the gradient");
}

#[test]
fn without_noise_the_alignment_is_one_and_a_quadratic_decreases_by_r_times_2_minus_r() {
    let model = Quadratic::new();
    let exact = model.as_gradients(model.gradient());
    let optimizer = model.optimizer(MUON, 0.7);
    let probes = optimizer.probe(1.0, &model, &exact, ProbeGroups::Tensors, &mut Whole { calls: [0, 0] }).unwrap();
    let probe = &probes[0];
    near(probe.alignment, 1.0, "alignment");
    assert_eq!((probe.snr, probe.group.as_str()), (None, "w"));
    let ratio = probe.lr_ratio.unwrap();
    near(probe.decrease, ratio * (2.0 - ratio) * probe.potential.unwrap() / 2.0, "decrease");
}

#[test]
fn weight_decay_is_no_part_of_the_direction() {
    let decaying = MUON.replace("\"momentum\"", "\"weight_decay\": 0.3, \"momentum\"");
    assert_eq!(Quadratic::new().probe(&decaying, 0.1), Quadratic::new().probe(MUON, 0.1));
}

#[test]
fn a_probe_costs_three_gradients_and_two_losses_for_one_group() {
    let (model, mut whole) = (Quadratic::new(), Whole { calls: [0, 0] });
    let optimizer = model.optimizer(MUON, 0.1);
    optimizer.probe(1.0, &model, &model.noisy(), ProbeGroups::All, &mut whole).unwrap();
    assert_eq!(whole.calls, [2, 3]);
}

#[test]
fn numbers_that_do_not_exist_are_none() {
    let model = Quadratic::new();
    let probe = |gradient: Tensor<2>, factor: f64| {
        let optimizer = model.optimizer(SGD, 0.1);
        let gradients = model.as_gradients(gradient);
        optimizer.probe(factor, &model, &gradients, ProbeGroups::All, &mut Whole { calls: [0, 0] }).unwrap()
    };
    // A gradient of zero moves nothing, a rate of zero has no direction.
    let still = &probe(model.gradient() * 0.0, 1.0)[0];
    assert_eq!((still.alignment, still.best_lr, still.potential, still.snr), (None, None, None, None));
    assert_eq!((still.slope, still.curvature, still.decrease), (Some(0.0), Some(0.0), Some(0.0)));
    assert_eq!(probe(model.gradient(), 0.0), []);
}

#[test]
fn a_step_to_where_the_loss_is_not_finite_has_no_decrease_and_the_probe_survives_json() {
    let probe = Quadratic::new().probe(SGD, 1e200);
    assert_eq!((probe.decrease, probe.efficiency), (None, None));
    near(probe.slope, 357.5, "slope");
    let written = serde_json::to_string(&probe).unwrap();
    assert_eq!(serde_json::from_str::<Probe>(&written).unwrap(), probe, "{written}");
}

#[test]
fn the_sharpness_of_a_quadratic_is_its_largest_eigenvalue() {
    let model = Quadratic::new();
    let optimizer = model.optimizer(SGD, 0.1);
    let mut whole = Whole { calls: [0, 0] };
    // The second eigenvalue is half of it: 12 iterations leave its share at about 2^-24.
    let sharpness = optimizer.sharpness(&model, 12, &mut whole).unwrap().unwrap();
    assert!((sharpness - 4.0).abs() < 4e-6, "{sharpness}");
    assert_eq!(whole.calls, [0, 24]);
    let more = optimizer.sharpness(&model, 30, &mut whole).unwrap().unwrap();
    assert!((more - 4.0).abs() < 1e-9, "{more}");
    assert_eq!(optimizer.sharpness(&model, 0, &mut whole).unwrap(), None);
}

/// Two steps of the loss of the small model.
struct Steps;

impl Objective<Model> for Steps {
    type Error = LayerwiseError;

    fn batches(&self) -> usize {
        2
    }

    fn loss(&mut self, model: &Model, batch: usize) -> Result<f64, LayerwiseError> {
        Ok(model.loss(10 + batch as i64).into_scalar::<f32>().into())
    }

    fn gradient(&mut self, model: &Model, batch: usize) -> Result<GradientsParams, LayerwiseError> {
        Ok(model.gradients(10 + batch as i64))
    }
}

#[test]
fn every_stack_can_be_probed_in_every_grouping_and_no_byte_changes() {
    for stack in LayerwiseConfig::STACKS {
        let [plain, probed] = [false, true].map(|probed| {
            let mut model = Model::new(&Device::flex().autodiff());
            let optimizer = Layerwise::stack(stack).unwrap().assign("head", Role::Head).freeze("hidden.0.bias");
            let mut optimizer = optimizer.build(&model).unwrap();
            for step in 0..3 {
                let (gradients, _) = optimizer.clip(&model, model.gradients(step));
                for groups in
                    [ProbeGroups::Roles, ProbeGroups::All, ProbeGroups::Tensors].into_iter().filter(|_| probed)
                {
                    let probes = optimizer.probe(0.5, &model, &gradients, groups, &mut Steps).unwrap();
                    let names: Vec<&str> = probes.iter().map(|probe| probe.group.as_str()).collect();
                    match groups {
                        ProbeGroups::Roles => {
                            assert_eq!(names, ["embedding", "hidden", "gain", "bias", "head"], "{stack}")
                        }
                        ProbeGroups::All => assert_eq!(names, ["all"], "{stack}"),
                        _ => assert_eq!(names.len(), 6, "{stack}"),
                    }
                    assert!(probes.iter().all(|probe| probe.slope.is_some() && probe.curvature.is_some()), "{stack}");
                }
                model = optimizer.apply(0.5, model, gradients);
            }
            (model.bytes(), optimizer.to_record().tensors().clone())
        });
        assert!(plain == probed, "{stack}");
    }
}

#[test]
fn a_group_with_several_rates_is_measured_along_its_step() {
    let model = Model::new(&Device::flex().autodiff());
    let rates = Layerwise::new()
        .rule(Rule::path("*", AdamWConfig::new()).unwrap().with_lr(0.01))
        .rule(Rule::path("head.weight", SgdConfig::new()).unwrap().with_lr(0.1));
    let optimizer = rates.build(&model).unwrap();
    let gradients = model.gradients(0);
    let probes = optimizer.probe(1.0, &model, &gradients, ProbeGroups::All, &mut Steps).unwrap();
    let (best, ratio) = (probes[0].best_lr.unwrap(), probes[0].lr_ratio.unwrap());
    assert_eq!(probes[0].lr, None);
    assert!((best * ratio - 1.0).abs() < 1e-12, "{best} {ratio}");
}
