//! A mixture of experts that computes only the chosen experts.
//!
//! The choice is made on the host, from the router's logits: the tokens are sorted by expert, every expert multiplies its own
//! rows by its slice of the stack, and the results return to their tokens, weighted. Moving rows is a permutation in both
//! directions, so no gradient is a sum whose order a device might choose.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};

use super::feed_forward::gated;
use super::linear::{Linear, linear};
use super::lora::{Adapted, Lora};
use super::routing::{Choice, Routing};
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::{Deviations, Initializer};
use crate::settings::choices::{FeedForwardKind, RouterKind};
use crate::settings::model::ModelConfig;
use crate::shapes::groups;

/// Experts, some of which a router chooses for every token.
#[derive(Module, Debug)]
pub struct MixtureOfExperts {
    /// Scores of the experts, `[d_model, experts]`.
    pub router: Linear,
    /// Gate projections, `[experts, d_model, hidden]`.
    pub gate: ExpertStack,
    /// Up projections, `[experts, d_model, hidden]`.
    pub up: ExpertStack,
    /// Down projections, `[experts, hidden, d_model]`.
    pub down: ExpertStack,
    #[module(skip)]
    kind: FeedForwardKind,
    #[module(skip)]
    router_kind: RouterKind,
    #[module(skip)]
    top_k: usize,
}

/// One projection, for all experts.
#[derive(Module, Debug)]
pub struct ExpertStack {
    /// `[experts, d_in, d_out]`.
    pub weight: Param<Tensor<3>>,
    /// `[experts, d_out]`.
    pub bias: Option<Param<Tensor<2>>>,
    /// One adapter for every expert; see [`with_lora`](crate::with_lora).
    pub lora: Option<Lora<3>>,
}

impl ExpertStack {
    fn new(name: &str, [experts, d_in, d_out]: [usize; 3], std: f64, bias: bool, init: &Initializer) -> Self {
        Self {
            weight: init.enter(name).normal([experts, d_in, d_out], std),
            bias: bias.then(|| init.constant(0.0, [experts, d_out])),
            lora: None,
        }
    }

    /// Maps rows, `[rows, d_in]`, to `[rows, d_out]`: the first `counts[0]` of them by the first expert, and so on.
    fn forward(&self, rows: Tensor<2>, counts: &[usize]) -> Tensor<2> {
        let adapted = self.lora.as_ref().map(|lora| {
            let inside = grouped_matmul(rows.clone(), lora.a.val(), counts) * lora.scale();
            grouped_matmul(inside, lora.b.val(), counts)
        });
        let projected = grouped_matmul(rows, self.weight.val(), counts);
        let projected = match &self.bias {
            Some(bias) => grouped_add(projected, bias.val(), counts),
            None => projected,
        };
        match adapted {
            Some(adapted) => projected + adapted,
            None => projected,
        }
    }
}

impl Adapted for ExpertStack {
    fn size(&self) -> [usize; 2] {
        let [_, d_in, d_out] = self.weight.dims();
        [d_in, d_out]
    }

    fn adapt(&mut self, rank: usize, scale: f64, seed: u64, path: &str) {
        self.lora = Some(Lora::new(&self.weight, rank, scale, seed, path));
    }

    fn merge(&mut self) {
        if let Some(lora) = self.lora.take() {
            lora.add_to(&mut self.weight);
        }
    }

    #[cfg(feature = "exact")]
    fn refactor(&mut self) -> Option<burn::tensor::TensorData> {
        self.lora.as_mut().map(Lora::refactor)
    }
}

/// The product of every expert's rows with its slice of `weight`, `[experts, d_in, d_out]`.
fn grouped_matmul(rows: Tensor<2>, weight: Tensor<3>, counts: &[usize]) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&rows, &weight]) {
        return fused::grouped_matmul(rows, weight, counts);
    }
    let part = |(expert, first, count)| {
        let slice = weight.clone().narrow(0, expert, 1).squeeze_dim::<2>(0);
        rows.clone().narrow(0, first, count).matmul(slice)
    };
    Tensor::cat(groups(counts).map(part).collect(), 0)
}

/// The rows of every expert plus its line of `bias`, `[experts, d_out]`.
fn grouped_add(rows: Tensor<2>, bias: Tensor<2>, counts: &[usize]) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if fused::serve(&[&rows, &bias]) {
        return fused::grouped_add(rows, bias, counts);
    }
    let part = |(expert, first, count)| rows.clone().narrow(0, first, count) + bias.clone().narrow(0, expert, 1);
    Tensor::cat(groups(counts).map(part).collect(), 0)
}

