//! Causal self-attention as one node of the graph.
//!
//! Heads are read and written in place, between the other heads, so nothing is transposed in memory; keys that no query of a
//! block sees take part in no product.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::product::{View, fill, filled, write};
use super::run::run;
use super::softmax::Seen;
use super::tape::{Buffer, Kernel};

/// Number of queries per matrix product.
const BLOCK: usize = 64;

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

/// Queries and the keys that at least one of them sees.
struct Block {
    seen: Seen,
    /// Offset of its weights among those of its head, one line per key.
    at: usize,
}

/// The location of queries, keys or values.
#[derive(Clone, Copy)]
struct Place {
    /// Index of the input.
    input: usize,
    /// Its first feature.
    first: usize,
    /// Number of features of the input.
    width: usize,
}

impl AttentionKernel {
    /// Places of queries, keys and values, by the number of inputs.
    fn places(&self, inputs: usize) -> [Place; 3] {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let joint = |first| Place { input: 0, first, width: query + 2 * key };
        let apart = |input, width| Place { input, first: 0, width };
        match inputs {
            1 => [joint(0), joint(query), joint(query + key)],
            _ => [apart(0, query), apart(1, key), apart(2, key)],
        }
    }

    /// The blocks of a head, and the total number of their weights.
    fn blocks(&self) -> (Vec<Block>, usize) {
        let mut at = 0;
        let block = |first: usize| {
            let queries = first..(first + BLOCK).min(self.context);
            let keys = (first + 1).saturating_sub(self.window)..queries.end;
            let block = Block { at, seen: Seen { queries, keys, window: self.window } };
            at += block.weights();
            block
        };
        ((0..self.context).step_by(BLOCK).map(block).collect(), at)
    }

    /// Tokens of a head in a window of an input.
    fn head<'a>(&self, window: &'a [f32], place: Place, head: usize, tokens: &Range<usize>) -> View<'a> {
        View::new(&window[self.start(place, head, tokens)..], tokens.len(), self.head_dim, place.width)
    }

    /// Their offset.
    fn start(&self, place: Place, head: usize, tokens: &Range<usize>) -> usize {
        tokens.start * place.width + place.first + head * self.head_dim
    }

    /// The heads of the value.
    fn mixed(&self) -> Place {
        Place { input: 0, first: 0, width: self.heads * self.head_dim }
    }

    /// The value, and the weights of every block.
    fn attend(&self, inputs: &[Buffer], sinks: Option<&[f32]>) -> (Buffer, Buffer) {
        let (blocks, weights_of_head) = self.blocks();
        let windows = self.windows(inputs);
        let width = self.mixed().width;
        let mut value = vec![0f32; windows.len() * self.context * width];
        let length = windows.len() * self.heads * weights_of_head;
        let items = windows.into_iter().zip(value.chunks_mut(self.context * width));
        let measured = if self.largest.is_some() { self.heads } else { 0 };
        let mut largest = Vec::new();
        let attend = |weights: &mut [MaybeUninit<f32>]| {
            largest = run(
                items.zip(weights.chunks_mut(self.heads * weights_of_head)).collect(),
                #[inline(always)]
                |((inputs, value), weights)| {
                    let mut largest = vec![f32::NEG_INFINITY; measured];
                    for (head, weights) in weights.chunks_exact_mut(weights_of_head).enumerate() {
                        let sink = sinks.map(|sinks| sinks[head]);
                        // With a closure instead of the loop, the body would be compiled for narrow vectors.
                        for block in &blocks {
                            self.attend_block(&inputs, head, sink, block, weights, value, largest.get_mut(head));
                        }
                    }
                    largest
                },
            );
        };
        // SAFETY: every head of every window has its part, and its blocks fill that part without gaps.
        #[allow(unsafe_code)]
        let weights = unsafe { filled(length, attend) };
        if let Some(place) = &self.largest {
            let of_head = |head: usize| largest.iter().map(|window| window[head]).fold(f32::NEG_INFINITY, f32::max);
            // A kernel has one forward pass, so the place is empty.
            place.get_or_init(|| (0..self.heads).map(of_head).collect());
        }
        let tokens = value.len() / width;
        let weights_shape = [weights.len()];
        (Buffer::new(value, &[tokens, width]), Buffer::new(weights, &weights_shape))
    }

    #[allow(clippy::too_many_arguments, reason = "what is read and what is written")]
    #[inline(always)]
    fn attend_block(
        &self,
        inputs: &[&[f32]],
        head: usize,
        sink: Option<f32>,
        block: &Block,
        weights: &mut [MaybeUninit<f32>],
        value: &mut [f32],
        largest: Option<&mut f32>,
    ) {
        let Seen { queries, keys, .. } = &block.seen;
        let [q, k, v] = self.places(inputs.len());
        let shared = head * self.kv_heads / self.heads;
        let query = self.head(inputs[q.input], q, head, queries);
        let key = self.head(inputs[k.input], k, shared, keys);
        let weights = fill(&mut weights[block.range()], key, query.transpose());
        block.seen.softmax(weights, self.scale, sink, largest);
        let place = &mut value[self.start(self.mixed(), head, queries)..];
        let values = self.head(inputs[v.input], v, shared, keys);
        write(place, self.mixed().width, false, View::whole(weights, queries.len()).transpose(), values);
    }

    /// Gradients of the inputs and of the sinks.
    fn attend_back(
        &self,
        inputs: &[Buffer],
        weights: &Buffer,
        gradient: &Buffer,
        sinks: bool,
    ) -> (Vec<Buffer>, Vec<f32>) {
        let (blocks, weights_of_head) = self.blocks();
        let mut gradients: Vec<Vec<f32>> = inputs.iter().map(|input| vec![0f32; input.values().len()]).collect();
        let windows = self.windows(inputs);
        let mut parts: Vec<Vec<&mut [f32]>> = windows.iter().map(|_| Vec::with_capacity(inputs.len())).collect();
        for gradients in &mut gradients {
            let length = gradients.len() / windows.len();
            parts.iter_mut().zip(gradients.chunks_mut(length)).for_each(|(parts, part)| parts.push(part));
        }
        let gradient = gradient.values().chunks(self.context * self.mixed().width);
        let weights = weights.values().chunks(self.heads * weights_of_head);
        let scratch = blocks.iter().map(Block::weights).max().unwrap_or(0);
        let to_sinks = run(
            windows.into_iter().zip(parts).zip(gradient.zip(weights)).collect(),
            #[inline(always)]
            |((inputs, mut parts), (gradient, weights))| {
                let mut scratch = vec![0f32; scratch];
                let mut to_sinks = vec![0f32; self.heads];
                for (head, weights) in weights.chunks_exact(weights_of_head).enumerate() {
                    for block in &blocks {
                        to_sinks[head] += self.attend_block_back(
                            &inputs,
                            head,
                            block,
                            weights,
                            gradient,
                            sinks,
                            &mut scratch,
                            &mut parts,
                        );
                    }
                }
                to_sinks
            },
        );
        let mut sum = vec![0f32; self.heads];
        for part in to_sinks {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        let gradients = gradients.into_iter().zip(inputs).map(|(values, input)| Buffer::new(values, &input.shape()));
        (gradients.collect(), sum)
    }

    /// Writes the gradients of queries, adds those of keys and values, and returns that of the sink.
    #[allow(clippy::too_many_arguments, reason = "what is read and what is written")]
    #[inline(always)]
    fn attend_block_back(
        &self,
        inputs: &[&[f32]],
        head: usize,
        block: &Block,
        weights: &[f32],
        gradient: &[f32],
        sinks: bool,
        scratch: &mut [f32],
        parts: &mut [&mut [f32]],
    ) -> f32 {
        let Seen { queries, keys, .. } = &block.seen;
        let [q, k, v] = self.places(inputs.len());
        let shared = head * self.kv_heads / self.heads;
        let (weights, scores) = (&weights[block.range()], &mut scratch[..block.weights()]);
        let gradient = self.head(gradient, self.mixed(), head, queries);
        let values = self.head(inputs[v.input], v, shared, keys);
        write(scores, queries.len(), false, values, gradient.transpose());
        let to_sink = block.seen.softmax_back(scores, weights, self.scale, sinks);
        let (scores, weights) = (View::whole(scores, queries.len()), View::whole(weights, queries.len()));
        let mut put = |place: Place, head, tokens, add, a, b| {
            let start = self.start(place, head, tokens);
            write(&mut parts[place.input][start..], place.width, add, a, b);
        };
        put(q, head, queries, false, scores.transpose(), self.head(inputs[k.input], k, shared, keys));
        put(k, shared, keys, true, scores, self.head(inputs[q.input], q, head, queries));
        put(v, shared, keys, true, weights, gradient);
        to_sink
    }

    /// For every window, its part of every input.
    fn windows<'a>(&self, inputs: &'a [Buffer]) -> Vec<Vec<&'a [f32]>> {
        let [query, ..] = self.places(inputs.len());
        let count = inputs[0].values().len() / (query.width * self.context);
        let part = |input: &'a Buffer, window| {
            let length = input.values().len() / count;
            &input.values()[window * length..][..length]
        };
        (0..count).map(|window| inputs.iter().map(|input| part(input, window)).collect()).collect()
    }
}

