//! How a parameter holds its matrices: layout, blocks, and the window of a convolution.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::reading::Reading;
use super::{Axis, Blocks, Layout, LayoutError, Matrix};

/// How a parameter holds its matrices: its layout, and the blocks it is cut into.
///
/// Belongs to the parameter, not to the optimizer: one optimizer can update parameters that are stored
/// differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// How the axes are stored; default `in_out`.
    pub layout: Layout,
    /// Parts that are processed separately; default none.
    pub blocks: Option<Blocks>,
    /// The weight of a convolution: the dimensions after the second are its window and belong to the input axis. `out_in`
    /// is `[out, in/groups, k…]`, `in_out` the transposed `[in, out/groups, k…]`; both are one matrix, out × (in · window).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub window: bool,
}

impl Placement {
    /// A parameter stored in `layout`, without blocks.
    pub fn new(layout: Layout) -> Self {
        Self { layout, blocks: None, window: false }
    }

    /// The weight of a convolution, see [`Placement::window`].
    pub fn kernel(layout: Layout) -> Self {
        Self { window: true, ..Self::new(layout) }
    }

    /// Cuts every matrix into `count` equal parts along `axis`.
    #[must_use]
    pub fn with_blocks(mut self, axis: Axis, count: usize) -> Self {
        self.blocks = Some(Blocks::equal(axis, count));
        self
    }

    /// Checks that a parameter of this shape can be read as matrices this way.
    pub fn check(&self, shape: &[usize]) -> Result<(), LayoutError> {
        let fits = if self.window { shape.len() >= 2 } else { matches!(shape.len(), 2 | 3) };
        if !fits {
            return Err(LayoutError::Rank(shape.to_vec()));
        }
        if shape.contains(&0) {
            return Err(LayoutError::Empty(shape.to_vec()));
        }
        let Some(blocks) = self.blocks else {
            return Ok(());
        };
        let [_, a, b] = self.stack_shape(shape);
        let size = [a, b][self.layout.position(blocks.axis)];
        if blocks.are_unequal() && self.is_transposed_kernel() {
            return Err(LayoutError::TurnedParts(shape.to_vec()));
        }
        if blocks.fit(size) {
            return Ok(());
        }
        let (axis, shape, count) = (blocks.axis.name(), shape.to_vec(), blocks.count);
        Err(match blocks.sizes() {
            Some(sizes) => LayoutError::Sizes { sizes, size, axis, shape },
            None => LayoutError::Blocks { count, size, axis, shape },
        })
    }

    /// Output and input features of a parameter of this shape; `[1, 1]` if it is not a matrix.
    pub(crate) fn features(&self, shape: &[usize]) -> [usize; 2] {
        if !(shape.len() == 2 || shape.len() == 3 || (self.window && shape.len() > 3)) {
            return [1, 1];
        }
        let [_, a, b] = self.stack_shape(shape);
        let stored = [a, b];
        [Axis::Output, Axis::Input].map(|axis| stored[self.layout.position(axis)])
    }

    /// How many matrices a parameter of this shape is processed as, and their output and input features; one row of all entries if
    /// it is not a matrix. Unequal parts count as equal ones.
    pub(crate) fn matrices(&self, shape: &[usize]) -> [usize; 3] {
        let (count, [outputs, inputs]) = (shape.iter().product::<usize>(), self.features(shape));
        let (outputs, inputs) = match self.blocks {
            _ if outputs * inputs <= 1 => (count, 1),
            Some(Blocks { axis: Axis::Output, count, .. }) => (outputs / count.max(1), inputs),
            Some(Blocks { axis: Axis::Input, count, .. }) => (outputs, inputs / count.max(1)),
            None => (outputs, inputs),
        };
        [count / (outputs * inputs).max(1), outputs, inputs]
    }

    /// How a parameter of this shape is read as matrices.
    ///
    /// # Errors
    /// As [`Placement::check`].
    pub(crate) fn reading(&self, shape: &[usize]) -> Result<Reading, LayoutError> {
        self.check(shape)?;
        let [experts, a, b] = self.stack_shape(shape);
        let (stored, turned) = match self.is_transposed_kernel() {
            true => {
                let [inputs, outputs, window] = window_shape(shape);
                ([1, inputs, outputs * window], Some(window))
            }
            false => ([experts, a, b], None),
        };
        Ok(Reading { stored, layout: self.layout, blocks: self.blocks, turned, is_row: false })
    }

    /// Reads a stored parameter `[a, b]` or `[E, a, b]` as a stack of `E * blocks` matrices, the weight of a convolution as
    /// one, or as many as there are blocks.
    ///
    /// # Panics
    /// If [`Placement::check`] refuses the shape, or parts have different sizes, which are no stack.
    pub fn split<const D: usize>(&self, parameter: Tensor<D>) -> Matrix {
        let reading = self.reading(&parameter.dims()).unwrap_or_else(|error| panic!("{error}"));
        reading.split(parameter.reshape(reading.stored))
    }

    /// The inverse of [`Placement::split`]: back to the stored shape.
    ///
    /// # Panics
    /// As [`Placement::split`].
    pub fn join<const D: usize>(&self, matrix: Matrix, shape: [usize; D]) -> Tensor<D> {
        let reading = self.reading(&shape).unwrap_or_else(|error| panic!("{error}"));
        reading.join(matrix).reshape(shape)
    }

    fn is_transposed_kernel(&self) -> bool {
        self.window && self.layout == Layout::InOut
    }

    /// Number of matrices before they are cut into blocks, and the stored shape of one.
    fn stack_shape(&self, shape: &[usize]) -> [usize; 3] {
        if self.window {
            let [first, second, window] = window_shape(shape);
            return match self.layout {
                Layout::OutIn => [1, first, second * window],
                Layout::InOut => [1, first * window, second],
            };
        }
        match *shape {
            [a, b] => [1, a, b],
            [e, a, b] => [e, a, b],
            _ => unreachable!("the rank was checked"),
        }
    }
}

/// The first two dimensions of a convolution's weight, and the size of its window.
fn window_shape(shape: &[usize]) -> [usize; 3] {
    [shape[0], shape[1], shape[2..].iter().product()]
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
