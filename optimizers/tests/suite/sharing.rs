//! Processes that share the parameters of one model, played by threads: the bits of one process, whatever the stack and the wrapper.

use std::sync::{Barrier, Mutex};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use polaron::{LayerwiseConfig, LayerwiseError, LayerwiseOptimizer, LayerwiseRecord};

use crate::model::Model;

const STEPS: i64 = 4;

fn device() -> Device {
    Device::flex().autodiff()
}

/// What every process tells the others.
struct Room<T> {
    told: Mutex<Vec<Option<T>>>,
    barrier: Barrier,
}

impl<T: Clone> Room<T> {
    fn new(count: usize) -> Self {
        Self { told: Mutex::new(vec![None; count]), barrier: Barrier::new(count) }
    }

    fn tell(&self, rank: usize, own: T) -> Vec<T> {
        self.told.lock().unwrap()[rank] = Some(own);
        self.barrier.wait();
        let all = self.told.lock().unwrap().iter().flatten().cloned().collect();
        self.barrier.wait();
        all
    }
}

/// Every gradient times a factor, without those of parameters that `keep` does not name.
struct Chosen<'a, K> {
    all: GradientsParams,
    factor: f64,
    keep: K,
    visited: usize,
    chosen: &'a mut GradientsParams,
}

impl<K: Fn(usize) -> bool> ModuleVisitor for Chosen<'_, K> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visited += 1;
        let gradient = self.all.remove::<D>(param.id).filter(|_| (self.keep)(self.visited - 1));
        gradient.into_iter().for_each(|gradient| self.chosen.register(param.id, gradient * self.factor));
    }
}

fn gradients(model: &Model, step: i64, factor: f64, keep: impl Fn(usize) -> bool) -> GradientsParams {
    let mut chosen = GradientsParams::new();
    model.visit(&mut Chosen { all: model.gradients(step), factor, keep, visited: 0, chosen: &mut chosen });
    chosen
}

struct Values(Vec<TensorData>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data());
    }
}

/// Takes every parameter from its owner.
struct FromOwners {
    told: Vec<Vec<TensorData>>,
    visited: usize,
}

impl ModuleMapper for FromOwners {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let at = self.visited;
        self.visited += 1;
        let (id, old, mapper) = param.consume();
        let values = self.told[at % self.told.len()][at].clone();
        Param::from_mapped_value(id, Tensor::from_data(values, &old.device()).require_grad(), mapper)
    }
}

