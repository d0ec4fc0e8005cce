//! The loop for modules of Burn.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use polaron::{LayerwiseError, Role, Schedule};
use polaron_train::{Comparison, Measurement, Trial, own};

use super::noise;

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    /// Weights that the seed decides.
    fn new(seed: u64, device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_initializer(Initializer::Zeros);
        let net = Self { hidden: linear(4, 16).init(device), output: linear(16, 1).init(device) };
        net.map(&mut Fill(seed << 32))
    }

    /// Mean squared error of learning the product of two inputs.
    fn loss(&self, inputs: Tensor<2>) -> Tensor<1> {
        let wanted = inputs.clone().slice([0..16, 0..1]) * inputs.clone().slice([0..16, 1..2]);
        (self.output.forward(self.hidden.forward(inputs).tanh()) - wanted).square().mean()
    }
}

fn numbers<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(|i| noise(seed + i) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

struct Fill(u64);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1000;
        let seed = self.0;
        param.map(|old| numbers(old.dims(), seed, &old.device()).set_require_grad(old.is_require_grad()))
    }
}

fn train(trial: Trial) -> Result<impl Iterator<Item = Measurement>, LayerwiseError> {
    let device = Device::flex().autodiff();
    let model = Net::new(trial.seed(), &device);
    let optimizer = trial.layerwise()?.assign("output", Role::Head).build(&model)?;
    let (seed, plain) = (trial.seed(), device.clone().inner());
    let loss = move |model: &Net, step: u64| model.loss(numbers([16, 4], (seed << 32) + (step << 16), &device) * 2.0);
    let valid = move |model: &Net| model.loss(numbers([16, 4], 0, &plain) * 2.0).into_scalar::<f64>();
    Ok(own::train(trial, model, optimizer, loss, valid))
}

fn events(folder: &std::path::Path, run: &str) -> Vec<serde_json::Value> {
    let text = super::text(&folder.join("runs").join(run).join("metrics.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_network_is_trained_with_the_plan_of_every_trial_and_paired_by_seed() {
    let place = tempfile::tempdir().unwrap();
    let comparison = |name: &str| {
        let folder = place.path().join(name);
        let comparison = Comparison::new(&folder).optimizers(["adamw", "muon"]).schedule(Schedule::cosine(3));
        let results = comparison.steps(20).lrs([0.003, 0.01]).extensions(1).run(train).unwrap();
        (folder, results)
    };
    let (folder, results) = comparison("c");
    let first = |name: &str| events(&folder, &format!("verdict-{name}-s2"))[0]["loss"].clone();
    assert_eq!(first("adamw"), first("muon"), "the same weights, the same batch");
    assert_ne!(first("muon"), events(&folder, "verdict-muon-s3")[0]["loss"]);
    let told = events(&folder, "verdict-muon-s1");
    assert!((told[0]["lr"].as_f64().unwrap() * 3.0 - results.optimizers[1].chosen.clone().unwrap().lr).abs() < 1e-9);
    assert!(told[0]["optimizer_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(told.iter().filter(|event| event["event"] == "valid").count(), 20);
    let (_, again) = comparison("again");
    let losses = |results: &polaron_train::Results| {
        let runs = results.optimizers.iter().flat_map(|optimizer| &optimizer.runs);
        runs.map(|run| run.loss).collect::<Vec<_>>()
    };
    assert_eq!(losses(&results), losses(&again), "a run is repeated to the bit");
}

#[test]
fn a_network_that_diverges_is_a_result_and_one_without_a_plan_an_error() {
    let place = tempfile::tempdir().unwrap();
    let wild =
        Comparison::new(place.path().join("wild")).optimizer("name = 'wild'\nstack = 'sgd'\nclip = 0.0").unwrap();
    let results = wild.optimizers(["adamw"]).lrs([1e30]).seeds(2).steps(20).run(train).unwrap();
    assert_eq!(results.optimizers[0].diverged, 2, "{:?}", results.verdict);
    let rule = "name = 'lost'\nstack = 'muon'\n[[rule]]\nmatch = 'nowhere'\nkind = 'sgd'\nlr = 0.1";
    let lost = Comparison::new(place.path().join("lost")).optimizer(rule).unwrap().optimizers(["adamw"]).lrs([0.01]);
    let said = lost.steps(5).run(train).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("the run `verdict-lost-s1` failed (") && said.contains("nowhere"), "{said}");
}
