//! Adapters of low rank (LoRA, arXiv 2106.09685): `y = x W + (alpha / r) x a b`, of which only a and b are trained.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

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
}
