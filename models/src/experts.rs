//! A mixture of experts that computes only what its router chose.
//!
//! The choice is made on the host, from the router's logits: the tokens are put in the order of their experts, every
//! expert multiplies its own rows by its slice of the stack, and the results go back to their tokens, weighed. Moving rows
//! is a permutation in both directions, so no gradient is a sum in an order that a device might choose.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::decoder::Deviations;
use crate::feed_forward::gated;
#[cfg(feature = "flex")]
use crate::fused;
use crate::init::Initializer;
use crate::linear::linear;
use crate::{FeedForwardKind, ModelConfig, RouterKind};

/// Experts, of which a router chooses some for every token.
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
    weighing: RouterKind,
    #[module(skip)]
    top_k: usize,
}

/// One projection of every expert.
#[derive(Module, Debug)]
pub struct ExpertStack {
    /// `[experts, d_in, d_out]`.
    pub weight: Param<Tensor<3>>,
    /// `[experts, d_out]`.
    pub bias: Option<Param<Tensor<2>>>,
}

/// What a router said about some tokens.
pub(crate) struct Routing {
    /// `[tokens, experts]`.
    pub logits: Tensor<2>,
    pub choice: Choice,
}

/// Which tokens go to which experts; on the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The experts of every token, those of larger logits first, `[tokens · top_k]`.
    pub chosen: Vec<i32>,
    /// How many tokens every expert has.
    pub counts: Vec<usize>,
    /// The same numbers as values of a tensor: `[tokens, experts]`, row-major.
    pub logits: Vec<f32>,
}

impl Choice {
    /// The `top_k` experts with the largest of `logits`, `[tokens, experts]`; the earlier one of equals.
    pub(crate) fn new(logits: Vec<f32>, experts: usize, top_k: usize) -> Self {
        let mut chosen = Vec::with_capacity(logits.len() / experts * top_k);
        let mut counts = vec![0; experts];
        let mut ranked: Vec<usize> = Vec::with_capacity(experts);
        for row in logits.chunks_exact(experts) {
            ranked.clear();
            ranked.extend(0..experts);
            // A total order, so that logits that are not numbers lead to a loss that is none, not to a panic.
            ranked.sort_unstable_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
            for expert in &ranked[..top_k] {
                chosen.push(*expert as i32);
                counts[*expert] += 1;
            }
        }
        Self { chosen, counts, logits }
    }

    /// Puts the rows (token, slot) in the order of their experts: the row at every place, and the place of every row.
    fn permutation(&self) -> (Vec<i32>, Vec<i32>) {
        let mut next: Vec<usize> = Vec::with_capacity(self.counts.len());
        let mut before = 0;
        for count in &self.counts {
            next.push(before);
            before += count;
        }
        let (mut order, mut place) = (vec![0; self.chosen.len()], vec![0; self.chosen.len()]);
        for (row, expert) in self.chosen.iter().enumerate() {
            let at = &mut next[*expert as usize];
            (order[*at], place[row]) = (row as i32, *at as i32);
            *at += 1;
        }
        (order, place)
    }
}

impl ExpertStack {
    fn new(name: &str, [experts, d_in, d_out]: [usize; 3], std: f64, bias: bool, init: &Initializer) -> Self {
        Self {
            weight: init.enter(name).normal([experts, d_in, d_out], std),
            bias: bias.then(|| init.constant(0.0, [experts, d_out])),
        }
    }

    /// Maps rows, `[rows, d_in]`, the first `counts[0]` of them by the first expert and so on, to `[rows, d_out]`.
    fn forward(&self, rows: Tensor<2>, counts: &[usize]) -> Tensor<2> {
        let projected = grouped_matmul(rows, self.weight.val(), counts);
        match &self.bias {
            Some(bias) => grouped_add(projected, bias.val(), counts),
            None => projected,
        }
    }
}

/// Every expert that has rows, with its first row and their number.
pub(crate) fn groups(counts: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut next = 0;
    counts.iter().enumerate().filter_map(move |(expert, count)| {
        let first = next;
        next += count;
        (*count > 0).then_some((expert, first, *count))
    })
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

/// Every expert's line of `bias`, `[experts, d_out]`, added to its rows.
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
            weighing: config.router,
            top_k: config.top_k,
        }
    }

    /// Maps `x`, `[tokens, d_model]`, to the same shape.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.route(x).0
    }

    /// The same, with what the router said.
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
        let weights = match self.weighing {
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
    fn the_largest_logits_are_chosen_and_the_earlier_of_equals() {
        let choice = Choice::new(vec![0.0, 3.0, 1.0, 3.0, 2.0, 2.0, 2.0, -1.0], 4, 2);
        assert_eq!(choice.chosen, [1, 3, 0, 1]);
        assert_eq!(choice.counts, [1, 2, 0, 1]);
    }

    #[test]
    fn logits_that_are_no_numbers_choose_without_a_panic() {
        let choice = Choice::new(vec![f32::NAN, 1.0, f32::NEG_INFINITY, f32::NAN], 2, 1);
        assert_eq!(choice.chosen.len(), 2);
    }

    #[test]
    fn rows_stand_by_expert_and_find_their_way_back() {
        let choice = Choice::new(vec![0.0, 3.0, 1.0, 5.0, 2.0, 2.5, 0.5, 1.0, 0.0], 3, 2);
        let (order, place) = choice.permutation();
        let experts: Vec<i32> = order.iter().map(|row| choice.chosen[*row as usize]).collect();
        assert!(experts.is_sorted(), "{experts:?}");
        for (row, place) in place.iter().enumerate() {
            assert_eq!(order[*place as usize], row as i32);
        }
    }

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
