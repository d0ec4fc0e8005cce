//! The backward pass of attention: the weights of a tile are computed again from the softmax that the forward pass kept.

use std::ops::Range;

use super::attention::{AttentionKernel, SUMS};
use super::math::sum_pairs;
use super::product::{View, write};
use super::run::{lines, run};
use super::softmax::{BLOCK, Softmax};
use super::tape::Buffer;

/// The queries of a window that share a key head.
struct Shared<'a> {
    kernel: &'a AttentionKernel,
    inputs: &'a [&'a [f32]],
    value: &'a [f32],
    gradient: &'a [f32],
    sums: &'a [f32],
    /// The key head.
    index: usize,
}

/// Where the gradients of a query head, its key head and its values are added, `[context, head_dim]` each.
struct Gradients<'a> {
    queries: &'a mut [f32],
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

/// The scores of a tile, and the gradients of its weights.
struct Scratch {
    scores: Vec<f32>,
    gradients: Vec<f32>,
}

impl AttentionKernel {
    /// Gradients of the inputs, and of the sinks; from the value, and what the forward pass kept of the softmaxes.
    pub(super) fn attend_back(
        &self,
        inputs: &[Buffer],
        sinks: Option<&[f32]>,
        [value, sums]: [&Buffer; 2],
        gradient: &Buffer,
    ) -> (Vec<Buffer>, Vec<f32>) {
        let windows = self.windows(inputs);
        let length = self.context * self.mixed().width;
        let values = value.values().chunks(length).zip(gradient.values().chunks(length));
        let values = values.zip(sums.values().chunks(self.context.div_ceil(BLOCK) * self.heads * SUMS));
        let heads = windows.iter().zip(values).flat_map(|(inputs, ((value, gradient), sums))| {
            let of = move |index| Shared { kernel: self, inputs, value, gradient, sums, index };
            (0..self.kv_heads).map(of)
        });
        // Every task has gradients of its own, head by head.
        let task = self.task();
        let mut apart = vec![0f32; windows.len() * self.kv_heads * task];
        let to_sinks = run(
            heads.zip(apart.chunks_mut(task)).collect(),
            #[inline(always)]
            |(shared, apart)| shared.back(sinks, apart),
        );
        let mut sum = vec![0f32; self.heads];
        for window in to_sinks.chunks(self.kv_heads) {
            sum.iter_mut().zip(window.iter().flatten()).for_each(|(sum, part)| *sum += part);
        }
        (self.joined(inputs, &apart), sum)
    }

    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Length of the gradients of the queries of one key head, of the key and of the value.
    fn task(&self) -> usize {
        (self.group() + 2) * self.context * self.head_dim
    }

    /// Gradients that lie head by head, as those of the inputs, where the heads of a token are neighbours.
    fn joined(&self, inputs: &[Buffer], apart: &[f32]) -> Vec<Buffer> {
        let (group, head) = (self.group(), self.context * self.head_dim);
        let queries = (0..self.heads).map(|index| index / group * self.task() + index % group * head).collect();
        let shared = |slot| (0..self.kv_heads).map(|index| index * self.task() + (group + slot) * head).collect();
        let starts: [Vec<usize>; 3] = [queries, shared(0), shared(1)];
        let starts = if inputs.len() == 1 { vec![starts.concat()] } else { starts.to_vec() };
        inputs
            .iter()
            .zip(starts)
            .map(|(input, starts)| Buffer::new(self.join(&starts, apart), &input.shape()))
            .collect()
    }

    /// For every token the features of the heads that begin at `starts` in each window.
    fn join(&self, starts: &[usize], apart: &[f32]) -> Vec<f32> {
        let (width, of_window) = (starts.len() * self.head_dim, self.kv_heads * self.task());
        let mut joined = vec![0f32; apart.len() / of_window * self.context * width];
        let part = lines(width);
        run(
            joined.chunks_mut(part).enumerate().collect(),
            #[inline(always)]
            |(index, joined)| {
                for (line, joined) in joined.chunks_exact_mut(width).enumerate() {
                    let token = index * (part / width) + line;
                    let token = token / self.context * of_window + token % self.context * self.head_dim;
                    for (joined, start) in joined.chunks_exact_mut(self.head_dim).zip(starts) {
                        joined.copy_from_slice(&apart[token + start..][..self.head_dim]);
                    }
                }
            },
        );
        joined
    }
}

