//! The loop for modules of Burn.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use polaron::{LayerwiseError, Role, Schedule};
use polaron_train::{Comparison, Measurement, Trial, own};

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self { hidden: linear(4, 16), output: linear(16, 1) }
    }

    /// Mean squared error of learning the product of two inputs.
    fn loss(&self, inputs: Tensor<2>) -> Tensor<1> {
        let wanted = inputs.clone().slice([0..16, 0..1]) * inputs.clone().slice([0..16, 1..2]);
        (self.output.forward(self.hidden.forward(inputs).tanh()) - wanted).square().mean()
    }
}

fn train(trial: Trial) -> Result<impl Iterator<Item = Measurement>, LayerwiseError> {
    let device = Device::flex().autodiff();
    device.seed(trial.seed());
    let model = Net::new(&device);
    let optimizer = trial.layerwise()?.assign("output", Role::Head).build(&model)?;
    let plain = device.clone().inner();
    let batch = move |device: &Device| Tensor::random([16, 4], Distribution::Uniform(-1.0, 1.0), device);
    let fixed = batch(&plain);
    let loss = move |model: &Net, _| model.loss(batch(&device));
    let valid = move |model: &Net| model.loss(fixed.clone()).into_scalar::<f64>();
    Ok(own::train(trial, model, optimizer, loss, valid))
}

fn events(folder: &std::path::Path, run: &str) -> Vec<serde_json::Value> {
    let text = super::text(&folder.join("runs").join(run).join("metrics.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The tests of this file share Burn's generator.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_network_is_trained_with_the_plan_of_every_trial_and_paired_by_seed() {
    let _alone = ONE_AT_A_TIME.lock();
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
    let _alone = ONE_AT_A_TIME.lock();
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
