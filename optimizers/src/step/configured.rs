//! The optimizer of any [`OptimizerConfig`](crate::OptimizerConfig) as one type.

use burn::optim::Optimizer;
use burn::tensor::{Device, Tensor};

use super::{MatrixOptimizer, State};
use crate::direction::{AdamW, Muon, Sgd};

/// What [`OptimizerConfig::build`](crate::OptimizerConfig::build) returns: any kind behind one type.
#[derive(Clone, Debug)]
pub enum ConfiguredOptimizer {
    /// `sgd`
    Sgd(Sgd),
    /// `adamw`
    AdamW(AdamW),
    /// `muon`
    Muon(MatrixOptimizer<Muon>),
}

impl Optimizer for ConfiguredOptimizer {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        match self {
            ConfiguredOptimizer::Sgd(optimizer) => optimizer.step(lr, tensor, grad, state),
            ConfiguredOptimizer::AdamW(optimizer) => optimizer.step(lr, tensor, grad, state),
            ConfiguredOptimizer::Muon(optimizer) => optimizer.step(lr, tensor, grad, state),
        }
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.to_device(device)
    }
}
