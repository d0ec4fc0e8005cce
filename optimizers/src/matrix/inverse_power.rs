//! `(X Xᵀ + ridge ‖X‖² I)^(-c) X` by products of matrices, on any device and without waiting for it.
//!
//! The program is that of [`crate::power`]. With the feature `flex`, plain f32 and f64 tensors of Burn's CPU backend are
//! computed in place.

use burn::tensor::Tensor;

use super::norms::{divide_or_zero, frobenius_norm, identity_like, inner_product, power};
use crate::flex;
use crate::power::{Algebra, InversePower, PowerSize};

/// Applies the power to every matrix of a stack `[batch, a, b]`, in either orientation. Zero gives zero; a matrix with a NaN
/// gives NaN.
pub(crate) fn inverse_power(stack: Tensor<3>, program: &InversePower) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    match height.min(width) {
        1 => on_device(stack, program),
        _ => flex::inverse_power(stack, program).unwrap_or_else(|stack| on_device(stack, program)),
    }
}

/// The same in Burn's operations.
fn on_device(stack: Tensor<3>, program: &InversePower) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let (wide, rank, ridge) = (height <= width, height.min(width), program.ridge);
    let norm = frobenius_norm(stack.clone());
    let x = divide_or_zero(stack, norm.clone());
    let transposed = x.clone().swap_dims(1, 2);
    let gram = if wide { x.clone().matmul(transposed) } else { transposed.matmul(x.clone()) };
    let mut tensors = Tensors { identity: identity_like(&gram) };
    let y = gram * (1.0 / (1.0 + ridge)) + tensors.identity.clone() * (ridge / (1.0 + ridge));
    let q = match rank {
        // exactly: the only singular value of a row or a column is its norm
        1 => y.ones_like(),
        _ => program.apply(&mut tensors, &y),
    };
    let product = if wide { q.clone().matmul(x) } else { x.matmul(q.clone()) };
    let quantity = match program.size {
        PowerSize::MeanSchatten => inner_product(q, y).abs(),
        PowerSize::Rms => frobenius_norm(product.clone()),
        PowerSize::Own => norm,
    };
    // A zero matrix has no size, and stays zero whatever its factor.
    let zero = quantity.clone().equal_scalar(0.0);
    let (constant, exponent) = program.factor(rank);
    product * (power(quantity.mask_fill(zero, 1.0), exponent) * constant)
}

/// Stacks of square matrices.
struct Tensors {
    identity: Tensor<3>,
}

impl Algebra for Tensors {
    type Matrix = Tensor<3>;

    fn polynomial(
        &mut self,
        identity: f64,
        terms: &[(f64, &Tensor<3>)],
        square: Option<(f64, &Tensor<3>)>,
    ) -> Tensor<3> {
        let times = |factor: f64, x: Tensor<3>| if factor == 1.0 { x } else { x * factor };
        let square = square.map(|(factor, x)| times(factor, x.clone().matmul(x.clone())));
        let identity = (identity != 0.0).then(|| times(identity, self.identity.clone()));
        let terms = terms.iter().map(|(factor, x)| times(*factor, (*x).clone()));
        let sum = square.into_iter().chain(terms).chain(identity).reduce(|sum, term| sum + term);
        sum.unwrap_or_else(|| self.identity.zeros_like())
    }

    fn product(&mut self, left: &Tensor<3>, right: &Tensor<3>) -> Tensor<3> {
        left.clone().matmul(right.clone())
    }
}
