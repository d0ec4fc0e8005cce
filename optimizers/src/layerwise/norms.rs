//! Matrices whose norm a rule keeps, or steps by, must have one: a matrix of zeros would stay zero without a word.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use super::check::Planned;
use super::{AnyOptimizer, LayerwiseError, Plan};
use crate::matrix::{Matrix, Reading, frobenius_norm};
use crate::visit::{Walk, follow};

/// Refuses a parameter with a matrix that is smaller than its rule needs. Reads only the weights of such rules.
///
/// # Errors
/// [`LayerwiseError::ZeroMatrix`] for the first one.
pub(super) fn check_norms<M: Module>(
    module: &M,
    planned: &Planned,
    plan: &Plan,
    optimizers: &[AnyOptimizer],
) -> Result<(), LayerwiseError> {
    let mut wanted: Vec<Option<(Reading, f64)>> = vec![None; planned.names.len()];
    for (entry, optimizer) in plan.entries().iter().zip(optimizers) {
        let least = optimizer.rule.as_ref().and_then(|rule| Some((rule, rule.norm_control()?.least_norm()?)));
        let number = planned.names.iter().position(|name| *name == entry.path);
        if let (Some((rule, least)), Some(number)) = (least, number) {
            wanted[number] = rule.reading(&entry.shape).ok().map(|reading| (reading, least));
        }
    }
    if wanted.iter().all(Option::is_none) {
        return Ok(());
    }
    let mut visitor = Norms { walk: planned.paths.walk(), wanted, found: None };
    module.visit(&mut visitor);
    let Some((number, norm)) = visitor.found else { return Ok(()) };
    let path = planned.names[number].clone();
    let entry = plan.entries().iter().find(|entry| entry.path == path);
    Err(LayerwiseError::ZeroMatrix { optimizer: entry.map_or_else(String::new, |entry| entry.label()), path, norm })
}

struct Norms<'a> {
    walk: Walk<'a>,
    /// How each parameter is read, and the norm that its matrices must exceed.
    wanted: Vec<Option<(Reading, f64)>>,
    /// The first parameter with a matrix that does not, and its norm.
    found: Option<(usize, f64)>,
}

impl ModuleVisitor for Norms<'_> {
    follow!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(number) = self.walk.parameter().filter(|_| self.found.is_none()) else { return };
        let Some((reading, least)) = self.wanted[number] else { return };
        let weights = param.base().inner().reshape(reading.stored);
        let weights = match weights.dtype() {
            DType::F16 | DType::BF16 => weights.cast(DType::F32),
            _ => weights,
        };
        let least_of = |stack: Matrix| frobenius_norm(stack.into_tensor()).min().into_scalar::<f64>();
        let norm = reading.stacks(weights).into_iter().map(least_of).fold(f64::INFINITY, f64::min);
        if norm <= least {
            self.found = Some((number, norm));
        }
    }
}
