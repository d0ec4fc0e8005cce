//! The head and the cross-entropy together: logits exist for a block of tokens at a time, not for a whole batch.

use super::cross_entropy::mean_loss;
use super::product::{View, fill, filled, write};
use super::tape::{Buffer, Kernel};
use crate::settings::memory::tokens_at_once;

/// Mean cross-entropy of one target per token, from the head's inputs, `[tokens, d_model]`, and its weight, `[d_model, vocab]`, or
/// `[vocab, d_model]` if it is `transposed`; the value has shape `[1]`.
///
/// The gradients are computed in the forward pass, while a block's logits are there, and multiplied in the backward pass.
#[derive(Debug)]
pub(super) struct HeadLossKernel {
    pub transposed: bool,
    /// Factor of the logits.
    pub scale: f32,
    pub targets: Vec<i64>,
    /// Whether somebody needs the gradients of the inputs and of the weight.
    pub wanted: [bool; 2],
}

impl Kernel<2> for HeadLossKernel {
    fn forward(&self, [x, weight]: [Buffer; 2]) -> (Buffer, Vec<Buffer>) {
        let [x_wanted, weight_wanted] = self.wanted;
        let (x_shape, weight_shape) = (x.shape(), weight.shape());
        let mut to_x = vec![0f32; if x_wanted { x.values().len() } else { 0 }];
        let mut to_weight = vec![0f32; if weight_wanted { weight.values().len() } else { 0 }];
        let (width, columns) = (x_shape[1], weight.matrix());
        let head = if self.transposed { columns.transpose() } else { columns };
        let vocab = weight_shape[if self.transposed { 0 } else { 1 }];
        let tokens = tokens_at_once(vocab);
        let share = 1.0 / self.targets.len() as f32;
        let mut loss = 0f64;
        for (block, targets) in self.targets.chunks(tokens).enumerate() {
            let first = block * tokens * width;
            let inputs = View::whole(&x.values()[first..][..targets.len() * width], width);
            // SAFETY: a product fills its destination.
            #[allow(unsafe_code)]
            let mut logits = unsafe { filled(targets.len() * vocab, |logits| _ = fill(logits, inputs, head)) };
            self.scale(&mut logits);
            loss += mean_loss(&mut logits, targets, share);
            self.scale(&mut logits);
            let gradient = View::whole(&logits, vocab);
            if x_wanted {
                write(&mut to_x[first..], width, false, gradient, head.transpose());
            }
            if weight_wanted && self.transposed {
                write(&mut to_weight, width, block > 0, gradient.transpose(), inputs);
            } else if weight_wanted {
                write(&mut to_weight, vocab, block > 0, inputs.transpose(), gradient);
            }
        }
        let gradients = [(to_x, x_shape, x_wanted), (to_weight, weight_shape, weight_wanted)];
        let gradients = gradients.map(|(values, shape, wanted)| match wanted {
            true => Buffer::new(values, &shape),
            false => Buffer::empty(),
        });
        (Buffer::new(vec![loss as f32], &[1]), gradients.into())
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 2]) -> [Buffer; 2] {
        let Ok(kept) = <[Buffer; 2]>::try_from(kept) else { unreachable!("forward keeps two") };
        let factor = gradient.values().first().copied().unwrap_or(1.0);
        kept.map(|mut kept| {
            kept.multiply(factor);
            kept
        })
    }
}

