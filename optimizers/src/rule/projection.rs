//! Gradient projection (GRASP, arXiv 2605.27676): directions of a matrix that training leaves as they are.
//!
//! ```text
//! P(X) = (I - Q_o Q_oᵀ) X (I - Q_i Q_iᵀ)          Q_i, Q_o: orthonormal directions of inputs and outputs; X is out × in
//! F = P(W)                                        the part of the weights that is trained
//! F' = a step of the rule on F with P(G), in which P also acts on the update U, before norm control and decay
//! W ← W + P(F' - F)
//! ```
//!
//! So `W q` is what it was for every q in the span of Q_i, and `pᵀ W` for every p in that of Q_o, to the rounding of the type of
//! the weights, whatever the rule, its momentum, decay and norm control: these see F in place of W. Hyperball keeps the norm
//! of F, and with it that of W, as F is orthogonal to the rest; decay shrinks F alone. With `preserve = false` the rest decays
//! too, by the factor `1 - s wd` in every step, but no gradient changes it.
//!
//! Cost: three projections in a step, of 4 mnk operations for k directions of one side.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use polaron_common::splitmix64;

use super::NormControl;
use crate::matrix::{Axis, Matrix, Reading};

/// A direction is refused whose part across the others is below this share of it: as the rounding of f32 makes one.
const DEPENDENT: f64 = 1e-5;

/// Directions of the inputs and of the outputs of one parameter that training leaves as they are. A clone shares them.
///
/// ```
/// use burn::optim::Optimizer;
/// use burn::tensor::{Device, Tensor, TensorData};
/// use polaron::rule::Projection;
/// use polaron::rules::MuonConfig;
///
/// // What the matrix makes of its first input stays; Burn's `Linear` stores [d_in, d_out].
/// let kept = TensorData::new(vec![1.0_f32, 0.0, 0.0], [3, 1]);
/// let optimizer = MuonConfig::new().build().with_projection(Projection::new(Some(kept), None, true)?);
/// let device = Device::flex();
/// let weights = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
/// let gradient = Tensor::<2>::from_floats([[1.0, 1.0], [0.0, 2.0], [1.0, 0.0]], &device);
/// let (after, _) = optimizer.step(0.1, weights.clone(), gradient, None);
/// let moved: Vec<f32> = (weights - after).abs().sum_dim(1).into_data().iter::<f32>().collect();
/// assert!(moved[0] == 0.0 && moved[1] > 0.0);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    input: Option<Arc<Basis>>,
    output: Option<Arc<Basis>>,
    preserve: bool,
}

/// Orthonormal directions of one side: `[stacks, features, directions]`, in f64.
#[derive(Debug, PartialEq)]
struct Basis {
    data: TensorData,
}

impl Projection {
    /// Leaves the directions in the columns of these tensors as they are: `[features, directions]`, or `[E, features, directions]`
    /// for a stack of E matrices with directions of their own. They need not be orthonormal. With `preserve` weight decay leaves
    /// them as well.
    ///
    /// # Errors
    /// A sentence, if no side has directions, or those of a side have another rank or number of axes, are as many as the
    /// features or not finite, or if one depends on the others.
    pub fn new(input: Option<TensorData>, output: Option<TensorData>, preserve: bool) -> Result<Self, String> {
        if input.is_none() && output.is_none() {
            return Err("needs directions of inputs or of outputs".into());
        }
        let side = |axis: Axis, data: Option<TensorData>| {
            let basis = data.map(|data| Basis::new(&data)).transpose();
            basis.map(|basis| basis.map(Arc::new)).map_err(|error| format!("the {} directions {error}", axis.name()))
        };
        Ok(Self { input: side(Axis::Input, input)?, output: side(Axis::Output, output)?, preserve })
    }

    fn basis(&self, axis: Axis) -> Option<&Basis> {
        match axis {
            Axis::Input => self.input.as_deref(),
            Axis::Output => self.output.as_deref(),
        }
    }

    fn sides(&self) -> impl Iterator<Item = (Axis, &Basis)> {
        [Axis::Input, Axis::Output].into_iter().filter_map(|axis| Some((axis, self.basis(axis)?)))
    }

    /// Whether weight decay leaves the directions as they are.
    pub fn preserves(&self) -> bool {
        self.preserve
    }

    /// How many directions of each side stay, in words.
    pub fn label(&self) -> String {
        let sides: Vec<String> =
            self.sides().map(|(axis, basis)| format!("{} {}", basis.directions(), axis.name())).collect();
        let decays = if self.preserve { "" } else { " but for decay" };
        format!("keeps {}{decays}", sides.join(" + "))
    }

