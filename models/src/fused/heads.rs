//! Queries, keys and values head by head, and their gradients back between each other.
//!
//! The heads of a token are neighbours in the inputs. Apart, every query head is `[context, head_dim]`; the query heads that share a
//! key head are followed by that head and its values. This is a task of the backward pass, which has gradients of its own there.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::run::{lines, run};
use super::tape::Buffer;

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

/// The location of a head.
#[derive(Clone, Copy)]
struct Place {
    /// Index of the input.
    input: usize,
    /// Its first feature.
    first: usize,
}

impl AttentionKernel {
    /// Query heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Features of a token's value.
    pub(super) fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers of a head in a window.
    pub(super) fn head(&self) -> usize {
        self.context * self.head_dim
    }

    /// Numbers of the query heads that share a key head, of that head and of its values, in a window.
    pub(super) fn task(&self) -> usize {
        (self.group() + 2) * self.head()
    }

    /// Numbers of a window.
    pub(super) fn apart(&self) -> usize {
        self.kv_heads * self.task()
    }

    /// Places of the heads of a window in the inputs, one or three, in the order in which they lie apart.
    fn places(&self, inputs: usize) -> Vec<Place> {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let of = |input, start: usize, head| match inputs {
            1 => Place { input: 0, first: start + head * self.head_dim },
            _ => Place { input, first: head * self.head_dim },
        };
        let task = |shared: usize| {
            let queries = (0..self.group()).map(move |index| of(0, 0, shared * self.group() + index));
            queries.chain([of(1, query, shared), of(2, query + key, shared)])
        };
        (0..self.kv_heads).flat_map(task).collect()
    }

    /// The heads apart, window by window.
    pub(super) fn split(&self, inputs: &[Buffer]) -> Vec<f32> {
        let tokens = self.tokens(inputs);
        let mut apart = vec![0f32; tokens / self.context * self.apart()];
        let places = self.places(inputs.len());
        run(
            apart.chunks_exact_mut(self.head()).enumerate().collect(),
            #[inline(always)]
            |(index, head)| {
                let (window, Place { input, first }) = (index / places.len(), places[index % places.len()]);
                let values = inputs[input].values();
                let width = values.len() / tokens;
                let lines = values[window * self.context * width..].chunks_exact(width);
                for (line, head) in lines.zip(head.chunks_exact_mut(self.head_dim)) {
                    head.copy_from_slice(&line[first..][..self.head_dim]);
                }
            },
        );
        apart
    }

    /// What lies apart, in the order and shapes of the inputs.
    pub(super) fn join(&self, inputs: &[Buffer], apart: &[f32]) -> Vec<Buffer> {
        let (places, tokens) = (self.places(inputs.len()), self.tokens(inputs));
        let join = |(index, input): (usize, &Buffer)| {
            let slots = places.iter().enumerate().filter(|(_, place)| place.input == index);
            let slots: Vec<_> = slots.map(|(slot, place)| (slot, place.first)).collect();
            let width = input.values().len() / tokens;
            Buffer::new(self.joined(apart, self.apart(), &slots, width), &input.shape())
        };
        inputs.iter().enumerate().map(join).collect()
    }

    /// The value, `[tokens, heads · head_dim]`, from its heads.
    pub(super) fn join_value(&self, apart: &[f32]) -> Buffer {
        let slots: Vec<_> = (0..self.heads).map(|head| (head, head * self.head_dim)).collect();
        let width = self.width();
        Buffer::new(self.joined(apart, self.heads * self.head(), &slots, width), &[apart.len() / width, width])
    }

    /// Lines of `width` features, one for every token: of each slot of a window, which has `of_window` numbers, and its first feature.
    fn joined(&self, apart: &[f32], of_window: usize, slots: &[(usize, usize)], width: usize) -> Vec<f32> {
        let mut joined = vec![0f32; apart.len() / of_window * self.context * width];
        let part = lines(width);
        run(
            joined.chunks_mut(part).enumerate().collect(),
            #[inline(always)]
            |(index, joined)| {
                for (line, joined) in joined.chunks_exact_mut(width).enumerate() {
                    let token = index * (part / width) + line;
                    let start = token / self.context * of_window + token % self.context * self.head_dim;
                    for (slot, first) in slots {
                        let head = &apart[start + slot * self.head()..][..self.head_dim];
                        joined[*first..][..self.head_dim].copy_from_slice(head);
                    }
                }
            },
        );
        joined
    }

    fn tokens(&self, inputs: &[Buffer]) -> usize {
        let width = if inputs.len() == 1 { self.heads + 2 * self.kv_heads } else { self.heads } * self.head_dim;
        inputs[0].values().len() / width
    }
}

/// The parts of a task.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    kernel: &'a AttentionKernel,
    task: &'a [f32],
}

impl<'a> Slots<'a> {
    /// The task at the start of `apart`.
    pub(super) fn of(kernel: &'a AttentionKernel, apart: &'a [f32]) -> Self {
        Self { kernel, task: &apart[..kernel.task()] }
    }

    /// Some tokens of the query head with this index in the task.
    pub(super) fn query(self, index: usize, tokens: &Range<usize>) -> &'a [f32] {
        self.part(index, tokens)
    }

    /// Of the key head.
    pub(super) fn key(self, tokens: &Range<usize>) -> &'a [f32] {
        self.part(self.kernel.group(), tokens)
    }

    /// Of its values.
    pub(super) fn value(self, tokens: &Range<usize>) -> &'a [f32] {
        self.part(self.kernel.group() + 1, tokens)
    }

    fn part(self, slot: usize, tokens: &Range<usize>) -> &'a [f32] {
        let width = self.kernel.head_dim;
        &self.task[slot * self.kernel.head()..][tokens.start * width..tokens.end * width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_joined_as_they_were_split() {
        let kernel = AttentionKernel {
            heads: 6,
            kv_heads: 3,
            head_dim: 2,
            context: 5,
            window: usize::MAX,
            scale: 1.0,
            largest: None,
        };
        let input = |width: usize, first: usize| {
            Buffer::new((0..10 * width).map(|i| (first + i) as f32).collect(), &[10, width])
        };
        for inputs in [vec![input(24, 0)], vec![input(12, 0), input(6, 1000), input(6, 2000)]] {
            let apart = kernel.split(&inputs);
            assert_eq!(apart.len(), 2 * kernel.apart());
            // The second window, key head 1: its queries are heads 2 and 3.
            let slots = Slots::of(&kernel, &apart[kernel.apart() + kernel.task()..]);
            let found =
                [slots.query(1, &(4..5)), slots.key(&(4..5)), slots.value(&(4..5))].map(|part| part[0] as usize);
            let expected = match inputs.len() {
                1 => [9 * 24 + 6, 9 * 24 + 12 + 2, 9 * 24 + 18 + 2],
                _ => [9 * 12 + 6, 1000 + 9 * 6 + 2, 2000 + 9 * 6 + 2],
            };
            assert_eq!(found, expected);
            for (joined, input) in kernel.join(&inputs, &apart).iter().zip(&inputs) {
                assert_eq!((joined.values(), joined.shape()), (input.values(), input.shape()));
            }
        }
    }
}
