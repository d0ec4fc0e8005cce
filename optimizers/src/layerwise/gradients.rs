//! All gradients of a module at once: their common norm, scaling, and the search for a bad one.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

/// Norm of all gradients of the module taken as one vector, f32 sums. One read from the device.
pub(crate) fn global_norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    let mut visitor = Squares { grads, sums: Vec::new() };
    module.visit(&mut visitor);
    match visitor.sums.is_empty() {
        true => 0.0,
        false => Tensor::cat(visitor.sums, 0).sum().sqrt().into_scalar::<f64>(),
    }
}

/// Every gradient times `factor`.
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
    let mut visitor = FindNonFinite { grads, path: Vec::new(), found: None };
    module.visit(&mut visitor);
    visitor.found
}

struct Squares<'a> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sums.push(grad.cast(DType::F32).square().sum());
        }
    }
}

struct Scale {
    grads: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Taken out first: nobody else holds the tensor then, and it can be scaled in place.
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad * self.factor);
        }
    }
}

struct FindNonFinite<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    found: Option<String>,
}

impl ModuleVisitor for FindNonFinite<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_some() {
            return;
        }
        let Some(grad) = self.grads.get::<D>(param.id) else {
            return;
        };
        if !grad.is_finite().all().into_scalar::<bool>() {
            self.found = Some(self.path.join("."));
        }
    }
}