    /// A number that follows from the directions.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.sides().fold(u64::from(self.preserve), |hash, (axis, basis)| {
            let start = splitmix64(hash ^ axis as u64);
            basis.data.iter::<f64>().fold(start, |hash, x| splitmix64(hash ^ x.to_bits()))
        })
    }

    /// Refuses directions that are not those of a parameter that is read this way, or that reach across blocks whose norms are
    /// controlled: none of these could then be kept.
    pub(super) fn check(&self, reading: &Reading, control: Option<NormControl>) -> Result<(), String> {
        let matrices = reading.stored[0];
        for (axis, basis) in self.sides() {
            let (size, [stacks, features, _]) = (reading.features(axis), basis.dims());
            let name = axis.name();
            if features != size {
                return Err(format!(
                    "the {name} directions have {features} features, but the matrix has {size} {name}s"
                ));
            }
            if stacks != 1 && stacks != matrices {
                return Err(format!("the {name} directions are those of {stacks} matrices, but there are {matrices}"));
            }
        }
        let (Some(control), Some(blocks)) = (control, reading.blocks()) else { return Ok(()) };
        let (method, axis, count) = (control.name(), blocks.axis(), blocks.count());
        if count == 1 || self.basis(axis).is_none() {
            return Ok(());
        }
        let axis = axis.name();
        Err(format!(
            "the {axis} directions reach across its {count} {axis} blocks, whose norms {method} controls one by one: leave out \
             those directions, the blocks or the norm_control"
        ))
    }

    /// The same without the directions along an axis; `None` if none are left.
    pub(super) fn across(&self, cut: Axis) -> Option<Self> {
        let side = |axis: Axis, basis: &Option<Arc<Basis>>| basis.clone().filter(|_| axis != cut);
        let (input, output) = (side(Axis::Input, &self.input), side(Axis::Output, &self.output));
        (input.is_some() || output.is_some()).then_some(Self { input, output, preserve: self.preserve })
    }

    /// The weights after a step, which is given the part that is trained and the gradient of it, and returns that part. The rest
    /// loses the share `decay`.
    pub(super) fn step(
        &self,
        reading: &Reading,
        weights: Tensor<3>,
        gradient: Tensor<3>,
        decay: f64,
        step: impl FnOnce(Tensor<3>, Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let free = self.apply(reading, weights.clone());
        let moved = step(free.clone(), self.apply(reading, gradient)) - free.clone();
        let kept = match decay {
            0.0 => weights,
            _ => weights.clone() - (weights - free) * decay,
        };
        kept + self.apply(reading, moved)
    }

    /// P of a stack of whole parameters, uncut.
    pub(crate) fn apply(&self, reading: &Reading, stack: Tensor<3>) -> Tensor<3> {
        let whole = reading.whole();
        let matrices = whole.split(stack);
        whole.join(self.sides().fold(matrices, |matrices, (axis, basis)| basis.removed(axis, matrices)))
    }
}

impl Basis {
    /// Makes the columns orthonormal.
    fn new(data: &TensorData) -> Result<Self, String> {
        let [stacks, features, directions] = match *data.shape().as_slice() {
            [features, directions] => [1, features, directions],
            [stacks, features, directions] => [stacks, features, directions],
            _ => return Err(format!("must be a tensor [features, directions], got the shape {:?}", data.shape())),
        };
        if stacks == 0 || directions == 0 {
            return Err(format!("are none: the shape is {:?}; leave them out", data.shape()));
        }
        if directions >= features {
            return Err(format!(
                "are {directions} of {features} features, which leaves nothing to train: give fewer, or freeze the parameter"
            ));
        }
        let given: Vec<f64> = data.iter::<f64>().collect();
        if given.iter().any(|x| !x.is_finite()) {
            return Err("hold a NaN or an infinity".into());
        }
        let mut values = Vec::with_capacity(given.len());
        for matrix in given.chunks_exact(features * directions) {
            let columns: Vec<Vec<f64>> =
                (0..directions).map(|j| matrix.iter().skip(j).step_by(directions).copied().collect()).collect();
            let orthonormal = orthonormal(columns)?;
            values.extend((0..features).flat_map(|i| orthonormal.iter().map(move |column| column[i])));
        }
        Ok(Self { data: TensorData::new(values, [stacks, features, directions]) })
    }

    fn dims(&self) -> [usize; 3] {
        let shape = self.data.shape();
        [shape[0], shape[1], shape[2]]
    }

    fn directions(&self) -> usize {
        self.dims()[2]
    }

    /// What is left of matrices across the directions along an axis.
    fn removed(&self, axis: Axis, matrices: Matrix) -> Matrix {
        let (dim, [stacks, features, directions]) = (matrices.dim(axis), self.dims());
        let (device, dtype) = (matrices.tensor().device(), matrices.tensor().dtype());
        let basis = Tensor::<3>::from_data(self.data.clone().convert_dtype(dtype), (&device, dtype));
        let count = matrices.tensor().dims()[0];
        let basis = if stacks == count { basis } else { basis.expand([count, features, directions]) };
        let turned = basis.clone().swap_dims(1, 2);
        matrices.map(|x| {
            let along = match dim {
                1 => basis.matmul(turned.matmul(x.clone())),
                _ => x.clone().matmul(basis).matmul(turned),
            };
            x - along
        })
    }
}

/// The Q of a QR decomposition, by columns: each without its part along those before it, twice, so that rounding leaves none.
fn orthonormal(columns: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>, String> {
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(columns.len());
    for (number, column) in columns.into_iter().enumerate() {
        let largest = column.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        if largest == 0.0 {
            return Err(format!("are not independent: number {} is zero; leave it out", number + 1));
        }
        // Entries of size 1: no square overflows or underflows.
        let mut column: Vec<f64> = column.iter().map(|x| x / largest).collect();
        let before = norm(&column);
        for q in done.iter().chain(&done) {
            let along: f64 = q.iter().zip(&column).map(|(q, x)| q * x).sum();
            column.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
        }
        let left = norm(&column);
        if left < DEPENDENT * before {
            return Err(format!(
                "are not independent: number {} is a combination of those before it; leave it out",
                number + 1
            ));
        }
        column.iter_mut().for_each(|x| *x /= left);
        done.push(column);
    }
    Ok(done)
}

fn norm(column: &[f64]) -> f64 {
    column.iter().map(|x| x * x).sum::<f64>().sqrt()
}
