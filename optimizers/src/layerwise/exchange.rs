//! Taking parameters out of a module for a step, and putting them back.

use burn::module::{ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::groups::{Taken, Updated, Values};
use super::walk::Walk;
use crate::matrix::Reading;

/// How a parameter is taken out of its module for a step.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// As a rule of this crate reads it.
    Stack(Reading),
    /// As it is, for another optimizer.
    Whole,
    /// Not at all: nothing updates it.
    Left,
}

/// Takes every parameter that has a gradient out of the module. Nobody else holds it then, so it can be updated in place.
pub(super) struct Collect<'a> {
    pub grads: GradientsParams,
    pub walk: Walk<'a>,
    pub ways: &'a [Way],
    pub taken: Vec<Option<Taken>>,
}

impl ModuleMapper for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.walk.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.walk.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let planned = self.walk.parameter().map(|number| (number, self.ways[number]));
        let Some((number, way)) = planned.filter(|(_, way)| !matches!(way, Way::Left)) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let Some(gradient) = self.grads.remove::<D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        // One element that remembers, until the update is put back, what it takes to be the parameter.
        let place = map_outside_graph(tensor, |weights| {
            let (device, dtype, elements) = (gradient.device(), weights.dtype(), weights.shape().num_elements());
            let values = match way {
                Way::Stack(Reading { stored, .. }) => {
                    Values::Stack { weights: weights.reshape(stored), gradient: gradient.reshape(stored) }
                }
                Way::Whole | Way::Left => {
                    Values::Whole { weights: weights.into_bridge(), gradient: gradient.into_bridge() }
                }
            };
            let place = Tensor::empty([1; D], (&device, dtype));
            self.taken[number] = Some(Taken { values, device, elements });
            place
        });
        Param::from_mapped_value(id, place, mapper)
    }
}

/// Puts the updated parameters back.
pub(super) struct PutBack<'a> {
    pub walk: Walk<'a>,
    pub shapes: Vec<&'a [usize]>,
    pub updated: Vec<Option<Updated>>,
}

impl ModuleMapper for PutBack<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.walk.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.walk.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let number = self.walk.parameter();
        let Some((number, updated)) = number.and_then(|number| Some((number, self.updated[number].take()?))) else {
            return param;
        };
        let (id, place, mapper) = param.consume();
        let updated = match updated {
            Updated::Stack(weights) => {
                weights.reshape(std::array::from_fn::<_, D, _>(|axis| self.shapes[number][axis]))
            }
            Updated::Whole(weights) => Tensor::from_bridge(weights),
        };
        Param::from_mapped_value(id, map_outside_graph(place, |_| updated), mapper)
    }
}

/// Changes a parameter's values outside the autodiff graph; it stays a parameter.
pub(crate) fn map_outside_graph<const D: usize>(
    tensor: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    // What `Tensor::from_inner` forgets has to be put back.
    let (require_grad, checkpointing) = (tensor.is_require_grad(), tensor.gradient_checkpointing_strategy());
    let mut updated = Tensor::<D>::from_inner(f(tensor.inner()));
    if let Some(strategy) = checkpointing {
        updated = updated.with_gradient_checkpointing_strategy(strategy);
    }
    if require_grad { updated.require_grad() } else { updated }
}
