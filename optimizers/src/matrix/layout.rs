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
    pub(super) axis: Axis,
    pub(super) count: usize,
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
    pub(super) fn fit(&self, size: usize) -> bool {
        match self.sizes() {
            Some(sizes) => sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size)) == Some(size),
            None => self.count > 0 && size.is_multiple_of(self.count),
        }
    }
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
    pub(super) fn position(self, axis: Axis) -> usize {
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
