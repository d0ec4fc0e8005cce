//! All gradients of a module together: their norm, scaling, and the search for one that is not finite.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::parameters::paths_of;

/// Norm of all gradients of the module as one vector; sums are in f32, or in f64 if a gradient is.
///
/// One read from the device; two more if the squares are out of the range of f32. Not finite only if a gradient is not.
pub(crate) fn global_norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    norm(|what| measure(module, grads, what))
}

/// The same, given the measures of all gradients as one tensor.
pub(crate) fn norm(mut measure: impl FnMut(Measure) -> Option<Tensor<1>>) -> f64 {
    /// Below this, squares of entries that matter may have underflowed.
    const SAFE: f64 = 1e-10;
    let norm = root_of_sum(measure(Measure::Squares([1.0; 2])));
    if norm.is_nan() || (SAFE..f64::INFINITY).contains(&norm) {
        return norm;
    }
    let entries = measure(Measure::Largest);
    let largest = entries.map_or(0.0, |entries| entries.max().into_scalar::<f64>());
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    // Multiplying by a power of two does not round; in two factors, as their product may be out of range.
    let exponent = -largest.log2().floor();
    let halves = [(exponent / 2.0).floor(), (exponent / 2.0).ceil()].map(f64::exp2);
    root_of_sum(measure(Measure::Squares(halves))) / halves[0] / halves[1]
}

/// Every gradient times `factor`; those in half precision become f32, which can hold small entries.
pub(crate) fn scale<M: Module>(module: &M, grads: GradientsParams, factor: f64) -> GradientsParams {
    let mut visitor = Scale { grads, factor };
    module.visit(&mut visitor);
    visitor.grads
}

/// The gradients of a module's parameters once more; they share their memory.
pub(crate) fn copy<M: Module>(module: &M, grads: &GradientsParams) -> GradientsParams {
    let mut visitor = Copy { grads, copy: GradientsParams::new() };
    module.visit(&mut visitor);
    visitor.copy
}

/// Path of the first parameter whose gradient holds a NaN or an infinity.
///
/// Reads every gradient from the device: for the error message after a loss or norm that is not
/// finite, not for every step.
pub fn first_non_finite<M: Module>(module: &M, grads: &GradientsParams) -> Option<String> {
    let bad = |(_, count): &(usize, Tensor<1>)| count.clone().into_scalar::<f64>() > 0.0;
    let (position, _) = visited(module, grads, Measure::NonFinite).into_iter().find(bad)?;
    Some(paths_of(module).swap_remove(position))
}

/// A number for every gradient.
#[derive(Clone, Copy)]
pub(crate) enum Measure {
    /// The sum of the squares of its entries, which are multiplied by both factors before.
    Squares([f64; 2]),
    /// The largest magnitude.
    Largest,
    /// How many entries are not finite.
    NonFinite,
}

/// The measures of all gradients in one tensor.
fn measure<M: Module>(module: &M, grads: &GradientsParams, measure: Measure) -> Option<Tensor<1>> {
    in_one_tensor(visited(module, grads, measure).into_iter().map(|(_, number)| number).collect())
}

fn in_one_tensor(mut found: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    if found.iter().any(|tensor| tensor.dtype() == DType::F64) {
        found = found.into_iter().map(|tensor| tensor.cast(DType::F64)).collect();
    }
    (!found.is_empty()).then(|| Tensor::cat(found, 0))
}

/// The measure of every gradient as a number, with the position of its parameter: one read from the device.
pub(crate) fn measured<M: Module>(module: &M, grads: &GradientsParams, what: Measure) -> Vec<(usize, f64)> {
    let (positions, numbers): (Vec<_>, Vec<_>) = visited(module, grads, what).into_iter().unzip();
    let numbers = in_one_tensor(numbers).map(|numbers| numbers.into_data().iter::<f64>().collect::<Vec<_>>());
    positions.into_iter().zip(numbers.unwrap_or_default()).collect()
}

/// The measure of every gradient, with the position of its parameter.
fn visited<M: Module>(module: &M, grads: &GradientsParams, measure: Measure) -> Vec<(usize, Tensor<1>)> {
    let mut visitor = Measured { grads, measure, visited: 0, found: Vec::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// On the device, in the precision of the numbers: a resumed run rounds as before.
fn root_of_sum(numbers: Option<Tensor<1>>) -> f64 {
    numbers.map_or(0.0, |numbers| numbers.sum().sqrt().into_scalar::<f64>())
}

struct Measured<'a> {
    grads: &'a GradientsParams,
    measure: Measure,
    visited: usize,
    found: Vec<(usize, Tensor<1>)>,
}

impl ModuleVisitor for Measured<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let position = self.visited;
        self.visited += 1;
        let Some(grad) = self.grads.get::<D>(param.id) else { return };
        let dtype = if grad.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let grad = grad.cast(dtype);
        let number = match self.measure {
            Measure::Squares([1.0, 1.0]) => grad.square().sum(),
            Measure::Squares([first, second]) => (grad * first * second).square().sum(),
            Measure::Largest => grad.abs().max(),
            Measure::NonFinite => grad.is_finite().bool_not().float().sum(),
        };
        self.found.push((position, number));
    }
}

struct Copy<'a> {
    grads: &'a GradientsParams,
    copy: GradientsParams,
}

impl ModuleVisitor for Copy<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.copy.register(param.id, grad);
        }
    }
}

struct Scale {
    grads: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Taken out first, so that the tensor is not shared and can be scaled in place.
        let Some(grad) = self.grads.remove::<D>(param.id) else { return };
        let grad = match grad.dtype() {
            DType::F16 | DType::BF16 => grad.cast(DType::F32),
            _ => grad,
        };
        /// Below this, f32 holds a factor with few digits only.
        const TINY: f64 = 1e-30;
        let scaled = match self.factor < TINY {
            true => grad * self.factor.sqrt() * self.factor.sqrt(),
            false => grad * self.factor,
        };
        self.grads.register(param.id, scaled);
    }
}
