//! Gradients and weights as rows of numbers, which processes can send, and back. Parameters are counted in the order of a visit of
//! the module, which is that of its plan.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};

use crate::error::Error;
use crate::host::ranks::starts;

/// Added to any number, it changes no bit, not even the sign of a zero: what stands for a gradient that one process does not have.
const NOTHING: f32 = -0.0;

/// Marks the parameters that have a gradient.
pub(super) fn mark_present<M: Module>(model: &M, grads: &GradientsParams, present: &mut [bool]) {
    model.visit(&mut Present { grads, present: present.iter_mut() });
}

struct Present<'a> {
    grads: &'a GradientsParams,
    present: std::slice::IterMut<'a, bool>,
}

impl ModuleVisitor for Present<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(present) = self.present.next() {
            *present |= self.grads.get::<D>(param.id).is_some();
        }
    }
}

/// Numbers for several ranks, one after the other, that are filled in any order of the ranks.
pub(super) struct Rows {
    numbers: Vec<f32>,
    /// Where the next number for each rank goes.
    next: Vec<usize>,
}

impl Rows {
    /// With space for so many numbers for each rank.
    pub fn new(counts: &[usize]) -> Self {
        Self { numbers: vec![NOTHING; counts.iter().sum()], next: starts(counts) }
    }

    /// The numbers.
    pub fn into_numbers(self) -> Vec<f32> {
        self.numbers
    }

    fn push(&mut self, rank: usize, numbers: impl Iterator<Item = f32>, count: usize) {
        let start = self.next[rank];
        self.next[rank] += count;
        self.numbers[start..start + count].iter_mut().zip(numbers).for_each(|(place, number)| *place = number);
    }

    /// Leaves [`NOTHING`] in place of so many numbers.
    fn skip(&mut self, rank: usize, count: usize) {
        self.next[rank] += count;
    }
}

/// Puts the gradient of every parameter into the row of the rank to which `to` sends it.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub(super) fn read_gradients<M: Module>(
    model: &M,
    grads: GradientsParams,
    lengths: &[usize],
    to: impl Fn(usize) -> Option<usize>,
    rows: &mut Rows,
) -> Result<(), Error> {
    let mut visitor = ReadGradients { grads, lengths, to, rows, visited: 0, failed: None };
    model.visit(&mut visitor);
    visitor.failed.map_or(Ok(()), Err)
}

struct ReadGradients<'a, T> {
    grads: GradientsParams,
    lengths: &'a [usize],
    to: T,
    rows: &'a mut Rows,
    visited: usize,
    failed: Option<Error>,
}

impl<T: Fn(usize) -> Option<usize>> ModuleVisitor for ReadGradients<'_, T> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let at = self.visited;
        self.visited += 1;
        let Some(rank) = (self.to)(at) else { return };
        match self.grads.remove::<D>(param.id).map(read).transpose() {
            Ok(Some(data)) => self.rows.push(rank, data.iter::<f32>(), self.lengths[at]),
            Ok(None) => self.rows.skip(rank, self.lengths[at]),
            Err(error) => self.failed = Some(error),
        }
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<TensorData, Error> {
    tensor.cast(DType::F32).try_into_data().map_err(Error::device_failed("sending numbers to other processes"))
}

/// The gradients of the parameters that are in `row`, one after the other.
pub(super) fn gradients<M: Module>(model: &M, row: &[f32], is_there: impl Fn(usize) -> bool) -> GradientsParams {
    let mut visitor = Gradients { rest: row, is_there, visited: 0, grads: GradientsParams::new() };
    model.visit(&mut visitor);
    visitor.grads
}

struct Gradients<'a, T> {
    rest: &'a [f32],
    is_there: T,
    visited: usize,
    grads: GradientsParams,
}

impl<T: Fn(usize) -> bool> ModuleVisitor for Gradients<'_, T> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visited += 1;
        if !(self.is_there)(self.visited - 1) {
            return;
        }
        let (dims, device) = (param.lazy_shape(), param.lazy_device().inner());
        let (values, behind) = self.rest.split_at(dims.num_elements());
        self.rest = behind;
        self.grads.register(param.id, Tensor::<D>::from_data(TensorData::new(values.to_vec(), dims), &device));
    }
}

/// The weights of some parameters, one after the other.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub(super) fn read_weights<M: Module>(model: &M, wanted: impl Fn(usize) -> bool) -> Result<Vec<f32>, Error> {
    let mut visitor = ReadWeights { wanted, row: Vec::new(), visited: 0, failed: None };
    model.visit(&mut visitor);
    visitor.failed.map_or(Ok(visitor.row), Err)
}

struct ReadWeights<T> {
    wanted: T,
    row: Vec<f32>,
    visited: usize,
    failed: Option<Error>,
}

impl<T: Fn(usize) -> bool> ModuleVisitor for ReadWeights<T> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visited += 1;
        if (self.wanted)(self.visited - 1) {
            match read(param.val().inner()) {
                Ok(data) => self.row.extend(data.iter::<f32>()),
                Err(error) => self.failed = Some(error),
            }
        }
    }
}

/// The model with other weights of the parameters for which `from` names a rank: the rows of all ranks lie in `rows` one after the
/// other, that of a rank from its entry of `starts` on.
pub(super) fn set_weights<M: Module>(
    model: M,
    rows: &[f32],
    starts: Vec<usize>,
    from: impl Fn(usize) -> Option<usize>,
) -> M {
    model.map(&mut SetWeights { rows, starts, from, visited: 0 })
}

struct SetWeights<'a, T> {
    rows: &'a [f32],
    starts: Vec<usize>,
    from: T,
    visited: usize,
}

impl<T: Fn(usize) -> Option<usize>> ModuleMapper for SetWeights<'_, T> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.visited += 1;
        let Some(rank) = (self.from)(self.visited - 1) else { return param };
        let needs_gradient = param.is_require_grad();
        let (id, old, mapper) = param.consume();
        let start = self.starts[rank];
        self.starts[rank] += old.shape().num_elements();
        let values = self.rows[start..self.starts[rank]].to_vec();
        let tensor = Tensor::<D>::from_data(TensorData::new(values, old.shape()), &old.device());
        Param::from_mapped_value(id, tensor.set_require_grad(needs_gradient), mapper)
    }
}
