//! The forward pass of attention.

use super::heads::{AttentionKernel, Slots};
use super::product::{View, write};
use super::run::run;
use super::softmax::{BLOCK, Softmax, Tile};
use super::tape::Buffer;

/// Keys per matrix product: the scores of a tile stay in the second cache.
const KEYS: usize = 256;

/// Numbers that the backward pass needs of a block and head: the largest score and the sum of each query.
pub(super) const SUMS: usize = 2 * BLOCK;

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

    /// Numbers that the backward pass needs of the softmaxes of a head in a window.
    pub(super) fn sums(&self) -> usize {
        self.context.div_ceil(BLOCK) * SUMS
    }

    /// The value, and what the backward pass needs of every softmax.
    pub(super) fn attend(&self, inputs: &[Buffer], sinks: Option<&[f32]>) -> (Buffer, Buffer) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
