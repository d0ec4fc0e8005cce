//! Matrices whose norm a rule keeps, or steps by, must have one: a matrix of zeros would stay zero without a word.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use super::check::Planned;
use super::{AnyOptimizer, LayerwiseError, Plan};
use crate::matrix::{Matrix, Reading, frobenius_norm};
use crate::rule::Projection;
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
    let mut wanted: Vec<Option<Wanted>> = vec![None; planned.names.len()];
    for (entry, optimizer) in plan.entries().iter().zip(optimizers) {
        let least = optimizer.rule.as_ref().and_then(|rule| Some((rule, rule.norm_control()?.least_norm()?)));
        let number = planned.names.iter().position(|name| *name == entry.path);
        if let (Some((rule, least)), Some(number)) = (least, number) {
            wanted[number] = rule.reading(&entry.shape).ok().map(|reading| Wanted {
                reading,
                least,
                projection: rule.projection().cloned(),
            });
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

/// What is left of a matrix in f32, as a share of its norm, where nothing should be left.
const NOISE: f64 = 1e-6;

/// What a parameter must have.
#[derive(Clone)]
struct Wanted {
    reading: Reading,
    /// The norm that its matrices must exceed.
    least: f64,
    /// What of them stays as it is, and does not count.
    projection: Option<Projection>,
}

struct Norms<'a> {
    walk: Walk<'a>,
    wanted: Vec<Option<Wanted>>,
    /// The first parameter with a matrix that does not, and its norm.
    found: Option<(usize, f64)>,
}

impl ModuleVisitor for Norms<'_> {
    follow!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(number) = self.walk.parameter().filter(|_| self.found.is_none()) else { return };
        let Some(Wanted { reading, least, projection }) = self.wanted[number].clone() else { return };
        let weights = param.base().inner().reshape(reading.stored);
        let weights = match weights.dtype() {
            DType::F16 | DType::BF16 => weights.cast(DType::F32),
            _ => weights,
        };
        let norms_of =
            |stack: Matrix| frobenius_norm(stack.into_tensor()).into_data().iter::<f64>().collect::<Vec<f64>>();
        let norms = |weights| reading.stacks(weights).into_iter().flat_map(norms_of).collect::<Vec<f64>>();
        let all = norms(weights.clone());
        let free = projection.map_or_else(|| all.clone(), |projection| norms(projection.apply(&reading, weights)));
        let empty = free.into_iter().zip(all).filter(|(free, all)| *free <= least || *free < NOISE * all);
        if let Some(norm) = empty.map(|(free, _)| free).reduce(f64::min) {
            self.found = Some((number, norm));
        }
    }
}
