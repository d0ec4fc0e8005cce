//! Causal self-attention as one node of the graph, in memory linear in the context.
//!
//! A block of queries meets its keys tile by tile, with a running softmax (`attend`): each thread has the scores of one tile at a time,
//! and the backward pass (`attend_back`) computes them again (arXiv:2205.14135, arXiv:2307.08691). Keys that no query of a block sees
//! take part in no product. Heads are copied apart first (`heads`): lines of one head that lie between those of others are read at a
//! third of the rate.

use super::heads::AttentionKernel;
use super::tape::{Buffer, Kernel};

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
}
