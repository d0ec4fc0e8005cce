//! Sizes, tables and measurements that a layer shares with its fused kernel.

use std::sync::Arc;

use burn::tensor::Tensor;

/// The windows of one forward pass.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// Windows in the batch.
    pub batch: usize,
    /// Tokens in a window.
    pub context: usize,
    /// Position of their first token.
    pub start: usize,
}

/// The heads of an attention layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// Tokens that a query sees, itself included; `None` if it sees the whole context.
    pub window: Option<usize>,
}

/// The largest attention logits of a forward pass, which [`LanguageModel::training_loss_with`] collects.
///
/// A logit is the product of a query and a key times the model's scale, usually `1 / sqrt(head_dim)`, as it enters the softmax, of
/// a query and a key that it sees: what the causal mask or a sliding window hides is none, and neither is an attention sink, which
/// is not a product. No model of this crate caps its attention logits.
///
/// [`LanguageModel::training_loss_with`]: crate::LanguageModel::training_loss_with
#[derive(Clone, Debug, Default)]
pub struct LargestLogits(Vec<Tensor<1>>);

impl LargestLogits {
    /// Adds those of the next attention layer, `[heads]`.
    pub(crate) fn add(&mut self, largest: Tensor<1>) {
        self.0.push(largest.inner());
    }

    /// The largest logit of every head, `[heads]`, of every attention layer, first to last; on the model's device, outside of any
    /// autodiff graph.
    #[must_use]
    pub fn layers(self) -> Vec<Tensor<1>> {
        self.0
    }
}

/// The rotary angles of every position, on the host; clones share the memory.
#[derive(Clone, Debug)]
pub(crate) struct Angles {
    pub head_dim: usize,
    /// `[context, head_dim / 2]`, as the sines.
    pub cos: Arc<[f32]>,
    pub sin: Arc<[f32]>,
}

impl Angles {
    pub(crate) fn new(base: f64, head_dim: usize, context: usize) -> Self {
        let frequency = |pair: usize| base.powf(-2.0 * pair as f64 / head_dim as f64);
        let frequencies: Vec<f64> = (0..head_dim / 2).map(frequency).collect();
        let table = |function: fn(f64) -> f64| -> Arc<[f32]> {
            let row = |position: usize| frequencies.iter().map(move |f| function(position as f64 * f) as f32);
            (0..context).flat_map(row).collect()
        };
        Self { head_dim, cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// Every expert that has rows, with its first row and their number; `counts` are the rows of each expert.
pub(crate) fn groups(counts: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut next = 0;
    counts.iter().enumerate().filter_map(move |(expert, count)| {
        let first = next;
        next += count;
        (*count > 0).then_some((expert, first, *count))
    })
}
