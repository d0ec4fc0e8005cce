//! The backward pass of attention: the weights of a tile are computed again from the softmax that the forward pass kept.

use super::attend::SUMS;
use super::heads::{AttentionKernel, Slots};
use super::math::sum_pairs;
use super::product::{View, write};
use super::run::run;
use super::softmax::{BLOCK, Softmax};
use super::tape::Buffer;

/// The queries of a window that share a key head.
struct Shared<'a> {
    kernel: &'a AttentionKernel,
    slots: Slots<'a>,
    /// Value and gradient of the window, between the other heads.
    value: &'a [f32],
    gradient: &'a [f32],
    sums: &'a [f32],
    /// The key head.
    index: usize,
}

/// What the backward pass of a query head needs beside its task.
struct Head {
    index: usize,
    /// The gradient of the value, `[context, head_dim]`.
    gradient: Vec<f32>,
    /// For every query the product of its value and the gradient of that: the mean gradient of its weights. Zero for what a short
    /// block lacks.
    means: Vec<[f32; BLOCK]>,
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
        let apart = self.split(inputs);
        let mut gradients = vec![0f32; apart.len()];
        let (length, tasks) = (self.context * self.width(), apart.chunks_exact(self.task()));
        let shared = tasks.enumerate().map(|(task, slots)| {
            let (window, index) = (task / self.kv_heads, task % self.kv_heads);
            let [value, gradient] = [value, gradient].map(|buffer| &buffer.values()[window * length..][..length]);
            let length = self.group() * self.sums();
            let sums = &sums.values()[task * length..][..length];
            Shared { kernel: self, slots: Slots::of(self, slots), value, gradient, sums, index }
        });
        let to_sinks = run(
            shared.zip(gradients.chunks_exact_mut(self.task())).collect(),
            #[inline(always)]
            |(shared, gradients)| shared.back(sinks, gradients),
        );
        let mut sum = vec![0f32; self.heads];
        for window in to_sinks.chunks(self.kv_heads) {
            sum.iter_mut().zip(window.iter().flatten()).for_each(|(sum, part)| *sum += part);
        }
        (self.join(inputs, &gradients), sum)
    }
}

impl Shared<'_> {
    /// Adds to the gradients of a task, which are zero. Returns those of the sinks.
    #[inline(always)]
    fn back(&self, sinks: Option<&[f32]>, gradients: &mut [f32]) -> Vec<f32> {
        let kernel = self.kernel;
        let (queries, shared) = gradients.split_at_mut(kernel.group() * kernel.head());
        let mut to_sinks = vec![0f32; kernel.group()];
        for (index, queries) in queries.chunks_exact_mut(kernel.head()).enumerate() {
            let head = self.of_head(index);
            if let Some(sinks) = sinks {
                let sink = sinks[self.index * kernel.group() + index];
                let to_sink = |(block, means)| self.softmax(index, block).to_sink(sink, means);
                to_sinks[index] = head.means.iter().enumerate().map(to_sink).sum();
            }
            self.head_back(&head, queries, shared);
        }
        to_sinks
    }

    /// The softmax of a block of a query head.
    fn softmax(&self, index: usize, block: usize) -> Softmax {
        Softmax::read(&self.sums[index * self.kernel.sums() + block * SUMS..][..SUMS])
    }

    /// Takes a query head out of the value and its gradient.
    #[inline(always)]
    fn of_head(&self, index: usize) -> Head {
        let (kernel, width) = (self.kernel, self.kernel.head_dim);
        let first = (self.index * kernel.group() + index) * width;
        let mut gradient = vec![0f32; kernel.head()];
        let mut means = vec![[0f32; BLOCK]; kernel.context.div_ceil(BLOCK)];
        let lines = self.value.chunks_exact(kernel.width()).zip(self.gradient.chunks_exact(kernel.width()));
        for ((apart, mean), lines) in gradient.chunks_exact_mut(width).zip(means.as_flattened_mut()).zip(lines) {
            let [value, gradient] = <[_; 2]>::from(lines).map(|line| &line[first..][..width]);
            apart.copy_from_slice(gradient);
            *mean = sum_pairs(value, gradient, |value, gradient| value * gradient);
        }
        Head { index, gradient, means }
    }

    /// Adds to the gradients of a query head, and to those of its key head and of the values, one after the other.
    #[inline(always)]
    fn head_back(&self, head: &Head, to_queries: &mut [f32], to_shared: &mut [f32]) {
        let (kernel, width) = (self.kernel, self.kernel.head_dim);
        let (to_keys, to_values) = to_shared.split_at_mut(kernel.head());
        let (mut scores, mut weights) = (kernel.scratch(), kernel.scratch());
        for (block, tile) in kernel.tiles() {
            let (queries, keys) = (&tile.queries, &tile.keys);
            let query = View::whole(self.slots.query(head.index, queries), width);
            let gradient = View::whole(&head.gradient[queries.start * width..queries.end * width], width);
            let [key, value] = [self.slots.key(keys), self.slots.value(keys)].map(|part| View::whole(part, width));
            let size = keys.len() * queries.len();
            let (weights, scores) = (&mut weights[..size], &mut scores[..size]);
            write(weights, queries.len(), false, key, query.transpose());
            write(scores, queries.len(), false, value, gradient.transpose());
            tile.back(weights, scores, kernel.scale, &self.softmax(head.index, block), &head.means[block]);
            let [weights, scores] = [&*weights, &*scores].map(|part| View::whole(part, queries.len()));
            write(&mut to_queries[queries.start * width..], width, true, scores.transpose(), key);
            write(&mut to_keys[keys.start * width..], width, true, scores, query);
            write(&mut to_values[keys.start * width..], width, true, weights, gradient);
        }
    }
}
