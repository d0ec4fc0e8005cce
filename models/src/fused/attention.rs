//! Causal self-attention as one node of the graph, in memory linear in the context.
//!
//! A block of queries meets its keys tile by tile, with a running softmax: each thread has the scores of one tile at a time, and the
//! backward pass computes them again (arXiv:2205.14135, arXiv:2307.08691). Keys that no query of a block sees take part in no
//! product. Heads are copied apart first (`heads`): lines of one head that lie between those of others are read at a third of the speed.

use std::sync::{Arc, OnceLock};

use super::heads::Slots;
use super::product::{View, write};
use super::run::run;
use super::softmax::{BLOCK, Softmax, Tile};
use super::tape::{Buffer, Kernel};

/// Keys per matrix product: the scores of a tile stay in the second cache.
const KEYS: usize = 256;

/// Numbers that the backward pass needs of a block and head: the largest score and the sum of each query.
pub(super) const SUMS: usize = 2 * BLOCK;

/// Attention of every window of `context` tokens to itself: query i sees the last `window` of the keys up to i. A sink is a
/// score per head, `[heads]`, that takes part in every softmax and is dropped afterwards.
///
/// | inputs | |
/// |---|---|
/// | one | queries, keys and values, `[tokens, (heads + 2 · kv_heads) · head_dim]` |
/// | three | queries, `[tokens, heads · head_dim]`, keys, values, `[tokens, kv_heads · head_dim]` |
/// | four | the same, sinks |
///
/// The value is `[tokens, heads · head_dim]`.
#[derive(Clone, Debug)]
pub(super) struct AttentionKernel {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub context: usize,
    pub window: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Where the forward pass leaves the largest `score · scale` of every head, if somebody asks for it.
    pub largest: Option<Arc<OnceLock<Vec<f32>>>>,
}

impl AttentionKernel {
    /// All tiles, with the index of their block of queries: keys by keys, which stay in the cache while the queries that see them pass.
    pub(super) fn tiles(&self) -> impl Iterator<Item = (usize, Tile)> {
        let (context, window) = (self.context, self.window);
        let of_keys = move |first: usize| {
            let end = (first + KEYS).min(context);
            let of_block = move |block: usize| {
                let queries = block * BLOCK..(block * BLOCK + BLOCK).min(context);
                let keys = first.max((queries.start + 1).saturating_sub(window))..end.min(queries.end);
                (block, Tile { queries, keys, window })
            };
            (first / BLOCK..context.div_ceil(BLOCK)).map(of_block).take_while(|(_, tile)| !tile.keys.is_empty())
        };
        (0..context).step_by(KEYS).flat_map(of_keys)
    }

    /// Memory for the scores of the largest tile.
    pub(super) fn scratch(&self) -> Vec<f32> {
        vec![0f32; KEYS.min(self.context) * BLOCK.min(self.context)]
    }

    /// Features of a token's value.
    pub(super) fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers that the backward pass needs of the softmaxes of a head in a window.
    pub(super) fn sums(&self) -> usize {
        self.context.div_ceil(BLOCK) * SUMS
    }

    /// The value, and what the backward pass needs of every softmax.
    fn attend(&self, inputs: &[Buffer], sinks: Option<&[f32]>) -> (Buffer, Buffer) {
        let apart = self.split(inputs);
        let heads = apart.len() / self.task() * self.group();
        let (mut value, mut sums) = (vec![0f32; heads * self.head()], vec![0f32; heads * self.sums()]);
        let items = value.chunks_exact_mut(self.head()).zip(sums.chunks_exact_mut(self.sums()));
        let largest = run(
            items.enumerate().collect(),
            #[inline(always)]
            |(head, (value, sums))| {
                let slots = Slots::of(self, &apart[head / self.group() * self.task()..]);
                let sink = sinks.map(|sinks| sinks[head % self.heads]);
                self.attend_head(slots, head % self.group(), sink, value, sums)
            },
        );
        if let Some(place) = &self.largest {
            let of_head =
                |head| largest.iter().skip(head).step_by(self.heads).copied().fold(f32::NEG_INFINITY, f32::max);
            // A kernel has one forward pass, so the place is empty.
            place.get_or_init(|| (0..self.heads).map(of_head).collect());
        }
        let kept = sums.len();
        (self.join_value(&value), Buffer::new(sums, &[kept]))
    }

