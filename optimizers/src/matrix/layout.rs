//! How a stored parameter is read as matrices from *input* features to *output* features.
//!
//! PyTorch stores `[d_out, d_in]`, Burn's `Linear` stores `[d_in, d_out]`. Every rule of this crate
//! is defined on the `out × in` matrix and speaks of the output and the input axis. A [`Matrix`]
//! keeps the stored orientation and only remembers which axis is which, so no layout costs a copy.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How the two axes of a matrix are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `[d_in, d_out]`: Burn's `Linear`, embeddings `[vocab, d_model]`, experts `[E, d_in, d_out]`.
    #[default]
    InOut,
    /// `[d_out, d_in]`: PyTorch's `Linear`.
    OutIn,
}

/// One of the two axes of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Output features, m of them.
    Output,
    /// Input features, n of them.
    Input,
}

impl Axis {
    /// The opposite axis.
    pub fn other(self) -> Self {
        match self {
            Axis::Output => Axis::Input,
            Axis::Input => Axis::Output,
        }
    }

    /// `output` or `input`.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Output => "output",
            Axis::Input => "input",
        }
    }
}

/// Cuts a matrix into equal contiguous parts that are processed separately (heads, fused projections).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// The axis that is cut.
    pub axis: Axis,
    /// The number of parts; must divide the size of the axis.
    pub count: usize,
}

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

/// Why a parameter cannot be read as matrices.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// Neither a matrix nor a stack of matrices.
    #[error(
        "a matrix rule needs a tensor of rank 2, or a stack of rank 3, but the shape is {0:?}; give the weight of a convolution the role kernel, and any other parameter an entrywise rule such as adamw, without norm_control"
    )]
    Rank(Vec<usize>),
    /// An axis without entries.
    #[error("the shape {0:?} has an empty axis")]
    Empty(Vec<usize>),
    /// The blocks do not fit.
    #[error("{count} blocks do not divide the {size} {axis} features of shape {shape:?}; choose a divisor of {size}")]
    Blocks {
        /// Requested number of blocks.
        count: usize,
        /// Features along the cut axis.
        size: usize,
        /// Name of the cut axis.
        axis: &'static str,
        /// Stored shape.
        shape: Vec<usize>,
    },
}

impl Layout {
    /// Position of an axis among the last two stored dimensions: 0 or 1.
    fn position(self, axis: Axis) -> usize {
        usize::from((self == Layout::InOut) == (axis == Axis::Output))
    }
}

/// A stack of matrices of one shape, with the meaning of their axes.
///
/// The tensor is `[batch, d_in, d_out]` or `[batch, d_out, d_in]` according to the layout.
#[derive(Clone, Debug)]
pub struct Matrix {
    tensor: Tensor<3>,
    layout: Layout,
}

impl Matrix {
    /// Reads `tensor`, stored in `layout` after a batch dimension, as matrices.
    pub fn new(tensor: Tensor<3>, layout: Layout) -> Self {
        Self { tensor, layout }
    }

    /// The number of output features, m.
    pub fn outputs(&self) -> usize {
        self.size(Axis::Output)
    }

    /// The number of input features, n.
    pub fn inputs(&self) -> usize {
        self.size(Axis::Input)
    }

    /// The number of features along an axis.
    pub fn size(&self, axis: Axis) -> usize {
        self.tensor.dims()[self.dim(axis)]
    }

    /// The smaller of both.
    pub(crate) fn rank(&self) -> usize {
        self.outputs().min(self.inputs())
    }

    /// The dimension of the tensor that holds an axis: 1 or 2.
    pub fn dim(&self, axis: Axis) -> usize {
        1 + self.layout.position(axis)
    }

    /// How the tensor is stored.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The stored tensor, `[batch, ., .]`.
    pub fn tensor(&self) -> &Tensor<3> {
        &self.tensor
    }

    /// Returns the stored tensor.
    pub fn into_tensor(self) -> Tensor<3> {
        self.tensor
    }

    /// Applies a function that keeps the shape and treats both axes alike, or uses [`Matrix::dim`].
    pub fn map(self, f: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Self {
        Self { tensor: f(self.tensor), layout: self.layout }
    }
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
        self.blocks = Some(Blocks { axis, count });
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
        let Some(Blocks { axis, count }) = self.blocks else {
            return Ok(());
        };
        let [_, a, b] = self.stack_shape(shape);
        let size = [a, b][self.layout.position(axis)];
        if count == 0 || size % count != 0 {
            return Err(LayoutError::Blocks { count, size, axis: axis.name(), shape: shape.to_vec() });
        }
        Ok(())
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
    /// If [`Placement::check`] refuses the shape.
    pub fn split<const D: usize>(&self, parameter: Tensor<D>) -> Matrix {
        let reading = self.reading(&parameter.dims()).unwrap_or_else(|error| panic!("{error}"));
        reading.split(parameter.reshape(reading.stored))
    }

    /// The inverse of [`Placement::split`]: back to the stored shape.
    ///
    /// # Panics
    /// If [`Placement::check`] refuses the shape.
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

/// How a parameter of a known shape is read as matrices. A stack of several such parameters is read the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The shape of the parameter as a stack, its numbers in memory order.
    pub stored: [usize; 3],
    layout: Layout,
    blocks: Option<Blocks>,
    /// The size of the window of a transposed convolution: it comes after the outputs but belongs to the inputs.
    turned: Option<usize>,
    /// Whether it is not a matrix but a row of independent entries.
    is_row: bool,
}

impl Reading {
    /// A parameter that is read as a row of entries.
    pub fn entries(shape: &[usize]) -> Self {
        let stored = [1, 1, shape.iter().product()];
        Self { stored, layout: Layout::InOut, blocks: None, turned: None, is_row: true }
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
    pub fn split(&self, stack: Tensor<3>) -> Matrix {
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
            Some(Blocks { axis, count }) => match self.layout.position(axis) {
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
            Some(Blocks { axis, count }) => match self.layout.position(axis) {
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

/// The first two dimensions of a convolution's weight, and the size of its window.
fn window_shape(shape: &[usize]) -> [usize; 3] {
    [shape[0], shape[1], shape[2..].iter().product()]
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
