//! Taking parameters out of a module for a step, and putting them back.

use burn::module::{ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::kind::BridgeTensor;

use super::groups::Taken;
use crate::flex;
use crate::matrix::Reading;
use crate::visit::{Walk, follow, map_outside_graph};

/// How a parameter is taken out of its module for a step.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// In the form that a rule of this crate reads.
    Stack(Reading),
    /// Unchanged, for another optimizer.
    Whole,
    /// Not at all: nothing updates it.
    Left,
}

/// Takes every parameter that has a gradient out of the module. The module no longer holds it then, so it can be updated in
/// place.
pub(super) struct Collect<'a> {
    pub grads: GradientsParams,
    pub walk: Walk<'a>,
    pub ways: &'a [Way],
    pub taken: Vec<Option<Taken>>,
}

impl ModuleMapper for Collect<'_> {
    follow!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let planned = self.walk.parameter().map(|number| (number, self.ways[number]));
        let Some((number, way)) = planned.filter(|(_, way)| !matches!(way, Way::Left)) else { return param };
        let Some(gradient) = self.grads.remove::<D>(param.id) else { return param };
        let (id, tensor, mapper) = param.consume();
        // A placeholder of one element, which keeps what makes it a parameter until the update is put back.
        let place = map_outside_graph(tensor, |weights| {
            let (device, gradient_dtype) = (gradient.device(), gradient.dtype());
            let place = Tensor::empty([1; D], (&device, weights.dtype()));
            let elements = weights.shape().num_elements();
            let (on_host, weights, gradient) = match way {
                Way::Stack(Reading { stored, .. }) => {
                    let weights = weights.reshape(stored);
                    (flex::is_here(&weights), weights.into_bridge(), gradient.reshape(stored).into_bridge())
                }
                Way::Whole | Way::Left => (false, weights.into_bridge(), gradient.into_bridge()),
            };
            self.taken[number] = Some(Taken { weights, gradient, device, gradient_dtype, on_host, elements });
            place
        });
        Param::from_mapped_value(id, place, mapper)
    }
}

/// Puts the updated parameters back.
pub(super) struct PutBack<'a> {
    pub walk: Walk<'a>,
    pub ways: &'a [Way],
    pub shapes: Vec<&'a [usize]>,
    pub updated: Vec<Option<BridgeTensor>>,
}

impl ModuleMapper for PutBack<'_> {
    follow!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(number) = self.walk.parameter() else { return param };
        let Some(updated) = self.updated[number].take() else { return param };
        let (id, place, mapper) = param.consume();
        let updated = match self.ways[number] {
            Way::Stack(_) => {
                let shape: [usize; D] = std::array::from_fn(|axis| self.shapes[number][axis]);
                Tensor::<3>::from_bridge(updated).reshape(shape)
            }
            Way::Whole | Way::Left => Tensor::from_bridge(updated),
        };
        Param::from_mapped_value(id, map_outside_graph(place, |_| updated), mapper)
    }
}