impl MixtureOfExperts {
    pub(crate) fn new(config: &ModelConfig, std: Deviations, init: &Initializer) -> Self {
        let (experts, d_model, hidden, bias) = (config.experts, config.d_model, config.hidden, config.expert_bias);
        let stack = |name, d_in, d_out, std| ExpertStack::new(name, [experts, d_in, d_out], std, bias, init);
        Self {
            router: init.biased("router", d_model, experts, std.router, bias),
            gate: stack("gate", d_model, hidden, std.hidden),
            up: stack("up", d_model, hidden, std.hidden),
            down: stack("down", hidden, d_model, std.residual),
            kind: config.feed_forward,
            router_kind: config.router,
            top_k: config.top_k,
        }
    }

    /// Maps `x`, `[tokens, d_model]`, to the same shape.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.route(x).0
    }

    /// The same, with the routing.
    pub(crate) fn route(&self, x: Tensor<2>) -> (Tensor<2>, Routing) {
        let [tokens, d_model] = x.dims();
        let top_k = self.top_k;
        let logits = linear(&self.router, x.clone());
        let experts = logits.dims()[1];
        let choice = Choice::new(logits.to_data().iter::<f32>().collect(), experts, top_k);
        let device = x.device();
        let indices = |values: Vec<i32>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let (order, place) = choice.permutation();
        let rows = x.unsqueeze_dim::<3>(1).expand([tokens, top_k, d_model]).reshape([tokens * top_k, d_model]);
        let rows = rows.select(0, indices(order));
        let counts = &choice.counts;
        let hidden = gated(self.kind, self.gate.forward(rows.clone(), counts), self.up.forward(rows, counts));
        let rows = self.down.forward(hidden, counts).select(0, indices(place)).reshape([tokens, top_k, d_model]);
        let chosen = indices(choice.chosen.clone()).reshape([tokens, top_k]);
        let weights = match self.router_kind {
            RouterKind::SoftmaxThenTopK => softmax(logits.clone(), 1).gather(1, chosen),
            RouterKind::TopKThenSoftmax => softmax(logits.clone().gather(1, chosen), 1),
        };
        let mixed = (rows * weights.unsqueeze_dim(2)).sum_dim(1).reshape([tokens, d_model]);
        (mixed, Routing { logits, choice })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn grouped_products_and_their_gradients_are_those_of_each_expert_alone() {
        let counts = [3, 0, 1, 2];
        let values = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * step) % 17) as f32 * 0.25 - 2.0).collect()
        };
        for device in [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
            let rows = Tensor::<2>::from_data(TensorData::new(values(30, 7), [6, 5]), &device).require_grad();
            let weight = Tensor::<3>::from_data(TensorData::new(values(80, 5), [4, 5, 4]), &device).require_grad();
            let weigh = Tensor::<2>::from_data(TensorData::new(values(24, 11), [6, 4]), &device);
            let product = grouped_matmul(rows.clone(), weight.clone(), &counts);
            let gradients = (product.clone() * weigh).sum().backward();
            let host = |tensor: Tensor<1>| -> Vec<f32> { tensor.into_data().try_to_vec().unwrap() };
            let product = host(product.inner().flatten(0, 1));
            let to_rows = host(rows.grad(&gradients).unwrap().flatten(0, 1));
            let to_weight = host(weight.grad(&gradients).unwrap().flatten(0, 2));
            let (rows, weight, weigh) = (values(30, 7), values(80, 5), values(24, 11));
            let expert_of = [0, 0, 0, 2, 3, 3];
            let mut expected_weight = vec![0.0; 80];
            // All numbers are small multiples of a sixteenth: exact in 32 bits.
            for (row, expert) in expert_of.into_iter().enumerate() {
                for output in 0..4 {
                    let at = |input: usize| expert * 20 + input * 4 + output;
                    let sum: f32 = (0..5).map(|input| rows[row * 5 + input] * weight[at(input)]).sum();
                    assert_eq!(product[row * 4 + output], sum);
                    for input in 0..5 {
                        expected_weight[at(input)] += rows[row * 5 + input] * weigh[row * 4 + output];
                    }
                }
                for input in 0..5 {
                    let at = |output: usize| expert * 20 + input * 4 + output;
                    let sum: f32 = (0..4).map(|output| weigh[row * 4 + output] * weight[at(output)]).sum();
                    assert_eq!(to_rows[row * 5 + input], sum);
                }
            }
            assert_eq!(to_weight, expected_weight);
        }
    }
}
