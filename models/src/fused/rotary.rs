//! Rotary positions, in place; the backward pass rotates in the opposite direction.

use super::run::run;
use super::tape::{Buffer, Kernel};
use crate::shapes::Angles;

/// Rotary positions on x, `[tokens, heads · head]`: feature i of a head's first half pairs with feature i of the second.
#[derive(Debug)]
pub(super) struct RotaryKernel {
    pub angles: Angles,
    /// Position of the first token of a window.
    pub start: usize,
    /// Tokens in a window of the batch.
    pub context: usize,
}

impl RotaryKernel {
    fn turn(&self, mut x: Buffer, direction: f32) -> Buffer {
        let width = x.shape().last().copied().unwrap_or(1);
        let window = width * self.context;
        run(
            x.values_mut().chunks_mut(window).collect(),
            #[inline(always)]
            |x| {
                let half = self.angles.head_dim / 2;
                let [cos, sin] = [&self.angles.cos, &self.angles.sin].map(|table| &table[self.start * half..]);
                let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
                for (token, (cos, sin)) in x.chunks_exact_mut(width).zip(angles) {
                    for head in token.chunks_exact_mut(2 * half) {
                        let (first, second) = head.split_at_mut(half);
                        let pairs = first.iter_mut().zip(second).zip(cos.iter().zip(sin));
                        for ((a, b), (cos, sin)) in pairs {
                            let sin = sin * direction;
                            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                        }
                    }
                }
            },
        );
        x
    }
}

impl Kernel<1> for RotaryKernel {
    fn forward(&self, [x]: [Buffer; 1]) -> (Buffer, Vec<Buffer>) {
        (self.turn(x, 1.0), Vec::new())
    }

    fn backward(&self, _kept: Vec<Buffer>, gradient: Buffer, _wanted: [bool; 1]) -> [Buffer; 1] {
        [self.turn(gradient, -1.0)]
    }
}
