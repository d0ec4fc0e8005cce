//! Cross-entropy: one pass that computes the loss and its gradient.

use super::math::{exp, max, replace_and_sum};
use super::run::{lines, run};
use super::tape::{Buffer, Kernel};

/// Mean cross-entropy of logits `[tokens, vocab]` with one target per token; the value has shape `[1]`.
#[derive(Debug)]
pub(super) struct CrossEntropyKernel {
    pub targets: Vec<i64>,
}

impl Kernel<1> for CrossEntropyKernel {
    fn forward(&self, [mut logits]: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        let share = 1.0 / self.targets.len() as f32;
        let mean = mean_loss(logits.values_mut(), &self.targets, share);
        (Buffer::new(vec![mean as f32], &[1]), vec![logits])
    }

    fn backward(&self, kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 1]) -> [Buffer; 1] {
        let Ok([mut logits_gradient]) = <[Buffer; 1]>::try_from(kept) else { unreachable!("forward keeps one") };
        let factor = gradient.values().first().copied().unwrap_or(1.0);
        logits_gradient.multiply(factor);
        [logits_gradient]
    }
}

/// Overwrites logits with their gradient and returns `share` times the sum of the losses, in 64 bits: a sum of thousands of losses
/// must not lose digits.
pub(super) fn mean_loss(logits: &mut [f32], targets: &[i64], share: f32) -> f64 {
    let vocab = logits.len() / targets.len().max(1);
    let task = lines(vocab);
    let items = logits.chunks_mut(task).zip(targets.chunks(task / vocab.max(1)));
    let sums = run(
        items.collect(),
        #[inline(always)]
        |(logits, targets)| cross_entropy_lines(logits, targets, share),
    );
    sums.into_iter().sum::<f64>() * f64::from(share)
}

/// Overwrites logits with the gradient of the mean loss and returns the sum of the losses: NaN if a target is outside the
/// vocabulary.
#[inline(always)]
fn cross_entropy_lines(logits: &mut [f32], targets: &[i64], share: f32) -> f64 {
    let mut losses = 0f64;
    let vocab = logits.len() / targets.len();
    for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
        let target = usize::try_from(*target).unwrap_or(usize::MAX);
        let largest = max(row);
        let chosen = row.get(target).copied().unwrap_or(f32::NAN) - largest;
        let total = replace_and_sum(row, |value| exp(value - largest));
        losses += f64::from(total.ln() - chosen);
        let factor = share / total;
        for value in row.iter_mut() {
            *value *= factor;
        }
        if let Some(value) = row.get_mut(target) {
            *value -= share;
        }
    }
    losses
}