fn config(text: &str) -> LayerwiseConfig {
    LayerwiseConfig::from_toml(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn built(config: &LayerwiseConfig, model: &Model) -> LayerwiseOptimizer {
    polaron::Layerwise::from_config(config).unwrap().build(model).unwrap()
}

/// Weights and record after some more steps of one process, and the norms.
type Trained = (Vec<Vec<u8>>, Vec<u8>, Vec<f64>);

fn alone(config: &LayerwiseConfig, factor: f64) -> Trained {
    let mut model = Model::new(&device());
    let mut optimizer = built(config, &model);
    let mut norms = Vec::new();
    for step in 0..STEPS {
        model = optimizer.before_forward(1.0, model).unwrap();
        let (grads, norm) = optimizer.clip(&model, gradients(&model, step, factor, |_| true));
        norms.push(norm);
        model = optimizer.apply(1.0, model, grads);
    }
    (model.bytes(), optimizer.to_record().to_safetensors().unwrap(), norms)
}

/// The same by several processes. The record is stored, and taken apart again, after the first half.
fn together(config: &LayerwiseConfig, factor: f64, count: usize) -> Vec<Trained> {
    let (slots, weights, records) = (Room::new(count), Room::new(count), Room::new(count));
    let train = |rank: usize| {
        let mut model = Model::new(&device());
        let mut optimizer = built(config, &model);
        let mut norms = Vec::new();
        let owner = |at: usize| at % count;
        let gathered = |optimizer: &LayerwiseOptimizer| {
            let told: Vec<Vec<u8>> = records.tell(rank, optimizer.to_record().to_safetensors().unwrap());
            let mut all = LayerwiseRecord::from_safetensors(&told[0]).unwrap();
            told[1..].iter().for_each(|bytes| all.merge(LayerwiseRecord::from_safetensors(bytes).unwrap()).unwrap());
            all
        };
        for step in 0..STEPS {
            if step == STEPS / 2 {
                let paths: Vec<String> = optimizer.plan().entries().iter().map(|entry| entry.path.clone()).collect();
                let own = |path: &str| paths.iter().position(|known| known == path).is_some_and(|at| owner(at) == rank);
                let part = gathered(&optimizer).with_states_of(own);
                optimizer = built(config, &model);
                optimizer.load_record(part, &device()).unwrap();
            }
            model = optimizer.before_forward(1.0, model).unwrap();
            let own = gradients(&model, step, factor, |at| owner(at) == rank);
            let (grads, norm) = optimizer.clip_shared(&model, own, |own: &mut [Option<f64>]| {
                let told: Vec<Vec<Option<f64>>> = slots.tell(rank, own.to_vec());
                own.iter_mut().enumerate().for_each(|(at, slot)| *slot = told[owner(at)][at]);
            });
            norms.push(norm);
            let share = |model: Model| {
                let mut values = Values(Vec::new());
                model.visit(&mut values);
                Ok::<_, LayerwiseError>(model.map(&mut FromOwners { told: weights.tell(rank, values.0), visited: 0 }))
            };
            model = optimizer.apply_shared(1.0, model, grads, |_| {}, share).unwrap();
        }
        (model.bytes(), gathered(&optimizer).to_safetensors().unwrap(), norms)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count).map(|rank| scope.spawn(move || train(rank))).collect::<Vec<_>>();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[track_caller]
fn are_alike(text: &str, factor: f64, count: usize) {
    let config = config(text);
    let one = alone(&config, factor);
    for (rank, several) in together(&config, factor, count).into_iter().enumerate() {
        assert_eq!(several.2, one.2, "norms of rank {rank} of {count}: {text}");
        assert!(several.0 == one.0, "weights of rank {rank} of {count}: {text}");
        assert!(several.1 == one.1, "record of rank {rank} of {count}: {text}");
    }
}

#[test]
fn every_stack_is_shared_to_the_bit() {
    for stack in LayerwiseConfig::STACKS {
        are_alike(&format!("stack = \"{stack}\""), 1.0, 3);
    }
}

#[test]
fn every_wrapper_is_shared_to_the_bit() {
    for wrapper in
        ["{ kind = \"ema_nesterov\" }", "{ kind = \"outer_nesterov\", every = 2 }", "{ kind = \"schedule_free\" }"]
    {
        are_alike(&format!("stack = \"muon\"\nwrapper = {wrapper}"), 1.0, 2);
    }
}

#[test]
fn norms_beyond_the_range_of_squares_are_shared_to_the_bit() {
    for factor in [1e-25, 1e25] {
        are_alike("stack = \"muon\"\nclip = 0.5", factor, 2);
    }
    are_alike("stack = \"muon\"\nclip = 0.001", 1.0, 3);
}

#[test]
fn more_processes_than_parameters_leave_some_without_work() {
    are_alike("stack = \"adamw\"", 1.0, 9);
}

#[test]
fn two_records_with_a_state_of_one_parameter_are_refused() {
    let model = Model::new(&device());
    let mut optimizer = built(&config("stack = \"muon\""), &model);
    let grads = model.gradients(0);
    optimizer.step(1.0, model, grads);
    let mut record = optimizer.to_record();
    let said = record.clone().merge(record.clone()).unwrap_err().to_string();
    assert!(said.contains("both records have a state of \"embed.weight\""), "{said}");
    let without = record.clone().with_states_of(|path| path != "embed.weight");
    record = record.with_states_of(|path| path == "embed.weight");
    record.merge(without).unwrap();
    assert_eq!(record.to_safetensors().unwrap(), optimizer.to_record().to_safetensors().unwrap());
}
