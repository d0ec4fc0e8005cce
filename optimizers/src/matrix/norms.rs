//! Norms of every matrix of a stack.

use burn::tensor::Tensor;

/// Frobenius norm of each matrix of a stack `[batch, a, b]`, as `[batch, 1, 1]`.
pub fn frobenius_norm(stack: Tensor<3>) -> Tensor<3> {
    stack.square().sum_dim(2).sum_dim(1).sqrt()
}