impl Shared<'_> {
    /// Adds to gradients, which are zero: of each query head, of the key head and of its values, `[context, head_dim]` each.
    /// Returns those of the sinks.
    #[inline(always)]
    fn back(&self, sinks: Option<&[f32]>, apart: &mut [f32]) -> Vec<f32> {
        let (kernel, group) = (self.kernel, self.kernel.group());
        let length = kernel.context * kernel.head_dim;
        let (queries, shared) = apart.split_at_mut(group * length);
        let (keys, values) = shared.split_at_mut(length);
        let mut scratch = Scratch { scores: kernel.scratch(), gradients: kernel.scratch() };
        let mut to_sinks = vec![0f32; group];
        for (index, queries) in queries.chunks_exact_mut(length).enumerate() {
            let head = self.index * group + index;
            for (block, sums) in kernel.blocks().zip(self.sums.chunks_exact(kernel.heads * SUMS)) {
                let softmax = Softmax::read(&sums[head * SUMS..][..SUMS]);
                let means = self.means(head, &block);
                if let Some(sinks) = sinks {
                    to_sinks[index] += softmax.to_sink(sinks[head], &means);
                }
                let gradients = Gradients { queries, keys, values };
                self.block_back(head, &block, &softmax, &means, &mut scratch, gradients);
            }
        }
        to_sinks
    }

    /// For every query the product of its value and the gradient of that: the mean gradient of its weights.
    #[inline(always)]
    fn means(&self, head: usize, queries: &Range<usize>) -> [f32; BLOCK] {
        let (place, width) = (self.kernel.mixed(), self.kernel.mixed().width);
        let start = self.kernel.start(place, head, queries);
        let lines = self.value[start..].chunks(width).zip(self.gradient[start..].chunks(width));
        let mut means = [0f32; BLOCK];
        for (mean, (value, gradient)) in means[..queries.len()].iter_mut().zip(lines) {
            let head = ..self.kernel.head_dim;
            *mean = sum_pairs(&value[head], &gradient[head], |value, gradient| value * gradient);
        }
        means
    }

    #[inline(always)]
    fn block_back(
        &self,
        head: usize,
        queries: &Range<usize>,
        softmax: &Softmax,
        means: &[f32; BLOCK],
        scratch: &mut Scratch,
        gradients: Gradients<'_>,
    ) {
        let (kernel, width, block) = (self.kernel, self.kernel.head_dim, queries.len());
        let [q, k, v] = kernel.places(self.inputs.len());
        let query = kernel.head(self.inputs[q.input], q, head, queries);
        let gradient = kernel.head(self.gradient, kernel.mixed(), head, queries);
        let to_query = &mut gradients.queries[queries.start * width..];
        for tile in kernel.tiles(queries) {
            let key = kernel.head(self.inputs[k.input], k, self.index, &tile.keys);
            let value = kernel.head(self.inputs[v.input], v, self.index, &tile.keys);
            let size = tile.keys.len() * block;
            let (scores, weights_gradient) = (&mut scratch.scores[..size], &mut scratch.gradients[..size]);
            write(scores, block, false, key, query.transpose());
            write(weights_gradient, block, false, value, gradient.transpose());
            tile.back(scores, weights_gradient, kernel.scale, softmax, means);
            let (weights, scores) = (View::whole(scores, block), View::whole(weights_gradient, block));
            write(to_query, width, true, scores.transpose(), key);
            write(&mut gradients.keys[tile.keys.start * width..], width, true, scores, query);
            write(&mut gradients.values[tile.keys.start * width..], width, true, weights, gradient);
        }
    }
}
