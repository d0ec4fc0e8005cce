//! Adapters of low rank (LoRA, arXiv 2106.09685): `y = x W + (alpha / r) x a b`, of which only a and b are trained.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
#[cfg(feature = "exact")]
use burn::tensor::TensorData;
#[cfg(feature = "exact")]
use polaron::matrix;

use crate::init::Initializer;

/// The factors of an adapter of a projection (`D` = 2) or of a stack of them (`D` = 3).
#[derive(Module, Debug)]
pub struct Lora<const D: usize> {
    /// `[d_in, r]`, or `[experts, d_in, r]`.
    pub a: Param<Tensor<D>>,
    /// `[r, d_out]`, or `[experts, r, d_out]`; zero at first, so that an adapter begins as nothing.
    pub b: Param<Tensor<D>>,
    #[module(skip)]
    scale: f64,
}

/// A projection, or a stack of them, that can have an adapter.
pub trait Adapted {
    /// `[d_in, d_out]`.
    fn size(&self) -> [usize; 2];

    /// Adds an adapter, which replaces one that is there. `path` is that of the projection: with `seed` it decides the first
    /// numbers of a, which are normal with variance `1 / (3 d_in)`, that of the usual `kaiming_uniform(sqrt(5))`.
    fn adapt(&mut self, rank: usize, scale: f64, seed: u64, path: &str);

    /// Adds the adapter, if there is one, to the weight and removes it.
    fn merge(&mut self);

    /// Gives the adapter, if there is one, the factors of [`matrix::refactored`]; returns what b was multiplied by,
    /// `[matrices, r, r]`.
    #[cfg(feature = "exact")]
    fn refactor(&mut self) -> Option<TensorData>;
}

impl<const D: usize> Lora<D> {
    /// An adapter of `weight`, which is at `path`.
    pub(crate) fn new(weight: &Param<Tensor<D>>, rank: usize, scale: f64, seed: u64, path: &str) -> Self {
        let weight = weight.val();
        let (device, mut a, mut b) = (weight.device(), weight.dims(), weight.dims());
        let std = (3.0 * a[D - 2] as f64).sqrt().recip();
        (a[D - 1], b[D - 2]) = (rank, rank);
        let init = Initializer::new(seed, &device).enter(path).enter("lora");
        Self { a: init.enter("a").drawn(a, std), b: init.constant(0.0, b), scale }
    }

    /// `alpha / r`.
    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    /// Adds the adapter to the weight that it was made for.
    pub(crate) fn add_to(self, weight: &mut Param<Tensor<D>>) {
        let needs_gradient = weight.is_require_grad();
        let (id, base, mapper) = weight.clone().consume();
        let sum = base + self.a.val().matmul(self.b.val()) * self.scale;
        // Detached, it is a parameter again and not a result.
        *weight = Param::from_mapped_value(id, sum.detach().set_require_grad(needs_gradient), mapper);
    }

    /// Replaces the factors by those of [`matrix::refactored`]; returns what b was multiplied by.
    #[cfg(feature = "exact")]
    pub(crate) fn refactor(&mut self) -> TensorData {
        let new = matrix::refactored(stack(&self.a), stack(&self.b));
        replace(&mut self.a, new.a);
        replace(&mut self.b, new.b);
        new.rotation
    }
}

/// A factor as a stack of matrices, which is one for a projection.
#[cfg(feature = "exact")]
fn stack<const D: usize>(factor: &Param<Tensor<D>>) -> Tensor<3> {
    let values = factor.val();
    let dims = values.dims();
    let matrices = dims[..D - 2].iter().product();
    values.reshape([matrices, dims[D - 2], dims[D - 1]])
}

#[cfg(feature = "exact")]
fn replace<const D: usize>(factor: &mut Param<Tensor<D>>, new: Tensor<3>) {
    let needs_gradient = factor.is_require_grad();
    let (id, old, mapper) = factor.clone().consume();
    let new = new.reshape(old.dims()).detach().set_require_grad(needs_gradient);
    *factor = Param::from_mapped_value(id, new, mapper);
}
