//! Bases of both axes of a matrix that follow its gradients, as in SOAP.

use burn::tensor::{Tensor, s};

use super::{Extent, Kept, Memory};
use crate::matrix::{Axis, Matrix, divide_or_zero, frobenius_norm, hypotenuse, iterated_basis, noise, singular_bases};

/// The Gram matrix of an axis and the basis of its approximate eigenvectors. A Gram matrix A is stored as `A / √(tr A)`, which
/// is as large as the gradient, so that f32 holds it for gradients of any size.
#[derive(Clone, Debug)]
struct Side {
    names: [&'static str; 2],
    gram: Tensor<3>,
    basis: Tensor<3>,
}

/// The sides of both stored dimensions; none for an axis with more units than the rule allows, which keeps its own basis.
#[derive(Clone, Debug)]
pub(crate) struct Bases([Option<Side>; 2]);

/// How the Gram matrices learn from gradients.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Learning {
    /// Of the gradient itself.
    Plain,
    /// Of the gradient whitened along the other axis; eigenvalues are at least `eps`.
    Whitened { eps: f64 },
}

/// The names of the Gram matrix and the basis in records.
const fn names(axis: Axis) -> [&'static str; 2] {
    match axis {
        Axis::Output => ["output_gram", "output_basis"],
        Axis::Input => ["input_gram", "input_basis"],
    }
}

impl Bases {
    /// The buffers, for axes of at most so many units.
    pub fn memories(largest: usize) -> impl Iterator<Item = Kept> {
        let of = move |axis| names(axis).map(|name| Kept { name, extent: Extent::Pairs { axis, largest } });
        [Axis::Output, Axis::Input].into_iter().flat_map(of)
    }

    /// Those of a first gradient: singular vectors, and `weight` of its Gram matrices.
    pub fn first(gradient: &Matrix, largest: usize, learning: Learning, beta: f64) -> Self {
        let (axes, x) = (stored_axes(gradient), gradient.tensor());
        let [first, second] = singular_bases(x.clone(), axes.map(|axis| gradient.size(axis) <= largest));
        Self([(0, first), (1, second)].map(|(dim, basis)| {
            let (x, beta) = match learning {
                Learning::Plain => (x.clone(), beta),
                Learning::Whitened { .. } => (x.clone() / (gradient.size(axes[1 - dim]) as f64).sqrt(), 0.0),
            };
            Some(Side { names: names(axes[dim]), basis: basis?, gram: learned(None, along(x, dim), beta) })
        }))
    }

    /// Those of the last step.
    pub fn take(gradient: &Matrix, memory: &mut Memory) -> Self {
        let matrices = gradient.tensor().dims()[0];
        Self(stored_axes(gradient).map(|axis| {
            let (size, names) = (gradient.size(axis), names(axis));
            let [gram, basis] = names.map(|name| memory.take(name, [matrices, size, size]));
            Some(Side { names, gram: gram?, basis: basis? })
        }))
    }

    /// Keeps them for the next step.
    pub fn keep(self, memory: &mut Memory) {
        for Side { names, gram, basis } in self.0.into_iter().flatten() {
            memory.keep(names[0], gram);
            memory.keep(names[1], basis);
        }
    }

    /// A matrix in these bases: `Pᵀ X Q`.
    pub fn turn(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.0[0].iter().fold(x, |x, side| side.basis.clone().swap_dims(1, 2).matmul(x));
        self.0[1].iter().fold(x, |x, side| x.matmul(side.basis.clone()))
    }

    /// A matrix out of these bases: `P X Qᵀ`.
    pub fn turn_back(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.0[0].iter().fold(x, |x, side| side.basis.clone().matmul(x));
        self.0[1].iter().fold(x, |x, side| x.matmul(side.basis.clone().swap_dims(1, 2)))
    }

    /// Adds a gradient to the Gram matrices, `A ← β A + (1-β) X Xᵀ`.
    pub fn learn(&mut self, gradient: &Tensor<3>, learning: Learning, beta: f64) {
        let dims = gradient.dims();
        let whitened = [0, 1].map(|dim| match learning {
            Learning::Plain => gradient.clone(),
            Learning::Whitened { eps } => {
                let other = 1 - dim;
                let x = match &self.0[other] {
                    Some(side) => side.whitened(gradient.clone(), other, eps),
                    None => gradient.clone(),
                };
                x / (dims[1 + other] as f64).sqrt()
            }
        });
        for (dim, (side, x)) in self.0.iter_mut().zip(whitened).enumerate() {
            if let Some(side) = side {
                side.gram = learned(Some(side.gram.clone()), along(x, dim), beta);
            }
        }
    }

    /// Brings the bases nearer to the eigenvectors: what is in the old bases must turn with them.
    pub fn refresh(&mut self) {
        for side in self.0.iter_mut().flatten() {
            side.basis = iterated_basis(side.gram.clone(), side.basis.clone());
        }
    }
}

impl Side {
    /// The gradient in the basis of this side, every unit divided by the root of its eigenvalue.
    fn whitened(&self, gradient: Tensor<3>, dim: usize, eps: f64) -> Tensor<3> {
        let root = trace(&self.gram);
        let unit = divide_or_zero(self.gram.clone(), root.clone());
        let values = (self.basis.clone() * unit.matmul(self.basis.clone())).sum_dim(1);
        // Below the rounding of the largest an eigenvalue is not known to differ from 0.
        let unknown = values.clone().lower_equal(values.clone().max_dim(2) * noise(values.dtype()));
        let roots = (values.mask_fill(unknown, 0.0).sqrt() * root).clamp_min(eps.sqrt());
        match dim {
            0 => self.basis.clone().swap_dims(1, 2).matmul(gradient) / roots.swap_dims(1, 2),
            _ => gradient.matmul(self.basis.clone()) / roots,
        }
    }
}

/// The axes of the two stored dimensions.
fn stored_axes(matrix: &Matrix) -> [Axis; 2] {
    if matrix.dim(Axis::Output) == 1 { [Axis::Output, Axis::Input] } else { [Axis::Input, Axis::Output] }
}

/// The stack with this stored dimension, 0 or 1, as its first.
fn along(x: Tensor<3>, dim: usize) -> Tensor<3> {
    if dim == 0 { x } else { x.swap_dims(1, 2) }
}

/// `β A + (1-β) X Xᵀ`, of and in the stored form.
fn learned(old: Option<Tensor<3>>, x: Tensor<3>, beta: f64) -> Tensor<3> {
    let norm = frobenius_norm(x.clone());
    let unit = divide_or_zero(x, norm.clone());
    let fresh = unit.clone().matmul(unit.swap_dims(1, 2));
    let new = norm * (1.0 - beta).sqrt();
    match old {
        Some(old) => {
            let kept = trace(&old) * beta.sqrt();
            let root = hypotenuse(kept.clone(), new.clone());
            old * (divide_or_zero(kept, root.clone()) * beta.sqrt()) + fresh * (new.clone() * divide_or_zero(new, root))
        }
        None => fresh * new,
    }
}

/// The trace of every matrix, `[batch, 1, 1]`.
fn trace(square: &Tensor<3>) -> Tensor<3> {
    let [batch, size, _] = square.dims();
    let diagonal = square.clone().reshape([batch, size * size]).slice(s![.., ..;size + 1]);
    diagonal.sum_dim(1).unsqueeze_dim(2)
}