    /// Adds the value of a query head to zeros, `[context, head_dim]`. Returns its largest score, if somebody asks for it.
    #[inline(always)]
    fn attend_head(
        &self,
        slots: Slots<'_>,
        index: usize,
        sink: Option<f32>,
        value: &mut [f32],
        sums: &mut [f32],
    ) -> f32 {
        let (mut scratch, width) = (self.scratch(), self.head_dim);
        let mut largest = f32::NEG_INFINITY;
        sums.chunks_exact_mut(SUMS).for_each(|sums| Softmax::new(sink).write(sums));
        for (block, tile) in self.tiles() {
            let sums = &mut sums[block * SUMS..][..SUMS];
            let value = &mut value[tile.queries.start * width..tile.queries.end * width];
            let scores = &mut scratch[..tile.keys.len() * tile.queries.len()];
            let query = View::whole(slots.query(index, &tile.queries), width);
            write(scores, tile.queries.len(), false, View::whole(slots.key(&tile.keys), width), query.transpose());
            let mut softmax = Softmax::read(sums);
            let factors = tile.add(scores, self.scale, &mut softmax, self.largest.is_some().then_some(&mut largest));
            softmax.write(sums);
            scale_lines(value, width, &factors);
            let weights = View::whole(scores, tile.queries.len()).transpose();
            write(value, width, true, weights, View::whole(slots.value(&tile.keys), width));
        }
        for (value, sums) in value.chunks_mut(BLOCK * width).zip(sums.chunks_exact(SUMS)) {
            scale_lines(value, width, &Softmax::read(sums).factors());
        }
        largest
    }
}

/// Multiplies every line with its factor.
#[inline(always)]
fn scale_lines(values: &mut [f32], width: usize, factors: &[f32; BLOCK]) {
    for (line, factor) in values.chunks_exact_mut(width).zip(factors) {
        line.iter_mut().for_each(|value| *value *= factor);
    }
}

impl Kernel<1> for AttentionKernel {
    fn forward(&self, inputs: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        let (value, sums) = self.attend(&inputs, None);
        let [qkv] = inputs;
        (value.clone(), vec![qkv, value, sums])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 1]) -> [Buffer; 1] {
        let [inputs @ .., value, sums] = &kept[..] else { unreachable!("forward keeps three") };
        into_array(self.attend_back(inputs, None, [value, sums], &gradient).0)
    }
}

impl Kernel<3> for AttentionKernel {
    fn forward(&self, inputs: [Buffer; 3]) -> (Buffer, Vec<Buffer>) {
        let (value, sums) = self.attend(&inputs, None);
        let [query, key, values] = inputs;
        (value.clone(), vec![query, key, values, value, sums])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 3]) -> [Buffer; 3] {
        let [inputs @ .., value, sums] = &kept[..] else { unreachable!("forward keeps five") };
        into_array(self.attend_back(inputs, None, [value, sums], &gradient).0)
    }
}

impl Kernel<4> for AttentionKernel {
    fn forward(&self, [query, key, values, sinks]: [Buffer; 4]) -> (Buffer, Vec<Buffer>) {
        let inputs = [query, key, values];
        let (value, sums) = self.attend(&inputs, Some(sinks.values()));
        let [query, key, values] = inputs;
        (value.clone(), vec![query, key, values, sinks, value, sums])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 4]) -> [Buffer; 4] {
        let [inputs @ .., sinks, value, sums] = &kept[..] else { unreachable!("forward keeps six") };
        let (mut gradients, to_sinks) = self.attend_back(inputs, Some(sinks.values()), [value, sums], &gradient);
        gradients.push(Buffer::new(to_sinks, &[self.heads]));
        into_array(gradients)
    }
}

fn into_array<const N: usize>(gradients: Vec<Buffer>) -> [Buffer; N] {
    gradients.try_into().unwrap_or_else(|_| unreachable!("one gradient for every input"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_grows_with_the_context_and_not_with_its_square() {
        let kept = |context: usize| {
            let (heads, kv_heads, head_dim) = (2, 1, 4);
            let kernel =
                AttentionKernel { heads, kv_heads, head_dim, context, window: usize::MAX, scale: 0.5, largest: None };
            let width = (heads + 2 * kv_heads) * head_dim;
            let input = Buffer::new(vec![0.5; context * width], &[context, width]);
            let (value, kept) = Kernel::<1>::forward(&kernel, [input]);
            // The mean of equal values.
            assert!(value.values().iter().all(|value| (value - 0.5).abs() < 1e-6));
            kept.iter().map(|buffer| buffer.values().len()).sum::<usize>()
        };
        assert_eq!(kept(1024), 16 * kept(64));
    }

    #[test]
    fn every_visible_pair_is_in_one_tile() {
        for (context, window) in [(1, 1), (64, usize::MAX), (700, usize::MAX), (700, 40), (700, 300), (513, 1)] {
            let kernel =
                AttentionKernel { heads: 1, kv_heads: 1, head_dim: 1, context, window, scale: 1.0, largest: None };
            let mut seen = vec![0; context * context];
            for (block, tile) in kernel.tiles() {
                assert_eq!(block, tile.queries.start / BLOCK);
                for query in tile.queries {
                    tile.keys.clone().for_each(|key| seen[query * context + key] += 1);
                }
            }
            for (place, count) in seen.into_iter().enumerate() {
                let (query, key) = (place / context, place % context);
                let visible = key <= query && query - key < window;
                assert!(if visible { count == 1 } else { count <= 1 }, "{context} {window}: {query} {key} {count}");
            }
        }
    }
}
