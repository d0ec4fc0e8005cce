//! What several tests need.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Gradient of every parameter under its path, flattened.
pub fn named_gradients<M: Module>(model: &M, gradients: &mut GradientsParams) -> BTreeMap<String, Vec<f32>> {
    let mut visitor = Visitor { path: Vec::new(), gradients, found: BTreeMap::new() };
    model.visit(&mut visitor);
    visitor.found
}

struct Visitor<'a> {
    path: Vec<String>,
    gradients: &'a mut GradientsParams,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Visitor<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.found.insert(self.path.join("."), gradient.into_data().try_to_vec().unwrap());
        }
    }
}