impl Block {
    fn weights(&self) -> usize {
        self.seen.queries.len() * self.seen.keys.len()
    }

    fn range(&self) -> Range<usize> {
        self.at..self.at + self.weights()
    }
}

impl Kernel<1> for AttentionKernel {
    fn forward(&self, inputs: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        let (value, weights) = self.attend(&inputs, None);
        let [qkv] = inputs;
        (value, vec![qkv, weights])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 1]) -> [Buffer; 1] {
        let [inputs @ .., weights] = &kept[..] else { unreachable!("forward keeps two") };
        into_array(self.attend_back(inputs, weights, &gradient, false).0)
    }
}

impl Kernel<3> for AttentionKernel {
    fn forward(&self, inputs: [Buffer; 3]) -> (Buffer, Vec<Buffer>) {
        let (value, weights) = self.attend(&inputs, None);
        let [query, key, values] = inputs;
        (value, vec![query, key, values, weights])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 3]) -> [Buffer; 3] {
        let [inputs @ .., weights] = &kept[..] else { unreachable!("forward keeps four") };
        into_array(self.attend_back(inputs, weights, &gradient, false).0)
    }
}

impl Kernel<4> for AttentionKernel {
    fn forward(&self, [query, key, values, sinks]: [Buffer; 4]) -> (Buffer, Vec<Buffer>) {
        let inputs = [query, key, values];
        let (value, weights) = self.attend(&inputs, Some(sinks.values()));
        let [query, key, values] = inputs;
        (value, vec![query, key, values, weights])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 4]) -> [Buffer; 4] {
        let [inputs @ .., weights] = &kept[..] else { unreachable!("forward keeps four") };
        let (mut gradients, sinks) = self.attend_back(inputs, weights, &gradient, true);
        gradients.push(Buffer::new(sinks, &[self.heads]));
        into_array(gradients)
    }
}

fn into_array<const N: usize>(gradients: Vec<Buffer>) -> [Buffer; N] {
    gradients.try_into().unwrap_or_else(|_| unreachable!("one gradient for every input"))
}
