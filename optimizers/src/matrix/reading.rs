//! How a parameter of a known shape is read as a stack of matrices, and written back.

use burn::tensor::Tensor;

use super::{Axis, Blocks, Layout, Matrix};

/// How a parameter of a known shape is read as matrices. A stack of several such parameters is read the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The shape of the parameter as a stack, its numbers in memory order.
    pub stored: [usize; 3],
    pub(super) layout: Layout,
    pub(super) blocks: Option<Blocks>,
    /// The size of the window of a transposed convolution: it comes after the outputs but belongs to the inputs.
    pub(super) turned: Option<usize>,
    /// Whether it is not a matrix but a row of independent entries.
    pub(super) is_row: bool,
}

impl Reading {
    /// A parameter that is read as a row of entries.
    pub fn entries(shape: &[usize]) -> Self {
        let stored = [1, 1, shape.iter().product()];
        Self { stored, layout: Layout::InOut, blocks: None, turned: None, is_row: true }
    }

    /// Runs of parts of one size, if there are parts of different sizes: each is read as a parameter of its own. Empty
    /// otherwise.
    pub fn sections(&self) -> Vec<Section> {
        let Some(blocks) = self.blocks.filter(Blocks::are_unequal) else { return Vec::new() };
        let (axis, dim) = (blocks.axis, 1 + self.layout.position(blocks.axis));
        let sizes = blocks.sizes().unwrap_or_default();
        let mut start = 0;
        let section = |run: &[usize]| {
            let length = run.iter().sum();
            let mut stored = self.stored;
            stored[dim] = length;
            let blocks = (run.len() > 1).then(|| Blocks::equal(blocks.axis, run.len()));
            let section = Section { axis, dim, start, length, reading: Self { stored, blocks, ..*self } };
            start += length;
            section
        };
        sizes.chunk_by(|a, b| a == b).map(section).collect()
    }

    /// All matrices of a stack of whole parameters: one stack of them for every run of parts of one size.
    pub fn stacks(&self, stack: Tensor<3>) -> Vec<Matrix> {
        let sections = self.sections();
        if sections.is_empty() {
            return vec![self.split(stack)];
        }
        sections.iter().map(|section| section.reading.split(section.of(&stack))).collect()
    }

    /// The same without blocks.
    pub fn whole(&self) -> Self {
        Self { blocks: None, ..*self }
    }

    /// The parts into which matrices are cut.
    pub fn blocks(&self) -> Option<Blocks> {
        self.blocks
    }

    /// The number of features along an axis of a whole matrix.
    pub fn features(&self, axis: Axis) -> usize {
        let window = self.turned.unwrap_or(1);
        match axis {
            Axis::Input => self.stored[1 + self.layout.position(axis)] * window,
            Axis::Output => self.stored[1 + self.layout.position(axis)] / window,
        }
    }

    /// The axis along which several parameters are stacked: matrices one after another, entries of any shape as one row.
    pub fn stack_axis(&self) -> usize {
        if self.is_row { 2 } else { 0 }
    }

    /// Whether parameters read this way can be stacked with those read another way.
    pub fn stacks_with(&self, other: &Self) -> bool {
        self == other || (self.is_row && other.is_row)
    }

    /// The matrices of a stack `[n * E, a, b]` of n parameters.
    ///
    /// # Panics
    /// If there are [sections](Self::sections).
    pub fn split(&self, stack: Tensor<3>) -> Matrix {
        assert!(!self.blocks.is_some_and(|blocks| blocks.are_unequal()), "parts of different sizes are no stack");
        let stack = match self.turned {
            Some(window) => {
                let [lead, inputs, rest] = stack.dims();
                let outputs = rest / window;
                let turned = stack.reshape([lead, inputs, outputs, window]).swap_dims(2, 3);
                turned.reshape([lead, inputs * window, outputs])
            }
            None => stack,
        };
        let [lead, a, b] = stack.dims();
        let tensor = match self.blocks {
            None => stack,
            Some(Blocks { axis, count, .. }) => match self.layout.position(axis) {
                0 => stack.reshape([lead * count, a / count, b]),
                _ => stack.reshape([lead, a, count, b / count]).swap_dims(1, 2).reshape([lead * count, a, b / count]),
            },
        };
        Matrix::new(tensor, self.layout)
    }

    /// The inverse of [`Reading::split`].
    pub fn join(&self, matrix: Matrix) -> Tensor<3> {
        let tensor = matrix.into_tensor();
        let [batch, a, b] = tensor.dims();
        let stack = match self.blocks {
            None => tensor,
            Some(Blocks { axis, count, .. }) => match self.layout.position(axis) {
                0 => tensor.reshape([batch / count, a * count, b]),
                _ => {
                    tensor.reshape([batch / count, count, a, b]).swap_dims(1, 2).reshape([batch / count, a, count * b])
                }
            },
        };
        match self.turned {
            Some(window) => {
                let [lead, rest, outputs] = stack.dims();
                let turned = stack.reshape([lead, rest / window, window, outputs]).swap_dims(2, 3);
                turned.reshape([lead, rest / window, outputs * window])
            }
            None => stack,
        }
    }
}

/// Parts of one size, one after another, of a parameter that is cut into parts of different sizes.
pub(crate) struct Section {
    /// The axis that is cut.
    pub axis: Axis,
    /// The dimension of the stored stack that is cut: 1 or 2.
    pub dim: usize,
    pub start: usize,
    pub length: usize,
    /// How the section is read.
    pub reading: Reading,
}

impl Section {
    /// The section of a stack of whole parameters.
    pub fn of(&self, stack: &Tensor<3>) -> Tensor<3> {
        stack.clone().narrow(self.dim, self.start, self.length)
    }
}
