//! All gradients of a module at once: their common norm, scaling, and the search for a bad one.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::parameters::paths_of;

/// Norm of all gradients of the module taken as one vector; sums in f32, in f64 where a gradient has it.
///
/// One read from the device; two more where the squares are out of the range of f32. Not finite only if a gradient is.
pub(crate) fn global_norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    /// Below it, squares of entries that matter may have vanished.
    const SAFE: f64 = 1e-10;
    let norm = root_of_sum(measure(module, grads, Measure::Squares([1.0; 2])));
    if norm.is_nan() || (SAFE..f64::INFINITY).contains(&norm) {
        return norm;
    }
    let entries = measure(module, grads, Measure::Largest);
    let largest = entries.map_or(0.0, |entries| entries.max().into_scalar::<f64>());
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    // A power of two rounds nothing; in two halves, as the whole may be out of range.
    let exponent = -largest.log2().floor();
    let halves = [(exponent / 2.0).floor(), (exponent / 2.0).ceil()].map(f64::exp2);
    root_of_sum(measure(module, grads, Measure::Squares(halves))) / halves[0] / halves[1]
}

/// Every gradient times `factor`; those in half precision become f32, where what is left of small entries is kept.
pub(crate) fn scale<M: Module>(module: &M, grads: GradientsParams, factor: f64) -> GradientsParams {
    let mut visitor = Scale { grads, factor };
    module.visit(&mut visitor);
    visitor.grads
}

/// Path of the first parameter whose gradient holds a NaN or an infinity.
///
/// Reads every gradient from the device: for the error message after a loss or norm was found not
/// to be finite, not for every step.
pub fn first_non_finite<M: Module>(module: &M, grads: &GradientsParams) -> Option<String> {
    let mut visitor = FindNonFinite { grads, visited: 0, found: None };
    module.visit(&mut visitor);
    visitor.found.map(|position| paths_of(module).swap_remove(position))
}

/// A number for every gradient.
#[derive(Clone, Copy)]
enum Measure {
    /// The sum of the squares of its entries, which are multiplied by both factors before.
    Squares([f64; 2]),
    /// The largest magnitude.
    Largest,
}

fn measure<M: Module>(module: &M, grads: &GradientsParams, measure: Measure) -> Option<Tensor<1>> {
    let mut visitor = Measured { grads, measure, found: Vec::new() };
    module.visit(&mut visitor);
    let mut found = visitor.found;
    if found.iter().any(|tensor| tensor.dtype() == DType::F64) {
        found = found.into_iter().map(|tensor| tensor.cast(DType::F64)).collect();
    }
    (!found.is_empty()).then(|| Tensor::cat(found, 0))
}

/// On the device, in the numbers' own precision: a run that goes on rounds as it did before.
fn root_of_sum(numbers: Option<Tensor<1>>) -> f64 {
    numbers.map_or(0.0, |numbers| numbers.sum().sqrt().into_scalar::<f64>())
}

struct Measured<'a> {
    grads: &'a GradientsParams,
    measure: Measure,
    found: Vec<Tensor<1>>,
}

impl ModuleVisitor for Measured<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.get::<D>(param.id) else {
            return;
        };
        let dtype = if grad.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let grad = grad.cast(dtype);
        self.found.push(match self.measure {
            Measure::Squares([1.0, 1.0]) => grad.square().sum(),
            Measure::Squares([first, second]) => (grad * first * second).square().sum(),
            Measure::Largest => grad.abs().max(),
        });
    }
}

struct Scale {
    grads: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Taken out first: nobody else holds the tensor then, and it can be scaled in place.
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        let grad = match grad.dtype() {
            DType::F16 | DType::BF16 => grad.cast(DType::F32),
            _ => grad,
        };
        /// A factor that f32 has only with few digits.
        const TINY: f64 = 1e-30;
        let scaled = match self.factor < TINY {
            true => grad * self.factor.sqrt() * self.factor.sqrt(),
            false => grad * self.factor,
        };
        self.grads.register(param.id, scaled);
    }
}

struct FindNonFinite<'a> {
    grads: &'a GradientsParams,
    visited: usize,
    found: Option<usize>,
}

impl ModuleVisitor for FindNonFinite<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let position = self.visited;
        self.visited += 1;
        if self.found.is_none()
            && let Some(grad) = self.grads.get::<D>(param.id)
            && !grad.is_finite().all().into_scalar::<bool>()
        {
            self.found = Some(position);
        }
    }
}
