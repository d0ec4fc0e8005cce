//! The gradient of the training loss with one block's activations in memory at a time.
//!
//! Only the input of every block is kept. When the backward pass reaches a block, the block is computed again from its input, on
//! an autodiff graph of its own, which ends with it. Burn's gradient checkpointing would recompute single operations inside one
//! graph, in which the fused kernels do not apply.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Int, Tensor};

use super::decoder::LanguageModel;
use crate::shapes::{LargestLogits, Windows};

impl LanguageModel {
    /// The gradient of `weight` times the [`training_loss`](Self::training_loss), with the activations of one block in memory
    /// at a time, and the mean cross-entropy, `[1]`. The same numbers as from the loss itself, to the bit on Burn's CPU backend,
    /// for one forward pass through the blocks more. Parameters that require no gradient have none.
    ///
    /// The model must be on an autodiff device without gradient checkpointing.
    ///
    /// ```
    /// use burn::optim::GradientsParams;
    /// use burn::tensor::{Device, Int, Tensor};
    /// use polaron_models::ModelConfig;
    ///
    /// let device = Device::flex().autodiff();
    /// let model = ModelConfig::preset("llama-d64")?.init(65, 1, &device)?;
    /// let tokens = Tensor::<2, Int>::from_ints([[1, 2, 3, 4]], &device);
    /// let plain = GradientsParams::from_grads(model.training_loss(tokens.clone(), tokens.clone()).total.backward(), &model);
    /// let (gradients, _) = model.recomputed_gradients(tokens.clone(), tokens, 1.0);
    /// let embedding = |gradients: &GradientsParams| gradients.get::<2>(model.embed.weight.id).map(Tensor::into_data);
    /// assert_eq!(embedding(&gradients), embedding(&plain));
    /// # Ok::<(), polaron_models::ModelError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// As [`training_loss`](Self::training_loss).
    pub fn recomputed_gradients(
        &self,
        tokens: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        weight: f64,
    ) -> (GradientsParams, Tensor<1>) {
        self.recomputed_gradients_with(tokens, targets, weight, None)
    }

    /// [`recomputed_gradients`](Self::recomputed_gradients); the largest attention logits, measured in the first of both forward
    /// passes, are added to `logits`.
    ///
    /// # Panics
    ///
    /// As [`training_loss`](Self::training_loss).
    pub fn recomputed_gradients_with(
        &self,
        tokens: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        weight: f64,
        logits: Option<&mut LargestLogits>,
    ) -> (GradientsParams, Tensor<1>) {
        let [batch, context] = tokens.dims();
        let windows = Windows { batch, context, start: 0 };
        let mut inputs = self.block_inputs(tokens.clone(), windows, logits);
        let mut sum = GradientsAccumulator::new();

        let x = leaf(inputs.pop());
        let cross_entropy = self.loss_of(self.norm.forward(x.clone()), targets);
        let mut gradients = cross_entropy.clone().mul_scalar(weight).backward();
        let mut to_x = gradient_of(&x, &mut gradients);
        sum.accumulate(self, GradientsParams::from_grads(gradients, self));

        for (index, block) in self.blocks.iter().enumerate().rev() {
            let x = leaf(inputs.pop());
            let (output, routing) = block.forward(x.clone(), windows, self.positions(), None, None);
            let output = with_gradient(output, to_x);
            let losses = routing.as_ref().and_then(|routing| self.router_losses(routing));
            // Burn adds the gradients of the router's logits in an order that follows from the order of this sum: these are the
            // orders of the training loss, in which a lower block is reached through the router of a higher one.
            let objective = match losses.map(|losses| losses.map(|loss| loss.mul_scalar(weight))) {
                None => output,
                Some([balance, z]) if index + 1 == self.blocks.len() => output + balance + z,
                Some([balance, z]) => balance + z + output,
            };
            let mut gradients = objective.backward();
            to_x = gradient_of(&x, &mut gradients);
            sum.accumulate(self, GradientsParams::from_grads(gradients, block));
        }

        let x = self.enter(tokens, windows);
        // Without a graph if neither embedding nor positions are trained.
        if x.is_tracked() {
            sum.accumulate(self, GradientsParams::from_grads(with_gradient(x, to_x).backward(), self));
        }
        (sum.grads(), cross_entropy.inner())
    }

    /// The input of every block, and the output of the last one. No graph is recorded, but the operations are those on an autodiff
    /// device: some of Burn's, like softmax, round differently without.
    fn block_inputs(
        &self,
        tokens: Tensor<2, Int>,
        windows: Windows,
        mut logits: Option<&mut LargestLogits>,
    ) -> Vec<Tensor<2>> {
        let constant = self.clone().no_grad();
        let mut x = constant.enter(tokens, windows);
        let mut inputs = Vec::with_capacity(constant.blocks.len() + 1);
        for block in &constant.blocks {
            inputs.push(x.clone());
            (x, _) = block.forward(x, windows, constant.positions(), None, logits.as_deref_mut());
        }
        inputs.push(x);
        inputs
    }
}

/// The beginning of a graph.
fn leaf(input: Option<Tensor<2>>) -> Tensor<2> {
    let Some(input) = input else { unreachable!("one input for every block, and one for the head") };
    input.require_grad()
}

/// A number, the gradient of which with respect to `output` is `gradient`.
fn with_gradient(output: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    (output * Tensor::from_inner(gradient)).sum()
}

fn gradient_of(leaf: &Tensor<2>, gradients: &mut Gradients) -> Tensor<2> {
    leaf.grad_remove(gradients).unwrap_or_else(|| unreachable!("the residual stream reaches every output"))
}
