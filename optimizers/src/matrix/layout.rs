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

/// The most parts of given sizes.
const MOST_PARTS: usize = 8;

/// Cuts a matrix into contiguous parts that are processed separately, each as a matrix of its own: equal ones (heads), or
/// parts of given sizes (fused projections).
///
/// In a file `{ axis = "output", count = 4 }` or `{ axis = "output", sizes = [64, 32, 32] }`.
///
/// ```
/// use polaron::matrix::{Axis, Blocks};
///
/// // Query, key and value in one projection, with half as many heads for keys and values.
/// let fused = Blocks::of_sizes(Axis::Output, &[64, 32, 32])?;
/// assert_eq!((fused.count(), fused.sizes()), (3, Some(vec![64, 32, 32])));
/// assert_eq!(Blocks::equal(Axis::Output, 4).sizes(), None);
/// # Ok::<(), polaron::matrix::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BlockKeys", into = "BlockKeys")]
pub struct Blocks {
    axis: Axis,
    count: usize,
    /// The sizes of the parts; all 0 for equal ones.
    sizes: [usize; MOST_PARTS],
}

/// The keys of [`Blocks`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockKeys {
    axis: Axis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sizes: Option<Vec<usize>>,
}

impl TryFrom<BlockKeys> for Blocks {
    type Error = String;

    fn try_from(keys: BlockKeys) -> Result<Self, String> {
        match (keys.count, keys.sizes) {
            (Some(count), None) => Ok(Self::equal(keys.axis, count)),
            (None, Some(sizes)) => Self::of_sizes(keys.axis, &sizes).map_err(|error| error.to_string()),
            _ => Err("blocks have either count, the number of equal parts, or sizes".into()),
        }
    }
}

impl From<Blocks> for BlockKeys {
    fn from(blocks: Blocks) -> Self {
        let sizes = blocks.sizes();
        Self { axis: blocks.axis, count: sizes.is_none().then_some(blocks.count), sizes }
    }
}

impl Blocks {
    /// Equal parts; their number must divide the size of the axis.
    pub fn equal(axis: Axis, count: usize) -> Self {
        Self { axis, count, sizes: [0; MOST_PARTS] }
    }

    /// Parts of these sizes, which together are the size of the axis.
    ///
    /// # Errors
    /// If there are none, or more than eight, or a part is empty.
    pub fn of_sizes(axis: Axis, sizes: &[usize]) -> Result<Self, LayoutError> {
        if sizes.is_empty() || sizes.len() > MOST_PARTS || sizes.contains(&0) {
            return Err(LayoutError::Parts(sizes.to_vec()));
        }
        let mut own = [0; MOST_PARTS];
        own[..sizes.len()].copy_from_slice(sizes);
        Ok(Self { axis, count: sizes.len(), sizes: own })
    }

    /// The axis that is cut.
    pub fn axis(&self) -> Axis {
        self.axis
    }

    /// The number of parts.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The sizes of the parts, if they are given.
    pub fn sizes(&self) -> Option<Vec<usize>> {
        (self.sizes[0] > 0).then(|| self.sizes[..self.count].to_vec())
    }

    /// Whether the parts have different sizes, so that they are no stack.
    pub fn are_unequal(&self) -> bool {
        self.sizes[..self.count.min(MOST_PARTS)].iter().any(|size| *size != self.sizes[0])
    }

    /// Whether they cut an axis of this size without a rest.
    fn fit(&self, size: usize) -> bool {
        match self.sizes() {
            Some(sizes) => sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size)) == Some(size),
            None => self.count > 0 && size.is_multiple_of(self.count),
        }
    }
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
    /// Sizes of parts that are none.
    #[error("parts of the sizes {0:?} are none: give one to eight sizes, each at least 1")]
    Parts(Vec<usize>),
    /// The parts do not add up to the axis.
    #[error("parts of the sizes {sizes:?} do not add up to the {size} {axis} features of shape {shape:?}")]
    Sizes {
        /// Requested sizes.
        sizes: Vec<usize>,
        /// Features along the cut axis.
        size: usize,
        /// Name of the cut axis.
        axis: &'static str,
        /// Stored shape.
        shape: Vec<usize>,
    },
    /// Parts of different sizes of a transposed convolution.
    #[error("parts of different sizes of a transposed convolution of shape {0:?} are not supported: use equal blocks")]
    TurnedParts(Vec<usize>),
    /// Directions that are to stay as they are do not fit.
    #[error("{message} (shape {shape:?})")]
    Projection {
        /// What is wrong with them.
        message: String,
        /// Stored shape.
        shape: Vec<usize>,
    },
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

/// The first two dimensions of a convolution's weight, and the size of its window.
fn window_shape(shape: &[usize]) -> [usize; 3] {
    [shape[0], shape[1], shape[2..].iter().product()]
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
