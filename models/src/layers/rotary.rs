//! Rotary positions: queries and keys are rotated by angles that grow with the position.

use burn::tensor::Tensor;

use super::kept::Kept;
#[cfg(feature = "flex")]
use crate::fused;
use crate::shapes::{Angles, Windows};

/// Rotary positions of one base.
#[derive(Debug)]
pub(crate) struct Rotary {
    pub angles: Angles,
    tables: Kept<(Part, usize)>,
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Cosines,
    Sines,
}

impl Rotary {
    pub(crate) fn new(base: f64, head_dim: usize, context: usize) -> Self {
        Self { angles: Angles::new(base, head_dim, context), tables: Kept::new() }
    }

    /// Rotates every head of `x`, `[batch · context, heads · head_dim]`: feature i of the head's first half is paired with feature
    /// i of its second half.
    pub(crate) fn turn(&self, x: Tensor<2>, windows: Windows) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if fused::serve(&[&x]) {
            return fused::rotary(x, &self.angles, windows);
        }
        self.turn_plainly(x, windows)
    }

    /// The same in Burn's operations: `x · cos + (-second halves, first halves) · sin`.
    fn turn_plainly(&self, x: Tensor<2>, windows: Windows) -> Tensor<2> {
        let ([tokens, width], head_dim) = (x.dims(), self.angles.head_dim);
        let [cos, sin] = [Part::Cosines, Part::Sines].map(|part| self.table(part, &x, windows));
        let (heads, windows) = ([tokens * width / head_dim, head_dim], cos.dims()[1]);
        let windows = [tokens * width / windows, windows];
        let x = x.reshape(heads);
        let halves = vec![x.clone().narrow(1, head_dim / 2, head_dim / 2).neg(), x.clone().narrow(1, 0, head_dim / 2)];
        let exchanged = Tensor::cat(halves, 1);
        let turned = x.reshape(windows) * cos + exchanged.reshape(windows) * sin;
        turned.reshape([tokens, width])
    }

    /// Factors of a window of `x`, `[1, context · width]`.
    fn table(&self, part: Part, x: &Tensor<2>, Windows { start, context, .. }: Windows) -> Tensor<2> {
        let Angles { head_dim, cos, sin } = &self.angles;
        let (width, half) = (x.dims()[1], head_dim / 2);
        let values = match part {
            Part::Cosines => cos,
            Part::Sines => sin,
        };
        // Both halves of every head are rotated by the same angles.
        let repeated = || values.chunks(half).flat_map(|row| row.repeat(width / half)).collect();
        let table = self.tables.get((part, width), values.len() / half, (&x.device(), x.dtype()), repeated);
        table.narrow(0, start, context).reshape([1, context * width])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn a_turn_rotates_each_pair_by_its_angle() {
        for (base, start) in [(10_000.0, 0), (500.0, 2)] {
            let rotary = Rotary::new(base, 4, 5);
            let x: Vec<f32> = (0..48).map(|i| i as f32 * 0.05 - 1.0).collect();
            let tensor = Tensor::from_data(TensorData::new(x.clone(), [6, 8]), &Device::flex());
            let windows = Windows { batch: 2, context: 3, start };
            for turned in [rotary.turn(tensor.clone(), windows), rotary.turn_plainly(tensor.clone(), windows)] {
                let turned: Vec<f32> = turned.into_data().try_to_vec().unwrap();
                for at in (0..48).filter(|at| at % 4 < 2) {
                    let position = (start + at / 8 % 3) as f64;
                    let angle = position * f64::powf(base, -2.0 * (at % 4) as f64 / 4.0);
                    let (a, b) = (f64::from(x[at]), f64::from(x[at + 2]));
                    let expected = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
                    for (found, expected) in [turned[at], turned[at + 2]].into_iter().zip(expected) {
                        // A handful of 32-bit roundings of numbers below two.
                        assert!((f64::from(found) - expected).abs() < 1e-6, "{at}: {found} {expected}");
                    }
                }
            }
        }
    }
}
