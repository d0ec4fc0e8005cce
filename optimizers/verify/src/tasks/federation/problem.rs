//! The problem: clients, their rounds, and what is known of them.

use burn::tensor::{Device, Tensor};
use polaron::matrix::refactored;
use polaron::{ConfigError, OptimizerConfig};

use super::super::problem::{Trained, gaussian, scalar};

pub(super) const CLIENTS: usize = 8;
pub(super) const RANK: usize = 4;
pub(super) const OUTPUTS: usize = 16;
pub(super) const INPUTS: usize = 24;
pub(super) const SAMPLES: usize = 32;
pub(super) const ROUNDS: usize = 10;
/// Steps of a client in a round.
pub(super) const LOCAL: usize = 4;
pub(super) const LR: f64 = 0.3;

/// `B A`, in factors `[outputs, r]` and `[r, inputs]`.
#[derive(Clone)]
pub(super) struct Pair {
    pub b: Tensor<2>,
    pub a: Tensor<2>,
}

impl Pair {
    pub fn product(&self) -> Tensor<2> {
        self.b.clone().matmul(self.a.clone())
    }

    /// The same product with orthonormal rows of A.
    pub fn refactored(&self) -> Self {
        let stack = |factor: &Tensor<2>| factor.clone().transpose().unsqueeze::<3>();
        let new = refactored(stack(&self.a), stack(&self.b));
        Self { b: new.b.squeeze_dim::<2>(0).transpose(), a: new.a.squeeze_dim::<2>(0).transpose() }
    }
}

/// What one client has.
pub(super) struct Client {
    /// `[inputs, samples]`.
    pub inputs: Tensor<2>,
    /// `[outputs, samples]`.
    pub targets: Tensor<2>,
}

impl Client {
    /// Of outputs for all samples.
    pub fn errors(&self, weights: Tensor<2>) -> Tensor<2> {
        weights.matmul(self.inputs.clone()) - self.targets.clone()
    }

    pub fn gradient(&self, weights: Tensor<2>) -> Tensor<2> {
        self.errors(weights).matmul(self.inputs.clone().transpose()) / SAMPLES as f64
    }
}

pub(super) struct Federation {
    pub clients: Vec<Client>,
    /// The mean of what the clients are to learn.
    pub target: Tensor<2>,
    /// B = 0, and an orthonormal A.
    pub start: Pair,
}

/// What happened in the rounds.
pub(super) struct Course {
    /// The pair after every round.
    pub pairs: Vec<Pair>,
    /// Product of the mean B, off the mean of the products; the largest of all rounds, as the other two.
    pub aggregation: f64,
    /// What the re-factorisation changed of the product.
    pub changed: f64,
    /// `‖A Aᵀ - I‖`.
    pub skew: f64,
}

impl Course {
    pub fn last(&self) -> Tensor<2> {
        self.pairs[ROUNDS - 1].product()
    }
}

impl Federation {
    pub fn new(device: &Device) -> Self {
        let low = gaussian([OUTPUTS, RANK], 0.5, 1, device).matmul(gaussian([RANK, INPUTS], 0.3, 2, device));
        let client = |i: usize| {
            let own = low.clone() + gaussian([OUTPUTS, INPUTS], 0.1, 10 + i as u64, device);
            let inputs = orthonormal(gaussian([INPUTS, SAMPLES], 1.0, 30 + i as u64, device)) * (SAMPLES as f64).sqrt();
            (Client { targets: own.clone().matmul(inputs.clone()), inputs }, own)
        };
        let (clients, targets): (Vec<_>, Vec<_>) = (0..CLIENTS).map(client).unzip();
        let a = orthonormal(gaussian([RANK, INPUTS], 1.0, 3, device));
        let start = Pair { b: Tensor::zeros([OUTPUTS, RANK], (device, a.dtype())), a };
        Self { clients, target: mean(&targets), start }
    }

    /// All rounds, with a fresh optimizer for every client in every round, as clients keep nothing; with or without a
    /// re-factorisation after each.
    pub fn train(&self, config: &OptimizerConfig, lr: f64, refactors: bool) -> Result<Course, ConfigError> {
        let mut course = Course { pairs: Vec::new(), aggregation: 0.0, changed: 0.0, skew: 0.0 };
        let mut pair = self.start.clone();
        for _ in 0..ROUNDS {
            let a = pair.a.clone();
            let local = |client: &Client| {
                let mut trained = Trained::new(config, pair.b.clone())?;
                for _ in 0..LOCAL {
                    let gradient = client.gradient(trained.weights.clone().matmul(a.clone()));
                    trained.step(lr, gradient.matmul(a.clone().transpose()));
                }
                Ok(trained.weights)
            };
            let factors = self.clients.iter().map(local).collect::<Result<Vec<_>, ConfigError>>()?;
            let products: Vec<Tensor<2>> = factors.iter().map(|b| b.clone().matmul(a.clone())).collect();
            let averaged = Pair { b: mean(&factors), a };
            course.aggregation = course.aggregation.max(apart(&averaged.product(), &mean(&products)));
            pair = if refactors { averaged.refactored() } else { averaged.clone() };
            course.changed = course.changed.max(apart(&pair.product(), &averaged.product()));
            course.skew = course.skew.max(skew(&pair.a));
            course.pairs.push(pair.clone());
        }
        Ok(course)
    }

    /// The best product in the space of the first A.
    fn optimum(&self) -> Tensor<2> {
        let a = &self.start.a;
        self.target.clone().matmul(a.clone().transpose()).matmul(a.clone())
    }

    /// Mean loss of the clients above that of the optimum, for a product in the space of A.
    pub fn excess(&self, product: &Tensor<2>) -> f64 {
        0.5 * norm(&(product.clone() - self.optimum())).powi(2)
    }

    /// The largest relative difference between the distances from the optimum and their prediction.
    pub fn off_course(&self, course: &Course) -> f64 {
        let (optimum, mut largest) = (self.optimum(), 0.0_f64);
        for (round, pair) in course.pairs.iter().enumerate() {
            let left = apart(&pair.product(), &optimum);
            largest = largest.max((left / (1.0_f64 - LR).powi(((round + 1) * LOCAL) as i32) - 1.0).abs());
        }
        largest
    }
}

pub(super) fn mean(all: &[Tensor<2>]) -> Tensor<2> {
    let sum = all.iter().skip(1).fold(all[0].clone(), |sum, one| sum + one.clone());
    sum / all.len() as f64
}

pub(super) fn norm(x: &Tensor<2>) -> f64 {
    scalar(x.clone().square()).sqrt()
}

/// The distance of two matrices, as a share of the second.
pub(super) fn apart(one: &Tensor<2>, other: &Tensor<2>) -> f64 {
    norm(&(one.clone() - other.clone())) / norm(other)
}

/// Orthonormal rows that span the same space.
fn orthonormal(rows: Tensor<2>) -> Tensor<2> {
    let [count, _] = rows.dims();
    let b = Tensor::zeros([count, count], (&rows.device(), rows.dtype()));
    Pair { b, a: rows }.refactored().a
}

/// `‖A Aᵀ - I‖`
fn skew(a: &Tensor<2>) -> f64 {
    let gram = a.clone().matmul(a.clone().transpose());
    let eye = Tensor::<2>::eye(gram.dims()[0], &gram.device()).cast(gram.dtype());
    norm(&(gram - eye))
}
