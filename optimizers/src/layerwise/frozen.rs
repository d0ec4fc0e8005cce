//! Frozen parameters: their gradients are turned off, and ignored where there are some.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::visit::{Paths, Walk, follow};

/// The module with the gradients of the parameters on these paths turned off.
pub(crate) fn turn_off<M: Module>(frozen: &Paths, module: M) -> M {
    if frozen.is_empty() { module } else { module.map(&mut TurnOff { walk: frozen.walk() }) }
}

/// The gradients without those of the parameters on these paths.
pub(crate) fn remove<M: Module>(frozen: &Paths, module: &M, grads: GradientsParams) -> GradientsParams {
    if frozen.is_empty() {
        return grads;
    }
    let mut visitor = Remove { walk: frozen.walk(), grads };
    module.visit(&mut visitor);
    visitor.grads
}

struct TurnOff<'a> {
    walk: Walk<'a>,
}

impl ModuleMapper for TurnOff<'_> {
    follow!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.walk.parameter() {
            Some(_) => param.set_require_grad(false),
            None => param,
        }
    }
}

struct Remove<'a> {
    walk: Walk<'a>,
    grads: GradientsParams,
}

impl ModuleVisitor for Remove<'_> {
    follow!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.walk.parameter().is_some() {
            self.grads.remove::<D>(param.id);
        }
    }
}