impl HeadLossKernel {
    fn scale(&self, logits: &mut [f32]) {
        if self.scale != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three blocks of tokens, the last one short.
    const SIZES: [usize; 3] = [1031, 3, 4200];
    const SCALE: f64 = 0.5;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// The loss and both gradients in 64 bits, token by token; the weight is `[d_model, vocab]`.
    fn slowly(x: &[f32], weight: &[f32], targets: &[i64]) -> (f64, Vec<f64>, Vec<f64>) {
        let [tokens, width, vocab] = SIZES;
        let (mut loss, mut to_x, mut to_weight) = (0.0, vec![0.0; x.len()], vec![0.0; weight.len()]);
        for token in 0..tokens {
            let input = |feature: usize| f64::from(x[token * width + feature]);
            let entry = |feature: usize, word: usize| f64::from(weight[feature * vocab + word]);
            let logit = |word| SCALE * (0..width).map(|feature| input(feature) * entry(feature, word)).sum::<f64>();
            let parts: Vec<f64> = (0..vocab).map(|word| logit(word).exp()).collect();
            let total: f64 = parts.iter().sum();
            for (word, part) in parts.iter().enumerate() {
                let chosen = targets[token] == word as i64;
                if chosen {
                    loss -= (part / total).ln() / tokens as f64;
                }
                let gradient = SCALE * (part / total - f64::from(u8::from(chosen))) / tokens as f64;
                for feature in 0..width {
                    to_x[token * width + feature] += gradient * entry(feature, word);
                    to_weight[feature * vocab + word] += gradient * input(feature);
                }
            }
        }
        (loss, to_x, to_weight)
    }

    fn turned<T: Copy>(values: &[T], width: usize) -> Vec<T> {
        (0..values.len())
            .map(|place| values[place % (values.len() / width) * width + place / (values.len() / width)])
            .collect()
    }

    fn close(found: &[f32], expected: &[f64]) {
        let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        let error = found.iter().zip(expected).fold(0f64, |error, (a, b)| error.max((f64::from(*a) - b).abs()));
        // Sums of thousands of terms in 32 bits.
        assert!(found.len() == expected.len() && error <= 1e-5 * largest, "{error:e} of {largest:e}");
    }

    #[test]
    fn blocks_of_tokens_add_up_to_the_loss_and_its_gradients_in_64_bits() {
        let [tokens, width, vocab] = SIZES;
        assert_eq!(tokens.div_ceil(tokens_at_once(vocab)), 3);
        let (x, weight) = (numbers(tokens * width, 1), numbers(width * vocab, 2));
        let targets: Vec<i64> = (0..tokens).map(|token| (token * 53 % vocab) as i64).collect();
        let (loss, to_x, to_weight) = slowly(&x, &weight, &targets);
        for transposed in [false, true] {
            for wanted in [[true, true], [true, false], [false, false]] {
                let kernel = HeadLossKernel { transposed, scale: SCALE as f32, targets: targets.clone(), wanted };
                let (values, shape) = match transposed {
                    true => (turned(&weight, vocab), [vocab, width]),
                    false => (weight.clone(), [width, vocab]),
                };
                let inputs = [Buffer::new(x.clone(), &[tokens, width]), Buffer::new(values, &shape)];
                let (value, kept) = kernel.forward(inputs);
                assert!((f64::from(value.values()[0]) - loss).abs() < 1e-6 * loss);
                let [found_x, found_weight] = kernel.backward(kept, Buffer::new(vec![2.0], &[1]), wanted);
                let doubled = |values: &[f64]| values.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
                match wanted[0] {
                    true => close(found_x.values(), &doubled(&to_x)),
                    false => assert!(found_x.values().is_empty()),
                }
                match (wanted[1], transposed) {
                    (true, true) => close(&turned(found_weight.values(), width), &doubled(&to_weight)),
                    (true, false) => close(found_weight.values(), &doubled(&to_weight)),
                    (false, _) => assert!(found_weight.values().is_empty()),
                }
            }
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_not_a_number() {
        let kernel = HeadLossKernel { transposed: false, scale: 1.0, targets: vec![0, 7], wanted: [true, true] };
        let inputs = [Buffer::new(vec![1.0, 2.0], &[2, 1]), Buffer::new(vec![0.5; 3], &[1, 3])];
        assert!(kernel.forward(inputs).0.values()[0].is_nan());
    }
}
