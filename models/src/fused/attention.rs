//! Causal self-attention as one node of the graph, in memory linear in the context.
//!
//! A block of queries meets its keys tile by tile, with a running softmax: no more scores than those of one tile exist at a time, and
//! the backward pass computes them again (arXiv:2205.14135, arXiv:2307.08691). Heads are read in place, between the other heads, so
//! nothing is transposed in memory; keys that no query of a block sees take part in no product.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

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

/// The location of queries, keys or values.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Index of the input.
    pub input: usize,
    /// Its first feature.
    first: usize,
    /// Number of features of the input.
    pub width: usize,
}

impl AttentionKernel {
    /// Places of queries, keys and values, by the number of inputs.
    pub(super) fn places(&self, inputs: usize) -> [Place; 3] {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let joint = |first| Place { input: 0, first, width: query + 2 * key };
        let apart = |input, width| Place { input, first: 0, width };
        match inputs {
            1 => [joint(0), joint(query), joint(query + key)],
            _ => [apart(0, query), apart(1, key), apart(2, key)],
        }
    }

    /// Tokens of a head in a window of an input.
    pub(super) fn head<'a>(&self, window: &'a [f32], place: Place, head: usize, tokens: &Range<usize>) -> View<'a> {
        View::new(&window[self.start(place, head, tokens)..], tokens.len(), self.head_dim, place.width)
    }

    /// Their offset.
    pub(super) fn start(&self, place: Place, head: usize, tokens: &Range<usize>) -> usize {
        tokens.start * place.width + place.first + head * self.head_dim
    }

    /// The heads of the value.
    pub(super) fn mixed(&self) -> Place {
        Place { input: 0, first: 0, width: self.heads * self.head_dim }
    }

    /// The blocks of queries in a window.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.context).step_by(BLOCK).map(|first| first..(first + BLOCK).min(self.context))
    }

    /// The keys that at least one of these queries sees, in tiles.
    pub(super) fn tiles(&self, queries: &Range<usize>) -> impl Iterator<Item = Tile> {
        let (queries, window, end) = (queries.clone(), self.window, queries.end);
        let first = (queries.start + 1).saturating_sub(window);
        let tile = move |start| Tile { queries: queries.clone(), keys: start..(start + KEYS).min(end), window };
        (first..end).step_by(KEYS).map(tile)
    }

    /// Scores of the largest tile.
    pub(super) fn scratch(&self) -> Vec<f32> {
        vec![0f32; KEYS.min(self.context) * BLOCK.min(self.context)]
    }

    /// The value, and what the backward pass needs of every softmax.
    fn attend(&self, inputs: &[Buffer], sinks: Option<&[f32]>) -> (Buffer, Buffer) {
        let windows = self.windows(inputs);
        let (width, blocks) = (self.mixed().width, self.context.div_ceil(BLOCK));
        let mut value = vec![0f32; windows.len() * self.context * width];
        let mut sums = vec![0f32; windows.len() * blocks * self.heads * SUMS];
        let values = value.chunks_mut(self.context * width).flat_map(|window| window.chunks_mut(BLOCK * width));
        let blocks = windows.iter().flat_map(|inputs| self.blocks().map(move |queries| (inputs, queries)));
        let largest = run(
            blocks.zip(values.zip(sums.chunks_mut(self.heads * SUMS))).collect(),
            #[inline(always)]
            |((inputs, queries), (value, sums))| self.attend_block(inputs, &queries, sinks, value, sums),
        );
        if let Some(place) = &self.largest {
            let of_head = |head: usize| largest.iter().map(|block| block[head]).fold(f32::NEG_INFINITY, f32::max);
            // A kernel has one forward pass, so the place is empty.
            place.get_or_init(|| (0..self.heads).map(of_head).collect());
        }
        let (tokens, kept) = (value.len() / width, sums.len());
        (Buffer::new(value, &[tokens, width]), Buffer::new(sums, &[kept]))
    }

    /// All heads of a block of queries. Returns the largest score of each, if somebody asks for it.
    #[inline(always)]
    fn attend_block(
        &self,
        inputs: &[&[f32]],
        queries: &Range<usize>,
        sinks: Option<&[f32]>,
        value: &mut [f32],
        sums: &mut [f32],
    ) -> Vec<f32> {
        let [q, k, v] = self.places(inputs.len());
        let (mut scratch, width, block) = (self.scratch(), self.mixed().width, queries.len());
        let mut largest = vec![f32::NEG_INFINITY; if self.largest.is_some() { self.heads } else { 0 }];
        for (head, sums) in sums.chunks_exact_mut(SUMS).enumerate() {
            let shared = head * self.kv_heads / self.heads;
            let query = self.head(inputs[q.input], q, head, queries).transpose();
            let value = &mut value[head * self.head_dim..];
            let mut softmax = Softmax::new(sinks.map(|sinks| sinks[head]));
            for (index, tile) in self.tiles(queries).enumerate() {
                let scores = &mut scratch[..tile.keys.len() * block];
                write(scores, block, false, self.head(inputs[k.input], k, shared, &tile.keys), query);
                let factors = tile.add(scores, self.scale, &mut softmax, largest.get_mut(head));
                if index > 0 {
                    self.scale_lines(value, &factors);
                }
                let weights = View::whole(scores, block).transpose();
                write(value, width, index > 0, weights, self.head(inputs[v.input], v, shared, &tile.keys));
            }
            self.scale_lines(value, &softmax.factors());
            softmax.write(sums);
        }
        largest
    }

    /// Multiplies every line of a head with its factor.
    #[inline(always)]
    fn scale_lines(&self, value: &mut [f32], factors: &[f32; BLOCK]) {
        for (line, factor) in value.chunks_mut(self.mixed().width).zip(factors) {
            line[..self.head_dim].iter_mut().for_each(|value| *value *= factor);
        }
    }

    /// For every window, its part of every input.
    pub(super) fn windows<'a>(&self, inputs: &'a [Buffer]) -> Vec<Vec<&'a [f32]>> {
        let [query, ..] = self.places(inputs.len());
        let count = inputs[0].values().len() / (query.width * self.context);
        let part = |input: &'a Buffer, window| {
            let length = input.values().len() / count;
            &input.values()[window * length..][..length]
        };
        (0..count).map(|window| inputs.iter().map(|input| part(input, window)).collect()).collect()
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
