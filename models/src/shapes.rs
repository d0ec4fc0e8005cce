//! Sizes and tables that a layer shares with its fused kernel.

use std::sync::Arc;

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
