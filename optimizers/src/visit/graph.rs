//! Changes of parameters outside of the autodiff graph.

use burn::tensor::Tensor;

/// Changes a parameter's values outside the autodiff graph; it stays a parameter.
pub(crate) fn map_outside_graph<const D: usize>(
    tensor: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    // `Tensor::from_inner` drops both, so they are restored.
    let (require_grad, checkpointing) = (tensor.is_require_grad(), tensor.gradient_checkpointing_strategy());
    let mut updated = Tensor::<D>::from_inner(f(tensor.inner()));
    if let Some(strategy) = checkpointing {
        updated = updated.with_gradient_checkpointing_strategy(strategy);
    }
    if require_grad { updated.require_grad() } else { updated }
}
